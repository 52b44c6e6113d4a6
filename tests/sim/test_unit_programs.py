"""Programs whose workers drive a matrix unit: the unit's rate is shared, and what it does badly stays on the core."""

from __future__ import annotations

import json

import numpy as np
import pytest

from smesim.errors import ProgramError
from smesim.hwmodel.chip import Chip
from smesim.hwmodel.unit_cost import unit_rates
from smesim.plan.lower import lower
from smesim.plan.pipeline import pipelined
from smesim.plan.planners import matrix_only
from smesim.plan.program import APPENDING, Program, TaskKind
from smesim.plan.schema import Plan
from smesim.sim import ALL_EFFECTS, SimExecutor, without
from smesim.sim.costing import Costing
from smesim.trace.schema import Trace
from smesim.workload import DType, DTypes, catalog
from smesim.workload.graph import build_graph
from smesim.workload.phase import Phase
from tests.plan.plans import with_entry
from tests.sim.chips import UNIT_FLOP_PER_S, unit_chip

UNIT_EFFECTS = ("accumulators", "mode_switch", "operand_traffic", "oversubscription", "shared_unit")


def lowered(phase: str, chip: Chip, drivers: int) -> tuple[Program, Plan]:
    """A plan for four workers of which the first so many drive the unit."""
    plan = matrix_only(build_graph(catalog.load("smollm2-135m"), Phase.parse(phase), layers=2), chip)
    driving = {0: tuple(range(drivers)), 1: tuple(range(drivers, 4))}
    workers = tuple(
        w.model_copy(update={"role": "matrix" if i < drivers else "cpu", "unit": 0 if i < drivers else None})
        for i, w in enumerate(plan.workers)
    )
    operators = tuple(
        entry.model_copy(update={"workers": driving[entry.mode == "cpu"][: max(1, len(entry.workers))]})
        if entry.mode == "cpu" and len(entry.workers) == 1
        else entry.model_copy(update={"workers": driving[entry.mode == "cpu"]})
        for entry in plan.operators
    )
    changed = plan.model_copy(update={"workers": workers, "operators": operators})
    return lower(changed), changed


def traced(chip: Chip, drivers: int, effects: frozenset[str] = ALL_EFFECTS, phase: str = "prefill:64") -> Trace:
    return SimExecutor(chip, effects).run(*lowered(phase, chip, drivers))


def products_s(trace: Trace) -> float:
    """From the first start to the last end of each product, added up."""
    spans = trace.tasks[trace.tasks["kind"] == "gemm"].groupby("op")
    return float((spans["end_s"].max() - spans["start_s"].min()).sum())


def test_more_drivers_than_help_add_no_rate() -> None:
    chip = unit_chip()
    same_rate = without(["oversubscription"])
    one, two, three = (products_s(traced(chip, drivers, same_rate)) for drivers in (1, 2, 3))
    assert one <= min(two, three)  # no faster, and a little slower by what is handed out in smaller parts
    assert max(two, three) <= 1.3 * one
    assert min(one, two, three) >= traced(chip, 1).tasks.query("kind == 'gemm'")["flop"].sum() / UNIT_FLOP_PER_S


def test_two_drivers_help_a_unit_that_one_cannot_keep_busy() -> None:
    chip = unit_chip(useful_drivers=2.0)
    effects = without(["oversubscription"])
    assert products_s(traced(chip, 2, effects)) == pytest.approx(products_s(traced(chip, 1, effects)) / 2, rel=0.1)


def test_drivers_slow_each_other_down_as_the_chip_says() -> None:
    chip = unit_chip()
    fair, crowded = (products_s(traced(chip, 2, e)) for e in (without(["oversubscription"]), ALL_EFFECTS))
    assert crowded == pytest.approx(fair / 0.8, rel=0.05)
    assert unit_rates(chip, {0: 2}) == {"c.sme0": (0.8, 0.8)}
    assert unit_rates(chip, {0: 2}, oversubscription=False) == {"c.sme0": (1.0, 1.0)}


