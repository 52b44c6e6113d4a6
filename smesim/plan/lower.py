"""Lowering: a plan becomes a program.

Operators are visited in the graph's order. For each one, `tiles.py` says which tasks it has; this module finds what
they must wait for, gives them to workers as the plan says, and closes the operator with a join.

Dependencies come from buffers, not from names: a task waits for whoever wrote what it reads, for whoever still reads
what it overwrites, and for the previous writer. Activations of one layer use the same buffers as those of the next,
as an engine would, so that their place in the caches is what it would be.

Layout state: of each activation, the layouts in which it is there until it is rewritten. A GEMM reads its left operand
packed: as a norm or an activation has written it, as it was packed for an operator before (q, k and v share one
operand, gate and up another), or else as its own pack tasks make it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from smesim.errors import PlanError
from smesim.plan.buffers import ROPE_TABLES, BufferTable
from smesim.plan.formats import cache_number
from smesim.plan.layout import ROW_MAJOR, lhs_layout
from smesim.plan.pipeline import block_facts, combine_tiles, handover_shape, is_staged, part_tiles, pipeline_tasks
from smesim.plan.program import (
    ANY_WORKER,
    ENTRY_DTYPE,
    NO_BUFFER,
    NO_LAYER,
    OP_DTYPE,
    POOL_DTYPE,
    SEGMENT_DTYPE,
    SLOTS,
    TASK_DTYPE,
    WORKER_DTYPE,
    EntryKind,
    Program,
    TaskKind,
    field_bytes,
)
from smesim.plan.schema import OperatorPlan, Plan, Role, check_plan
from smesim.plan.tiles import ROUTE_TILE, STATIC_PART, Tile, operator_facts, operator_tiles, pack_tiles, share_bounds
from smesim.workload.graph import OperatorGraph
from smesim.workload.operators import Attention, ExpertCombine, GroupedLinear, KvAppend, Linear, Operator, Rope, Router

CPU_ROLE = 0
MATRIX_ROLE = 1


def lower(plan: Plan, graph: OperatorGraph | None = None) -> Program:
    """Divide the plan's operators into tasks, with dependencies and worker queues.

    The result depends on the plan alone: the same plan gives the same program, bit for bit. Raises PlanError if the
    plan lacks a site of its model or names a kernel that does not fit an operator.
    """
    graph = graph or plan.graph()
    check_plan(plan, graph)
    return _Lowering(plan, graph).run()


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


class _Lowering:
    def __init__(self, plan: Plan, graph: OperatorGraph) -> None:
        self.plan = plan
        self.graph = graph
        self.buffers = BufferTable(graph)
        self.known: dict[tuple[str, float], _Alike] = {}
        self.entries_by_site = {entry.site: entry for entry in plan.operators}
        self.accesses: dict[int, _Access] = {}
        self.layouts: dict[str, set[str]] = {}  # by an activation's buffer: the layouts in which it is there
        self.ops: list[tuple[object, ...]] = []
        self.tasks: list[list[int]] = []  # op, kind, worker, six range bounds, slot, state
        self.predecessors: list[tuple[int, ...]] = []
        self.entries: list[list[tuple[int, int]]] = [[] for _ in plan.workers]
        self.pools: list[tuple[int, int]] = []
        self.pool_tasks: list[int] = []
        self.pool_visitors: list[tuple[int, ...]] = []
        self.segments: list[tuple[int, int, range]] = []  # first task, end, pools
        self.segment_start = 0  # first task of the segment in hand
        self.segment_pools_start = 0
        self.previous_end: int | None = None  # node after which the previous segment has ended

    def run(self) -> Program:
        operators = self.graph.operators
        for i, operator in enumerate(operators):
            self.add_operator(operator, self.entries_by_site[operator.site])
            if i + 1 == len(operators) or operators[i + 1].layer != operator.layer:
                self.close_segment()
        return self.build()

    def alike(self, operator: Operator, entry: OperatorPlan) -> _Alike:
        """What the operators of a site have in common; experts with given rows may differ from layer to layer."""
        key = (operator.site, getattr(operator, "experts_reached", 0.0))
        if key not in self.known:
            facts = operator_facts(operator, entry)
            facts.update(flop=operator.flop, n_bytes=round(self.graph.moved_bytes(operator)))
            if isinstance(operator, Attention | KvAppend):
                facts["rhs_dtype"] = cache_number(self.graph.dtypes.kv)
            staged = isinstance(operator, Attention) and is_staged(entry)
            self.known[key] = _Alike(facts, [] if staged else operator_tiles(operator, entry))
        return self.known[key]

    # -- one operator ------------------------------------------------------------------------------------------------

    def add_operator(self, operator: Operator, entry: OperatorPlan) -> None:
        op = len(self.ops)
        columns: dict[str, float] = dict.fromkeys(OP_DTYPE.names or (), 0)
        columns.update(layer=NO_LAYER if operator.layer is None else operator.layer)
        columns.update(dict.fromkeys(SLOTS, NO_BUFFER))
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
            self.add_tasks(op, alike.tiles, entry, reads, writes)
        if isinstance(operator, Router) and operator.routed:
            # Whoever reads what was chosen reads by the table, and waits for it.
            table = self.buffers.routing(operator.outputs[0])
            self.add_tasks(op, [ROUTE_TILE], entry, writes[:1], [writes[0], table])
        for name in operator.outputs:
            self.layouts[self.buffers.name(name)] = {entry.out_layout}

    def packed_lhs(self, op: int, operator: Linear | GroupedLinear, entry: OperatorPlan) -> tuple[int, int]:
        """The buffer of the packed left operand, and that of which pack tasks make it: only where none is there.

        Experts read one of their own, which cannot be packed before it is known who reads which rows.
        """
        tensor, form = operator.inputs[0], lhs_layout(entry.lhs_layout)
        if isinstance(operator, GroupedLinear):
            packed, layout = self.buffers.packed_by_expert(tensor, form, operator.m), f"{form.name} by expert"
        else:
            packed, layout = self.buffers.packed(tensor, form), form.name
        there = self.layouts.setdefault(self.buffers.name(tensor), {form.unpacked})
        if layout in there and (self.plan.layout_reuse != "none" or layout == form.unpacked):
            return packed, NO_BUFFER
        self.check_unpacked(operator, form.unpacked)
        is_row_major = form.unpacked == ROW_MAJOR
        source = self.buffers.of(tensor) if is_row_major else self.buffers.packed(tensor, lhs_layout(form.unpacked))
        reads = [source, *(self.buffers.of(name) for name in operator.inputs[1:])]
        # Their parts are equal: shares are of the product's columns, and may be very different.
        own: dict[str, object] = {"workers": entry.packers or entry.workers, "shares": ()}
        own["assignment"] = "shared" if entry.assignment == "shared" else "static"
        self.add_tasks(op, pack_tiles(operator, entry), entry.model_copy(update=own), reads, [packed])
        there.add(layout)
        return packed, source

    def check_unpacked(self, operator: Operator, unpacked: str) -> None:
        """PlanError if the operator reads what lies only packed, in a layout that it cannot read; `unpacked` is what it
        could pack its first input from."""
        for name, wanted in zip(operator.inputs, (unpacked, *[ROW_MAJOR] * len(operator.inputs)), strict=False):
            there = self.layouts.get(self.buffers.name(name), {ROW_MAJOR})
            if wanted not in there:
                read = self.plan.site(operator.site).lhs_layout
                raise PlanError(
                    f"operators[{operator.site}] reads {name} as {read!r}, which is written as {', '.join(there)};"
                    f" accepted: the same out_layout and lhs_layout, or an out_layout of {wanted!r}"
                )

    def add_tasks(self, op: int, tiles: list[Tile], entry: OperatorPlan, reads: list[int], writes: list[int]) -> None:
        """Add the tasks of one stage, after everything they depend on, and record what they touched."""
        after = self.dependencies(reads, writes)
        first = len(self.tasks)
        for tile in tiles:
            self.add_node([op, tile.kind, ANY_WORKER, *tile.ranges, tile.slot, tile.state], after)
        self.assign(range(first, len(self.tasks)), [tile.worker for tile in tiles], entry)
        done = first if len(tiles) == 1 else self.add_join(tuple(range(first, len(self.tasks))), op)
        self.record(reads, writes, done)

    def add_staged(
        self, op: int, operator: Attention, entry: OperatorPlan, reads: list[int], writes: list[int], handover: int
    ) -> None:
        """Attention whose tasks hand something to each other: parts and what combines them, or a pipeline's stages."""
        if entry.pipeline is None:
            self.add_tasks(op, part_tiles(operator, entry), entry, reads, [handover])
            self.add_tasks(op, combine_tiles(operator, entry), entry, [handover], writes)
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
        in_segment = tuple(sorted(n for n in nodes if n >= self.segment_start))
        if in_segment or self.previous_end is None:
            return in_segment
        return (self.previous_end,)

    def add_node(self, row: list[int], after: tuple[int, ...]) -> int:
        self.tasks.append(row)
        self.predecessors.append(after)
        return len(self.tasks) - 1

    def add_join(self, after: tuple[int, ...], op: int) -> int:
        return self.add_node([op, TaskKind.JOIN, ANY_WORKER, *[0] * 8], after)

    # -- who runs what -----------------------------------------------------------------------------------------------

    def assign(self, tasks: range, owners: list[int | None], entry: OperatorPlan) -> None:
        """Put tasks into queues: those with an owner into its own, the others as the entry's assignment says."""
        workers = entry.workers
        owned = [task for task, owner in zip(tasks, owners, strict=True) if owner is not None]
        free = [task for task, owner in zip(tasks, owners, strict=True) if owner is None]
        for task in owned:
            owner = owners[task - tasks.start]
            assert owner is not None
            self.give(task, owner)
        n_static = len(free)
        if len(workers) > 1 and (entry.assignment == "shared" or owned):
            n_static = 0
        elif entry.assignment == "static_then_shared":
            n_static = int(len(free) * STATIC_PART)
        begin = 0
        for worker, end in zip(workers, share_bounds(entry, n_static), strict=True):
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

    # -- segments and arrays -----------------------------------------------------------------------------------------

    def close_segment(self) -> None:
        """End the segment with one node that follows all its tasks, so that nothing is in flight behind it."""
        nodes = range(self.segment_start, len(self.tasks))
        followed = {p for n in nodes for p in self.predecessors[n]}
        leaves = tuple(n for n in nodes if n not in followed)
        self.previous_end = leaves[0] if len(leaves) == 1 else self.add_join(leaves, len(self.ops) - 1)
        self.segments.append((self.segment_start, len(self.tasks), range(self.segment_pools_start, len(self.pools))))
        self.segment_start, self.segment_pools_start = len(self.tasks), len(self.pools)

    def build(self) -> Program:
        plan, n_tasks = self.plan, len(self.tasks)
        sources = np.array([p for after in self.predecessors for p in after], np.int64)
        counts = np.array([len(after) for after in self.predecessors], np.int32)
        targets = np.repeat(np.arange(n_tasks, dtype=np.int32), counts)
        order = np.argsort(sources, kind="stable")
        ends = np.cumsum(np.bincount(sources, minlength=n_tasks))
        tasks = np.zeros(n_tasks, TASK_DTYPE)
        columns = np.array(self.tasks, np.int32)
        for name, column in zip(TASK_DTYPE.names or (), columns.T, strict=False):  # the rest are the edges
            tasks[name] = column
        tasks["predecessor_count"] = counts
        tasks["successor_end"] = ends
        tasks["successor_begin"][1:] = ends[:-1]
        ops = np.zeros(len(self.ops), OP_DTYPE)  # not made of the rows: the bytes between fields count as well
        for name, facts in zip(OP_DTYPE.names or (), zip(*self.ops, strict=True), strict=True):
            ops[name] = facts
        workers = np.zeros(len(plan.workers), WORKER_DTYPE)
        lengths = np.cumsum([0, *(len(queue) for queue in self.entries)])
        for i, worker in enumerate(plan.workers):
            role = CPU_ROLE if worker.role == "cpu" else MATRIX_ROLE
            workers[i] = (lengths[i], lengths[i + 1], worker.core, role, -1 if worker.unit is None else worker.unit)
        operators = self.graph.operators
        program = Program(
            ops=ops,
            tasks=tasks,
            successors=targets[order],
            workers=workers,
            entries=np.array([e for queue in self.entries for e in queue], ENTRY_DTYPE),
            pools=np.array(self.pools, POOL_DTYPE),
            pool_tasks=np.array(self.pool_tasks, np.int32),
            buffers=self.buffers.array(),
            segments=np.zeros(len(self.segments), SEGMENT_DTYPE),
            op_names=tuple(o.name for o in operators),
            op_sites=tuple(o.site for o in operators),
            op_kinds=tuple(o.kind for o in operators),
            buffer_names=self.buffers.names(),
            layers=plan.layers,
            plan_fingerprint=plan.fingerprint(),
            elsewhere_bytes=round(self.graph.elsewhere_bytes),
        )
        for i, (begin, end, own_pools) in enumerate(self.segments):
            pools = [
                (self.pool_visitors[p], [t - begin for t in self.pool_tasks[slice(*self.pools[p])]]) for p in own_pools
            ]
            program.segments[i] = (begin, end, _signature(program, begin, end, pools))
        return program


