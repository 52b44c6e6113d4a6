"""Who answers a sweep's points: a worker has the sweep, its chips and models, and is handed chunks of numbers.

An executor hands out chunks and gives back their rows as they are done. `in_processes` is the one for a machine: each
process gets chips and models once and then only pairs of numbers, from a stretch of its own. Whoever is through with
that helps the others, so slow points hold nobody up, and no more chunks are handed out than keep all busy, so memory
does not grow with the sweep. A process that dies (out of memory, kill -9) loses its chunks, which are done again; if
that happens to a chunk again and again, the sweep ends and can be resumed.
"""

from __future__ import annotations

import gc
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import pairwise
from multiprocessing import get_context
from typing import Any

from smesim.errors import SweepError
from smesim.sweep.answer import Solver
from smesim.sweep.inputs import Inputs
from smesim.sweep.points import Point, Points
from smesim.sweep.schema import Sweep
from smesim.sweep.store import Chunk

Rows = list[dict[str, Any]]
Executor = Callable[[Sweep, Inputs, list[Chunk]], Iterator[tuple[Chunk, Rows]]]
"""Answers chunks of a sweep's points and gives back each with its rows, in the order in which they are done."""

CHUNKS_AHEAD = 2
"""Chunks under way for each process: one that it works at, one that waits."""
MOST_LOSSES = 3
"""Times that processes may die with a chunk."""


class Worker:
    """Answers chunks of a sweep, and keeps what the next one may need."""

    def __init__(self, sweep: Sweep, inputs: Inputs) -> None:
        self._points = Points(sweep)
        self._solver = Solver(inputs, sweep.columns)

    def rows(self, chunk: Chunk) -> Rows:
        """The rows of a chunk: the same wherever and whenever it is done."""
        return [self.row(point) for point in self._points.between(*chunk)]

    def row(self, point: Point) -> dict[str, Any]:
        """What is asked and what came out."""
        return {"point": point.number, **point.values, **self._solver.row(point)}


def in_processes(workers: int) -> Executor:
    """So many processes on this machine; for one worker this one."""

    def answered(sweep: Sweep, inputs: Inputs, chunks: list[Chunk]) -> Iterator[tuple[Chunk, Rows]]:
        count = min(workers, len(chunks))
        if count > 1:
            yield from _by_pool(sweep, inputs, chunks, count)
            return
        worker = Worker(sweep, inputs)
        for chunk in chunks:
            yield chunk, worker.rows(chunk)

    return answered


_of_process: list[Worker] = []
"""The worker of this process, if it is one of a pool's."""


def _start(sweep: Sweep, inputs: Inputs) -> None:
    _of_process[:] = [Worker(sweep, inputs)]
    gc.freeze()  # what was imported stays; there is no need to look through it again and again


def _rows(chunk: Chunk) -> Rows:
    return _of_process[0].rows(chunk)


def _by_pool(sweep: Sweep, inputs: Inputs, chunks: list[Chunk], workers: int) -> Iterator[tuple[Chunk, Rows]]:
    team = _Team(sweep, inputs, chunks, workers)
    try:
        while team.hand_out():
            yield from team.done()
    finally:
        team.stop()


class _Team:
    """Processes, each with a stretch of the chunks to itself: neighbours often ask for the same operators, and what one
    process has worked out no other knows. Whoever is through with its own takes from the end of the longest."""

    def __init__(self, sweep: Sweep, inputs: Inputs, chunks: list[Chunk], workers: int) -> None:
        self._task = (sweep, inputs)
        bounds = [len(chunks) * i // workers for i in range(workers + 1)]
        self._left = [deque(chunks[first:end]) for first, end in pairwise(bounds)]
        self._processes = [self._process() for _ in range(workers)]
        self._under_way: dict[Future[Rows], tuple[int, Chunk]] = {}
        self._losses: Counter[Chunk] = Counter()

    def _process(self) -> ProcessPoolExecutor:
        # Threads of pyarrow and numpy do not survive a fork, so processes start afresh.
        return ProcessPoolExecutor(1, get_context("spawn"), _start, self._task)

    def hand_out(self) -> bool:
        """Keeps every process busy; False when all is done."""
        for number in range(len(self._processes)):
            ahead = sum(who == number for who, _ in self._under_way.values())
            for _ in range(CHUNKS_AHEAD - ahead):
                chunk = self._next(number)
                if chunk is None:
                    break
                try:
                    self._under_way[self._processes[number].submit(_rows, chunk)] = (number, chunk)
                except BrokenProcessPool:
                    self._left[number].appendleft(chunk)
                    self._replace(number)
        return bool(self._under_way) or any(self._left)

    def _next(self, number: int) -> Chunk | None:
        if self._left[number]:
            return self._left[number].popleft()
        longest = max(self._left, key=len)
        return longest.pop() if longest else None

    def done(self) -> Iterator[tuple[Chunk, Rows]]:
        """The chunks that are done, at least one unless a process died."""
        for future in wait(self._under_way, return_when=FIRST_COMPLETED).done:
            if future not in self._under_way:
                continue  # it went with its process
            number, chunk = self._under_way[future]
            try:
                rows = future.result()
            except BrokenProcessPool:
                self._replace(number)
                continue
            del self._under_way[future]
            yield chunk, rows

    def _replace(self, number: int) -> None:
        """A new process for one that died; its chunks are done again, unless that has happened too often."""
        lost = {future: chunk for future, (who, chunk) in self._under_way.items() if who == number}
        for future, chunk in sorted(lost.items(), key=lambda item: item[1], reverse=True):
            del self._under_way[future]
            self._left[number].appendleft(chunk)
            self._losses[chunk] += 1
            if self._losses[chunk] == MOST_LOSSES:
                first, end = chunk
                raise SweepError(
                    f"processes died {MOST_LOSSES} times at the points {first}..{end - 1} (out of memory?);"
                    " accepted: --resume, with fewer --workers"
                )
        self._processes[number].shutdown(wait=False)
        self._processes[number] = self._process()

    def stop(self) -> None:
        for process in self._processes:
            process.shutdown(cancel_futures=True)
