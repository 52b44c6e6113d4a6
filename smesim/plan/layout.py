"""Layouts of left operands: what their names say, and which operators write them.

A product of matrices reads its left operand packed, in strips of rows and in the format of the weights (`formats.py`):
"lhs_f32_m6" has f32 elements and strips of at most 6 rows. The plan says for each product which layout it reads
(`lhs_layout`), and for norms and activations in which layout they write (`out_layout`): packed where all that read
their output want the same, so that nobody has to pack it. They can only write f32; what else products read, these pack.
How much of that is done is the plan's `layout_reuse`:

- "full": norms and activations write packed; what is packed is shared by all that read it (q, k and v; gate and up);
- "shared_packs": they write row major; what is packed is shared;
- "none": every product packs its own operand.

The numbers are the same bits in all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from smesim.errors import PlanError
from smesim.plan.formats import FORMATS, ProductFormat
from smesim.plan.program import Number
from smesim.workload.graph import OperatorGraph
from smesim.workload.operators import Linear, Operator, RmsNorm, SwiGlu

if TYPE_CHECKING:
    from smesim.plan.schema import OperatorPlan

ROW_MAJOR = "row_major"
LHS_PATTERN = "|".join(numbers.lhs_layout("[1-9][0-9]{0,2}") for numbers in FORMATS.values())
"""Names of packed left operands."""

LayoutReuse = Literal["full", "shared_packs", "none"]
LAYOUT_REUSES: tuple[LayoutReuse, ...] = get_args(LayoutReuse)


@dataclass(frozen=True)
class LhsLayout:
    """A packed left operand: numbers of a format in strips of at most `mr` rows."""

    name: str
    numbers: ProductFormat
    mr: int

    def bytes_for(self, rows: int, k: int) -> int:
        return self.numbers.lhs_bytes(rows, k)


def lhs_layout(name: str) -> LhsLayout:
    """What the name of a packed left operand says. PlanError for another name."""
    for numbers in FORMATS.values():
        height = numbers.strip_height(name)
        if height is not None:
            return LhsLayout(name, numbers, height)
    raise PlanError(f"layout {name!r} is not that of a packed left operand; accepted: e.g. 'lhs_f32_m6'")


def writes_packed(operator: Operator) -> bool:
    """Whether there are kernels of the operator that write a packed left operand."""
    return isinstance(operator, RmsNorm | SwiGlu)


def can_write(operator: Operator, layout: str) -> bool:
    """Whether there are kernels of the operator that write its output in that layout: packed there are those of f32."""
    if layout == ROW_MAJOR:
        return True
    return writes_packed(operator) and lhs_layout(layout).numbers.number is Number.F32


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
    read = read_layouts(graph, entries)
    wanted: dict[str, set[str]] = {}
    for operator in graph.operators:
        layouts = wanted.setdefault(operator.site, set())
        if reuse == "full" and writes_packed(operator):
            readers = read.get(operator.outputs[0], {"": ROW_MAJOR})
            layouts |= {layout if can_write(operator, layout) else ROW_MAJOR for layout in readers.values()}
    return tuple(
        entry.model_copy(update={"out_layout": layouts.pop() if len(layouts) == 1 else ROW_MAJOR})
        for entry in entries
        for layouts in [wanted[entry.site]]
    )
