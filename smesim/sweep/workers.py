"""Who answers a sweep's points: a worker has the sweep, its chips and models, and is handed chunks of numbers.

An executor hands out chunks and gives back their rows as they are done. `in_processes` is the one for a machine: each
process gets chips and models once and then only pairs of numbers. Whoever is done takes the next chunk, so slow points
hold nobody up, and no more chunks are handed out than keep all busy, so memory does not grow with the sweep. A process
that dies (out of memory, kill -9) loses its chunk, which is done again; if that happens again and again without a chunk
coming back in between, the sweep ends and can be resumed.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
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
"""Times that processes may die without a chunk coming back."""


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
    left = list(reversed(chunks))
    losses = 0
    while left and losses < MOST_LOSSES:
        under_way: dict[Future[Rows], Chunk] = {}
        # Threads of pyarrow and numpy do not survive a fork, so processes start afresh.
        with ProcessPoolExecutor(workers, get_context("spawn"), _start, (sweep, inputs)) as pool:
            try:
                while left or under_way:
                    while left and len(under_way) < CHUNKS_AHEAD * workers:
                        under_way[pool.submit(_rows, left[-1])] = left[-1]
                        left.pop()
                    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                        rows = future.result()
                        losses = 0
                        yield under_way.pop(future), rows
            except BrokenProcessPool:
                losses += 1
                left += sorted(under_way.values(), reverse=True)
            finally:
                pool.shutdown(cancel_futures=True)
    if left:
        first, end = left[-1]
        raise SweepError(
            f"processes died {MOST_LOSSES} times at the points {first}..{end - 1} (out of memory?);"
            " accepted: --resume, with fewer --workers"
        )
