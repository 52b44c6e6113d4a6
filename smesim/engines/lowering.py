"""From an engine's decisions to a `Program`: stages of chunks, who may take each, and a join behind every stage.

An engine's graph is walked node by node, and all threads meet behind each. So a program is a list of stages; a stage is
chunks of one operator that are given to workers (`static`) or drawn by whoever is free (`shared`). What a chunk costs
depends on who runs it, as a drawn one may be run by a core or by who drives a unit: `costs` has a `Work` for each class
of workers. The simulator takes the program as it takes a plan's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from smesim.hwmodel.chip import Chip
from smesim.hwmodel.links import LinkNetwork
from smesim.plan.program import (
    ANY_WORKER,
    BUFFER_DTYPE,
    ENTRY_DTYPE,
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
from smesim.sim import compiled
from smesim.sim.clock import whole_ticks
from smesim.sim.compiled import NO_WORK, WorkTable
from smesim.sim.engine import Flow, Machine, Work
from smesim.sim.part import Part
from smesim.sim.timeline import EngineName, Timeline, makespan_s, simulate

CPU_ROLE, MATRIX_ROLE, NO_UNIT = 0, 1, -1


@dataclass(frozen=True)
class Thread:
    """One worker: its core, the unit it drives if any, and the class that its costs go by."""

    core: int
    kind: str
    unit: int | None = None


@dataclass(frozen=True)
class Cost:
    """What a chunk asks of one class of workers: seconds of arithmetic, `serial_s` before it, and bytes from DRAM."""

    compute_s: float
    dram_bytes: float = 0.0
    serial_s: float = 0.0
    on_unit: bool = False


@dataclass(frozen=True)
class Chunk:
    """A part of an operator: what it costs each class of workers, and who runs it (None: whoever draws it)."""

    costs: Mapping[str, Cost]
    worker: int | None = None


@dataclass
class Stage:
    """One node of an engine's graph: its chunks, all of which end before the next stage starts."""

    name: str
    kind: TaskKind
    chunks: list[Chunk]
    m: int = 0
    n: int = 0
    k: int = 0


@dataclass
class Lowered:
    """A program and what its tasks cost on a chip; `unit_rate` is what a driven unit keeps of its rate, and unless
    `shared_units` every thread has a unit to itself."""

    program: Program
    chip: Chip
    threads: Sequence[Thread]
    costs: list[Mapping[str, Cost]]
    unit_rate: float = 1.0
    shared_units: bool = True
    network: LinkNetwork = field(init=False)
    _works: dict[tuple[int, str, int], Work] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.network = LinkNetwork.of(self.chip)
        self._agents = [self.network.agent(t.core, t.unit) for t in self.threads]
        self._core_agents = [self.network.agent(t.core) for t in self.threads]

    def work(self, task: int, worker: int) -> Work:
        """The task's cost on a worker, laid over the chip's links."""
        thread = self.threads[worker]
        cost = self.costs[task][thread.kind]
        key = (id(cost), thread.kind, worker)
        if key not in self._works:
            agent = (self._agents if cost.on_unit else self._core_agents)[worker]
            flows: tuple[Flow, ...] = ()
            if cost.dram_bytes:
                route = self.network.route(agent, "DRAM")
                flows = (Flow(route.links, cost.dram_bytes, route.cap_bytes_per_s),)
            unit = agent.unit if cost.on_unit else None
            self._works[key] = Work(whole_ticks(cost.compute_s), whole_ticks(cost.serial_s), flows, unit)
        return self._works[key]

    def table(self, part: Part) -> WorkTable:
        """What the tasks of a part cost, a column for each kind of workers that reach memory alike."""
        kinds = [(t.kind, agent.cluster, agent.unit) for t, agent in zip(self.threads, self._agents, strict=True)]
        first_of = {kind: kinds.index(kind) for kind in kinds}
        columns = {kind: column for column, kind in enumerate(first_of)}
        works: list[Work] = []
        rows: dict[int, list[int]] = {}  # chunks that cost the same share one mapping
        tasks = range(part.first_task, part.first_task + part.n_tasks)
        for task in tasks:
            costs = self.costs[task]
            if id(costs) not in rows:
                row = rows[id(costs)] = [NO_WORK] * len(columns)
                for kind, worker in first_of.items():
                    if kind[0] in costs:
                        row[columns[kind]] = len(works)
                        works.append(self.work(task, worker))
        work_of = np.array([rows[id(self.costs[task])] for task in tasks], np.int32)
        return WorkTable(works, np.array([columns[kind] for kind in kinds], np.int32), work_of)

    def _machine(self, meeting_s: float, dispatch_s: float) -> Machine:
        units = {agent.unit for agent in self._agents if agent.unit is not None}
        return Machine(
            links={link.name: link.bandwidth_bytes_per_s for link in self.network.links},
            dispatch_s=whole_ticks(dispatch_s),
            barrier_s=whole_ticks(meeting_s),
            units=dict.fromkeys(sorted(units), (self.unit_rate, self.unit_rate)),
            shared_units=self.shared_units,
        )

    def timeline(self, meeting_s: float, dispatch_s: float = 0.0) -> Timeline:
        """The program's course in simulated time; threads that met learn of it `meeting_s` later."""
        return simulate(self.program, self._machine(meeting_s, dispatch_s), self.work)

    def seconds(self, meeting_s: float, dispatch_s: float = 0.0) -> float:
        """When the last task ends, from the compiled engine where there is one: the same to the last bit, and fast."""
        engine: EngineName = "compiled" if compiled.is_there() else "simpy"
        machine = self._machine(meeting_s, dispatch_s)
        return makespan_s(self.program, machine, self.work, table=self.table, engine=engine)


