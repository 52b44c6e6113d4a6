"""Tuning: a plan is improved by trying out many, each proposed by what the ones before have shown.

The space is that of `space.py`. Every other trial is proposed by optuna's tree-structured Parzen estimator (Bergstra et
al., NeurIPS 2011), those between change a few parameters of the best until then. Whoever is handed in as `evaluate`
says how long a plan takes, the simulator or a clock. The first trial is the plan of `roofline`, so the result is never
slower than that.

Trials can be kept in a **journal**, a file to which each process that takes part appends what it has tried: a run that
was killed goes on where it was, and several processes, or machines with a common folder, search together. What a trial
tries follows from the seed, from its number, and from the trials that ended before it: a run by itself gives the same
plan each time, in one go or in several.

In the end each operator's entry is set back to what `roofline` made of it, the least useful first, as long as that
costs nothing: what remains is there for a reason, and its reason is the time that it saves.
"""

from __future__ import annotations

import importlib
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smesim.errors import PlanError, ProgramError
from smesim.files import check_writable
from smesim.plan.planners import Planning
from smesim.plan.schema import OperatorPlan, Plan
from smesim.plan.space import Given, Option, tunable, varied

Evaluate = Callable[[Plan], float]
"""Seconds that a plan takes; PlanError or ProgramError for one that cannot run."""
Progress = Callable[[str, float], None]

PLANNER = "tune"
DEFAULT_TRIALS = 200
FIRST_AT_RANDOM = 20
"""Trials before the estimator has seen enough to propose something."""
DRAWN_ANEW = 0.1
"""Share of its parameters in which a trial that follows the best one differs from that."""


@dataclass(frozen=True)
class Trial:
    """One plan that was tried: its seconds, None where it could not run, and those of the best until then."""

    number: int
    seconds: float | None
    best_s: float


@dataclass(frozen=True)
class Change:
    """What tuning changed at one site, and the seconds that the whole takes longer without it."""

    site: str
    before: OperatorPlan
    after: OperatorPlan
    saved_s: float


@dataclass(frozen=True)
class Tuned:
    """The plan that was found, the one it started from, what each of the changes is worth, the longest first, and the
    curve of the search."""

    plan: Plan
    start: Plan
    seconds: float
    start_s: float
    changes: tuple[Change, ...]
    curve: tuple[Trial, ...]


def tune(
    planning: Planning, start: Plan, evaluate: Evaluate, *, trials: int = DEFAULT_TRIALS, seed: int = 0,
    sites: Sequence[str] | None = None, journal: Path | None = None, name: str = PLANNER,
    progress: Progress = lambda what, share: None,
) -> Tuned:  # fmt: skip
    """Try plans until the study has so many trials, those of earlier and other processes counted.

    `sites` are those that may be changed, by default all that have something to choose. `name` is what the study is
    called in the journal: it must be another one for another question. PlanError without optuna.
    """
    tuner = _Tuner(planning, start, evaluate, sites)
    study = _study(journal, name, seed)
    while (done := len(_finished(study))) < trials:
        best = "" if not done else f", best so far {_best(study):.4g} s"
        progress(f"tuning: trial {done + 1}{best}", done / trials)
        if not done:
            study.enqueue_trial(tuner.usual())
        trial = study.ask()
        try:
            study.tell(trial, evaluate(tuner.plan(tuner.entries(_ByTrial(trial)))))
        except (PlanError, ProgramError):
            study.tell(trial, math.inf)
    progress("tuning: what each change is worth", 1.0)
    return tuner.result(study.best_trial.params, _curve(study))


