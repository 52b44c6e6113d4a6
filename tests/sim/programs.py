"""Small programs written by hand: who runs what, after what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smesim.plan.program import (
    ANY_WORKER,
    BUFFER_DTYPE,
    ENTRY_DTYPE,
    OP_DTYPE,
    POOL_DTYPE,
    SEGMENT_DTYPE,
    TASK_DTYPE,
    WORKER_DTYPE,
    EntryKind,
    Program,
    TaskKind,
)


@dataclass(frozen=True)
class T:
    """A task: on a worker, drawn from a pool ("a"), or a join (neither); `after` are others' numbers."""

    worker: int | None = None
    pool: str | None = None
    after: tuple[int, ...] = ()

    @property
    def is_join(self) -> bool:
        return self.worker is None and self.pool is None


def write_program(
    tasks: Sequence[T],
    n_workers: int,
    visitors: dict[str, Sequence[int]] | None = None,
    segments: Sequence[tuple[int, int, int]] = (),
) -> Program:
    """Tasks in topological order; `visitors` are the workers that draw from a pool (default: all of them).

    segments: (first task, end, signature); by default the whole program is one. Queues follow the tasks'
    order.
    """
    queues: list[list[tuple[int, int]]] = [[] for _ in range(n_workers)]
    members: dict[str, list[int]] = {}
    for index, task in enumerate(tasks):
        if task.worker is not None:
            queues[task.worker].append((EntryKind.TASK, index))
        elif task.pool is not None:
            if task.pool not in members:
                for worker in (visitors or {}).get(task.pool, range(n_workers)):
                    queues[worker].append((EntryKind.POOL, len(members)))
            members.setdefault(task.pool, []).append(index)

    rows = np.zeros(len(tasks), TASK_DTYPE)
    rows["kind"] = [TaskKind.JOIN if task.is_join else TaskKind.ADD for task in tasks]
    rows["worker"] = [ANY_WORKER if task.worker is None else task.worker for task in tasks]
    rows["predecessor_count"] = [len(task.after) for task in tasks]
    successors = [[i for i, other in enumerate(tasks) if index in other.after] for index in range(len(tasks))]
    ends = np.cumsum([len(after) for after in successors])
    rows["successor_end"] = ends
    rows["successor_begin"][1:] = ends[:-1]

    workers = np.zeros(n_workers, WORKER_DTYPE)
    bounds = np.cumsum([0, *(len(queue) for queue in queues)])
    workers["entry_begin"], workers["entry_end"] = bounds[:-1], bounds[1:]
    workers["core"], workers["unit"] = np.arange(n_workers), -1
    pool_ends = np.cumsum([len(pool) for pool in members.values()])
    pools = np.zeros(len(members), POOL_DTYPE)
    pools["end"] = pool_ends
    pools["begin"][1:] = pool_ends[:-1]
    return Program(
        ops=np.zeros(1, OP_DTYPE),
        tasks=rows,
        successors=np.array([s for after in successors for s in after], np.int32),
        workers=workers,
        entries=np.array([entry for queue in queues for entry in queue], ENTRY_DTYPE),
        pools=pools,
        pool_tasks=np.array([task for pool in members.values() for task in pool], np.int32),
        buffers=np.zeros(0, BUFFER_DTYPE),
        segments=np.array(list(segments) or [(0, len(tasks), 1)], SEGMENT_DTYPE),
        op_names=("add",),
        op_sites=("add",),
        op_kinds=("Add",),
        buffer_names=(),
        layers=1,
        plan_fingerprint="",
    )
