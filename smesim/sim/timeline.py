"""The whole program in time: segment after segment, equal segments simulated once.

A segment starts when everything before it has ended, so it can be simulated from a time 0 of its own and
shifted to its place. Two segments take the same course if they have the same signature and the workers come
to them in the same order (the order decides who draws first from a pool). Whether a course is simulated again
or repeated, and whether the program is simulated by segments or in one piece, the times are the same bit for
bit, because the clock counts in whole ticks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from smesim.errors import ProgramError
from smesim.hwmodel.kept import kept_with
from smesim.plan.program import Program
from smesim.sim import compiled
from smesim.sim.engine import Machine, Work, run_part
from smesim.sim.part import Cutter, Part

Floats = npt.NDArray[np.float64]

EngineName = Literal["simpy", "compiled"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
"""Who simulates a part: SimPy processes, or the same in C. What comes out is the same, bit for bit."""


Tabulate = Callable[[Part], compiled.WorkTable]
"""What all tasks of a part cost, on each worker that can come to them."""


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
    """One part's result as arrays: `times` (3, n_tasks) shift with it, `amounts` (3, n_tasks) do not. The part ends at
    `end_s`, its last task, if it has one, at `last_s`."""

    times: Floats
    amounts: Floats
    worker: npt.NDArray[np.int16]
    granted_at_s: Floats
    granted: Floats
    end_s: float
    last_s: float | None
    arrivals: tuple[int, ...]


def simulate(
    program: Program,
    machine: Machine,
    work: Callable[[int, int], Work],
    *,
    table: Tabulate | None = None,
    by_segment: bool = True,
    repeat_equal: bool = True,
    engine: EngineName = "simpy",
) -> Timeline:
    """Simulate a program; `work(task, worker)` says what each of its tasks costs on each worker, and so does `table`,
    if it is given, all at once.

    Segments of equal signature must have equal work. Raises ProgramError for a program that cannot run.
    """
    run = _Run(program, machine, work, table, by_segment, repeat_equal, engine, grants=True)
    courses = list(run.courses())
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
        simulated=run.simulated,
    )


def makespan_s(
    program: Program,
    machine: Machine,
    work: Callable[[int, int], Work],
    *,
    table: Tabulate | None = None,
    engine: EngineName = "simpy",
) -> float:
    """When the last task of a program ends: the greatest `end_s` of its timeline, and nothing else of it."""
    last_s = 0.0
    for start, course in _Run(program, machine, work, table, True, True, engine, grants=False).courses():
        if course.last_s is not None:
            last_s = start + course.last_s
    return last_s


class _Run:
    """The segments of a program, one after the other."""

    def __init__(
        self, program: Program, machine: Machine, work: Callable[[int, int], Work], table: Tabulate | None,
        by_segment: bool, repeat_equal: bool, engine: EngineName, grants: bool,
    ) -> None:  # fmt: skip
        self._program = program
        self._machine = machine
        self._work = work
        self._table = table or self._asked
        self._bounds = _segment_bounds(program) if by_segment else [(0, program.n_tasks)]
        self._signatures = program.segments["signature"].tolist() if by_segment else [0]
        self._repeat_equal = repeat_equal
        self._engine = engine
        self._grants = grants
        self._prepared: dict[int, tuple[Part, compiled.Prepared | None]] = {}  # by signature
        self.simulated = 0

    def courses(self) -> Iterator[tuple[float, _Course]]:
        """For each segment when it starts, and the course that it takes."""
        known: dict[tuple[int, tuple[int, ...]], _Course] = {}
        now, arrivals = 0.0, tuple(range(self._program.n_workers))
        for bounds, signature in zip(self._bounds, self._signatures, strict=True):
            course = known.get((signature, arrivals)) if self._repeat_equal else None
            if course is None:
                if not self._repeat_equal or signature not in self._prepared:
                    self._prepared[signature] = self._prepare(self._part(*bounds))
                course = known[signature, arrivals] = self._simulated(*self._prepared[signature], arrivals)
            yield now, course
            now, arrivals = now + course.end_s, course.arrivals

    def _part(self, begin: int, end: int) -> Part:
        program = self._program
        cutter = kept_with(program, "cutter", lambda: Cutter(program))
        return kept_with(program, ("part", begin, end), lambda: cutter.part(begin, end))

    def _prepare(self, part: Part) -> tuple[Part, compiled.Prepared | None]:
        if self._engine == "simpy":
            return part, None
        return part, compiled.Prepared(part, self._machine, self._table(part))

    def _simulated(self, part: Part, prepared: compiled.Prepared | None, arrivals: tuple[int, ...]) -> _Course:
        self.simulated += 1
        if prepared is not None:
            result = prepared.run(arrivals, grants=self._grants)
        else:
            first = part.first_task
            result = run_part(part, self._machine, lambda task, worker: self._work(first + task, worker), arrivals)
        ends = result.end_of_task_s[part.is_join == 0]
        return _Course(
            times=np.array([result.ready_s, result.start_s, result.end_of_task_s]),
            amounts=np.array([result.compute_s, result.transfer_s, result.serial_s]),
            worker=result.worker.astype(np.int16),
            granted_at_s=result.granted_at_s,
            granted=result.granted,
            end_s=result.end_s,
            last_s=float(ends.max()) if len(ends) else None,
            arrivals=result.arrivals,
        )

    def _asked(self, part: Part) -> compiled.WorkTable:
        return compiled.tabulated(part, lambda task, worker: self._work(part.first_task + task, worker))


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
