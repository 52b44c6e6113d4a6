"""Lowering: a plan becomes a program.

Operators are visited in the graph's order. For each one, `tiles.py` says which tasks it has; this module finds what
they must wait for, gives them to workers as the plan says, and closes the operator with a join.

Dependencies come from buffers, not from names: a task waits for whoever wrote what it reads, for whoever still reads
what it overwrites, and for the previous writer. Activations of one layer use the same buffers as those of the next,
as an engine would, so that their place in the caches is what it would be.

Layout state: of each activation, the layouts in which it is there until it is rewritten. A GEMM reads its left operand
packed: as a norm or an activation has written it, as it was packed for an operator before (q, k and v share one
operand, gate and up another), or else as its own pack tasks make it.

What follows from one segment to the next is little: its layouts, and that it starts when the one before has ended. So
a segment is lowered by itself, its tasks and operators counted from 0, and a layer that is the one before it once
more, and finds the same layouts, is that layer's segment with buffers of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from smesim.errors import PlanError
from smesim.hwmodel.kept import kept_with
from smesim.plan.assemble import Segment, assembled, worker_places
from smesim.plan.buffers import ROPE_TABLES, BufferTable
from smesim.plan.formats import cache_number
from smesim.plan.layout import ROW_MAJOR, lhs_layout
from smesim.plan.pipeline import block_facts, combine_tiles, handover_shape, is_staged, part_tiles, pipeline_tasks
from smesim.plan.program import (
    ANY_WORKER,
    NO_BUFFER,
    NO_LAYER,
    OP_DTYPE,
    SLOTS,
    EntryKind,
    OpRow,
    Program,
    TaskKind,
)
from smesim.plan.schema import Division, OperatorPlan, Plan, Role, check_plan
from smesim.plan.shapes import operator_facts
from smesim.plan.sketch import Sketch
from smesim.plan.tiles import (
    ROUTE_TILE,
    STATIC_PART,
    Hands,
    Tile,
    hands_of,
    operator_tiles,
    pack_tiles,
    packing_hands,
    share_bounds,
)
from smesim.workload.graph import Block, OperatorGraph
from smesim.workload.graph import Role as TensorRole
from smesim.workload.operators import Attention, ExpertCombine, GroupedLinear, KvAppend, Linear, Operator, Rope, Router


def lower(plan: Plan, graph: OperatorGraph | None = None) -> Program:
    """Divide the plan's operators into tasks, with dependencies and worker queues.

    The result depends on the plan alone: the same plan gives the same program, bit for bit. Raises PlanError if the
    plan lacks a site of its model or names a kernel that does not fit an operator.
    """
    graph = graph or plan.graph()
    check_plan(plan, graph)
    lowering = _Lowering(plan, graph)
    return assembled(plan, graph, lowering.run(), lowering.buffers)


def sketch(plan: Plan | Division, graph: OperatorGraph) -> Sketch:
    """The tasks that a plan as a planner made it gives to the only operator of a graph."""
    return _Lowering(plan, graph).sketch()


_NO_COLUMNS = {**dict.fromkeys(OP_DTYPE.names or (), 0), **dict.fromkeys(SLOTS, NO_BUFFER)}
"""The columns of an operator of which nothing is known."""


@dataclass
class _Access:
    """Who touched a buffer last: the node after which it is written, and the nodes after which it has been read."""

    written: int | None = None
    read: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Alike:
    """Of identical layers, what is worked out once: columns of an operator's row, and its tasks."""

    facts: dict[str, float]
    tiles: list[Tile]


Layouts = dict[str, frozenset[str]]


