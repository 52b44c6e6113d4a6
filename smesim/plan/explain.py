"""Why each operand is packed, which packing was saved and by what, and what every layout takes of memory.

Read from a program, so it is what happens: a product whose packed operand its own pack tasks write has it *packed*; one
that finds it there is *saved* a packing, by the product that packed it before or by the operator that wrote it packed.
Keys and values are packed as they are *appended*, by the cores or by the units. Weights are packed at load, and never
again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from smesim.plan.layout import ROW_MAJOR, can_write, read_layouts, writes_packed
from smesim.plan.program import APPENDING, NO_BUFFER, PACKING, BufferRole, Layout, Number, Program, TaskKind
from smesim.plan.schema import OperatorPlan, Plan
from smesim.plan.work import task_bytes
from smesim.units import format_seconds
from smesim.workload.graph import OperatorGraph, Role
from smesim.workload.operators import GroupedLinear, KvAppend, Operator

TASKS, SAVED, WRITTEN, APPENDED = "tasks", "saved", "written", "appended"
"""How an operand comes to be packed: by tasks of its product; not again, as it is there; by whoever writes it; of keys
and values, by whoever appends them."""


@dataclass(frozen=True)
class Packing:
    """One operand of one product, or the output of an operator that writes packed, of an append both.

    `by` says who does it. `tasks`, `n_bytes` and `seconds` are of the tasks that do, seconds summed over them (None:
    not predicted). Of a packing that was saved there are none; its bytes are those that pack tasks would have moved.
    """

    operator: str
    site: str
    layer: int | None
    tensor: str
    layout: str
    how: str
    why: str
    by: str
    tasks: int
    n_bytes: int
    seconds: float | None = None


@dataclass(frozen=True)
class Once:
    """What is packed without tasks of its own."""

    what: str
    layout: str
    tensors: int
    n_bytes: int


@dataclass(frozen=True)
class LayoutReport:
    """All of it for one program. `layout_bytes` are the bytes of the buffers by their layout, `weight_copies` the bytes
    of all weights as a multiple of what the model's weights take once."""

    layout_reuse: str
    packings: tuple[Packing, ...]
    once: tuple[Once, ...]
    layout_bytes: dict[str, int]
    weight_copies: float

    def of(self, how: str, layer: int | None = None) -> tuple[Packing, ...]:
        """The packings of one way, of one layer or of all."""
        return tuple(p for p in self.packings if p.how == how and layer in (None, p.layer))

    def with_seconds(self, seconds: Mapping[tuple[str, str], float]) -> LayoutReport:
        """The report with the predicted seconds of tasks, by the names of their operator and their kind."""
        kinds = {
            TASKS: ("pack_lhs", "expert_pack"),
            WRITTEN: ("rmsnorm_packed", "swiglu_packed"),
            APPENDED: ("kv_append", "kv_pack"),
        }

        def timed(packing: Packing) -> Packing:
            if packing.how == SAVED:
                return packing
            found = [seconds[packing.operator, k] for k in kinds[packing.how] if (packing.operator, k) in seconds]
            return replace(packing, seconds=sum(found))

        return replace(self, packings=tuple(timed(p) for p in self.packings))


def layout_report(plan: Plan, program: Program) -> LayoutReport:
    """What is packed in a program, lowered from that plan, and why."""
    graph = plan.graph()
    reasons = _Reasons(plan, graph)
    op_of, kind_of = program.tasks["op"], program.tasks["kind"]
    is_pack, is_join = np.isin(kind_of, PACKING), kind_of == TaskKind.JOIN
    moved = task_bytes(program)
    written_by: dict[int, tuple[str, str]] = {}  # by packed buffer: who wrote it last, and in words how
    packings = []

    def add(operator: Operator, tensor: str, layout: str, how: str, why: str, tasks: npt.NDArray[np.bool_]) -> None:
        about = (operator.name, operator.site, operator.layer, tensor, layout, how, why)
        by = _who(plan, plan.site(operator.site), how) if tasks.any() else ""
        packings.append(Packing(*about, by, int(tasks.sum()), int(moved[tasks].sum())))

    for op, operator in enumerate(graph.operators):
        entry = plan.site(operator.site)
        read, written = int(program.ops["packed"][op]), int(program.ops["packed_out"][op])
        mine = (op_of == op) & ~is_join
        if read != NO_BUFFER and (mine & is_pack).any():
            add(operator, operator.inputs[0], entry.lhs_layout, TASKS, reasons.of(operator), mine & is_pack)
            written_by[read] = operator.site, "shared with"
        elif read != NO_BUFFER:
            site, words = written_by[read]
            add(operator, operator.inputs[0], entry.lhs_layout, SAVED, f"{words} {site}", mine & is_pack)
            packings[-1] = replace(packings[-1], n_bytes=_packing_bytes(program, read))
        if written != NO_BUFFER:
            add(operator, operator.outputs[0], entry.out_layout, WRITTEN, "all that read it want it so", mine)
            written_by[written] = operator.site, "written packed by"
        if isinstance(operator, KvAppend):
            what, layouts = " and ".join(operator.outputs), f"{_WORDS[Layout.K_PACKED]} and {_WORDS[Layout.V_PACKED]}"
            add(operator, what, layouts, APPENDED, _why_appended(entry), mine & np.isin(kind_of, APPENDING))
    weights = program.buffers["n_bytes"][program.buffers["role"] == BufferRole.WEIGHT].sum()
    return LayoutReport(
        plan.layout_reuse,
        tuple(packings),
        _once(program),
        {word: _bytes_of(program, layout) for layout, word in _WORDS.items()},
        float(weights) / graph.resident_bytes(Role.WEIGHT),
    )


