"""Attention in stages and parts on a chip of round figures: what goes through the ring, and who wrote it."""

from __future__ import annotations

import numpy as np
import pytest

from smesim.plan.lower import lower
from smesim.plan.pipeline import pipelined
from smesim.plan.planners import cpu_only
from smesim.plan.program import TaskKind
from smesim.plan.schema import Plan
from smesim.sim import ALL_EFFECTS, SimExecutor, without
from smesim.sim.costing import Costing
from smesim.sim.facts import foreign_shares
from smesim.workload import Phase, build_graph, catalog
from tests.plan.plans import with_entry
from tests.sim.chips import two_core_chip

CHIP = two_core_chip()
QK, SOFTMAX, PV = TaskKind.ATTENTION_QK, TaskKind.ATTENTION_SOFTMAX, TaskKind.ATTENTION_PV
PART, COMBINE = TaskKind.ATTENTION_PART, TaskKind.ATTENTION_COMBINE


def fused(phase: str, layers: int = 2) -> Plan:
    return cpu_only(build_graph(catalog.load("smollm2-135m"), Phase.parse(phase), layers=layers), CHIP)


def staged(phase: str = "prefill:150,past=40", assignment: str = "static", layers: int = 2, **options: int) -> Plan:
    plan = fused(phase, layers)
    options = {"depth": 2, "query_block": 50, "key_block": 64} | options
    entry = pipelined(plan.site("attention"), plan.workers, qk="cpu", softmax="cpu", pv="cpu", **options)
    entry = entry.model_copy(update={"assignment": assignment})
    return plan.model_copy(update={"operators": tuple(entry if o.site == "attention" else o for o in plan.operators)})


def test_equal_layers_are_simulated_once_in_stages_and_in_parts() -> None:
    for plan in (staged(layers=6), with_entry(fused("decode:200", layers=6), "attention", past_split=3)):
        program = lower(plan)
        once, each = (SimExecutor(CHIP).timeline(program, repeat_equal=equal) for equal in (True, False))
        assert once.simulated < each.simulated == len(program.segments)
        assert np.array_equal(once.end_s, each.end_s, equal_nan=True)
        assert SimExecutor(CHIP).run(program, plan).tasks["flop"].sum() == plan.graph().total_flop()


def test_the_trace_shows_stages_side_by_side_as_far_as_the_ring_lets_them() -> None:
    """One lane on two cores, which take blocks in turn. Closed forms are in tests/plan/test_plan_pipeline.py."""

    def overlapping(depth: int) -> int:
        plan = staged("prefill:48,past=400", depth=depth, lanes=1, query_block=48)
        tasks = SimExecutor(CHIP).run(lower(plan), plan).tasks
        stages = tasks[tasks["kind"].str.startswith("attention_")].sort_values("start_s")
        return int((stages["start_s"].to_numpy()[1:] < stages["end_s"].to_numpy()[:-1]).sum())

    assert overlapping(1) == 0
    assert overlapping(2) > 0


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (staged(lanes=2), {SOFTMAX: 0.0, PV: 0.0}),  # a worker keeps its lane
        (staged(lanes=1), {SOFTMAX: 0.0, PV: 0.0}),  # and its blocks, where there are fewer lanes
        (staged(lanes=2, assignment="shared"), {SOFTMAX: 0.5, PV: 0.5}),
        (with_entry(fused("decode:200"), "attention", past_split=4, assignment="static"), {COMBINE: 0.5}),
    ],
    ids=["a lane each", "blocks in turn", "drawn", "parts"],
)
def test_who_wrote_what_a_task_takes_over(plan: Plan, expected: dict[TaskKind, float]) -> None:
    program = lower(plan)
    attention = np.array(program.op_sites) == "attention"
    for kind, shares in foreign_shares(program).items():
        assert set(shares[attention].tolist()) == {expected.get(kind, 0.0)}
        assert not shares[~attention].any()


def test_what_another_core_wrote_costs_time_and_can_be_switched_off() -> None:
    program = lower(staged(lanes=2, assignment="shared"))
    costs = {name: Costing.of(CHIP, program, effects) for name, effects in
             (("all", ALL_EFFECTS), ("alone", without(["shared_lines"])))}  # fmt: skip
    for kind, dearer in ((QK, False), (SOFTMAX, True), (PV, True)):
        task = int(np.flatnonzero(program.tasks["kind"] == kind)[0])
        row = program.tasks[task]
        seconds = {name: costing.cost(task, 0).compute_s for name, costing in costs.items()}
        scores = (row["end0"] - row["begin0"]) * 3 * (row["end1"] - row["begin1"])
        expected = 0.5 * 4 * scores * 1e-9 if dearer else 0.0
        assert seconds["all"] - seconds["alone"] == pytest.approx(expected, rel=1e-6, abs=1e-15)


def test_keys_values_queries_and_outputs_move_once_and_scores_four_times() -> None:
    """A prompt of one chain and one lane: near caches hold all, so bytes are told apart by kind alone."""
    plan = staged("prefill:48", lanes=1, query_block=48, key_block=32, layers=1)
    program = lower(plan)
    costing = Costing.of(CHIP, program, without(["write_allocate"]))
    moved = {
        kind: sum(
            transfer.n_bytes
            for task in np.flatnonzero(program.tasks["kind"] == kind).tolist()
            for transfer in costing.cost(task, 0).transfers
        )
        for kind in (QK, SOFTMAX, PV)
    }
    rows, keys, d, kv_heads = 48 * 3, 48, 64, 3
    scores, tensor, queries = 4 * rows * keys, 4 * keys * d, 4 * rows * d
    assert moved == {
        QK: kv_heads * (scores + tensor + queries),
        SOFTMAX: kv_heads * 2 * scores,
        PV: kv_heads * (scores + tensor + queries),
    }


def test_old_keys_of_a_split_past_come_from_memory_once() -> None:
    plan = with_entry(fused("decode:1000", layers=1), "attention", past_split=4)
    program = lower(plan)
    costing = Costing.of(CHIP, program, ALL_EFFECTS)
    (past,) = {int(op["past"]) for op in program.ops[program.ops["kind"] == TaskKind.ATTENTION]}
    from_memory = sum(
        transfer.n_bytes
        for task in np.flatnonzero(program.tasks["kind"] == PART).tolist()
        for transfer in costing.cost(task, 0).transfers
        if transfer.level == "DRAM"
    )
    assert from_memory == 2 * 4 * 3 * 64 * past
