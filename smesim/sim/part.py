"""A part of a program as an engine walks it: arrays, counted from 0, cut loose from what was before.

A part is a range of tasks with everything before it ended: a segment, or the whole program. Waiting for tasks
before the part is over when it starts, so those dependencies are dropped; what waits for nothing else is
ready at 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from smesim.errors import ProgramError
from smesim.plan.program import EntryKind, Program, TaskKind

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Part:
    """Tasks first_task .. first_task + n_tasks - 1 of a program; all numbers inside count from 0.

    `is_join` (uint8) and `predecessor_count` have a value a task. What belongs to several things lies one behind the
    other, and a `begin` array, longer by one, says where each one's begins: the `successors` of the tasks; the `queue`
    of the workers, a task t as t, a visit to pool p as -1 - p; the `pool_tasks` to draw from the pools, in order.
    """

    first_task: int
    is_join: npt.NDArray[np.uint8]
    predecessor_count: Int32s
    successor_begin: Int32s
    successors: Int32s
    queue_begin: Int32s
    queue: Int32s
    pool_begin: Int32s
    pool_tasks: Int32s

    @property
    def n_tasks(self) -> int:
        return len(self.is_join)

    @property
    def n_workers(self) -> int:
        return len(self.queue_begin) - 1

    def reached(self) -> npt.NDArray[np.bool_]:
        """Which tasks a worker's queue leads to, its own or those of the pools that it visits: (n_workers, n_tasks)."""
        found = np.zeros((self.n_workers, self.n_tasks), bool)
        pools = lists(self.pool_begin, self.pool_tasks)
        for tasks, queue in zip(found, lists(self.queue_begin, self.queue), strict=True):
            tasks[[code for code in queue if code >= 0]] = True
            for code in queue:
                if code < 0:
                    tasks[pools[-1 - code]] = True
        return found


def lists(begin: Int32s, flat: Int32s) -> list[list[int]]:
    """What a part keeps one behind the other, as a list for each."""
    bounds, numbers = begin.tolist(), flat.tolist()
    return [numbers[first:end] for first, end in pairwise(bounds)]


def refuse_stuck(part: Part, end_s: npt.NDArray[np.float64], waiting_for: npt.NDArray[np.int32]) -> None:
    """ProgramError if a task never ran, which has no end; `waiting_for` are the predecessors that did not end."""
    stuck = np.flatnonzero(np.isnan(end_s) & (part.is_join == 0))
    if len(stuck):
        task = int(stuck[0])
        left = int(waiting_for[task])
        why = f"{left} of its predecessors never end" if left else "no worker gets to it"
        raise ProgramError(
            f"task {part.first_task + task} never runs: {why};"
            " accepted: each task in one queue or pool, and queues in the order of the tasks"
        )


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
        first, mine = self._entry_first, slice(None)
        if (begin, end) != (0, program.n_tasks):
            mine = (first >= begin) & (first < end)  # type: ignore[assignment]
        worker, code = self._entry_worker[mine], self._entry_code[mine]
        queue = np.where(code >= 0, code - begin, code)
        used = list(dict.fromkeys((-1 - code[code < 0]).tolist()))
        for place, pool in enumerate(used):
            queue[code == -1 - pool] = -1 - place
        drawn = [program.pool_tasks[slice(*program.pools[pool].item())] for pool in used]
        return Part(
            first_task=begin,
            is_join=(program.tasks["kind"][begin:end] == TaskKind.JOIN).view(np.uint8),
            predecessor_count=np.bincount(targets, minlength=end - begin).astype(np.int32),
            successor_begin=_begins(np.bincount(sources, minlength=end - begin)),
            successors=targets.astype(np.int32),
            queue_begin=_begins(np.bincount(worker, minlength=program.n_workers)),
            queue=queue.astype(np.int32),
            pool_begin=_begins([len(tasks) for tasks in drawn]),
            pool_tasks=(np.concatenate(drawn) - begin if drawn else np.zeros(0)).astype(np.int32),
        )


def _begins(counts: npt.ArrayLike) -> Int32s:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)


def _entries(program: Program) -> tuple[Int64s, Int64s, Int64s]:
    """All queue entries that lead to a task: worker, first task they lead to, code in a part."""
    begins, counts = program.workers["entry_begin"], program.workers["entry_end"] - program.workers["entry_begin"]
    worker = np.repeat(np.arange(program.n_workers), counts)
    entries = program.entries[np.repeat(begins - np.cumsum(counts) + counts, counts) + np.arange(len(worker))]
    index = entries["index"].astype(np.int64)
    is_pool = entries["kind"] == EntryKind.POOL
    if not is_pool.any():
        return worker, index, index
    pool = np.where(is_pool, index, 0)
    begins = np.append(program.pools["begin"], 0)[pool]
    leads = ~is_pool | (np.append(program.pools["end"], 0)[pool] > begins)
    first = np.where(is_pool, np.append(program.pool_tasks, 0)[begins], index)
    code = np.where(is_pool, -1 - index, index)
    return worker[leads], first[leads], code[leads]
