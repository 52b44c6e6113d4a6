"""Prediction and measurement side by side, and where their difference comes from.

Both traces are of one program, so they join task by task. The worker-seconds of a run are a sum of four
parts:

    compute    tasks that the prediction calls compute bound, without their overhead
    transfer   tasks that the prediction calls bandwidth bound, without their overhead
    overhead   the overhead predicted inside a task, the dispatch gap before a task, tasks bound by overhead
    wait       what a worker idled while no task of its own was ready, given to the task it ended with

The same cut, with the *prediction's* bounds, is made on both sides; part by part, measured minus predicted is
the error budget. Divided by the number of workers, the four add up to measured makespan minus predicted
makespan. (Nobody can see the overhead inside a measured task; if a kernel start costs more than predicted,
that shows in the part that bounds it.)

Several runs are summed up by the median, an operator's over its own times and the total's over the makespans.
The budget needs parts that add up, so it is taken from the run whose makespan is the median (of an even
number of runs, the mean of the middle two).
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from smesim.errors import TraceError
from smesim.trace.operators import Grouping, Pieces, cut_pieces, elapsed_s, group_by_operator, group_by_site
from smesim.trace.schema import Trace
from smesim.trace.statistics import Statistics, interquartile_range, relative_error

if TYPE_CHECKING:
    import pandas as pd

PARTS = ("compute", "transfer", "overhead", "wait")
"""Order of the parts in every array and frame of this module."""

_PART_OF_BOUND = {"compute": 0, "bandwidth": 1, "overhead": 2}
_OVERHEAD, _WAIT = PARTS.index("overhead"), PARTS.index("wait")
_BOUND_OF_PART = ("compute", "bandwidth", "overhead", "wait")

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Timing:
    """One time, predicted and measured. `spread_s` is the interquartile range over the runs (NaN for one
    run)."""

    predicted_s: float
    measured_s: float
    spread_s: float
    error: float
    """predicted / measured - 1; NaN if nothing was measured."""


@dataclass(frozen=True)
class SiteRow:
    """One line of the table: all layers of one site."""

    name: str
    kind: str
    timing: Timing
    share: float
    """Of the measured total."""
    bound: str


@dataclass(frozen=True)
class ErrorBudget:
    """Measured minus predicted, in seconds of elapsed time; the parts add up to the difference of the
    totals."""

    compute_s: float
    transfer_s: float
    overhead_s: float
    wait_s: float

    @property
    def total_s(self) -> float:
        return self.compute_s + self.transfer_s + self.overhead_s + self.wait_s


@dataclass(frozen=True)
class Comparison:
    """One phase, predicted and measured. Made by `compare`.

    `tasks` has one row a task: task, op, op_name, site, layer, op_kind, kind, bound, predicted_s, measured_s
    (duration), error and the four parts `<part>_error_s` (worker-seconds). `operators` (one row an operator)
    and `sites` (all layers of one site together) have: their names, predicted_s, measured_s, spread_s
    (elapsed), error, bound (the part with the largest share of the predicted time: compute, bandwidth,
    overhead or wait), share (of the measured total) and the four parts (elapsed seconds).
    """

    predicted: Trace
    measured: Trace
    tasks: pd.DataFrame
    operators: pd.DataFrame
    sites: pd.DataFrame
    total: Timing
    budget: ErrorBudget

    @property
    def phase(self) -> str:
        return self.measured.meta.phase

    @cached_property
    def rows(self) -> tuple[SiteRow, ...]:
        """`sites` as typed rows, in the order of the program."""
        timings = self.sites[["predicted_s", "measured_s", "spread_s", "error"]].to_numpy(dtype=np.float64).tolist()
        names = (self.sites[column].tolist() for column in ("site", "op_kind", "share", "bound"))
        return tuple(
            SiteRow(name=name, kind=kind, timing=Timing(*timing), share=share, bound=bound)
            for timing, name, kind, share, bound in zip(timings, *names, strict=True)
        )

    @cached_property
    def statistics(self) -> Statistics:
        """Over the sites."""
        return Statistics.of([row.name for row in self.rows], self.sites["predicted_s"], self.sites["measured_s"])


@dataclass(frozen=True)
class WholePart:
    """A part of a whole run, all its programs one after another: a prompt in its pieces, or all decode steps."""

    name: str
    tokens: int
    timing: Timing


@dataclass(frozen=True)
class ComparisonReport:
    """Several phases on one machine, and of a whole run what they add up to. Raises TraceError if there is no phase,
    or more than one machine."""

    phases: tuple[Comparison, ...]
    whole: tuple[WholePart, ...] = ()

    def __post_init__(self) -> None:
        machines = {phase.measured.meta.machine for phase in self.phases}
        if len(machines) != 1:
            raise TraceError(f"a report is about one machine; given: {', '.join(sorted(machines)) or 'no phase'}")

    @property
    def machine(self) -> str:
        return self.phases[0].measured.meta.machine

    def to_json(self) -> str:
        """What `smesim compare --json` prints: machine, and per phase the total and one entry a site; of a whole run
        its parts as well.

        A number that is not known (the spread of a single run) is null.
        """
        phases = [
            {
                "phase": comparison.phase,
                "total": _timing_json(comparison.total),
                "operators": [
                    {"name": row.name, "kind": row.kind, **_timing_json(row.timing), "bound": row.bound}
                    for row in comparison.rows
                ],
            }
            for comparison in self.phases
        ]
        whole = [{"name": part.name, "tokens": part.tokens, **_timing_json(part.timing)} for part in self.whole]
        content = {"machine": self.machine, "phases": phases} | ({"whole": whole} if whole else {})
        return json.dumps(content, indent=2, allow_nan=False)


def _timing_json(timing: Timing) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in asdict(timing).items()}


def _refuse_strangers(predicted: Trace, measured: Trace) -> None:
    for trace in (predicted, measured):
        if trace.meta.source == "emulated":
            raise TraceError(
                f"cannot compare times: the trace of {trace.meta.machine} is emulated, and emulated time "
                "says nothing of hardware speed; give a measured trace"
            )
    if (predicted.meta.source, measured.meta.source) != ("simulated", "measured"):
        raise TraceError(
            f"cannot compare a {predicted.meta.source} with a {measured.meta.source} trace; "
            "give a simulated trace first and a measured one second"
        )
    if predicted.meta.program_fingerprint != measured.meta.program_fingerprint:
        raise TraceError(
            f"cannot compare traces of different programs: {predicted.meta.program_fingerprint!r} was "
            f"predicted, {measured.meta.program_fingerprint!r} measured; simulate and execute one plan"
        )
    if len(predicted.meta.workers) != len(measured.meta.workers):
        raise TraceError(
            f"cannot compare: {len(predicted.meta.workers)} workers were predicted, "
            f"{len(measured.meta.workers)} measured"
        )
    first, second = predicted.run(0), measured.run(0)
    for column in ("task", "op", "site"):
        if first[column].tolist() != second[column].tolist():
            raise TraceError(f"cannot compare: the traces name one program, but their tasks differ in {column!r}")


def _middle(trace: Trace, values: _Floats) -> _Floats:
    """Mean over the middle runs; the axis of the runs is the first."""
    return np.asarray(values[list(trace.middle_runs())].mean(axis=0))


def _parts(trace: Trace, pieces: Pieces, part_of_task: NDArray[np.intp]) -> _Floats:
    """Worker-seconds of each part, shape (runs, parts, tasks)."""
    inside_s = np.nan_to_num(trace.by_run("overhead_s"))
    parts = np.zeros((trace.meta.runs, len(PARTS), trace.tasks_per_run))
    parts[:, part_of_task, np.arange(trace.tasks_per_run)] = pieces.busy_s - inside_s
    parts[:, _OVERHEAD] += pieces.dispatch_s + inside_s
    parts[:, _WAIT] += pieces.wait_s
    return parts


def _group_parts(trace: Trace, parts: _Floats, grouping: Grouping) -> _Floats:
    """Elapsed seconds of each part in the middle runs, shape (parts, groups)."""
    totals = [grouping.total(parts[:, part]) for part in range(len(PARTS))]
    return np.stack([_middle(trace, total) for total in totals]) / len(trace.meta.workers)


@dataclass(frozen=True)
class _Cut:
    """One trace, cut into pieces and parts."""

    trace: Trace
    pieces: Pieces
    parts: _Floats

    @classmethod
    def of(cls, trace: Trace, part_of_task: NDArray[np.intp]) -> _Cut:
        pieces = cut_pieces(trace)
        return cls(trace, pieces, _parts(trace, pieces, part_of_task))

    def elapsed_s(self, grouping: Grouping) -> _Floats:
        return elapsed_s(self.trace, self.pieces, grouping)

    def group_parts(self, grouping: Grouping) -> _Floats:
        return _group_parts(self.trace, self.parts, grouping)


def _compare_groups(predicted: _Cut, measured: _Cut, grouping: Grouping) -> pd.DataFrame:
    frame = grouping.groups.copy()
    measured_runs_s = measured.elapsed_s(grouping)
    predicted_s = np.median(predicted.elapsed_s(grouping), axis=0)
    measured_s = np.median(measured_runs_s, axis=0)
    predicted_parts = predicted.group_parts(grouping)
    frame["predicted_s"] = predicted_s
    frame["measured_s"] = measured_s
    frame["spread_s"] = interquartile_range(measured_runs_s)
    frame["error"] = relative_error(predicted_s, measured_s)
    frame["bound"] = [_BOUND_OF_PART[part] for part in predicted_parts.argmax(axis=0)]
    frame["share"] = measured_s / measured_s.sum()
    for name, values in zip(PARTS, measured.group_parts(grouping) - predicted_parts, strict=True):
        frame[f"{name}_error_s"] = values
    return frame


def _compare_tasks(predicted: _Cut, measured: _Cut) -> pd.DataFrame:
    names = ["task", "op", "op_name", "site", "layer", "op_kind", "kind", "bound"]
    frame = predicted.trace.run(0)[names].reset_index(drop=True)
    predicted_s = _middle(predicted.trace, predicted.pieces.busy_s)
    measured_s = _middle(measured.trace, measured.pieces.busy_s)
    frame["predicted_s"] = predicted_s
    frame["measured_s"] = measured_s
    frame["error"] = relative_error(predicted_s, measured_s)
    difference = _middle(measured.trace, measured.parts) - _middle(predicted.trace, predicted.parts)
    for name, values in zip(PARTS, difference, strict=True):
        frame[f"{name}_error_s"] = values
    return frame


def compare(predicted: Trace, measured: Trace) -> Comparison:
    """Join a simulated and a measured trace of one program.

    Raises TraceError if they are of different programs or worker counts, or if one of them is emulated.
    """
    _refuse_strangers(predicted, measured)
    part_of_task = np.array([_PART_OF_BOUND[bound] for bound in predicted.run(0)["bound"]], dtype=np.intp)
    before, after = _Cut.of(predicted, part_of_task), _Cut.of(measured, part_of_task)
    sites = _compare_groups(before, after, group_by_site(predicted))
    makespans_s = measured.makespans_s()
    predicted_s, measured_s = float(np.median(predicted.makespans_s())), float(np.median(makespans_s))
    total = Timing(
        predicted_s=predicted_s,
        measured_s=measured_s,
        spread_s=float(interquartile_range(makespans_s)),
        error=float(relative_error(predicted_s, measured_s)),
    )
    return Comparison(
        predicted=predicted,
        measured=measured,
        tasks=_compare_tasks(before, after),
        operators=_compare_groups(before, after, group_by_operator(predicted)),
        sites=sites,
        total=total,
        budget=ErrorBudget(**{f"{part}_s": float(sites[f"{part}_error_s"].sum()) for part in PARTS}),
    )
