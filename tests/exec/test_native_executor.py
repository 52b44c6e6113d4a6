"""Whole models through the native executor, against a plain numpy model; and what its traces must obey."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smesim.errors import DeviceError
from smesim.exec.device import Device
from smesim.exec.executor import NativeExecutor
from smesim.exec.lowp_tables import lowp_beside
from smesim.exec.tensors import Tensors
from smesim.plan.lower import lower
from smesim.plan.program import TaskKind
from smesim.plan.schema import WorkerPlan
from smesim.trace import read_trace, write_trace
from smesim.workload import DType, ModelConfig, Phase
from tests.exec.native_models import (
    CORES,
    DEVICE,
    ISAS,
    SCALING,
    STRIPS,
    Case,
    Cut,
    assert_equals_the_reference,
    cuts,
    execute,
    little,
    little_models,
    little_phases,
    logits,
    make_case,
    reference,
)


@settings(max_examples=60, deadline=None)
@given(model=little_models(), phase=little_phases(), cut=cuts(), seed=st.integers(0, 2**32 - 1))
def test_drawn_models_phases_and_plans_equal_the_reference(
    model: ModelConfig, phase: Phase, cut: Cut, seed: int
) -> None:
    case = make_case(model, phase, cut, seed)
    _, tensors = execute(case)
    assert_equals_the_reference(case, tensors)


MODELS = {
    "llama": little(layers=2),
    "llama3-scaling-untied": little(layers=2, rope_scaling=SCALING, tied_embeddings=False),
    "qwen2": little(layers=3, architecture="qwen2", qkv_bias=True, head_dim=16, d_model=64),
    "qwen3": little(layers=2, architecture="qwen3", qk_norm=True, head_dim=22),
}
PHASES = ["prefill:29", "prefill:13,past=18,batch=2", "decode:35", "decode:7,batch=3", "prefill:1"]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("model", MODELS)
def test_invariant_7_every_instruction_set_equals_the_reference(model: str, phase: str, isa: str) -> None:
    cut = Cut(m=7, n=20, assignment="shared", threads=CORES, mr=STRIPS[isa])
    case = make_case(MODELS[model], Phase.parse(phase), cut, seed=3)
    trace, tensors = execute(case, isa)
    assert_equals_the_reference(case, tensors)
    assert set(trace.meta.kernels.values()) == {isa}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("phase", [PHASES[0], PHASES[2]])
def test_invariant_7_weights_in_bf16_equal_the_reference_that_rounds_as_they_are_packed(phase: str, isa: str) -> None:
    for model in ("llama", "llama3-scaling-untied"):
        cut = Cut(m=7, n=20, assignment="shared", threads=CORES, mr=STRIPS[isa], weights=DType.BF16)
        case = make_case(MODELS[model], Phase.parse(phase), cut, seed=3)
        trace, tensors = execute(case, isa)
        assert_equals_the_reference(case, tensors)
        assert trace.meta.kernels["linear"] == lowp_beside(isa).isa


@pytest.mark.parametrize(
    ("model", "phase", "weights", "share"),
    [
        ("qwen3", PHASES[1], DType.F32, 0.01),
        ("llama", PHASES[0], DType.BF16, 0.1),
        ("llama", PHASES[2], DType.BF16, 0.001),
    ],
)
def test_the_references_bound_is_tight_enough_to_find_a_mistake(
    model: str, phase: str, weights: DType, share: float
) -> None:
    expected = reference(make_case(MODELS[model], Phase.parse(phase), Cut(weights=weights), seed=3))
    assert expected.logits.error.max() < share * np.abs(expected.logits.value).max()


@pytest.mark.parametrize("assignment", ["static", "shared"])
def test_invariant_7_all_cuts_give_the_same_bits(assignment: str) -> None:
    """A task's result does not depend on how its neighbours are cut, so neither do the bits."""
    phase = Phase.prefill(23, past=5)
    whole = make_case(MODELS["llama"], phase, Cut(), seed=1)
    parts = make_case(MODELS["llama"], phase, Cut(m=3, n=16, assignment=assignment, threads=CORES), seed=1)
    np.testing.assert_array_equal(logits(whole, execute(whole)[1]), logits(parts, execute(parts)[1]))


