"""Tuning one phase of a model on a chip, in the simulator or on this machine; see `smesim.plan.tune`.

    tuned = tune_phase(catalog.load("llama-3.2-3b"), Phase.parse("prefill:512"), chip, journal=Path("t.log"))
    tuned.plan.save(Path("plan.json"))

In the simulator a trial is the phase with two of its layers, since all layers are alike. On the machine it is what is
asked for, with all its layers, and its time the median of some runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smesim import __version__
from smesim.errors import PlanError
from smesim.exec.tensors import Tensors
from smesim.hwmodel.chip import Chip
from smesim.hwmodel.library import fingerprint
from smesim.plan.planners import Planning, roofline
from smesim.plan.schema import Plan
from smesim.plan.search import LAYERS_SEARCHED
from smesim.plan.teams import both_workers
from smesim.plan.tune import DEFAULT_TRIALS, Evaluate, Progress, Tuned, tune
from smesim.workflow import is_this_machine, measure, simulated_s
from smesim.workload import DType, DTypes, ModelConfig, Phase, build_graph


def tune_phase(
    model: ModelConfig, phase: Phase, chip: Chip, *, threads: int | None = None, layers: int | None = None,
    weights: DType = DType.F32, sites: Sequence[str] | None = None, trials: int = DEFAULT_TRIALS, seed: int = 0,
    journal: Path | None = None, measured: bool = False, repeats: int = 5,
    progress: Progress = lambda what, share: None,
) -> Tuned:  # fmt: skip
    """The best plan of so many trials; `measured` runs each on this machine, which the chip must be a probe of.

    Errors as of `workflow.make_plan`, `workflow.measure` and `plan.tune.tune`.
    """
    graph = build_graph(model, phase, DTypes(weights=weights), layers=layers)
    workers = both_workers(chip, threads)
    start, planning = roofline(graph, chip, threads), Planning(graph, chip, workers, None, True, {})
    evaluate = _measured(start, chip, repeats, seed) if measured else _simulated(start, chip)
    asked: list[Any] = [
        __version__, model.model_dump(mode="json"), str(phase), fingerprint(chip), len(workers), start.layers,
        str(weights), list(sites or ()), measured,
    ]  # fmt: skip
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]
    name = f"{model.name} {phase} {chip.name} {digest}"
    return tune(
        planning, start, evaluate, trials=trials, seed=seed, sites=sites, journal=journal, name=name, progress=progress
    )


def _simulated(start: Plan, chip: Chip) -> Evaluate:
    layers = min(LAYERS_SEARCHED, start.layers)
    graph = start.model_copy(update={"layers": layers}).graph()

    def evaluate(plan: Plan) -> float:
        return simulated_s(plan.model_copy(update={"layers": layers}), chip, graph)

    return evaluate


def _measured(start: Plan, chip: Chip, repeats: int, seed: int) -> Evaluate:
    if not is_this_machine(chip):
        raise PlanError(f"--measured with chip {chip.name}; accepted: a probe of this machine, --chip host")
    kept: list[Tensors] = []

    def evaluate(plan: Plan) -> float:
        measurement = measure(plan, repeats=repeats, seed=seed, share=kept[0] if kept else None)
        kept[:] = [measurement.tensors]
        measurement.tensors.keep_weights_only()
        makespans = sorted(measurement.trace.makespans_s().tolist())
        return float(makespans[len(makespans) // 2])

    return evaluate