class _Tuner:
    """Plans from parameters, and what the best of them owes to which."""

    def __init__(
        self, planning: Planning, start: Plan, evaluate: Evaluate, sites: Sequence[str] | None
    ) -> None:  # fmt: skip
        known = tunable(planning)
        for site in sites or ():
            if site not in known:
                raise PlanError(f"--sites names operator {site!r}; accepted: {', '.join(known)}")
        self._planning, self._start, self._evaluate = planning, start, evaluate
        self._sites = tuple(sites or known)
        self._before = {entry.site: entry for entry in start.operators}

    def entries(self, chooser: Any) -> dict[str, OperatorPlan]:
        """An entry for each site, varied by the chooser where it may be."""
        changed = {site: varied(chooser, self._planning, site, self._before[site]) for site in self._sites}
        return self._before | changed

    def usual(self) -> dict[str, Option]:
        """The parameters of the plan to start from."""
        chooser = Given()
        self.entries(chooser)
        return chooser.asked

    def plan(self, entries: Mapping[str, OperatorPlan]) -> Plan:
        return self._planning.plan(PLANNER, entries.values())

    def result(self, best: Mapping[str, Option], curve: tuple[Trial, ...]) -> Tuned:
        """The plan with the best parameters, less what it does not need."""
        entries = self.entries(Given(best))
        start_s, seconds = self._evaluate(self._start), self._evaluate(self.plan(entries))
        while True:
            without = {
                site: self._seconds(entries | {site: self._before[site]})
                for site in self._sites
                if _how(entries[site]) != _how(self._before[site])
            }
            useless = min(without, key=lambda site: without[site], default=None)
            if useless is None or without[useless] > seconds:
                break
            entries, seconds = entries | {useless: self._before[useless]}, without[useless]
        changes = [Change(site, self._before[site], entries[site], s - seconds) for site, s in without.items()]
        changes.sort(key=lambda change: -change.saved_s)
        return Tuned(self.plan(entries), self._start, seconds, start_s, tuple(changes), curve)

    def _seconds(self, entries: Mapping[str, OperatorPlan]) -> float:
        try:
            return self._evaluate(self.plan(entries))
        except (PlanError, ProgramError):
            return math.inf


def _how(entry: OperatorPlan) -> OperatorPlan:
    """The entry without its reasons, and without what follows from those around it."""
    return entry.model_copy(update={"reason": None, "out_layout": ""})


class _ByTrial:
    """A chooser that asks a trial of optuna's."""

    def __init__(self, trial: Any) -> None:
        self._trial = trial

    def one_of(self, name: str, options: Sequence[Option], usual: Option) -> Any:
        return self._trial.suggest_categorical(name, tuple(options)) if len(options) > 1 else options[0]

    def between(self, name: str, low: float, high: float, usual: float) -> float:
        return float(self._trial.suggest_float(name, low, high, log=True))


class _Proposals:
    """A sampler for optuna that begins anew for each trial, from the seed and the trial's number: what a trial tries
    does not depend on how many were tried in this process, and no two processes try the same. One trial is the
    estimator's, the next the best so far with a few of its parameters drawn anew."""

    def __init__(self, optuna: Any, seed: int) -> None:
        self._samplers, self._seed = optuna.samplers, seed

    def before_trial(self, study: Any, trial: Any) -> None:
        seed = (self._seed * 1_000_003 + trial.number) % 2**32
        self._dice = random.Random(seed)
        self._base: dict[str, Option] = {}
        if trial.number % 2 and _finished(study):
            self._base = study.best_trial.params
            self._sampler = self._samplers.RandomSampler(seed=seed)
        else:
            self._sampler = self._samplers.TPESampler(seed=seed, n_startup_trials=FIRST_AT_RANDOM)

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        return {}  # parameters are proposed one by one: which there are depends on those before

    def sample_relative(self, study: Any, trial: Any, space: Any) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
        if name in self._base and self._dice.random() >= DRAWN_ANEW:
            return self._base[name]
        return self._sampler.sample_independent(study, trial, name, distribution)

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        self._sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self._sampler.reseed_rng()


def _study(journal: Path | None, name: str, seed: int) -> Any:
    try:
        optuna = importlib.import_module("optuna")
        journals = importlib.import_module("optuna.storages.journal")
    except ModuleNotFoundError:
        raise PlanError("tuning needs optuna: pip install 'smesim[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = None
    if journal is not None:
        check_writable(journal)
        storage = optuna.storages.JournalStorage(journals.JournalFileBackend(str(journal)))
    sampler = _Proposals(optuna, seed)
    return optuna.create_study(study_name=name, storage=storage, sampler=sampler, load_if_exists=True)


def _finished(study: Any) -> list[Any]:
    """The trials that ended, in the order of their numbers."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]


def _best(study: Any) -> float:
    return float(study.best_value)


def _curve(study: Any) -> tuple[Trial, ...]:
    found, best_s = [], math.inf
    for trial in _finished(study):
        best_s = min(best_s, trial.value)
        found.append(Trial(trial.number, None if math.isinf(trial.value) else trial.value, best_s))
    return tuple(found)
