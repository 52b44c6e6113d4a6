"""What each idea is worth: one phase planned with one idea more each time, predicted, and measured on this machine.

Each step keeps what the steps before it have. What is in a step is a plan like any other, so that nothing is looked up:
the difference of two steps is what the simulator, or the clock, says of two plans.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from smesim.exec.tensors import Tensors
from smesim.hwmodel.chip import Chip
from smesim.plan.schema import Plan
from smesim.plan.search import DEFAULT_BUDGET_S
from smesim.plan.teams import computes_f32
from smesim.workflow import is_this_machine, make_plan, measure, simulated_s
from smesim.workload import DType, ModelConfig, Phase

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Idea:
    """One step: how its plan is made, and whether it means anything without a matrix unit."""

    name: str
    planner: str
    needs_unit: bool
    overlap: bool = False
    layout_reuse: str = "none"


IDEAS = (
    Idea("cores only", "cpu_only", needs_unit=False),
    Idea("+ matrix unit", "matrix_only", needs_unit=True),
    Idea("+ cooperation", "roofline", needs_unit=True),
    Idea("+ overlap", "roofline", needs_unit=True, overlap=True),
    Idea("+ layout reuse", "roofline", needs_unit=False, overlap=True, layout_reuse="full"),
    Idea("+ search", "search", needs_unit=False, overlap=True, layout_reuse="full"),
)


@dataclass(frozen=True)
class Step:
    """An idea's plan, its predicted seconds, and where the chip is this machine the measured median and its spread."""

    name: str
    plan: Plan
    predicted_s: float
    measured_s: float | None
    spread_s: float | None


def ablate(
    model: ModelConfig, phase: Phase, chip: Chip, *, threads: int | None = None, layers: int | None = None,
    weights: DType = DType.F32, budget_s: float = DEFAULT_BUDGET_S, repeats: int = 5, seed: int = 0,
    progress: Progress = lambda what, share: None,
) -> tuple[Step, ...]:  # fmt: skip
    """All steps that the chip has units for, one after the other. Errors as of `workflow.make_plan` and `measure`."""
    has_unit = any(computes_f32(instance.unit) for instance in chip.unit_instances)
    ideas = [idea for idea in IDEAS if has_unit or not idea.needs_unit]
    steps: list[Step] = []
    tensors: Tensors | None = None
    for i, idea in enumerate(ideas):
        progress(idea.name, i / len(ideas))
        options: dict[str, Any] = {
            "overlap": idea.overlap, "layout_reuse": idea.layout_reuse, "weights": weights, "budget_s": budget_s,
        }  # fmt: skip
        plan = make_plan(model, phase, chip, planner_name=idea.planner, threads=threads, layers=layers, **options)
        measured_s = spread_s = None
        if is_this_machine(chip):
            measurement = measure(plan, repeats=repeats, seed=seed, share=tensors)
            tensors = measurement.tensors
            tensors.keep_weights_only()
            low, measured_s, high = np.percentile(measurement.trace.makespans_s(), [25, 50, 75]).tolist()
            spread_s = high - low
        steps.append(Step(idea.name, plan, simulated_s(plan, chip), measured_s, spread_s))
    return tuple(steps)
