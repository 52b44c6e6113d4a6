"""Running a sweep: chunks of points to processes, their rows to disk as they come.

Each process gets chips and models once and then only pairs of numbers. Whoever is done takes the next chunk, so slow
points hold nobody up, and no more chunks are handed out than keep all busy, so memory does not grow with the sweep.
Only the process that started it writes. A process that dies (out of memory, kill -9) loses its chunk, which is done
again; if that happens again and again without a chunk coming back in between, the sweep ends and can be resumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from smesim.errors import SweepError
from smesim.sweep.answer import COLUMNS, Solver
from smesim.sweep.inputs import Inputs
from smesim.sweep.points import Points
from smesim.sweep.schema import Sweep
from smesim.sweep.store import Chunk, Store, left_to_do

Progress = Callable[[str, float], None]
Rows = list[dict[str, Any]]

CHUNKS, MOST_IN_CHUNK, LEAST_IN_CHUNK = 200, 1000, 8
"""A sweep is cut into about so many chunks: what a kill can lose is less than a hundredth of it for each process."""
CHUNKS_AHEAD = 2
"""Chunks under way for each process: one that it works at, one that waits."""
MOST_LOSSES = 3
"""Times that processes may die without a chunk coming back."""
SAMPLED = 16
"""Points that an estimate answers."""
FAILURES_SHOWN = 5


@dataclass(frozen=True)
class Failure:
    """A point that raised, with its inputs."""

    point: int
    values: dict[str, Any]
    error: str


@dataclass(frozen=True)
class Summary:
    """What a run did: points answered now, numbers that were done before, points that raised, the first of those."""

    answered: int
    done_before: int
    failed: int
    seconds: float
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class Estimate:
    """What a sweep will take: its points, wall seconds with so many workers, and bytes on disk."""

    points: int
    excluded: int
    seconds_per_point: float
    seconds: float
    disk_bytes: float


def run(
    sweep: Sweep, inputs: Inputs, out: Path, *, workers: int = 1, resume: bool = False,
    progress: Progress = lambda what, share: None,
) -> Summary:  # fmt: skip
    """Answer all points of a sweep that the folder does not have yet; SweepError if it is not this sweep's folder."""
    points = Points(sweep)
    columns = sweep.columns or tuple(COLUMNS)
    Solver(inputs, columns)
    store = Store(out, sweep, columns)
    done = store.open(inputs.fingerprint(sweep), resume)
    chunks = left_to_do(points, done, _chunk_size(points.count))
    done_before = sum(end - first for first, end in done)
    begin = time.monotonic()
    answered = failed = 0
    passed = done_before
    failures: list[Failure] = []
    for chunk, rows in _answered(sweep, inputs, chunks, min(workers, max(1, len(chunks)))):
        store.write(points.question_of(chunk[0]), chunk, rows)
        answered += len(rows)
        for row in rows:
            if row["error"] is not None:
                failed += 1
                if len(failures) < FAILURES_SHOWN:
                    values = {key: row[key] for key in sweep.keys if key in row}
                    failures.append(Failure(row["point"], values, row["error"]))
        passed += chunk[1] - chunk[0]
        progress(f"{passed:,} of {points.count:,} points, {failed:,} failed", passed / points.count)
    return Summary(answered, done_before, failed, time.monotonic() - begin, tuple(failures))


def estimate(sweep: Sweep, inputs: Inputs, workers: int = 1) -> Estimate:
    """What `run` would take, from a few points spread over the sweep; writes nothing."""
    points = Points(sweep)
    columns = sweep.columns or tuple(COLUMNS)
    solver, store = Solver(inputs, columns), Store(Path(), sweep, columns)
    count = sum(1 for _ in points.between(0, points.count))
    spread = dict.fromkeys(round(i * (points.count - 1) / max(1, SAMPLED - 1)) for i in range(SAMPLED))
    sample = [point for point in map(points.at, spread) if point is not None]
    if not sample:
        sample = [point for point, _ in zip(points.between(0, points.count), range(SAMPLED), strict=False)]
    if not sample:
        return Estimate(0, points.count, 0.0, 0.0, 0.0)
    solver.row(sample[0])  # what is loaded and looked up once
    begin = time.perf_counter()
    rows = [_row(solver.row(point), point.number, point.values) for point in sample]
    per_point_s = (time.perf_counter() - begin) / len(sample)
    empty, full = len(store.to_bytes([])), len(store.to_bytes(rows))
    parts = len(left_to_do(points, (), _chunk_size(points.count)))
    disk_bytes = parts * empty + count * (full - empty) / len(rows)
    return Estimate(count, points.count - count, per_point_s, per_point_s * count / workers, disk_bytes)


def _chunk_size(count: int) -> int:
    return min(MOST_IN_CHUNK, max(LEAST_IN_CHUNK, count // CHUNKS))


def _row(results: dict[str, Any], number: int, values: dict[str, Any]) -> dict[str, Any]:
    return {"point": number, **values, **results}


class Worker:
    """What a process has of a sweep: its points, and a solver that keeps what the next chunk may need."""

    def __init__(self, sweep: Sweep, inputs: Inputs) -> None:
        self._points = Points(sweep)
        self._solver = Solver(inputs, sweep.columns)

    def rows(self, chunk: Chunk) -> Rows:
        """The rows of a chunk: the same wherever and whenever it is done."""
        return [_row(self._solver.row(point), point.number, point.values) for point in self._points.between(*chunk)]


_worker: list[Worker] = []
"""The worker of this process, if it is one of a pool's."""


def _start(sweep: Sweep, inputs: Inputs) -> None:
    _worker[:] = [Worker(sweep, inputs)]


def _rows(chunk: Chunk) -> Rows:
    return _worker[0].rows(chunk)


def _answered(sweep: Sweep, inputs: Inputs, chunks: list[Chunk], workers: int) -> Iterator[tuple[Chunk, Rows]]:
    """The rows of all chunks, in the order in which they are done."""
    if workers == 1:
        worker = Worker(sweep, inputs)
        for chunk in chunks:
            yield chunk, worker.rows(chunk)
        return
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
