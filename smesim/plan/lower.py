"""Lowering: a plan becomes a program.

Operators are visited in the graph's order. For each one, `tiles.py` says which tasks it has; this module finds what
they must wait for, gives them to workers as the plan says, and closes the operator with a join.

Dependencies come from buffers, not from names: a task waits for whoever wrote what it reads, for whoever still reads
what it overwrites, and for the previous writer. Activations of one layer use the same buffers as those of the next,
as an engine would, so that their place in the caches is what it would be.

Layout state: a GEMM reads its left operand packed. The pack tasks are made for the first operator that needs them and
shared by all that read the same tensor in the same layout (q, k and v; gate and up), until the tensor is rewritten.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from smesim.errors import PlanError
from smesim.plan.buffers import ROPE_TABLES, BufferTable
from smesim.plan.program import (
    ANY_WORKER,
    ENTRY_DTYPE,
    NO_BUFFER,
    NO_LAYER,
    OP_DTYPE,
    POOL_DTYPE,
    SEGMENT_DTYPE,
    TASK_DTYPE,
    WORKER_DTYPE,
    EntryKind,
    Program,
    TaskKind,
)
from smesim.plan.schema import OperatorPlan, Plan, check_plan
from smesim.plan.tiles import Tile, operator_facts, operator_tiles, pack_tiles
from smesim.workload.graph import OperatorGraph
from smesim.workload.operators import ExpertCombine, GroupedLinear, Linear, Operator, Rope

CPU_ROLE = 0
MATRIX_ROLE = 1


def lower(plan: Plan, graph: OperatorGraph | None = None) -> Program:
    """Divide the plan's operators into tasks, with dependencies and worker queues.

    The result depends on the plan alone: the same plan gives the same program, bit for bit. Raises PlanError if the
    plan lacks a site of its model or names a kernel that does not fit an operator.
    """
    graph = graph or plan.graph()
    check_plan(plan, graph)
    for entry in plan.operators:  # the schema has room for more than can be lowered yet
        if entry.pipeline is not None:
            raise PlanError(f"operators[{entry.site}].pipeline is given; accepted so far: none")
    return _Lowering(plan, graph).run()


@dataclass
class _Access:
    """Who touched a buffer last: the node after which it is written, and the nodes after which it has been read."""

    written: int | None = None
    read: list[int] = field(default_factory=list)


class _Lowering:
    def __init__(self, plan: Plan, graph: OperatorGraph) -> None:
        self.plan = plan
        self.graph = graph
        self.buffers = BufferTable(graph)
        self.accesses: dict[int, _Access] = {}
        self.live_packed: dict[int, str] = {}  # row-major buffer -> layout of its packed twin, while both agree
        self.ops: list[tuple[object, ...]] = []
        self.tasks: list[list[int]] = []  # op, kind, worker, six range bounds
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
            self.add_operator(operator, self.plan.site(operator.site))
            if i + 1 == len(operators) or operators[i + 1].layer != operator.layer:
                self.close_segment()
        return self.build()

    # -- one operator ------------------------------------------------------------------------------------------------

    def add_operator(self, operator: Operator, entry: OperatorPlan) -> None:
        facts = operator_facts(operator, entry)
        reads = [self.buffers.of(name) for name in operator.inputs]
        writes = [self.buffers.of(name) for name in operator.outputs]
        op = len(self.ops)
        packed = NO_BUFFER
        if isinstance(operator, Linear | GroupedLinear) and entry.lhs_layout.startswith("lhs_"):
            packed = self.packed_lhs(op, operator, entry, reads)
            reads = [packed, *reads[1:]]
        self.ops.append(self.op_row(operator, facts, packed))
        tiles = operator_tiles(operator, entry)
        self.add_tasks(op, tiles, entry, reads, writes)
        for buffer in writes:
            self.live_packed.pop(buffer, None)

    def packed_lhs(self, op: int, operator: Operator, entry: OperatorPlan, reads: list[int]) -> int:
        """The packed twin of a row-major activation, the first that is read; pack tasks only where no live one exists.

        Experts read one of their own, for which the others, the router's choice, must be known.
        """
        source = reads[0]
        if isinstance(operator, GroupedLinear):
            packed = self.buffers.packed_by_expert(source, operator.m)
        else:
            packed = self.buffers.packed_twin(source)
        if self.live_packed.get(source) != entry.lhs_layout:
            self.add_tasks(op, pack_tiles(operator, entry), entry, reads, [packed])
            self.live_packed[source] = entry.lhs_layout
        return packed

    def op_row(self, operator: Operator, facts: dict[str, float], packed: int) -> tuple[object, ...]:
        inputs = [self.buffers.of(name) for name in operator.inputs]
        if isinstance(operator, Rope):
            inputs += [self.buffers.of(name) for name in ROPE_TABLES]
        if isinstance(operator, GroupedLinear | ExpertCombine):
            inputs.append(self.buffers.routing(operator.inputs[1]))
        columns: dict[str, float] = dict.fromkeys(OP_DTYPE.names or (), 0)
        columns.update(layer=NO_LAYER if operator.layer is None else operator.layer, packed=packed)
        for slot in range(3):
            columns[f"input{slot}"] = inputs[slot] if slot < len(inputs) else NO_BUFFER
        for slot in range(2):
            outputs = operator.outputs
            columns[f"output{slot}"] = self.buffers.of(outputs[slot]) if slot < len(outputs) else NO_BUFFER
        for slot, key in enumerate(("weight", "bias")):
            weights = operator.weights
            columns[key] = self.buffers.of(weights[slot]) if slot < len(weights) else NO_BUFFER
        columns.update(facts, flop=operator.flop, n_bytes=round(self.graph.moved_bytes(operator)))
        return tuple(columns.values())

    def add_tasks(self, op: int, tiles: list[Tile], entry: OperatorPlan, reads: list[int], writes: list[int]) -> None:
        """Add the tasks of one stage, after everything they depend on, and record what they touched."""
        after = self.dependencies(reads, writes)
        first = len(self.tasks)
        for tile in tiles:
            self.add_node([op, tile.kind, ANY_WORKER, *tile.ranges], after)
        self.assign(range(first, len(self.tasks)), entry)
        done = first if len(tiles) == 1 else self.add_join(tuple(range(first, len(self.tasks))), op)
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
        return self.add_node([op, TaskKind.JOIN, ANY_WORKER, 0, 0, 0, 0, 0, 0], after)

    # -- who runs what -----------------------------------------------------------------------------------------------

    def assign(self, tasks: range, entry: OperatorPlan) -> None:
        workers = entry.workers
        n_static = len(tasks)
        if len(workers) > 1 and entry.assignment == "shared":
            n_static = 0
        elif entry.assignment == "static_then_shared":
            n_static = len(tasks) * 3 // 4
        shares = np.array(entry.shares or [1.0] * len(workers))
        bounds = np.rint(np.cumsum(shares) / shares.sum() * n_static).astype(int)
        begin = 0
        for worker, end in zip(workers, bounds.tolist(), strict=True):
            for task in tasks[begin:end]:
                self.tasks[task][2] = worker
                self.entries[worker].append((EntryKind.TASK, task))
            begin = end
        if n_static < len(tasks):
            pool = len(self.pools)
            self.pools.append((len(self.pool_tasks), len(self.pool_tasks) + len(tasks) - n_static))
            self.pool_tasks.extend(tasks[n_static:])
            self.pool_visitors.append(workers)
            for worker in workers:
                self.entries[worker].append((EntryKind.POOL, pool))

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
        for i, name in enumerate(("op", "kind", "worker", "begin0", "end0", "begin1", "end1", "begin2", "end2")):
            tasks[name] = columns[:, i]
        tasks["predecessor_count"] = counts
        tasks["successor_end"] = ends
        tasks["successor_begin"][1:] = ends[:-1]
        ops = np.array(self.ops, OP_DTYPE)
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
    for name in ("input0", "input1", "input2", "weight", "bias", "packed", "output0", "output1"):
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
    for part in (tasks.tobytes(), sources.tobytes(), inside.tobytes(), ops.tobytes(), repr(pools).encode()):
        digest.update(part)
    return int.from_bytes(digest.digest()[:8], "little")
