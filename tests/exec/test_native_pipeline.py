"""Attention in stages and parts through the native executor: the reference's numbers in every way of dividing it, on
up to eight workers, of one kind of kernels or two."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smesim.exec.executor import NativeExecutor
from smesim.exec.tensors import Tensors
from smesim.plan.lower import lower
from smesim.plan.pipeline import pipelined
from smesim.plan.planners import cpu_only
from smesim.plan.program import TaskKind
from smesim.plan.schema import Plan, Role
from smesim.trace.schema import Trace
from smesim.workload import ModelConfig, Phase, build_graph
from tests.exec.native_models import DEVICE, ISAS, Case, Cut, little, logits, make_case
from tests.exec.sanitized import driver_under, run_driver
from tests.exec.test_native_executor import assert_equals_the_reference
from tests.plan.plans import pipelines, with_drivers, with_entry
from tests.sim.chips import two_core_chip

CHIP = two_core_chip(cores=8)
# Threads beyond the cores share them; workers that drive a unit get kernels with other strips.
WIDE = dataclasses.replace(DEVICE, cores=(DEVICE.cores * 8)[:8], forced_matrix_isa=ISAS[-1])
ROLES: tuple[tuple[Role, Role, Role], ...] = (
    ("cpu", "cpu", "cpu"), ("matrix", "cpu", "matrix"), ("matrix", "cpu", "cpu"), ("cpu", "matrix", "cpu"),
)  # fmt: skip


def divided(case: Case, plan: Plan) -> Case:
    return dataclasses.replace(case, plan=plan, program=lower(plan))


def execute(case: Case) -> tuple[Trace, Tensors]:
    tensors = Tensors.from_arrays(case.program, case.plan.model, WIDE, case.arrays)
    return NativeExecutor(WIDE).run(case.program, tensors, case.plan, warmup=0), tensors


def plan_on(model: ModelConfig, phase: Phase, workers: int, drivers: int = 0) -> Plan:
    return with_drivers(cpu_only(build_graph(model, phase), CHIP, workers), drivers)


def with_pipeline(plan: Plan, roles: tuple[Role, Role, Role], assignment: str = "static", **options: int) -> Plan:
    entry = pipelined(plan.site("attention"), plan.workers, qk=roles[0], softmax=roles[1], pv=roles[2], **options)
    entry = entry.model_copy(update={"assignment": assignment})
    return plan.model_copy(update={"operators": tuple(entry if o.site == "attention" else o for o in plan.operators)})


@st.composite
def attention_models(draw: st.DrawFn) -> ModelConfig:
    kv_heads = draw(st.integers(1, 3))
    head_dim = 2 * draw(st.integers(1, 36))
    return little(kv_heads=kv_heads, heads=kv_heads * draw(st.integers(1, 5)), head_dim=head_dim)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), model=attention_models(), roles=st.sampled_from(ROLES), seed=st.integers(0, 2**32 - 1))
def test_drawn_pipelines_equal_the_reference(
    data: st.DataObject, model: ModelConfig, roles: tuple[Role, Role, Role], seed: int
) -> None:
    phase = Phase.prefill(data.draw(st.integers(1, 130)), data.draw(st.integers(0, 70)), data.draw(st.integers(1, 2)))
    drivers = data.draw(st.integers(1, 4)) if "matrix" in roles else 0
    plan = plan_on(model, phase, drivers + data.draw(st.integers(1, 4)), drivers)
    plan = with_pipeline(plan, roles, data.draw(st.sampled_from(["static", "shared"])))
    plan = with_entry(plan, "attention", pipeline=data.draw(pipelines(roles)))
    case = divided(make_case(model, phase, Cut(), seed), plan)
    assert_equals_the_reference(case, execute(case)[1])


@settings(max_examples=15, deadline=None)
@given(
    model=attention_models(), past=st.integers(1, 300), batch=st.integers(1, 3), parts=st.integers(2, 9),
    workers=st.integers(1, 8), assignment=st.sampled_from(["static", "shared"]), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_drawn_parts_of_the_past_equal_the_reference(
    model: ModelConfig, past: int, batch: int, parts: int, workers: int, assignment: str, seed: int
) -> None:
    phase = Phase.decode(past, batch)
    plan = with_entry(plan_on(model, phase, workers), "attention", past_split=parts, assignment=assignment)
    case = divided(make_case(model, phase, Cut(), seed), plan)
    assert_equals_the_reference(case, execute(case)[1])


MODEL = little(layers=2, kv_heads=2, heads=6, head_dim=24)


@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set_equals_the_reference_in_stages_and_in_parts(isa: str) -> None:
    for phase, stages in ((Phase.prefill(50, 7), True), (Phase.decode(90), False)):
        plan = plan_on(MODEL, phase, 2)
        if stages:
            plan = with_pipeline(plan, ("cpu", "cpu", "cpu"), depth=2, query_block=20, key_block=32)
        else:
            plan = with_entry(plan, "attention", past_split=3)
        case = divided(make_case(MODEL, phase, Cut(), 3), plan)
        tensors = Tensors.from_arrays(case.program, case.plan.model, WIDE, case.arrays)
        NativeExecutor(WIDE, isa).run(case.program, tensors, case.plan, warmup=0)
        assert_equals_the_reference(case, tensors)


def test_invariant_4_a_pipeline_gives_the_same_bits_whatever_the_workers_lanes_and_depth() -> None:
    phase = Phase.prefill(70)
    results = []
    for workers, depth, lanes, assignment in ((1, 1, 1, "static"), (2, 3, 2, "shared"), (5, 2, 8, "static")):
        plan = plan_on(MODEL, phase, workers)
        options = {"depth": depth, "lanes": lanes, "query_block": 16, "key_block": 32}
        plan = with_pipeline(plan, ("cpu", "cpu", "cpu"), assignment, **options)
        case = divided(make_case(MODEL, phase, Cut(), 1), plan)
        results.append(logits(case, execute(case)[1]))
    assert all(np.array_equal(results[0], result) for result in results[1:])


def test_invariant_4_parts_are_combined_to_the_same_bits_whoever_computed_them() -> None:
    phase = Phase.decode(200, 2)
    results = []
    for workers, assignment in ((1, "static"), (3, "shared"), (8, "static")):
        plan = with_entry(plan_on(MODEL, phase, workers), "attention", past_split=4, assignment=assignment)
        case = divided(make_case(MODEL, phase, Cut(), 1), plan)
        results.append(logits(case, execute(case)[1]))
    assert all(np.array_equal(results[0], result) for result in results[1:])


def test_traces_of_stages_obey_the_invariants_and_name_them() -> None:
    phase = Phase.prefill(40, 5)
    plan = with_pipeline(plan_on(MODEL, phase, 2, 1), ROLES[1], depth=2, query_block=16, key_block=16)
    case = divided(make_case(MODEL, phase, Cut(), 0), plan)
    trace, _ = execute(case)
    trace.validate()
    counts = trace.tasks["kind"].value_counts()
    assert counts["attention_qk"] == counts["attention_softmax"] == counts["attention_pv"] > 0
    worker = {kind: set(trace.tasks["worker"][trace.tasks["kind"] == kind]) for kind in counts.index}
    assert worker["attention_qk"] == worker["attention_pv"] == {0}
    assert worker["attention_softmax"] == {1}
    is_task = case.program.tasks["kind"] != TaskKind.JOIN
    assert trace.tasks["flop"].sum() == plan.graph().total_flop()
    assert len(trace.tasks) == is_task.sum()


# -- under a sanitizer


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return driver_under("thread", tmp_path_factory.mktemp("driver"))


@pytest.mark.parametrize("assignment", ["static", "shared"])
@pytest.mark.parametrize("way", ["stages", "parts"])
def test_no_task_of_a_divided_attention_races_with_another(
    way: str, assignment: str, driver: Path, tmp_path: Path
) -> None:
    phase = Phase.prefill(44, 9) if way == "stages" else Phase.decode(90, 2)
    if way == "stages":
        plan = plan_on(MODEL, phase, 6, 3)
        plan = with_pipeline(plan, ROLES[1], assignment, depth=2, lanes=2, query_block=16, key_block=16)
    else:
        plan = with_entry(plan_on(MODEL, phase, 6), "attention", past_split=4, assignment=assignment)
    case = divided(make_case(MODEL, phase, Cut(), 2), plan)
    tensors = Tensors.from_arrays(case.program, case.plan.model, WIDE, case.arrays)
    run_driver(driver, case.program, tensors, tmp_path, runs=4)
    assert_equals_the_reference(case, tensors)
