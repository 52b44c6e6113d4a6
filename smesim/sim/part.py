"""A part of a program as the simulator walks it: plain lists, counted from 0, cut loose from what was before.

A part is a range of tasks with everything before it ended: a segment, or the whole program. Waiting for tasks
before the part is over when it starts, so those dependencies are dropped; what waits for nothing else is
ready at 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smesim.errors import ProgramError
from smesim.plan.program import EntryKind, Program, TaskKind

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Tasks first_task .. first_task + n_tasks - 1 of a program; all numbers inside count from 0.

    `queues[w]` holds worker w's entries: a task t as t, a visit to pool p as -1 - p. `pools[p]` holds the
    tasks to draw, in order.
    """

    first_task: int
    is_join: list[bool]
    predecessor_count: list[int]
    successors: list[list[int]]
    queues: list[list[int]]
    pools: list[list[int]]

    @property
    def n_tasks(self) -> int:
        return len(self.is_join)


def cut(program: Program, bounds: list[tuple[int, int]]) -> list[Part]:
    """The parts of a program; `bounds` are the task ranges [begin, end), in order, without gaps.

    Raises ProgramError when a task waits for itself or a later one.
    """
    tasks = program.tasks
    sources = np.repeat(
        np.arange(program.n_tasks, dtype=np.int64), tasks["successor_end"] - tasks["successor_begin"]
    )
    targets = program.successors.astype(np.int64)
    backward = np.flatnonzero(targets <= sources)
    if len(backward):
        edge = int(backward[0])
        raise ProgramError(
            f"task {targets[edge]} waits for task {sources[edge]}; accepted: dependencies on lower numbers"
        )
    queue_of, entry_first, entry_code = _entries(program)
    is_join = (tasks["kind"] == TaskKind.JOIN).tolist()
    pool_slices = [program.pool_tasks[pool["begin"] : pool["end"]] for pool in program.pools]

    parts = []
    for begin, end in bounds:
        edges = slice(*np.searchsorted(sources, (begin, end)).tolist())
        inside = targets[edges] < end
        part_sources, part_targets = sources[edges][inside] - begin, targets[edges][inside] - begin
        order = np.argsort(part_sources, kind="stable")
        bounds_of = np.searchsorted(part_sources[order], np.arange(end - begin + 1)).tolist()
        flat = part_targets[order].tolist()
        mine = (entry_first >= begin) & (entry_first < end)
        used_pools: dict[int, int] = {}
        queues: list[list[int]] = [[] for _ in range(program.n_workers)]
        for worker, code in zip(queue_of[mine].tolist(), entry_code[mine].tolist(), strict=True):
            if code >= 0:
                queues[worker].append(code - begin)
            else:
                queues[worker].append(-1 - used_pools.setdefault(-1 - code, len(used_pools)))
        parts.append(
            Part(
                first_task=begin,
                is_join=is_join[begin:end],
                predecessor_count=np.bincount(part_targets, minlength=end - begin).tolist(),
                successors=[flat[bounds_of[task] : bounds_of[task + 1]] for task in range(end - begin)],
                queues=queues,
                pools=[(pool_slices[pool].astype(np.int64) - begin).tolist() for pool in used_pools],
            )
        )
    return parts


def _entries(program: Program) -> tuple[Int64s, Int64s, Int64s]:
    """All queue entries that lead to a task: worker, first task they lead to, code in a part."""
    ranges = [np.arange(worker["entry_begin"], worker["entry_end"]) for worker in program.workers]
    worker = np.repeat(np.arange(program.n_workers), [len(entries) for entries in ranges])
    entries = program.entries[np.concatenate(ranges)]
    index = entries["index"].astype(np.int64)
    is_pool = entries["kind"] == EntryKind.POOL
    pool = np.where(is_pool, index, 0)
    begins = np.append(program.pools["begin"], 0)[pool]
    leads = ~is_pool | (np.append(program.pools["end"], 0)[pool] > begins)
    first = np.where(is_pool, np.append(program.pool_tasks, 0)[begins], index)
    code = np.where(is_pool, -1 - index, index)
    return worker[leads], first[leads], code[leads]
