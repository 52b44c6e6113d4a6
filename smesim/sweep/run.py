"""Running a sweep: what is missing is cut into chunks, an executor answers them, their rows go to disk as they come.

Only the process that started it writes, so nothing can be there twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from smesim.sweep.answer import COLUMNS, Solver
from smesim.sweep.inputs import Inputs
from smesim.sweep.points import Points
from smesim.sweep.schema import Sweep
from smesim.sweep.store import FAILURES_SHOWN, Failure, Packer, Store, left_to_do, pyarrow
from smesim.sweep.workers import Executor, Worker, in_processes

Progress = Callable[[str, float], None]

CHUNKS, MOST_IN_CHUNK, LEAST_IN_CHUNK = 200, 1000, 8
"""A sweep is cut into about so many chunks: what a kill can lose is less than a hundredth of it for each process."""
SAMPLED = 16
"""Points that an estimate answers."""


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
    sweep: Sweep, inputs: Inputs, out: Path, *, workers: int = 1, executor: Executor | None = None,
    resume: bool = False, progress: Progress = lambda what, share: None,
) -> Summary:  # fmt: skip
    """Answer all points of a sweep that the folder does not have yet, in so many processes or by another executor.

    SweepError if the folder has results and none are to be resumed, or those of another sweep.
    """
    points = Points(sweep)
    Solver(inputs, sweep.columns)
    pyarrow("pyarrow.parquet")
    store = Store(out, sweep)
    done = store.open(inputs.fingerprint(sweep), resume)
    chunks = left_to_do(points, done, _chunk_size(points.count))
    done_before = sum(end - first for first, end in done)
    begin = time.monotonic()
    answered = failed = 0
    passed = done_before
    failures: list[Failure] = []
    for chunk, packet in (executor or in_processes(workers))(sweep, inputs, chunks):
        store.write(points.question_of(chunk[0]), chunk, packet.content)
        answered += packet.answered
        failed += packet.failed
        failures += packet.failures[: FAILURES_SHOWN - len(failures)]
        passed += chunk[1] - chunk[0]
        progress(f"{passed:,} of {points.count:,} points, {failed:,} failed", passed / points.count)
    return Summary(answered, done_before, failed, time.monotonic() - begin, tuple(failures))


def estimate(sweep: Sweep, inputs: Inputs, workers: int = 1) -> Estimate:
    """What `run` would take, from a few points spread over the sweep; writes nothing."""
    points, worker, packer = Points(sweep), Worker(sweep, inputs), Packer(sweep, sweep.columns or tuple(COLUMNS))
    count = points.count_asked()
    spread = dict.fromkeys(round(i * (points.count - 1) / max(1, SAMPLED - 1)) for i in range(SAMPLED))
    sample = [point for point in map(points.at, spread) if point is not None]
    if not sample:
        sample = [point for point, _ in zip(points.between(0, points.count), range(SAMPLED), strict=False)]
    if not sample:
        return Estimate(0, points.count, 0.0, 0.0, 0.0)
    worker.row(sample[0])  # what is loaded and looked up once
    begin = time.perf_counter()
    rows = [worker.row(point) for point in sample]
    per_point_s = (time.perf_counter() - begin) / len(sample)
    empty, full = len(packer.content([])), len(packer.content(rows))
    parts = len(left_to_do(points, (), _chunk_size(points.count)))
    disk_bytes = parts * empty + count * (full - empty) / len(rows)
    return Estimate(count, points.count - count, per_point_s, per_point_s * count / workers, disk_bytes)


def _chunk_size(count: int) -> int:
    return min(MOST_IN_CHUNK, max(LEAST_IN_CHUNK, count // CHUNKS))