class _Lowering:
    def __init__(self, plan: Plan | Division, graph: OperatorGraph) -> None:
        self.plan = plan
        self.graph = graph
        self.buffers = BufferTable(graph)
        self.known: dict[tuple[str, float], _Alike] = {}
        self.entries_by_site = {entry.site: entry for entry in plan.operators}
        self.layouts: Layouts = {}  # by an activation's buffer: the layouts in which it is there
        self.begin_segment()

    def begin_segment(self) -> None:
        """Nothing is in flight: the tasks of a segment wait for each other, and else for the end of the one before."""
        self.accesses: dict[int, _Access] = {}
        self.ops: list[tuple[object, ...]] = []
        self.tasks: list[list[int]] = []  # op, kind, worker, six range bounds, slot, state
        self.predecessors: list[tuple[int, ...]] = []
        self.entries: list[list[tuple[int, int]]] = [[] for _ in self.plan.workers]
        self.pools: list[tuple[int, int]] = []
        self.pool_tasks: list[int] = []
        self.pool_visitors: list[tuple[int, ...]] = []

    def run(self) -> list[Segment]:
        segments: list[Segment] = []
        before: Layouts = {}  # those that the last segment that was lowered found, and left
        after: Layouts = {}
        for block in self.graph.blocks:
            again = self.again(segments[-1], block) if block.is_again and self.layouts == before else None
            if again is not None:
                segments.append(again)
                self.layouts = dict(after)
                continue
            before = dict(self.layouts)
            segments.append(self.segment(block))
            after = dict(self.layouts)
        return segments

    def segment(self, block: Block) -> Segment:
        """The tasks of some operators. The last of them is the one that all others lead to."""
        first_buffer = len(self.buffers)
        self.fill(block.operators)
        return Segment.of(
            self.ops, self.tasks, self.predecessors, self.entries, self.pools, self.pool_tasks, self.pool_visitors,
            layer=block.operators[0].layer, buffers=(first_buffer, len(self.buffers)),
        )  # fmt: skip

    def sketch(self) -> Sketch:
        """The tasks of a graph of one operator."""
        self.fill(self.graph.operators)
        return Sketch(
            op=OpRow._make(self.ops[0]), tasks=self.tasks, predecessors=self.predecessors, entries=self.entries,
            pools=[self.pool_tasks[begin:end] for begin, end in self.pools], buffer_rows=self.buffers.rows,
            workers=worker_places(self.plan.workers), elsewhere_bytes=round(self.graph.elsewhere_bytes),
        )  # fmt: skip

    def fill(self, operators: Sequence[Operator]) -> None:
        self.begin_segment()
        for operator in operators:
            self.add_operator(operator, self.entries_by_site[operator.site])
        followed = set(chain.from_iterable(self.predecessors))
        leaves = tuple(sorted(followed.symmetric_difference(range(len(self.tasks)))))
        if len(leaves) > 1:
            self.add_join(leaves, len(self.ops) - 1)

    def again(self, segment: Segment, block: Block) -> Segment | None:
        """The segment on the buffers of the next layer, None if it shares some that it was the first to need."""
        first, end = segment.buffers
        layer = block.operators[0].layer
        if layer is None or segment.layer is None or not self.buffers.repeat(first, end, segment.layer, layer):
            return None
        return segment.moved(layer, (len(self.buffers) - (end - first), len(self.buffers)))

    def alike(self, operator: Operator, entry: OperatorPlan) -> _Alike:
        """What the operators of a site have in common; experts with given rows may differ from layer to layer."""
        key = (operator.site, getattr(operator, "experts_reached", 0.0))
        if key not in self.known:
            of_entry = (*key, entry.kernel, entry.lhs_layout, entry.out_layout)
            facts = kept_with(self.graph, ("facts", of_entry), lambda: self.facts(operator, entry))
            staged = isinstance(operator, Attention) and is_staged(entry)
            self.known[key] = _Alike(facts, [] if staged else operator_tiles(operator, entry))
        return self.known[key]

    def facts(self, operator: Operator, entry: OperatorPlan) -> dict[str, float]:
        """The columns of an operator's row that say what it computes."""
        facts = operator_facts(operator, entry)
        facts.update(flop=operator.flop, n_bytes=round(self.graph.moved_bytes(operator)))
        if isinstance(operator, Attention | KvAppend):
            facts["rhs_dtype"] = cache_number(self.graph.dtypes.kv)
        return facts

    # -- one operator ------------------------------------------------------------------------------------------------

    def add_operator(self, operator: Operator, entry: OperatorPlan) -> None:
        op = len(self.ops)
        columns: dict[str, float] = dict(_NO_COLUMNS)
        columns["layer"] = NO_LAYER if operator.layer is None else operator.layer
        if isinstance(operator, Linear | GroupedLinear) and entry.lhs_layout != ROW_MAJOR:
            packed, source = self.packed_lhs(op, operator, entry)
            others = [self.buffers.of(name) for name in operator.inputs[1:]]
            inputs = [source, *others]
            reads = [packed, *others]
            columns["packed"] = packed
        else:
            self.check_unpacked(operator, ROW_MAJOR)
            inputs = [self.buffers.of(name) for name in operator.inputs]
            reads = list(inputs)
        if isinstance(operator, Rope):
            inputs += [self.buffers.of(name) for name in ROPE_TABLES]
        if isinstance(operator, GroupedLinear | ExpertCombine):
            inputs.append(self.buffers.routing(operator.inputs[1]))
        if isinstance(operator, Router) and operator.routed:
            inputs += [NO_BUFFER, self.buffers.routing(operator.outputs[0])]
        columns.update({f"input{slot}": buffer for slot, buffer in enumerate(inputs)})
        if entry.out_layout == ROW_MAJOR:
            writes = [self.buffers.of(name) for name in operator.outputs]
            columns.update({f"output{slot}": buffer for slot, buffer in enumerate(writes)})
        else:
            writes = [self.buffers.packed(operator.outputs[0], lhs_layout(entry.out_layout))]
            columns["packed_out"] = writes[0]
        columns.update(zip(("weight", "bias"), map(self.buffers.of, operator.weights), strict=False))
        alike = self.alike(operator, entry)
        columns.update(alike.facts)
        if isinstance(operator, Attention) and is_staged(entry):
            handover = self.buffers.handover(operator.site, *handover_shape(operator, entry))
            columns.update(block_facts(operator, entry), handover=handover)
            self.ops.append(tuple(columns.values()))
            self.add_staged(op, operator, entry, reads, writes, handover)
        else:
            self.ops.append(tuple(columns.values()))
            packs = isinstance(operator, KvAppend) and entry.packers
            self.add_tasks(op, alike.tiles, packing_hands(entry) if packs else hands_of(entry), reads, writes)
        if isinstance(operator, Router) and operator.routed:
            # Whoever reads what was chosen reads by the table, and waits for it.
            table = self.buffers.routing(operator.outputs[0])
            self.add_tasks(op, [ROUTE_TILE], hands_of(entry), writes[:1], [writes[0], table])
        # Keys and values, and what a router chose, have one layout each; they are a layer's own, and left out.
        for name in operator.outputs:
            if self.graph.tensors[name].role is not TensorRole.ACTIVATION:
                continue
            self.layouts[self.buffers.name(name)] = frozenset({entry.out_layout})

    def packed_lhs(self, op: int, operator: Linear | GroupedLinear, entry: OperatorPlan) -> tuple[int, int]:
        """The buffer of the packed left operand, and that of which pack tasks make it: only where none is there.

        Experts read one of their own, which cannot be packed before it is known who reads which rows.
        """
        tensor, form = operator.inputs[0], lhs_layout(entry.lhs_layout)
        if isinstance(operator, GroupedLinear):
            packed, layout = self.buffers.packed_by_expert(tensor, form, operator.m), f"{form.name} by expert"
        else:
            packed, layout = self.buffers.packed(tensor, form), form.name
        at = self.buffers.name(tensor)
        there = self.layouts.setdefault(at, frozenset({form.unpacked}))
        if layout in there and (self.plan.layout_reuse != "none" or layout == form.unpacked):
            return packed, NO_BUFFER
        self.check_unpacked(operator, form.unpacked)
        is_row_major = form.unpacked == ROW_MAJOR
        source = self.buffers.of(tensor) if is_row_major else self.buffers.packed(tensor, lhs_layout(form.unpacked))
        reads = [source, *(self.buffers.of(name) for name in operator.inputs[1:])]
        self.add_tasks(op, pack_tiles(operator, entry), packing_hands(entry), reads, [packed])
        self.layouts[at] = there | {layout}
        return packed, source

    def check_unpacked(self, operator: Operator, unpacked: str) -> None:
        """PlanError if the operator reads what lies only packed, in a layout that it cannot read; `unpacked` is what it
        could pack its first input from."""
        for name, wanted in zip(operator.inputs, (unpacked, *[ROW_MAJOR] * len(operator.inputs)), strict=False):
            there = self.layouts.get(self.buffers.name(name), frozenset({ROW_MAJOR}))
            if wanted not in there:
                read = self.entries_by_site[operator.site].lhs_layout
                raise PlanError(
                    f"operators[{operator.site}] reads {name} as {read!r}, which is written as {', '.join(there)};"
                    f" accepted: the same out_layout and lhs_layout, or an out_layout of {wanted!r}"
                )

    def add_tasks(self, op: int, tiles: list[Tile], hands: Hands, reads: list[int], writes: list[int]) -> None:
        """Add the tasks of one stage, after everything they depend on, and record what they touched."""
        after = self.dependencies(reads, writes)
        first = len(self.tasks)
        self.tasks += [[op, kind, ANY_WORKER, *bounds, slot, state] for kind, bounds, slot, state, _ in tiles]
        self.predecessors += [after] * len(tiles)
        self.assign(range(first, len(self.tasks)), [tile.worker for tile in tiles], hands)
        done = first if len(tiles) == 1 else self.add_join(tuple(range(first, len(self.tasks))), op)
        self.record(reads, writes, done)

    def add_staged(
        self, op: int, operator: Attention, entry: OperatorPlan, reads: list[int], writes: list[int], handover: int
    ) -> None:
        """Attention whose tasks hand something to each other: parts and what combines them, or a pipeline's stages."""
        if entry.pipeline is None:
            self.add_tasks(op, part_tiles(operator, entry), hands_of(entry), reads, [handover])
            self.add_tasks(op, combine_tiles(operator, entry), hands_of(entry), [handover], writes)
            return
        writes = [*writes, handover]
        after = self.dependencies(reads, writes)
        workers: dict[Role, list[int]] = {}
        for worker in entry.workers:
            workers.setdefault(self.plan.workers[worker].role, []).append(worker)
        staged = pipeline_tasks(operator, entry.pipeline, {role: len(own) for role, own in workers.items()})
        first = len(self.tasks)
        drawn: dict[Role, list[int]] = {}
        for stage in staged:
            tile, own = stage.tile, workers[stage.role]
            before = tuple(first + task for task in stage.after) or after
            task = self.add_node([op, tile.kind, ANY_WORKER, *tile.ranges, tile.slot, tile.state], before)
            if entry.assignment == "shared" and len(own) > 1:
                drawn.setdefault(stage.role, []).append(task)
            else:
                self.give(task, own[stage.turn % len(own)])
        for role, tasks in drawn.items():
            self.add_pool(tasks, tuple(workers[role]))
        followed = {task for stage in staged for task in stage.after}
        ends = tuple(first + i for i in range(len(staged)) if i not in followed)
        self.record(reads, writes, ends[0] if len(ends) == 1 else self.add_join(ends, op))

    def record(self, reads: list[int], writes: list[int], done: int) -> None:
        """Note that at node `done` these buffers have been read and written."""
        for buffer in writes:
            self.accesses[buffer] = _Access(written=done)
        for buffer in reads:
            self.accesses.setdefault(buffer, _Access()).read.append(done)

    def dependencies(self, reads: list[int], writes: list[int]) -> tuple[int, ...]:
        nodes: set[int] = set()
        for buffer in reads:
            nodes.update(n for n in [self.accesses.get(buffer, _Access()).written] if n is not None)
        for buffer in writes:
            access = self.accesses.get(buffer, _Access())
            nodes.update(access.read)
            nodes.update(n for n in [access.written] if n is not None)
        return tuple(sorted(nodes))

    def add_node(self, row: list[int], after: tuple[int, ...]) -> int:
        self.tasks.append(row)
        self.predecessors.append(after)
        return len(self.tasks) - 1

    def add_join(self, after: tuple[int, ...], op: int) -> int:
        return self.add_node([op, TaskKind.JOIN, ANY_WORKER, *[0] * 8], after)

    # -- who runs what -----------------------------------------------------------------------------------------------

    def assign(self, tasks: range, owners: list[int | None], hands: Hands) -> None:
        """Put tasks into queues: those with an owner into its own, the others as the assignment says."""
        workers, assignment, shares = hands
        free: Sequence[int] = tasks
        owned = owners.count(None) < len(owners)
        if owned:
            free = [task for task, owner in zip(tasks, owners, strict=True) if owner is None]
            for task, owner in zip(tasks, owners, strict=True):
                if owner is not None:
                    self.give(task, owner)
        n_static = len(free)
        if len(workers) > 1 and (assignment == "shared" or owned):
            n_static = 0
        elif assignment == "static_then_shared":
            n_static = int(len(free) * STATIC_PART)
        begin = 0
        for worker, end in zip(workers, share_bounds(len(workers), shares, n_static) if n_static else (), strict=False):
            for task in free[begin:end]:
                self.give(task, worker)
            begin = end
        if n_static < len(free):
            self.add_pool(free[n_static:], workers)

    def add_pool(self, tasks: Sequence[int], workers: tuple[int, ...]) -> None:
        pool = len(self.pools)
        self.pools.append((len(self.pool_tasks), len(self.pool_tasks) + len(tasks)))
        self.pool_tasks.extend(tasks)
        self.pool_visitors.append(workers)
        for worker in workers:
            self.entries[worker].append((EntryKind.POOL, pool))

    def give(self, task: int, worker: int) -> None:
        self.tasks[task][2] = worker
        self.entries[worker].append((EntryKind.TASK, task))