def _signature(program: Program, begin: int, end: int, pools: list[tuple[tuple[int, ...], list[int]]]) -> int:
    """Equal for segments that do the same work in the same order on other buffers.

    `pools` are those of the segment: who visits, and the tasks counted from the segment's first.
    """
    tasks = program.tasks[begin:end].copy()
    first_op = int(tasks["op"].min())
    edges = program.successors[int(tasks["successor_begin"][0]) : int(tasks["successor_end"][-1])]
    inside = edges[edges < end] - begin
    used = np.unique(tasks["op"])
    ops = program.ops[used].copy()
    ops["layer"] = 0
    for name in SLOTS:
        present = ops[name] != NO_BUFFER
        sizes = program.buffers["n_bytes"][np.where(present, ops[name], 0)]
        ops[name] = np.where(present, sizes % (2**31 - 1), NO_BUFFER)
    tasks["op"] -= first_op
    # Of the edges only those inside count: who waits before the segment or behind it does not change its work.
    counts = tasks["successor_end"] - tasks["successor_begin"]
    sources = np.repeat(np.arange(end - begin, dtype=np.int32), counts)[edges < end]
    for name in ("predecessor_count", "successor_begin", "successor_end"):
        tasks[name] = 0
    digest = hashlib.sha256()
    for part in (field_bytes(tasks), sources.tobytes(), inside.tobytes(), field_bytes(ops), repr(pools).encode()):
        digest.update(part)
    return int.from_bytes(digest.digest()[:8], "little")
