"""What scenarios ask the simulator: a phase or an operator by a planner of ours, or by a published engine.

Every answer is a simulated time of a plan or of an engine's program, worked out once for each question. Chips may be
changed: `changes` are pairs of a way to a number of the chip file and its value, as keys of a sweep name it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from smesim.engines import gemm
from smesim.engines.advice import thread_counts
from smesim.engines.formats import weight_format
from smesim.engines.gemm import Product
from smesim.engines.llm import Run, layer_program, phase_seconds
from smesim.engines.profile import load as load_engine
from smesim.errors import ScenarioError, SmesimError
from smesim.hwmodel import library
from smesim.hwmodel.chip import Chip
from smesim.scenarios.schema import Published, record_of
from smesim.sim.effects import without as all_but
from smesim.sweep.answer import Answer, Solver
from smesim.sweep.inputs import Inputs, changed_chip
from smesim.sweep.points import Point
from smesim.validate.adapters import answer
from smesim.validate.library import Library
from smesim.workload import DTypes, ModelConfig, Phase, build_graph, catalog
from smesim.workload.operators import Linear

Changes = tuple[tuple[str, float], ...]
Progress = Callable[[str], None]
T = TypeVar("T")
MANY = 64


def _quiet(what: str) -> None:
    pass


@dataclass(frozen=True)
class Best:
    """The least time over thread counts, and the count that has it."""

    seconds: float
    threads: int


class Times:
    """Predicted times, each worked out once; `progress` hears what is worked out."""

    def __init__(self, progress: Progress = _quiet) -> None:
        self._progress = progress
        self._known: dict[Hashable, Any] = {}
        self._chips: dict[str, Chip] = {}
        self._models: dict[str, ModelConfig] = {}
        self._solver = Solver(Inputs(self._chips, self._models))
        self._library = Library()

    def chip(self, name: str, changes: Changes = ()) -> Chip:
        """A preset, with some of its numbers changed."""
        if name not in self._chips:
            self._chips[name] = library.load(name)
        if not changes:
            return self._chips[name]
        return self._once((name, changes), lambda: changed_chip(self._chips[name], changes))

    def planned(
        self, chip: str, model: str, phase: str, planner: str = "roofline", changes: Changes = (), **asked: Any
    ) -> Answer:
        """A phase (or with `site` one operator of it) by one of our planners; `asked` are further keys of a sweep."""
        self.chip(chip)
        self._models.setdefault(model, catalog.load(model))
        values: dict[str, Any] = {"chip": chip, "model": model, "phase": phase, "planner": planner, **asked}
        values |= {f"chip.{path}": value for path, value in changes}
        key = tuple(sorted((name, str(value)) for name, value in values.items()))
        what = f"{model} {asked.get('site', phase)} on {chip}, {planner}"
        return self._once(key, lambda: self._solver.answer(Point(0, "", values)), what)

    def best_planned(
        self, chip: str, model: str, phase: str, planners: Sequence[str], changes: Changes = (), **asked: Any
    ) -> Answer:
        """The fastest of the plans of several planners: an engine of ours may choose for each phase."""
        answers = [self.planned(chip, model, phase, planner, changes, **asked) for planner in planners]
        return min(answers, key=lambda answer: answer.time_s)

    def engine(
        self, chip: str, model: str, phase: str, engine: str, weights: str = "f32", threads: int | None = None,
        changes: Changes = (), without: Sequence[str] = (), kernel: str | None = None,
    ) -> Best:  # fmt: skip
        """A phase by an engine with so many threads, or with as many as are best."""
        run = self._run(chip, model, phase, engine, weights, changes, without, kernel)
        return self._best(run, threads, phase_seconds, "phase")

    def engine_attention(
        self, chip: str, model: str, phase: str, engine: str, weights: str = "f32", threads: int | None = None,
        changes: Changes = (),
    ) -> Best:  # fmt: skip
        """Attention of one layer by an engine, from its first node to its last."""
        run = self._run(chip, model, phase, engine, weights, changes, (), None)
        return self._best(run, threads, _attention_seconds, "attention")

    def product_on_units(
        self, chip: str, engine: str, product: Product, kernel: str = "f32", units: int | None = None,
        panel: int | None = None, changes: Changes = (), without: Sequence[str] = (),
    ) -> float:  # fmt: skip
        """Seconds of one product by an engine on so many matrix units, or on as many as are best."""
        described, profile, effects = self.chip(chip, changes), load_engine(engine), all_but(without)
        if not described.unit_instances:
            raise ScenarioError(f"{engine} on {chip}: no matrix unit there; accepted: chips with one")

        def seconds(count: int) -> float:
            on = [unit.index for unit in described.unit_instances][:count]
            barrier = described.sync.barrier_s.value if count > 1 else 0.0
            return gemm.on_units(profile, kernel, described, on, product, effects, panel).seconds(barrier)

        key = (chip, engine, product, kernel, units, panel, changes, tuple(without))
        counts = [units] if units else _fewer(len(described.unit_instances)) or _doubled(len(described.unit_instances))
        return self._once(key, lambda: min(map(seconds, counts)), f"{engine} on {chip}")

    def product_on_cores(
        self, chip: str, engine: str, product: Product, kernel: str = "f32", threads: int | None = None,
        changes: Changes = (), without: Sequence[str] = (),
    ) -> float:  # fmt: skip
        """Seconds of one product by an engine on so many cores, or on as many as are best."""
        described, profile, effects = self.chip(chip, changes), load_engine(engine), all_but(without)

        def seconds(count: int) -> float:
            barrier = described.sync.barrier_s.value if count > 1 else 0.0
            return gemm.on_cores(profile, kernel, described, range(count), product, effects).seconds(barrier)

        key = (chip, engine, product, kernel, threads, changes, tuple(without), "cores")
        counts = [threads] if threads else _counts(described)
        return self._once(key, lambda: min(map(seconds, counts)), f"{engine} on {chip}")

    def product(self, model: str, phase: str, site: str, *, transposed: bool = True) -> Product | None:
        """The shape of a product of a model, None where it has no such site; weights lie transposed in models."""
        graph = build_graph(catalog.load(model), Phase.parse(phase), DTypes(), layers=1)
        operator = graph.sites[site][0] if site in graph.sites else None
        return Product(operator.m, operator.n, operator.k, transposed) if isinstance(operator, Linear) else None

    def record(self, name: str) -> float:
        """What a published record is predicted as, in its unit, by the adapter of its block."""
        found = record_of(name)
        if found is None:
            raise ScenarioError(f"record {name!r} asked for; accepted: ids of the records of 'smesim validate'")
        return self._once(("record", name), lambda: answer(found.question(), self._library), f"record {name}")

    def ratio(self, claim: Published) -> float:
        """Predicted ratio of a claim's two records."""
        first, second = claim.records
        return self.record(first) / self.record(second)

    def pairs(self, claim: Published) -> list[tuple[float, float]]:
        """Predicted and published value of each record of a claim."""
        found = [(name, record_of(name)) for name in claim.records]
        return [(self.record(name), r.value) for name, r in found if r is not None and r.value is not None]

    def _run(
        self, chip: str, model: str, phase: str, engine: str, weights: str, changes: Changes, without: Sequence[str],
        kernel: str | None,
    ) -> Run:  # fmt: skip
        return Run(
            load_engine(engine), self.chip(chip, changes), catalog.load(model), Phase.parse(phase),
            weight_format(weights), 1, all_but(without), kernel,
        )  # fmt: skip

    def _best(self, run: Run, threads: int | None, seconds: Callable[[Run], float], what: str) -> Best:
        counts = [threads] if threads else _counts(run.chip)
        found = [self._with_threads(replace(run, threads=count), seconds, what) for count in counts]
        return min(found, key=lambda best: (best.seconds, best.threads))

    def _with_threads(self, run: Run, seconds: Callable[[Run], float], what: str) -> Best:
        key = (
            what, run.profile.name, run.chip.content_hash, run.model.name, str(run.phase), run.weights.name,
            run.threads, run.effects, run.kernel,
        )  # fmt: skip
        said = f"{run.model.name} {run.phase} on {run.chip.name}, {run.profile.name}, {run.threads} threads"
        return Best(self._once(key, lambda: seconds(run), said), run.threads)

    def _once(self, key: Hashable, work_out: Callable[[], T], what: str = "") -> T:
        if key not in self._known:
            if what:
                self._progress(what)
            self._known[key] = work_out()
        known: T = self._known[key]
        return known


def _attention_seconds(run: Run) -> float:
    lowered = layer_program(run)
    timeline = lowered.timeline(0.0)
    sites = [i for i, site in enumerate(lowered.program.op_sites) if site.startswith("attention.")]
    if not sites:
        raise SmesimError(f"engine {run.profile.name} has no attention; accepted: engines that run models")
    mine = np.isin(lowered.program.tasks["op"], sites)
    return float(np.nanmax(timeline.end_s[mine]) - np.nanmin(timeline.start_s[mine]))


def _doubled(count: int) -> list[int]:
    """1, 2, 4, ... and the count itself."""
    return sorted({count, *(2**i for i in range(int(math.log2(count)) + 1))})


def _counts(chip: Chip) -> list[int]:
    """Thread counts worth trying; of very many cores half of them, and all."""
    return _fewer(chip.core_count) or sorted({*thread_counts(chip), *_doubled(chip.core_count)})


def _fewer(count: int) -> list[int]:
    """Of very many, half of them and all; nothing of fewer."""
    return [count // 2, count] if count > MANY else []
