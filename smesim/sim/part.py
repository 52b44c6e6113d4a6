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


class Cutter:
    """Cuts parts out of a program. Raises ProgramError when a task waits for itself or a later one."""

    def __init__(self, program: Program) -> None:
        self._program = program
        tasks = program.tasks
        self._sources = np.repeat(
            np.arange(program.n_tasks, dtype=np.int64), tasks["successor_end"] - tasks["successor_begin"]
        )
        self._targets = program.successors.astype(np.int64)
        backward = np.flatnonzero(self._targets <= self._sources)
        if len(backward):
            edge = int(backward[0])
            raise ProgramError(
                f"task {self._targets[edge]} waits for task {self._sources[edge]};"
                " accepted: dependencies on lower numbers"
            )
        self._entry_worker, self._entry_first, self._entry_code = _entries(program)

    def part(self, begin: int, end: int) -> Part:
        """The tasks begin .. end - 1 as a part of their own."""
        program = self._program
        edges = slice(*np.searchsorted(self._sources, (begin, end)).tolist())
        inside = self._targets[edges] < end
        sources, targets = self._sources[edges][inside] - begin, self._targets[edges][inside] - begin
        bounds = np.searchsorted(sources, np.arange(end - begin + 1)).tolist()
        flat = targets.tolist()
        mine = (self._entry_first >= begin) & (self._entry_first < end)
        queues: list[list[int]] = [[] for _ in range(program.n_workers)]
        pools: dict[int, int] = {}
        for worker, code in zip(self._entry_worker[mine].tolist(), self._entry_code[mine].tolist(), strict=True):
            queues[worker].append(code - begin if code >= 0 else -1 - pools.setdefault(-1 - code, len(pools)))
        drawn = (program.pool_tasks[slice(*program.pools[pool].item())] for pool in pools)
        return Part(
            first_task=begin,
            is_join=(program.tasks["kind"][begin:end] == TaskKind.JOIN).tolist(),
            predecessor_count=np.bincount(targets, minlength=end - begin).tolist(),
            successors=[flat[bounds[task] : bounds[task + 1]] for task in range(end - begin)],
            queues=queues,
            pools=[(tasks.astype(np.int64) - begin).tolist() for tasks in drawn],
        )


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
