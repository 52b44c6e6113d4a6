"""From segments to a program: what was counted from 0 in each of them, counted through.

A segment's arrays know nothing of where in the program it lies, so one that comes again needs nothing but other
buffers, and its signature, which is a hash of all that it does, is worked out once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from smesim.plan.buffers import BufferTable
from smesim.plan.program import (
    ENTRY_DTYPE,
    NO_BUFFER,
    OP_DTYPE,
    POOL_DTYPE,
    SEGMENT_DTYPE,
    SLOTS,
    TASK_DTYPE,
    WORKER_DTYPE,
    EntryKind,
    Program,
)
from smesim.plan.records import Array, joined, words
from smesim.plan.schema import Plan, WorkerPlan
from smesim.workload.graph import OperatorGraph

CPU_ROLE = 0
MATRIX_ROLE = 1
NO_UNIT = -1

Int32s = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Segment:
    """Part of a program, counted from its own first operator, task and pool; edges are sorted by their sources.

    Tasks without a predecessor wait for the end of the segment before: its last task. `buffers` are those that it was
    the first to need. `work` is what `signature` is made of, but for the sizes of the buffers.
    """

    ops: Array
    tasks: Array
    sources: Int32s
    targets: Int32s
    starts: Int32s
    entries: Array
    entry_worker: Int32s
    pools: Array
    pool_tasks: Int32s
    work: tuple[bytes, ...]
    layer: int | None
    buffers: tuple[int, int]

    @classmethod
    def of(
        cls, ops: Sequence[tuple[object, ...]], tasks: Sequence[Sequence[int]], predecessors: Sequence[tuple[int, ...]],
        entries: Sequence[Sequence[tuple[int, int]]], pools: Sequence[tuple[int, int]], pool_tasks: Sequence[int],
        visitors: Sequence[tuple[int, ...]], *, layer: int | None, buffers: tuple[int, int],
    ) -> Segment:  # fmt: skip
        """`tasks` are the first columns of their rows, `predecessors` the tasks that each waits for; `visitors` the
        workers of each pool."""
        counts = np.array([len(after) for after in predecessors], np.int32)
        sources = np.array([p for after in predecessors for p in after], np.int32)
        targets = np.repeat(np.arange(len(tasks), dtype=np.int32), counts)
        order = np.argsort(sources, kind="stable")
        rows = np.zeros(len(tasks), TASK_DTYPE)
        columns = np.array(tasks, np.int32)
        rows["op"], rows["kind"], rows["worker"] = columns[:, 0], columns[:, 1], columns[:, 2]
        words(rows)[:, 2:10] = columns[:, 3:]  # the rest are the edges
        facts = np.zeros(len(ops), OP_DTYPE)  # not made of the rows: the bytes between fields count as well
        for name, values in zip(OP_DTYPE.names or (), zip(*ops, strict=True), strict=True):
            facts[name] = values
        drawn = [(who, list(pool_tasks[first:end])) for who, (first, end) in zip(visitors, pools, strict=True)]
        sources, targets = sources[order], targets[order]
        work = (rows.tobytes(), sources.tobytes(), targets.tobytes(), repr(drawn).encode())
        rows["predecessor_count"] = counts
        return cls(
            ops=facts,
            tasks=rows,
            sources=sources,
            targets=targets,
            starts=np.flatnonzero(counts == 0).astype(np.int32),
            entries=np.array([entry for queue in entries for entry in queue], ENTRY_DTYPE),
            entry_worker=np.repeat(np.arange(len(entries), dtype=np.int32), [len(queue) for queue in entries]),
            pools=np.array(pools, POOL_DTYPE),
            pool_tasks=np.array(pool_tasks, np.int32),
            work=work,
            layer=layer,
            buffers=buffers,
        )

    def moved(self, layer: int, buffers: tuple[int, int]) -> Segment:
        """The same for another layer, on its own buffers."""
        ops, (first, end) = self.ops.copy(), self.buffers
        ops["layer"] = layer
        named = words(ops)[:, -len(SLOTS) :]
        named += (buffers[0] - first) * ((named >= first) & (named < end))
        return replace(self, ops=ops, layer=layer, buffers=buffers)

    def signature(self, n_bytes: npt.NDArray[np.int64]) -> int:
        """Equal for segments that do the same work in the same order on other buffers, whose sizes these are."""
        ops = self.ops.copy()
        ops["layer"] = 0
        buffers = words(ops)[:, -len(SLOTS) :]
        sizes = np.where(buffers != NO_BUFFER, n_bytes[buffers], NO_BUFFER)
        buffers[:] = 0
        # Of the edges only those inside count: who waits before the segment or behind it does not change its work.
        digest = hashlib.sha256(b"".join((*self.work, ops.tobytes(), sizes.tobytes()))).digest()
        return int.from_bytes(digest[:8], "little")


def worker_places(workers: Sequence[WorkerPlan]) -> tuple[tuple[int, int, int], ...]:
    """Core, role and unit of each worker, as a program numbers them."""
    places = [
        (w.core, CPU_ROLE if w.role == "cpu" else MATRIX_ROLE, NO_UNIT if w.unit is None else w.unit)
        for w in workers
    ]
    return tuple(places)


def assembled(plan: Plan, graph: OperatorGraph, segments: Sequence[Segment], buffers: BufferTable) -> Program:
    """The program of the segments, one behind the other."""
    buffer_rows = buffers.array()
    first_op, first_task, first_pool, first_drawn = (
        list(accumulate((len(getattr(segment, name)) for segment in segments), initial=0))
        for name in ("ops", "tasks", "pools", "pool_tasks")
    )
    n_tasks = first_task[-1]
    tasks = joined([segment.tasks for segment in segments])
    tasks["op"] += np.repeat(np.array(first_op[:-1], np.int32), [len(segment.tasks) for segment in segments])
    sources: list[Int32s] = []
    targets: list[Int32s] = []
    signatures: dict[int, int] = {}
    bounds = np.zeros(len(segments), SEGMENT_DTYPE)
    for i, segment in enumerate(segments):
        first = first_task[i]
        if i:  # the last task of the segment before leads to what waits for nothing in this one
            sources.append(np.full(len(segment.starts), first - 1, np.int32))
            targets.append(segment.starts + np.int32(first))
            tasks["predecessor_count"][segment.starts + first] = 1
        sources.append(segment.sources + np.int32(first))
        targets.append(segment.targets + np.int32(first))
        same = id(segment.tasks)  # one array, wherever a segment comes again
        if same not in signatures:
            signatures[same] = segment.signature(buffer_rows["n_bytes"])
        bounds[i] = (first, first_task[i + 1], signatures[same])
    ends = np.cumsum(np.bincount(np.concatenate(sources), minlength=n_tasks))
    tasks["successor_end"] = ends
    tasks["successor_begin"][1:] = ends[:-1]
    entries, entry_worker = _entries(segments, first_task, first_pool)
    lengths = np.searchsorted(entry_worker, np.arange(len(plan.workers) + 1))
    workers = np.zeros(len(plan.workers), WORKER_DTYPE)
    for i, place in enumerate(worker_places(plan.workers)):
        workers[i] = (lengths[i], lengths[i + 1], *place)
    pools = joined([segment.pools for segment in segments])
    for name in ("begin", "end"):
        pools[name] += np.repeat(np.array(first_drawn[:-1], np.int32), [len(segment.pools) for segment in segments])
    operators = graph.operators
    return Program(
        ops=joined([segment.ops for segment in segments]),
        tasks=tasks,
        successors=np.concatenate(targets),
        workers=workers,
        entries=entries,
        pools=pools,
        pool_tasks=np.concatenate(
            [segment.pool_tasks + np.int32(first) for segment, first in zip(segments, first_task, strict=False)]
        ),
        buffers=buffer_rows,
        segments=bounds,
        op_names=tuple(o.name for o in operators),
        op_sites=tuple(o.site for o in operators),
        op_kinds=tuple(o.kind for o in operators),
        buffer_names=buffers.names(),
        layers=plan.layers,
        plan_fingerprint=plan.fingerprint(),
        elsewhere_bytes=round(graph.elsewhere_bytes),
    )


def _entries(segments: Sequence[Segment], first_task: list[int], first_pool: list[int]) -> tuple[Array, Int32s]:
    """All queue entries, worker after worker and segment after segment, and whose they are."""
    entries = joined([segment.entries for segment in segments])
    worker = np.concatenate([segment.entry_worker for segment in segments])
    lengths = [len(segment.entries) for segment in segments]
    firsts = (np.repeat(np.array(first[:-1], np.int32), lengths) for first in (first_pool, first_task))
    entries["index"] += np.where(entries["kind"] == EntryKind.POOL, *firsts)
    order = np.argsort(worker, kind="stable")
    return entries[order], worker[order]