def lower_stages(
    chip: Chip, threads: Sequence[Thread], stages: Sequence[Stage], name: str, unit_rate: float = 1.0,
    shared_units: bool = True,
) -> Lowered:  # fmt: skip
    """Stages as tasks with dependencies: every chunk waits for the join of the stage before its own."""
    tasks: list[tuple[int, ...]] = []
    successors: list[list[int]] = []
    entries: list[list[tuple[int, int]]] = [[] for _ in threads]
    pools: list[tuple[int, int]] = []
    pool_tasks: list[int] = []
    costs: list[Mapping[str, Cost]] = []
    last_join: int | None = None
    for op, stage in enumerate(stages):
        first = len(tasks)
        drawn = [first + i for i, chunk in enumerate(stage.chunks) if chunk.worker is None]
        for i, chunk in enumerate(stage.chunks):
            worker = ANY_WORKER if chunk.worker is None else chunk.worker
            tasks.append((op, int(stage.kind), worker, 0, 1, i, i + 1, 0, 1, int(last_join is not None)))
            costs.append(chunk.costs)
            successors.append([])
            if chunk.worker is not None:
                entries[chunk.worker].append((int(EntryKind.TASK), first + i))
        if drawn:
            for queue in entries:
                queue.append((int(EntryKind.POOL), len(pools)))
            pools.append((len(pool_tasks), len(pool_tasks) + len(drawn)))
            pool_tasks += drawn
        join = len(tasks)
        if last_join is not None:
            successors[last_join] = list(range(first, join))
        for task in range(first, join):
            successors[task] = [join]
        tasks.append((op, int(TaskKind.JOIN), ANY_WORKER, 0, 0, 0, 0, 0, 0, len(stage.chunks)))
        successors.append([])
        costs.append({})
        last_join = join
    program = _program(stages, threads, tasks, successors, entries, pools, pool_tasks, name)
    return Lowered(program, chip, threads, costs, unit_rate, shared_units)


def _program(
    stages: Sequence[Stage], threads: Sequence[Thread], tasks: list[tuple[int, ...]], successors: list[list[int]],
    entries: list[list[tuple[int, int]]], pools: list[tuple[int, int]], pool_tasks: list[int], name: str,
) -> Program:  # fmt: skip
    ops = np.zeros(len(stages), OP_DTYPE)
    ops["layer"] = NO_LAYER
    for field_name in ("kind", "m", "n", "k"):
        ops[field_name] = [int(getattr(stage, field_name)) for stage in stages]
    table = np.zeros(len(tasks), TASK_DTYPE)
    columns = ("op", "kind", "worker", "begin0", "end0", "begin1", "end1", "begin2", "end2", "predecessor_count")
    values = np.array(tasks, np.int64)
    for position, column in enumerate(columns):
        table[column] = values[:, position]
    ends = np.cumsum([len(s) for s in successors])
    table["successor_end"], table["successor_begin"] = ends, ends - [len(s) for s in successors]
    workers = np.zeros(len(threads), WORKER_DTYPE)
    queue_ends = np.cumsum([len(queue) for queue in entries])
    workers["entry_end"], workers["entry_begin"] = queue_ends, queue_ends - [len(queue) for queue in entries]
    workers["core"] = [thread.core for thread in threads]
    workers["role"] = [CPU_ROLE if thread.unit is None else MATRIX_ROLE for thread in threads]
    workers["unit"] = [NO_UNIT if thread.unit is None else thread.unit for thread in threads]
    names = tuple(stage.name for stage in stages)
    return Program(
        ops=ops, tasks=table, successors=np.array([s for each in successors for s in each], np.int32), workers=workers,
        entries=np.array([entry for queue in entries for entry in queue], ENTRY_DTYPE),
        pools=np.array(pools, POOL_DTYPE), pool_tasks=np.array(pool_tasks, np.int32),
        buffers=np.zeros(0, BUFFER_DTYPE), segments=np.array([(0, len(tasks), 1)], SEGMENT_DTYPE),
        op_names=names, op_sites=names, op_kinds=tuple(stage.kind.name.lower() for stage in stages), buffer_names=(),
        layers=1, plan_fingerprint=name,
    )  # fmt: skip
