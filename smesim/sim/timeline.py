"""The whole program in time: segment after segment, equal segments simulated once.

A segment starts when everything before it has ended, so it can be simulated from a time 0 of its own and
shifted to its place. Two segments take the same course if they have the same signature and the workers come
to them in the same order (the order decides who draws first from a pool). Whether a course is simulated again
or repeated, and whether the program is simulated by segments or in one piece, the times are the same bit for
bit, because the clock counts in whole ticks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smesim.errors import ProgramError
from smesim.plan.program import Program
from smesim.sim.engine import Machine, PartResult, Work, run_part
from smesim.sim.part import Cutter, Part

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Timeline:
    """What happened in a program, seconds since its start.

    Shape (n_tasks,), NaN and worker -1 for joins: `ready_s` (last dependency ended), `start_s` (handed out),
    `end_s`, `compute_s`, `transfer_s` (these two overlap), `serial_s` (before them), `worker`. The links,
    in the machine's order, carry `granted_bytes_per_s[i]` (shape (changes, links)) from `granted_at_s[i]`
    until the next change. `simulated` counts the segments that were really simulated.
    """

    ready_s: Floats
    start_s: Floats
    end_s: Floats
    compute_s: Floats
    transfer_s: Floats
    serial_s: Floats
    worker: npt.NDArray[np.int16]
    granted_at_s: Floats
    granted_bytes_per_s: Floats
    simulated: int


@dataclass(frozen=True)
class _Course:
    """One part's result as arrays: `times` (3, n_tasks) shift with it, `amounts` (3, n_tasks) do not."""

    times: Floats
    amounts: Floats
    worker: npt.NDArray[np.int16]
    granted_at_s: Floats
    granted: Floats
    end_s: float
    arrivals: tuple[int, ...]


def simulate(
    program: Program,
    machine: Machine,
    work: Callable[[int, int], Work],
    *,
    by_segment: bool = True,
    repeat_equal: bool = True,
) -> Timeline:
    """Simulate a program; `work(task, worker)` says what each of its tasks costs on each worker.

    Segments of equal signature must have equal work. Raises ProgramError for a program that cannot run.
    """
    bounds = _segment_bounds(program) if by_segment else [(0, program.n_tasks)]
    signatures = program.segments["signature"].tolist() if by_segment else [0]
    cutter = Cutter(program)
    known: dict[tuple[int, tuple[int, ...]], _Course] = {}
    courses: list[tuple[float, _Course]] = []
    now, arrivals = 0.0, tuple(range(program.n_workers))
    simulated = 0
    for (begin, end), signature in zip(bounds, signatures, strict=True):
        course = known.get((signature, arrivals)) if repeat_equal else None
        if course is None:
            course = known[signature, arrivals] = _simulate_part(cutter.part(begin, end), machine, work, arrivals)
            simulated += 1
        courses.append((now, course))
        now, arrivals = now + course.end_s, course.arrivals
    times = np.concatenate([course.times + start for start, course in courses], axis=1)
    amounts = np.concatenate([course.amounts for _, course in courses], axis=1)
    at = np.concatenate([course.granted_at_s + start for start, course in courses])
    granted = np.concatenate([course.granted for _, course in courses])
    lasts = np.append(at[1:] > at[:-1], True) if len(at) else np.zeros(0, bool)
    ready_s, start_s, end_s = times
    compute_s, transfer_s, serial_s = amounts
    return Timeline(
        ready_s=ready_s,
        start_s=start_s,
        end_s=end_s,
        compute_s=compute_s,
        transfer_s=transfer_s,
        serial_s=serial_s,
        worker=np.concatenate([course.worker for _, course in courses]),
        granted_at_s=at[lasts],
        granted_bytes_per_s=granted[lasts],
        simulated=simulated,
    )


def _simulate_part(
    part: Part, machine: Machine, work: Callable[[int, int], Work], arrivals: tuple[int, ...]
) -> _Course:
    result: PartResult = run_part(part, machine, lambda task, worker: work(part.first_task + task, worker), arrivals)
    return _Course(
        times=np.array([result.ready_s, result.start_s, result.end_of_task_s]),
        amounts=np.array([result.compute_s, result.transfer_s, result.serial_s]),
        worker=np.array(result.worker, np.int16),
        granted_at_s=np.array([at for at, _ in result.grants], np.float64),
        granted=np.array([granted for _, granted in result.grants], np.float64).reshape(-1, len(machine.links)),
        end_s=result.end_s,
        arrivals=result.arrivals,
    )


def _segment_bounds(program: Program) -> list[tuple[int, int]]:
    bounds = [(int(begin), int(end)) for begin, end, _ in program.segments.tolist()]
    expected = 0
    for begin, end in bounds:
        if begin != expected or end <= begin:
            raise ProgramError(f"segment of tasks {begin}..{end}; accepted: one that starts at task {expected}")
        expected = end
    if expected != program.n_tasks:
        raise ProgramError(f"the segments end at task {expected}; accepted: {program.n_tasks}, the number of tasks")
    return bounds
