"""The stages of attention in the probe: coefficients that made the times of its runs come out of them again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from smesim.exec.probe.attention_fit import STAGES, Warm, fit_attention, fit_stages
from smesim.exec.probe.coefficients import quiet_runs
from smesim.exec.probe.little_models import STAGED_RUNS, LittleRun, in_stages, planned_stages
from smesim.exec.probe.samples import attention_task, pairs_of, samples_of, stage_features
from smesim.exec.probe.task_fits import FittedKernel
from smesim.exec.probe.timing import Timing
from smesim.hwmodel.attention_blocks import BlockShape
from smesim.hwmodel.chip import Chip
from smesim.hwmodel.cost import COST_EFFECTS, CoreCosts
from smesim.plan.lower import lower
from smesim.plan.planners import cpu_only
from smesim.plan.program import Program, TaskKind
from smesim.workload import Phase, build_graph
from tests.exec.native_models import little
from tests.sim.chips import KSTEP_S, MR, two_core_chip

CHIP = two_core_chip()
KSTEPS_S = [KSTEP_S * h / MR for h in range(MR + 1)]
FACTOR = 0.8  # of a core's rate when both are busy
QK, SOFTMAX, PV = TaskKind.ATTENTION_QK, TaskKind.ATTENTION_SOFTMAX, TaskKind.ATTENTION_PV
TRUE = {QK: (1.2, 2e-8, 3e-10, 1e-7), SOFTMAX: (2e-10, 5e-8, 3e-8), PV: (1.4, 3e-8, 4e-10, 2e-7)}
SHARED_S_PER_BYTE = {QK: 0.0, SOFTMAX: 5e-11, PV: 2e-11}
FUSED = 0.9  # what fused attention takes of its stages' time
STEADY = SimpleNamespace(product=SimpleNamespace(median=1e11))


def made_up_run(program: Program, threads: int) -> Any:
    """A run whose stages took exactly what the coefficients say."""
    tasks = np.flatnonzero(np.isin(program.tasks["kind"], list(TRUE)))
    seconds = np.ones((1, len(tasks)))
    arrays = {"task": tasks[None], "start_s": np.zeros((1, len(tasks))), "end_s": seconds}
    trace = SimpleNamespace(by_run=arrays.__getitem__)
    run: Any = SimpleNamespace(program=program, trace=trace, threads=threads, reference=STEADY)
    position = {task: i for i, task in enumerate(tasks.tolist())}
    for kind, true in TRUE.items():
        for sample in samples_of([run], kind, threads):
            features = stage_features(sample, KSTEPS_S, MR)[: len(true)]
            own_s = float(np.dot(features, true)) / (FACTOR if threads > 1 else 1.0)
            shared_s = SHARED_S_PER_BYTE[kind] * 4 * pairs_of(sample) / 2 if threads > 1 else 0.0
            seconds[0, position[sample.task]] = own_s + shared_s
    return run


@pytest.fixture(scope="module")
def runs() -> list[Any]:
    made = []
    for model, phase, threads, _, keys in planned_stages(2):
        plan = in_stages(cpu_only(build_graph(model, Phase.parse(phase)), CHIP, threads), keys)
        made.append(made_up_run(lower(plan), threads))
    return made


def test_each_stage_is_run_with_one_thread_and_with_all() -> None:
    assert sorted(run.threads for run in planned_stages(2)) == [1] * len(STAGED_RUNS) + [2] * len(STAGED_RUNS)
    assert {run.threads for run in planned_stages(1)} == {1}


def test_exact_times_give_the_coefficients_back(runs: list[Any]) -> None:
    kernels = {k.name: k for k in fit_stages(runs, Warm(KSTEPS_S, MR), 2, FACTOR, STEADY)}
    for kind, name in ((QK, "attention_qk_f32"), (SOFTMAX, "attention_softmax_f32"), (PV, "attention_pv_f32")):
        found = [value for value, _ in kernels[name].parameters.values()]
        assert found[: len(TRUE[kind])] == pytest.approx(TRUE[kind], rel=1e-6)
        shared = kernels[name].parameters.get("s_per_shared_byte", (0.0, "s/B"))[0]
        assert shared == pytest.approx(SHARED_S_PER_BYTE[kind], abs=1e-16)


def test_the_costs_of_a_chip_with_these_coefficients_are_the_times(runs: list[Any]) -> None:
    fitted = fit_stages(runs, Warm(KSTEPS_S, MR), 2, FACTOR, STEADY)
    costs = with_kernels(fitted)
    block = BlockShape(32, 64, 0, 2, 128, 0, 48)
    pairs = 2 * sum(min(48, token + 1) for token in range(32, 64))
    per_pair, per_row, per_cut_row = TRUE[SOFTMAX]
    expected = pairs * per_pair + 64 * per_row + 2 * 15 * per_cut_row  # of the tokens 32 .. 46, who do not see key 47
    assert costs.softmax_s(block) == pytest.approx(expected)
    for kind, (name, _) in STAGES.items():
        if kind is not QK:
            assert costs.handed_over_s(1e6, name) == pytest.approx(1e6 * SHARED_S_PER_BYTE[kind])
    assert CoreCosts(CHIP.clusters[0], COST_EFFECTS.keys() - {"shared_lines"}).handed_over_s(1e6) == 0.0


def with_kernels(kernels: list[FittedKernel]) -> CoreCosts:
    """The costs of a core of the chip on which these were fitted."""
    described = CHIP.model_dump(mode="json")
    about = {"provenance": "fitted", "source": "test"}
    described["clusters"][0]["core"]["kernels"] += [
        {
            "name": kernel.name,
            "isa": "avx2",
            "parameters": {n: {"value": v, "unit": unit, **about} for n, (v, unit) in kernel.parameters.items()},
        }
        for kernel in kernels
    ]
    return CoreCosts(Chip.model_validate(described).clusters[0], COST_EFFECTS)


def test_fused_attention_is_fitted_as_so_many_times_its_stages(runs: list[Any]) -> None:
    stages = fit_stages(runs, Warm(KSTEPS_S, MR), 2, FACTOR, STEADY)
    products = [(a + b) / 2 for a, b in zip(TRUE[QK][:2], TRUE[PV][:2], strict=True)]
    names = ("kstep_factor", "s_per_tile", "s_per_score", "s_per_row_block", "s_per_cut_row", "s_per_query_element")
    values = [FUSED * value for value in (*products, *TRUE[SOFTMAX], TRUE[QK][2] + TRUE[PV][2])]
    true = {name: (value, "s") for name, value in zip(names, values, strict=True)}
    costs = with_kernels([FittedKernel("attention_f32", true, 0.0, 1)])
    graph = build_graph(little(), Phase.parse("prefill:300"))
    program = lower(cpu_only(graph, CHIP, 1))
    tasks = np.flatnonzero(program.tasks["kind"] == TaskKind.ATTENTION)
    seconds = np.ones((1, len(tasks)))
    arrays = {"task": tasks[None], "start_s": np.zeros((1, len(tasks))), "end_s": seconds}
    trace = SimpleNamespace(by_run=arrays.__getitem__)
    run: Any = SimpleNamespace(program=program, trace=trace, threads=1, reference=STEADY)
    for i, sample in enumerate(samples_of([run], TaskKind.ATTENTION, 1)):
        shape, units, _ = attention_task(sample)
        seconds[0, i] = units * costs.attention_s(shape)
    found = fit_attention([run], Warm(KSTEPS_S, MR), stages, {1: 1e10}, STEADY).parameters
    assert [found[name][0] for name in names] == pytest.approx(values, rel=1e-6)


def disturbed(program: Program, threads: int, share: float) -> LittleRun:
    """A run of which only its tasks, its threads and the foreign load are looked at."""
    reference = SimpleNamespace(product=Timing(1e9, 0.0, 3), memory=Timing(1e9, 0.0, 3))
    trace = SimpleNamespace(meta=SimpleNamespace(foreign_load=share))
    return cast("LittleRun", SimpleNamespace(program=program, trace=trace, threads=threads, reference=reference))


def test_what_only_a_disturbed_run_has_is_kept() -> None:
    """Few runs have stages; with other processes about in just those, the probe still finds samples of them."""
    graph = build_graph(little(), Phase.parse("prefill:20"))
    plan = cpu_only(graph, CHIP, 1)
    plain, staged = lower(plan, graph), lower(in_stages(plan, 16), graph)
    quiet = [disturbed(plain, 1, 0.0) for _ in range(4)]
    busy, only_there = disturbed(plain, 1, 0.5), disturbed(staged, 1, 0.5)
    kept = quiet_runs([*quiet, busy, only_there])
    assert [id(run) for run in kept] == [id(run) for run in (*quiet, only_there)]
