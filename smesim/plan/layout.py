"""Layouts of left operands: what their names say, and which operators write them.

A product of matrices reads its left operand packed, in strips of rows: "lhs_f32_m6" has f32 elements and strips of at
most 6 rows. The plan says for each product which layout it reads (`lhs_layout`), and for norms and activations in which
layout they write (`out_layout`): packed where all that read their output want the same, so that nobody has to pack it.
How much of that is done is the plan's `layout_reuse`:

- "full": norms and activations write packed; what is packed is shared by all that read it (q, k and v; gate and up);
- "shared_packs": they write row major; what is packed is shared;
- "none": every product packs its own operand.

The numbers are the same bits in all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from smesim.errors import PlanError
from smesim.workload.graph import OperatorGraph
from smesim.workload.operators import Linear, Operator, RmsNorm, SwiGlu

if TYPE_CHECKING:
    from smesim.plan.schema import OperatorPlan

ROW_MAJOR = "row_major"
LHS_PATTERN = r"lhs_f32_m[1-9][0-9]{0,2}"
"""Names of packed left operands."""

LayoutReuse = Literal["full", "shared_packs", "none"]
LAYOUT_REUSES: tuple[LayoutReuse, ...] = get_args(LayoutReuse)

_ELEMENT_BYTES = {"f32": 4}
_PARTS = re.compile(r"lhs_(?P<element>[a-z0-9]+)_m(?P<height>[0-9]+)")


@dataclass(frozen=True)
class LhsLayout:
    """A packed left operand: strips of at most `mr` rows."""

    name: str
    element: str
    mr: int

    def bytes_for(self, rows: int, k: int) -> int:
        return rows * k * _ELEMENT_BYTES[self.element]


def lhs_layout(name: str) -> LhsLayout:
    """What the name of a packed left operand says. PlanError for another name."""
    parts = _PARTS.fullmatch(name)
    if not re.fullmatch(LHS_PATTERN, name) or parts is None:
        raise PlanError(f"layout {name!r} is not that of a packed left operand; accepted: e.g. 'lhs_f32_m6'")
    return LhsLayout(name, parts["element"], int(parts["height"]))


def writes_packed(operator: Operator) -> bool:
    """Whether there are kernels of the operator that write a packed left operand."""
    return isinstance(operator, RmsNorm | SwiGlu)


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
            layouts |= set(read.get(operator.outputs[0], {"": ROW_MAJOR}).values())
    return tuple(
        entry.model_copy(update={"out_layout": layouts.pop() if len(layouts) == 1 else ROW_MAJOR})
        for entry in entries
        for layouts in [wanted[entry.site]]
    )