_WORDS = {layout: layout.name.lower() for layout in Layout}


def _who(plan: Plan, entry: OperatorPlan, how: str) -> str:
    """Those whose tasks pack: cores, and drivers by their units. A driver that writes packed, or appends and is no
    packer, does so by the vectors of its core."""
    by_vectors = how == WRITTEN or (how == APPENDED and not entry.packers)
    workers = [plan.workers[i] for i in (() if by_vectors else entry.packers) or entry.workers]
    drivers = 0 if by_vectors else sum(worker.role == "matrix" for worker in workers)
    found = ((len(workers) - drivers, "core"), (drivers, "driver"))
    return ", ".join(f"{count} {word}{'s' if count > 1 else ''}" for count, word in found if count)


def _why_appended(entry: OperatorPlan) -> str:
    """What was predicted of the cores, and of those who drive units."""
    if entry.reason is None or not entry.reason.runners_up:
        return "attention reads them so"
    other = entry.reason.runners_up[0]
    own, others = ("cores", "units") if other.mode == "matrix" else ("units", "cores")
    return (
        f"attention reads them so; predicted: {own} {format_seconds(entry.reason.predicted_s)},"
        f" {others} {format_seconds(other.predicted_s)}"
    )


class _Reasons:
    """Why an operand has pack tasks of its own."""

    def __init__(self, plan: Plan, graph: OperatorGraph) -> None:
        self._reuse = plan.layout_reuse
        self._read = read_layouts(graph, plan.operators)
        self._writer: dict[str, Operator] = {name: o for o in graph.operators for name in o.outputs}

    def of(self, operator: Operator) -> str:
        writer, readers = self._writer[operator.inputs[0]], self._read[operator.inputs[0]]
        others = {site: layout for site, layout in readers.items() if layout != readers[operator.site]}
        if self._reuse == "none":
            return "layout_reuse is none: every product packs its own operand"
        if isinstance(operator, GroupedLinear):
            return "every expert reads rows of its own"
        if not writes_packed(writer):
            return f"{writer.site} writes {ROW_MAJOR} only"
        if not can_write(writer, readers[operator.site]):
            return f"{writer.site} writes {ROW_MAJOR} or packed f32"
        if others:
            wanted = ", ".join(f"{site} reads {layout}" for site, layout in others.items())
            return f"{writer.site} writes {ROW_MAJOR}: {wanted}"
        return f"{writer.site} writes {ROW_MAJOR}: so says the plan (layout_reuse {self._reuse})"


def _packing_bytes(program: Program, packed: int) -> int:
    """What packing a left operand reads and writes."""
    facts = program.buffers[packed]
    number = Number(int(facts["dtype"]))
    read_bytes = Number.F32.n_bytes if number is not Number.Q8 else number.n_bytes
    return int(int(facts["rows"]) * int(facts["columns"]) * (read_bytes + number.n_bytes))


def _once(program: Program) -> tuple[Once, ...]:
    words = {Layout.RHS_PACKED: "weights, packed at load", Layout.K_PACKED: "keys", Layout.V_PACKED: "values"}
    counts = {layout: int((program.buffers["layout"] == layout).sum()) for layout in words}
    return tuple(
        Once(what, _WORDS[layout], counts[layout], _bytes_of(program, layout))
        for layout, what in words.items()
        if counts[layout]
    )


def _bytes_of(program: Program, layout: Layout) -> int:
    return int(program.buffers["n_bytes"][program.buffers["layout"] == layout].sum())


@dataclass(frozen=True)
class SitePackings:
    """The packings of one site that are alike, in all layers together."""

    first: Packing
    count: int
    tasks: int
    n_bytes: int
    seconds: float | None


def by_site(packings: Iterable[Packing]) -> tuple[SitePackings, ...]:
    """Packings grouped by site, layout and reason, in the order of their first."""
    groups: dict[tuple[str, ...], list[Packing]] = {}
    for packing in packings:
        groups.setdefault((packing.site, packing.layout, packing.how, packing.why, packing.by), []).append(packing)
    return tuple(
        SitePackings(
            group[0], len(group), sum(p.tasks for p in group), sum(p.n_bytes for p in group), total_seconds(group)
        )
        for group in groups.values()
    )


def total_seconds(packings: Iterable[Packing]) -> float | None:
    """The sum of predicted seconds, None where they were not predicted."""
    seconds = [packing.seconds for packing in packings]
    known = [s for s in seconds if s is not None]
    return sum(known, 0.0) if len(known) == len(seconds) else None