@pytest.mark.parametrize("effect", UNIT_EFFECTS)
def test_every_effect_of_a_unit_costs_time_and_can_be_switched_off(effect: str) -> None:
    narrow_port = effect == "operand_traffic"
    chip = unit_chip(load_bytes_per_s=50e9) if narrow_port else unit_chip(accumulators=8.0)
    slower, faster = (traced(chip, 2, effects) for effects in (ALL_EFFECTS, without([effect])))
    assert faster.makespans_s()[0] < slower.makespans_s()[0]


def test_attention_computes_its_softmax_on_the_core_that_drives_the_unit() -> None:
    chip = unit_chip()
    program, _ = lowered("prefill:64", chip, 1)
    costing = Costing.of(chip, program, ALL_EFFECTS)
    task = next(i for i in range(program.n_tasks) if program.op_kinds[program.tasks["op"][i]] == "attention")
    on_unit, on_core = costing.cost(task, 0), costing.cost(task, 3)
    assert (on_unit.on_unit, on_core.on_unit) == (True, False)
    assert on_unit.serial_s > 0
    assert on_unit.compute_s < on_core.compute_s


def test_work_row_by_row_stays_on_the_core() -> None:
    chip = unit_chip()
    program, _ = lowered("prefill:64", chip, 1)
    costing = Costing.of(chip, program, ALL_EFFECTS)
    task = next(i for i in range(program.n_tasks) if program.op_kinds[program.tasks["op"][i]] == "rms_norm")
    assert not costing.cost(task, 0).on_unit
    assert costing.cost(task, 0) == costing.cost(task, 3)


def test_a_decode_step_is_drawn_through_the_unit_where_it_multiplies_vectors() -> None:
    chip = unit_chip()
    program, plan = lowered("decode:32", chip, 1)
    gemv = next(i for i in range(program.n_tasks) if program.tasks["kind"][i] == 5)
    cost = Costing.of(chip, program, ALL_EFFECTS).cost(gemv, 0)
    assert cost.on_unit
    trace = SimExecutor(chip).run(program, plan)
    assert (trace.tasks["end_s"] > trace.tasks["start_s"]).all()


def in_bf16(plan: Plan, chip: Chip) -> Program:
    """The same products with weights in bf16."""
    graph = build_graph(plan.model, Phase.parse(plan.phase), DTypes(weights=DType.BF16), layers=plan.layers)
    return lower(matrix_only(graph, chip, len(plan.workers)))


@pytest.mark.parametrize("phase", ["prefill:64", "decode:32"])
@pytest.mark.parametrize("rate", [None, 2 * UNIT_FLOP_PER_S])
def test_products_in_bf16_run_on_a_unit_with_a_rate_for_it_and_else_on_the_core(
    phase: str, rate: float | None
) -> None:
    chip = unit_chip()
    if rate is not None:
        data = chip.model_dump(mode="json", exclude_none=True)
        unit = data["clusters"][0]["matrix_units"][0]
        for table in ("flop_per_s", "vector_flop_per_s", "accumulators", "latency_cycles"):
            unit[table]["bf16"] = dict(unit[table]["f32"])
        for table in ("flop_per_s", "vector_flop_per_s"):
            unit[table]["bf16"]["value"] *= 2
        chip = Chip.model_validate_json(json.dumps(data))
    in_f32, plan = lowered(phase, chip, 1)
    costs = []
    for program in (in_f32, in_bf16(plan, chip)):
        products = np.isin(program.tasks["kind"], [TaskKind.GEMM, TaskKind.GEMV])
        costing = Costing.of(chip, program, ALL_EFFECTS)
        costs.append([costing.cost(int(task), 0) for task in np.flatnonzero(products)])
    assert all(cost.on_unit for cost in costs[0])
    assert {cost.on_unit for cost in costs[1]} == {rate is not None}
    first_touch = [sum(t.n_bytes for cost in some for t in cost.transfers if t.level == "DRAM") for some in costs]
    assert first_touch[1] < 0.6 * first_touch[0]
    if rate is not None:
        assert sum(cost.compute_s for cost in costs[1]) < 0.7 * sum(cost.compute_s for cost in costs[0])