@pytest.mark.parametrize("phase", PHASES)
def test_invariant_4_the_same_static_plan_twice_gives_the_same_bits(phase: str) -> None:
    case = make_case(MODELS["qwen2"], Phase.parse(phase), Cut(m=5, n=30, threads=CORES), seed=2)
    first, second = (execute(case)[1].arrays for _ in range(2))
    for before, after in zip(first, second, strict=True):
        np.testing.assert_array_equal(before, after)


@settings(max_examples=20, deadline=None)
@given(model=little_models(), phase=little_phases(), cut=cuts())
def test_traces_obey_the_invariants(model: ModelConfig, phase: Phase, cut: Cut) -> None:
    case = make_case(model, phase, cut, seed=0)
    program, graph = case.program, case.plan.graph()
    trace, _ = execute(case, repeats=2)
    trace.validate()  # 1: times run forward, nobody starts before what it waits for, one task a worker at a time

    is_task = program.tasks["kind"] != TaskKind.JOIN
    assert trace.by_run("task").tolist() == [np.flatnonzero(is_task).tolist()] * 2
    static = program.tasks["worker"][is_task]
    for ran_on in trace.by_run("worker"):
        assert (ran_on[static >= 0] == static[static >= 0]).all()

    packing = trace.tasks["kind"] == "pack_lhs"  # 2: nothing lost, nothing twice, in either run
    assert trace.tasks["flop"].sum() == 2 * graph.total_flop()
    moved = sum(round(graph.moved_bytes(operator)) for operator in graph.operators)
    assert trace.tasks["bytes"][~packing].sum() == 2 * moved
    assert not trace.tasks["flop"][packing].any()


def test_invariant_1_tasks_start_after_all_direct_predecessors_ended_even_across_joins() -> None:
    case = make_case(MODELS["llama"], Phase.prefill(40), Cut(m=4, n=16, assignment="shared", threads=CORES), seed=0)
    program = case.program
    trace, _ = execute(case)
    start, end = np.full(program.n_tasks, np.nan), np.full(program.n_tasks, np.nan)
    tasks = trace.by_run("task")[0]
    start[tasks], end[tasks] = trace.by_run("start_s")[0], trace.by_run("end_s")[0]
    for task in range(program.n_tasks):
        before = [p for p in range(task) if task in _successors(case, p)]
        if program.tasks["kind"][task] == TaskKind.JOIN:
            end[task] = max(end[p] for p in before)
        elif before:
            assert start[task] >= max(end[p] for p in before) - 1e-7


def _successors(case: Case, task: int) -> list[int]:
    row = case.program.tasks[task]
    return case.program.successors[row["successor_begin"] : row["successor_end"]].tolist()


def test_invariant_8_a_measured_trace_read_back_equals_the_one_written(tmp_path) -> None:
    trace, _ = execute(make_case(MODELS["llama"], Phase.prefill(9), Cut(threads=CORES), seed=0), repeats=3)
    assert trace.meta.source == "measured"
    for suffix in (".json", ".csv"):
        write_trace(trace, tmp_path / f"trace{suffix}")
        assert read_trace(tmp_path / f"trace{suffix}") == trace


def test_the_trace_says_what_ran() -> None:
    case = make_case(MODELS["llama"], Phase.prefill(9), Cut(threads=CORES), seed=0)
    meta = execute(case, repeats=3)[0].meta
    assert (meta.runs, meta.phase, meta.layers) == (3, "prefill:9", 2)
    assert meta.plan_fingerprint == case.plan.fingerprint()
    assert meta.program_fingerprint == case.program.fingerprint()
    assert meta.workers == tuple(f"cpu{i}" for i in range(CORES))
    assert not meta.stand_in
    assert meta.foreign_load is None or 0 <= meta.foreign_load <= 1  # None of a time too short for the system's clock


