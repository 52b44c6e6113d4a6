"""Divisions that follow what was measured: they settle, they stay, and they find a core that became slow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from smesim.exec.adaptive import Adaptation, run_adaptively
from smesim.exec.executor import NativeExecutor
from smesim.exec.tensors import Tensors
from smesim.hwmodel import library
from smesim.plan.lower import lower
from smesim.plan.planners import cpu_only
from smesim.plan.schema import Plan, TileShape
from smesim.sim import SimExecutor
from smesim.trace.schema import Trace
from smesim.workload import Phase, build_graph
from tests.exec.native_models import CORES, DEVICE, little
from tests.plan.plans import CHIP

MODEL = little(d_model=256, d_ff=1024, heads=8, head_dim=32, vocab=1024)
PRODUCTS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"}
COMPUTING = {"q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
"""Those with panels enough to divide finely whose workers do not compete for memory: there the factor says it all."""


def divided(chip: Any = CHIP, threads: int = 2, assignment: str = "static") -> Plan:
    """A plan whose products are divided evenly, in tiles of one panel."""
    plan = cpu_only(build_graph(MODEL, Phase.parse("prefill:64")), chip, threads)
    own = {"assignment": assignment, "workers": tuple(range(threads)), "tile": TileShape(m=64, n=16), "shares": ()}
    entries = tuple(e.model_copy(update=own) if e.site in PRODUCTS else e for e in plan.operators)
    return plan.model_copy(update={"operators": entries})


def slowed(trace: Trace, factors: dict[int, float], noise: float = 0.0, seed: int = 0) -> Trace:
    """The trace with the tasks of some workers longer, and all scattered. Only durations are as they would be."""
    tasks, random = trace.tasks.copy(), np.random.default_rng(seed)
    factor = tasks["worker"].map(lambda worker: factors.get(worker, 1.0)).to_numpy(float)
    factor = factor * np.exp(noise * random.standard_normal(len(tasks)))
    tasks["end_s"] = tasks["start_s"] + (tasks["end_s"] - tasks["start_s"]) * factor
    return replace(trace, tasks=tasks)


def follow(plan: Plan, factors: dict[int, float], runs: int, noise: float = 0.0, chip: Any = CHIP) -> Adaptation:
    adaptation, simulator = Adaptation(plan), SimExecutor(chip)
    for run in range(runs):
        trace = simulator.run(lower(adaptation.plan), adaptation.plan)
        adaptation.observe(slowed(trace, factors, noise, seed=run))
    return adaptation


def shares(plan: Plan, site: str) -> list[float]:
    entry = plan.site(site)
    return [share / sum(entry.shares) for share in entry.shares]


@pytest.mark.parametrize("assignment", ["static", "static_then_shared"])
def test_all_products_find_a_slow_worker_within_five_runs_and_then_stay(assignment: str) -> None:
    adaptation = follow(divided(assignment=assignment), {1: 3.0}, runs=12, noise=0.03)
    assert {change.site for change in adaptation.changes} == PRODUCTS
    assert max(change.run for change in adaptation.changes) < 5
    for site in COMPUTING:
        assert shares(adaptation.plan, site) == pytest.approx([0.75, 0.25], abs=0.05)
    first = adaptation.changes[0]
    assert first.before == (0.5, 0.5)
    assert first.expected_s < first.measured_s
    assert adaptation.spent_s > 0


def test_a_worker_that_becomes_slow_later_is_found_within_five_runs() -> None:
    adaptation, simulator = Adaptation(divided()), SimExecutor(CHIP)
    for run in range(14):
        trace = simulator.run(lower(adaptation.plan), adaptation.plan)
        adaptation.observe(slowed(trace, {0: 2.0} if run >= 8 else {}, 0.02, run))
        if run == 7:
            assert not adaptation.changes
    assert {change.site for change in adaptation.changes} == PRODUCTS
    assert max(change.run for change in adaptation.changes) < 13
    assert shares(adaptation.plan, "gate_proj") == pytest.approx([1 / 3, 2 / 3], abs=0.05)


@pytest.mark.parametrize("noise", [0.02, 0.3])
def test_noise_moves_nothing_to_and_fro(noise: float) -> None:
    """Of eight products over twenty runs; none moves back and forth, however the tasks scatter."""
    changes = follow(divided(), {}, runs=20, noise=noise).changes
    assert len(changes) <= 4
    assert max((sum(c.site == site for c in changes) for site in PRODUCTS), default=0) <= 2


def test_cores_of_two_kinds_get_what_they_are_worth() -> None:
    """Divided evenly, the efficiency cores of a phone-like cluster hold the others up; the simulated time falls."""
    chip = library.load("apple-m4")
    plan = divided(chip, threads=8)
    adaptation, simulator, seconds = Adaptation(plan), SimExecutor(chip), []
    for _ in range(5):
        trace = simulator.run(lower(adaptation.plan), adaptation.plan)
        seconds.append(float(trace.makespans_s()[0]))
        adaptation.observe(trace)
    assert min(seconds[1:]) < 0.9 * seconds[0]


def test_what_is_drawn_or_belongs_to_one_worker_is_left_alone() -> None:
    assert not follow(divided(assignment="shared"), {1: 3.0}, runs=3).changes
    assert not follow(cpu_only(build_graph(MODEL, Phase.parse("prefill:64")), CHIP, 1), {0: 3.0}, runs=3).changes


@pytest.mark.skipif(CORES < 2, reason="needs two cores")
def test_a_core_with_a_handicap_gets_less_and_the_numbers_stay() -> None:
    plan = divided()
    executor = NativeExecutor(DEVICE, handicaps={1: 12.0})
    program = lower(plan)
    tensors = Tensors.random(program, MODEL, DEVICE, seed=3)
    token = program.buffer_names.index(program.buffer_names[-1])
    executor.run(program, tensors, plan)
    before = tensors.arrays[token].copy()
    adapted = run_adaptively(executor, plan, tensors, repeats=6)
    assert len(adapted.seconds) == 6
    assert shares(adapted.adaptation.plan, "gate_proj")[1] < 0.3
    assert np.array_equal(tensors.arrays[token], before)