def test_a_unit_without_a_rate_for_f32_is_refused() -> None:
    chip = unit_chip()
    program, _ = lowered("prefill:64", chip, 1)
    data = chip.model_dump(mode="json", exclude_none=True)
    unit = data["clusters"][0]["matrix_units"][0]
    for table in ("flop_per_s", "accumulators", "latency_cycles"):
        unit[table]["bf16"] = unit[table].pop("f32")
    with pytest.raises(ProgramError, match="no rate for f32"):
        Costing.of(Chip.model_validate(data), program, ALL_EFFECTS)


def test_stages_of_attention_multiply_on_the_unit_while_cores_do_the_softmax() -> None:
    chip = unit_chip()
    _, plan = lowered("prefill:64", chip, 1)
    staged = pipelined(plan.site("attention"), plan.workers, depth=2, query_block=32, key_block=16)
    plan = plan.model_copy(update={"operators": tuple(staged if e.kind == "attention" else e for e in plan.operators)})
    tasks = SimExecutor(chip).run(lower(plan), plan).tasks
    by_kind = {kind: tasks[tasks["kind"] == f"attention_{kind}"] for kind in ("qk", "softmax", "pv")}
    assert {int(w) for kind in ("qk", "pv") for w in by_kind[kind]["worker"]} == {0}
    assert 0 not in set(by_kind["softmax"]["worker"])
    spans = by_kind["softmax"][["start_s", "end_s"]].to_numpy()
    overlapping = [
        ((spans[:, 0] < product.end_s) & (product.start_s < spans[:, 1])).any()
        for kind in ("qk", "pv")
        for product in by_kind[kind].itertuples()
    ]
    assert sum(overlapping) > len(overlapping) / 2


def test_a_driver_packs_by_turning_tiles_over_and_a_core_by_its_vectors() -> None:
    chip = unit_chip()
    program, _ = lowered("prefill:64", chip, 1)
    costing = Costing.of(chip, program, ALL_EFFECTS)
    task = next(i for i in range(program.n_tasks) if program.tasks["kind"][i] == TaskKind.PACK_LHS)
    on_unit, on_core = costing.cost(task, 0), costing.cost(task, 3)
    assert (on_unit.on_unit, on_core.on_unit) == (True, False)
    row, op = program.tasks[task], program.ops[program.tasks["op"][task]]
    strips = -(-int(op["m"]) // int(op["lhs_mr"]))
    rows = int(row["end0"]) * int(op["m"]) // strips - int(row["begin0"]) * int(op["m"]) // strips
    written_s = 4 * rows * int(op["k"]) / 150e9
    assert on_unit.compute_s == pytest.approx(written_s + 2 * 2e-8)


@pytest.mark.parametrize("kv", [DType.F32, DType.F16, DType.Q8_0])
def test_a_packer_that_drives_a_unit_turns_keys_over_on_it_unless_they_become_blocks(kv: DType) -> None:
    chip, tokens = unit_chip(), 64
    plan = matrix_only(build_graph(catalog.load("smollm2-135m"), Phase.prefill(tokens), DTypes(kv=kv), layers=1), chip)
    costs = {}
    for packers in ((0,), ()):
        program = lower(with_entry(plan, "kv_append", packers=packers))
        task = int(np.flatnonzero(np.isin(program.tasks["kind"], APPENDING))[0])
        costing = Costing.of(chip, program, ALL_EFFECTS)
        costs[packers] = costing.cost(task, 0)
        assert not costing.cost(task, 3).on_unit
    assert costs[0,].on_unit == (kv is not DType.Q8_0)
    assert not costs[()].on_unit
    if costs[0,].on_unit:
        elements, number_bytes = tokens * plan.model.kv_heads * plan.model.head_dim, 4 if kv is DType.F32 else 2
        assert costs[0,].compute_s == pytest.approx(2 * 4 * elements / 150e9 + 2 * 2e-8)
        # What is written is read before, and keys and values are two.
        assert sum(transfer.n_bytes for transfer in costs[0,].transfers) == 2 * (4 + 2 * number_bytes) * elements