def test_progress_is_reported_for_every_run() -> None:
    case = make_case(little(), Phase.prefill(3), Cut(), seed=0)
    tensors = Tensors.from_arrays(case.program, case.plan.model, DEVICE, case.arrays)
    seen: list[int] = []
    NativeExecutor(DEVICE).run(case.program, tensors, case.plan, repeats=3, warmup=2, progress=lambda: seen.append(1))
    assert len(seen) == 5


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("mr", [1, 5, 16, 64])
def test_any_kernels_run_a_plan_with_strips_of_any_height(isa: str, mr: int) -> None:
    case = make_case(little(), Phase.prefill(70), Cut(mr=mr), seed=0)
    tensors = Tensors.from_arrays(case.program, case.plan.model, DEVICE, case.arrays)
    trace = NativeExecutor(DEVICE, isa).run(case.program, tensors, case.plan)
    assert_equals_the_reference(case, tensors)
    assert set(trace.meta.kernels.values()) == {isa}
    assert any(f"strips of {mr} rows" in note for note in trace.meta.notes)
    assert (f"{isa} kernels, not {DEVICE.isa}" in trace.meta.notes) == (isa != DEVICE.isa)


# -- what cannot run


def refused(case: Case, device: Device = DEVICE, isa: str | None = None) -> str:
    """The one line with which both `check` and `run` refuse a program."""
    executor = NativeExecutor(device, isa)
    with pytest.raises(DeviceError) as from_check:
        executor.check(case.program)
    tensors = Tensors.from_arrays(case.program, case.plan.model, device, case.arrays)
    with pytest.raises(DeviceError) as from_run:
        executor.run(case.program, tensors, case.plan)
    assert str(from_check.value) == str(from_run.value)
    assert "\n" not in str(from_run.value)
    return str(from_run.value)


def test_more_workers_than_cores_are_refused() -> None:
    case = make_case(little(), Phase.prefill(9), Cut(threads=CORES), seed=0)
    small = dataclasses.replace(DEVICE, cores=())
    assert f"the plan has {CORES} workers; this machine has 0 usable cores" in refused(case, small)


def for_a_matrix_unit(case: Case) -> Case:
    """The same case with a plan whose only worker drives a matrix unit."""
    driver = WorkerPlan(role="matrix", cluster="c", core=0, unit=0)
    entries = tuple(o.model_copy(update={"mode": "matrix"}) for o in case.plan.operators)
    plan = case.plan.model_copy(update={"workers": (driver,), "operators": entries})
    return dataclasses.replace(case, plan=plan, program=lower(plan))


def test_where_there_is_no_matrix_unit_cores_stand_in_for_it_and_the_trace_says_so() -> None:
    case = for_a_matrix_unit(make_case(little(), Phase.prefill(9), Cut(), seed=0))
    device = dataclasses.replace(DEVICE, kernels=tuple(k for k in DEVICE.kernels if not k.matrix))
    tensors = Tensors.from_arrays(case.program, case.plan.model, device, case.arrays)
    meta = NativeExecutor(device).run(case.program, tensors, case.plan).meta
    assert_equals_the_reference(case, tensors)
    assert set(meta.kernels.values()) == {device.isa}
    assert meta.stand_in
    assert "stand-in: what the plan gives to a matrix unit ran on cores" in meta.notes


def test_forced_kernels_run_a_plan_for_a_matrix_unit() -> None:
    case = for_a_matrix_unit(make_case(little(), Phase.prefill(9), Cut(), seed=0))
    tensors = Tensors.from_arrays(case.program, case.plan.model, DEVICE, case.arrays)
    trace = NativeExecutor(DEVICE, "portable").run(case.program, tensors, case.plan)
    assert_equals_the_reference(case, tensors)
    assert set(trace.meta.kernels.values()) == {"portable"}
    assert trace.meta.workers == ("matrix0",)


def test_tensors_of_another_program_are_refused() -> None:
    one, other = (make_case(little(), Phase.prefill(n), Cut(), seed=0) for n in (5, 9))
    tensors = Tensors.from_arrays(one.program, one.plan.model, DEVICE, one.arrays)
    with pytest.raises(DeviceError, match="accepted: tensors made for it"):
        NativeExecutor(DEVICE).run(other.program, tensors, other.plan)


@pytest.mark.parametrize("phase", ["prefill:5", "prefill:5,batch=4", "decode:5"])
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_an_error(phase: str, poison: float) -> None:
    case = make_case(little(), Phase.parse(phase), Cut(m=1), seed=0)
    case.arrays["layers.0.down_proj.weight"][3, 3] = poison
    with pytest.raises(DeviceError, match=r"\S+ computed (nan|-?inf) at element .* expected finite numbers"):
        execute(case)
