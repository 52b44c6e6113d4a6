"""A plan that corrects itself: after each run the division of a product moves to where the workers really are fast.

A planner divides the columns of a product by what it takes each worker to be worth, and if that is right all end
together. If a core is slower than it should be, or is slowed down meanwhile, the others wait for it. What each worker
did in how long is in the trace; from that follows how long the product takes divided as it is, and how long it would
take if all ended together. Where that is less by more than the measurements scatter, the product is divided anew.

    adapted = run_adaptively(NativeExecutor(device), plan, tensors, repeats=10)
    print(adapted.seconds, adapted.adaptation.changes)

What the workers draw from a queue needs none of this, it corrects itself within the run; of a product whose tail alone
is drawn, the part that is not is moved. Rates are those since the last change, so that it takes one run to see a core
that has become slow. Going back where one came from must promise twice as much each time, so that no division swings to
and fro with the noise.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from smesim.exec.executor import NativeExecutor
from smesim.exec.tensors import Tensors
from smesim.plan.lower import lower
from smesim.plan.schema import OperatorPlan, Plan
from smesim.plan.tiles import STATIC_PART
from smesim.trace.schema import Trace
from smesim.workload.operators import GroupedLinear, Linear

if TYPE_CHECKING:
    import pandas as pd

LEAST_GAIN = 0.03
"""A change must promise to save this part of a product's time, however quiet the machine is."""
FEWEST_TASKS = 3
"""From so many tasks of a worker on its rate is known well enough to divide by."""
NOISE_FACTOR = 3.0
REMEMBERED = 3
"""Runs whose tasks count, the last ones."""
DIVIDED = (Linear.kind, GroupedLinear.kind)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SplitChange:
    """A product that was divided anew after run `run`, counted from 0.

    `before` and `after` are the shares of the workers, which add up to 1. `predicted_s` is the planner's time of one
    instance (None if the plan does not say), `measured_s` what it took the worker that ended last, and `expected_s`
    what it takes if all end together.
    """

    run: int
    site: str
    workers: tuple[int, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    predicted_s: float | None
    measured_s: float
    expected_s: float


@dataclass
class _Site:
    """What is known of one product since it was last divided: run by run, by worker, the FLOP/s of its tasks."""

    runs: deque[dict[int, Floats]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    moved: Floats | None = None  # by how much the shares changed last
    reversals: int = 0

    def learn(self, rows: pd.DataFrame) -> None:
        """From the tasks of some runs. Task by task, so that one which was interrupted does not count for all.

        A run in which some worker was not as fast as before begins a new time; what was before it is forgotten.
        """
        rate = rows["flop"].to_numpy() / np.maximum(rows["end_s"].to_numpy() - rows["start_s"].to_numpy(), 1e-9)
        worker, run = rows["worker"].to_numpy(), rows["run"].to_numpy()
        for one in np.unique(run):
            seen = {w: rate[(worker == w) & (run == one)] for w in np.unique(worker).tolist()}
            if self.runs and any(_differ(self.rates(w), own) for w, own in seen.items()):
                self.runs.clear()
            self.runs.append(seen)

    def rates(self, worker: int) -> Floats:
        """FLOP/s of all tasks of a worker that are remembered."""
        return np.concatenate([run.get(worker, np.empty(0)) for run in self.runs])


class Adaptation:
    """Follows the runs of a plan and keeps `plan` as it should be divided next.

    `changes` are all that were made, in order; `spent_s` is the time that observing and dividing took.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.changes: list[SplitChange] = []
        self.spent_s = 0.0
        self._runs = 0
        self._sites = {entry.site: _Site() for entry in plan.operators if _is_divided(entry)}

    def observe(self, trace: Trace) -> tuple[SplitChange, ...]:
        """Learn from runs of the current plan; what was changed, if anything, so that the next run should be of the
        new `plan`."""
        begin = time.perf_counter()
        tasks = trace.tasks[trace.tasks["op_kind"].isin(DIVIDED) & (trace.tasks["kind"] != "PACK_LHS")]
        done = {str(site): rows for site, rows in tasks.groupby("site", observed=True)}
        made: list[SplitChange] = []
        entries: list[OperatorPlan] = []
        for entry in self.plan.operators:
            if entry.site in self._sites and entry.site in done:
                entries.append(self._redivided(entry, self._sites[entry.site], done[entry.site], trace.meta.runs, made))
            else:
                entries.append(entry)
        if made:
            self.plan = self.plan.model_copy(update={"operators": tuple(entries)})
            self.changes += made
        self._runs += trace.meta.runs
        self.spent_s += time.perf_counter() - begin
        return tuple(made)

    def _redivided(
        self, entry: OperatorPlan, known: _Site, rows: pd.DataFrame, runs: int, made: list[SplitChange]
    ) -> OperatorPlan:
        known.learn(rows)
        flop = float(rows["flop"].sum()) / runs / rows["op"].nunique()  # of one instance
        seen = [known.rates(worker) for worker in entry.workers]
        if min(map(len, seen)) < FEWEST_TASKS:
            return entry
        rates = np.array([np.median(of_worker) for of_worker in seen])
        before, after = _shares(entry), rates / rates.sum()
        together_s = flop / float(rates.sum())
        fixed = STATIC_PART if entry.assignment == "static_then_shared" else 1.0
        measured_s = max(together_s, float((before * fixed * flop / rates).max()))
        gain = 1 - together_s / measured_s
        turns_back = known.moved is not None and float(known.moved @ (after - before)) < 0
        needed = max(LEAST_GAIN, NOISE_FACTOR * max(map(_noise, seen))) * 2.0 ** (known.reversals + turns_back)
        if gain < needed:
            return entry
        made.append(
            SplitChange(
                run=self._runs,
                site=entry.site,
                workers=entry.workers,
                before=tuple(before.tolist()),
                after=tuple(after.tolist()),
                predicted_s=None if entry.reason is None else entry.reason.predicted_s,
                measured_s=measured_s,
                expected_s=together_s,
            )
        )
        known.reversals += turns_back
        known.moved = after - before
        known.runs.clear()
        return entry.model_copy(update={"shares": tuple(after.tolist())})


@dataclass(frozen=True)
class AdaptedRuns:
    """What came of running a plan again and again: the seconds of each run, and how it was divided anew."""

    seconds: tuple[float, ...]
    adaptation: Adaptation
    planning_s: float
    """Dividing into tasks after each change; on top of what observing took."""


def run_adaptively(
    executor: NativeExecutor, plan: Plan, tensors: Tensors, repeats: int,
    progress: Callable[[int], None] = lambda run: None,
) -> AdaptedRuns:  # fmt: skip
    """Run a plan `repeats` times after one run that is not counted; its `tensors` serve every division."""
    adaptation, seconds, planning_s = Adaptation(plan), [], 0.0
    program = lower(plan)
    for run in range(repeats):
        trace = executor.run(program, tensors, adaptation.plan, warmup=1 if run == 0 else 0)
        seconds.append(float(trace.makespans_s()[0]))
        if adaptation.observe(trace):
            begin = time.perf_counter()
            program = lower(adaptation.plan)
            planning_s += time.perf_counter() - begin
        progress(run + 1)
    return AdaptedRuns(tuple(seconds), adaptation, planning_s)


def _is_divided(entry: OperatorPlan) -> bool:
    """Whether somebody's part of a product is fixed before it begins."""
    return entry.kind in DIVIDED and len(entry.workers) > 1 and entry.assignment != "shared"


def _shares(entry: OperatorPlan) -> Floats:
    shares = np.array(entry.shares or [1.0] * len(entry.workers))
    return np.asarray(shares / shares.sum(), np.float64)


def _differ(before: Floats, now: Floats) -> bool:
    """Whether two sets of rates have medians further apart than their scatter explains."""
    if min(len(before), len(now)) < FEWEST_TASKS:
        return False
    middle = float(np.median(before))
    return abs(float(np.median(now)) / middle - 1) > NOISE_FACTOR * (_noise(before) + _noise(now)) + LEAST_GAIN


def _noise(rates: Floats) -> float:
    """How far the median of these rates may be off, relative: their scatter over the root of their number."""
    middle = np.median(rates)
    return float(1.4826 * np.median(np.abs(rates - middle)) / middle / np.sqrt(len(rates)))
