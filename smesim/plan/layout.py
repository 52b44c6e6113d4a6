"""Layouts of left operands: what their names say, and which operators write them.

A product of matrices reads its left operand packed, in strips of rows and in the format of the weights (`formats.py`):
"lhs_f32_m6" has f32 elements and strips of at most 6 rows. The plan says for each product which layout it reads
(`lhs_layout`), and for norms and activations in which layout they write (`out_layout`): packed where all that read
their output want the same, so that nobody has to pack it. They can only write f32; what else is read, products pack.
For weights in blocks activations are quantised, which an operator of its own does: it always writes packed, in strips
of one row (`QUANTIZED_ROWS`) where not all that read its output want the same.
How much of that is done is the plan's `layout_reuse`:

- "full": norms and activations write packed; what is packed is shared by all that read it (q, k and v; gate and up);
- "shared_packs": they write row major; what is packed is shared;
- "none": every product packs its own operand.

The numbers are the same bits in all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, get_args

from smesim.errors import PlanError
from smesim.plan.formats import LHS_NUMBERS, QUANTIZED_ROWS, lhs_bytes, lhs_layout_name, strip_height
from smesim.plan.program import Number
from smesim.workload.graph import OperatorGraph
from smesim.workload.operators import Linear, Operator, Quantize, RmsNorm, SwiGlu

if TYPE_CHECKING:
    from smesim.plan.schema import OperatorPlan

ROW_MAJOR = "row_major"
LHS_PATTERN = "|".join(lhs_layout_name(number, "[1-9][0-9]{0,2}") for number in LHS_NUMBERS)
"""Names of packed left operands."""

LayoutReuse = Literal["full", "shared_packs", "none"]
LAYOUT_REUSES: tuple[LayoutReuse, ...] = get_args(LayoutReuse)


@dataclass(frozen=True)
class LhsLayout:
    """A packed left operand: numbers of a format in strips of at most `mr` rows."""

    name: str
    number: Number
    mr: int

    def bytes_for(self, rows: int, k: int) -> int:
        return lhs_bytes(self.number, rows, k)

    @property
    def unpacked(self) -> str:
        """The layout in which an operand lies that is yet to be packed into this one."""
        return QUANTIZED_ROWS if self.number is Number.Q8 else ROW_MAJOR


@cache
def lhs_layout(name: str) -> LhsLayout:
    """What the name of a packed left operand says. PlanError for another name."""
    for number in LHS_NUMBERS:
        height = strip_height(number, name)
        if height is not None:
            return LhsLayout(name, number, height)
    raise PlanError(f"layout {name!r} is not that of a packed left operand; accepted: e.g. 'lhs_f32_m6'")


def writes_packed(operator: Operator) -> bool:
    """Whether there are kernels of the operator that write a packed left operand."""
    return isinstance(operator, RmsNorm | SwiGlu | Quantize)


def unpacked_output(operator: Operator) -> str:
    """The layout that an operator writes where that of a product's operand would be of no use."""
    return QUANTIZED_ROWS if isinstance(operator, Quantize) else ROW_MAJOR


def can_write(operator: Operator, layout: str) -> bool:
    """Whether there are kernels of the operator that write its output in that layout: packed there are those of f32,
    and what quantises writes nothing else."""
    if layout == ROW_MAJOR:
        return not isinstance(operator, Quantize)
    number = Number.Q8 if isinstance(operator, Quantize) else Number.F32
    return writes_packed(operator) and lhs_layout(layout).number is number


def read_layouts(graph: OperatorGraph, entries: Iterable[OperatorPlan]) -> dict[str, dict[str, str]]:
    """For each activation, by the site that reads it, the layout that it is read in."""
    layout_of = {entry.site: entry.lhs_layout for entry in entries}
    found: dict[str, dict[str, str]] = {}
    for operator in graph.operators:
        for name in operator.inputs:
            packed = isinstance(operator, Linear) and name == operator.inputs[0]
            found.setdefault(name, {})[operator.site] = layout_of[operator.site] if packed else ROW_MAJOR
    return found


def with_out_layouts(
    graph: OperatorGraph, entries: Iterable[OperatorPlan], reuse: LayoutReuse
) -> tuple[OperatorPlan, ...]:
    """The entries with each operator writing what all readers of its output want, where it can and is to."""
    entries = tuple(entries)
    if not any(map(writes_packed, graph.operators)):
        return entries
    read = read_layouts(graph, entries)
    wanted: dict[str, set[str]] = {}
    unpacked: dict[str, str] = {}
    for operator in graph.operators:
        layouts = wanted.setdefault(operator.site, set())
        unpacked[operator.site] = unpacked_output(operator)
        if reuse == "full" and writes_packed(operator):
            readers = read.get(operator.outputs[0], {"": ROW_MAJOR})
            layouts |= {
                layout if can_write(operator, layout) else unpacked_output(operator) for layout in readers.values()
            }
    return tuple(
        entry if entry.out_layout == layout else entry.model_copy(update={"out_layout": layout})
        for entry in entries
        for layouts in [wanted[entry.site]]
        for layout in [layouts.pop() if len(layouts) == 1 else unpacked[entry.site]]
    )
