"""Real programs on a chip of round figures: what each effect does, the bounds that hold, and bad input."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from smesim.errors import ProgramError, SmesimError
from smesim.hwmodel.chip import Chip, KernelModel
from smesim.hwmodel.cost import CoreCosts, TaskCost
from smesim.plan.lower import lower
from smesim.plan.planners import cpu_only
from smesim.plan.program import Program, TaskKind
from smesim.plan.schema import Plan
from smesim.sim import ALL_EFFECTS, EFFECTS, SimExecutor, without
from smesim.sim.classes import classes_of
from smesim.sim.clock import TICK_S
from smesim.sim.costing import Costing
from smesim.sim.facts import facts_of
from smesim.sim.timeline import Timeline
from smesim.trace.schema import Trace
from smesim.workload import catalog
from smesim.workload.graph import build_graph
from smesim.workload.phase import Phase
from tests.sim.chips import (
    BARRIER_S,
    CORE_BYTES_PER_S,
    DISPATCH_S,
    DRAM_BYTES_PER_S,
    MR,
    PEAK_FLOP_PER_S,
    two_core_chip,
)
from tests.sim.test_unit_programs import UNIT_EFFECTS
from tests.workload.workload_models import tiny_moe

PHASES = ["prefill:45", "decode:33"]
CHIP = two_core_chip()


def lowered(phase: str, chip: Chip = CHIP, threads: int | None = None, layers: int = 5) -> tuple[Program, Plan]:
    graph = build_graph(catalog.load("smollm2-135m"), Phase.parse(phase), layers=layers)
    plan = cpu_only(graph, chip, threads)
    return lower(plan), plan


def traced(phase: str, effects: frozenset[str] = ALL_EFFECTS, threads: int | None = None) -> Trace:
    return SimExecutor(CHIP, effects).run(*lowered(phase, threads=threads))


def carried_bytes(trace: Trace, link: str) -> float:
    """Integral of what a link granted over the run."""
    rows = trace.links[trace.links["link"] == link]
    return float((rows["granted_bytes_per_s"].to_numpy()[:-1] * np.diff(rows["start_s"].to_numpy())).sum())


@pytest.mark.parametrize("phase", PHASES)
def test_the_trace_is_of_this_program_plan_and_chip(phase: str) -> None:
    program, plan = lowered(phase)
    trace = SimExecutor(CHIP).run(program, plan)
    assert trace.meta.source == "simulated"
    assert trace.meta.chip == "two-core"
    assert trace.meta.phase == phase
    assert trace.meta.program_fingerprint == program.fingerprint()
    assert trace.meta.workers == ("cpu0", "cpu1")
    assert trace.tasks["task"].tolist() == np.flatnonzero(program.tasks["kind"] != TaskKind.JOIN).tolist()
    static = program.tasks["worker"][trace.tasks["task"]]
    assert (trace.tasks["worker"].to_numpy()[static >= 0] == static[static >= 0]).all()
    assert set(trace.tasks["worker"]) == {0, 1}


@pytest.mark.parametrize("phase", PHASES)
def test_invariant_4_equal_inputs_give_equal_traces(phase: str) -> None:
    assert traced(phase) == traced(phase)


@pytest.mark.parametrize("phase", PHASES)
def test_identical_layers_are_simulated_once_and_the_result_is_that_of_the_full_run(phase: str) -> None:
    program, _ = lowered(phase, layers=9)
    executor = SimExecutor(CHIP)
    once = executor.timeline(program)
    each = executor.timeline(program, repeat_equal=False)
    whole = executor.timeline(program, by_segment=False)
    assert once.simulated < each.simulated == len(program.segments)
    for field in dataclasses.fields(Timeline):
        if field.name != "simulated":
            mine = getattr(once, field.name)
            for other in (each, whole):
                assert np.array_equal(mine, getattr(other, field.name), equal_nan=mine.dtype.kind == "f")


@pytest.mark.parametrize("phase", PHASES)
def test_a_task_lasts_as_long_as_the_longer_of_its_parts_and_what_of_them_does_not_overlap(phase: str) -> None:
    tasks = traced(phase).tasks
    program, _ = lowered(phase)
    costing = Costing.of(CHIP, program, ALL_EFFECTS)
    pairs = zip(tasks["task"], tasks["worker"], strict=True)
    serial_s = np.array([costing.cost(task, worker).serial_s for task, worker in pairs])
    longer = np.maximum(tasks["compute_s"] - serial_s, tasks["transfer_s"])
    assert (serial_s > 0).any() == phase.startswith("decode")
    assert (tasks["end_s"] - tasks["start_s"]).to_numpy() == pytest.approx(
        (serial_s + longer).to_numpy(), rel=0, abs=4 * TICK_S
    )
    assert (tasks["overhead_s"] == 0).all()
    assert set(tasks["bound"]) <= {"compute", "bandwidth"}
    assert ((tasks["bound"] == "bandwidth") == (tasks["transfer_s"] > tasks["compute_s"] - serial_s)).all()


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("with_caches", [True, False])
def test_invariants_2_and_3_links_carry_exactly_what_the_tasks_move(phase: str, with_caches: bool) -> None:
    chip = two_core_chip(with_caches=with_caches)
    program, plan = lowered(phase, chip)
    trace = SimExecutor(chip).run(program, plan)
    costing = Costing.of(chip, program, ALL_EFFECTS)
    moved = dict.fromkeys(("DRAM", "L2", "L3"), 0.0)
    for task, worker in zip(trace.tasks["task"], trace.tasks["worker"], strict=True):
        for transfer in costing.cost(task, worker).transfers:
            moved[transfer.level] += transfer.n_bytes
    assert carried_bytes(trace, "DRAM") == pytest.approx(moved["DRAM"], rel=1e-6)
    weights = int(program.buffers["n_bytes"][program.buffers["role"] == 0].sum())
    assert moved["DRAM"] > 0.5 * weights
    if with_caches:
        assert carried_bytes(trace, "L3") == pytest.approx(moved["L3"], rel=1e-6)
    assert (trace.links["granted_bytes_per_s"] <= trace.links["capacity_bytes_per_s"] * (1 + 1e-12)).all()


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("effects", [ALL_EFFECTS, without(EFFECTS)], ids=["all", "none"])
@pytest.mark.parametrize("threads", [1, 2])
def test_invariant_5_no_run_beats_the_roofline(phase: str, effects: frozenset[str], threads: int) -> None:
    trace = traced(phase, effects, threads)
    (makespan_s,) = trace.makespans_s()
    linear = trace.tasks[trace.tasks["kind"].isin(["gemm", "gemv"])]
    assert makespan_s >= linear["flop"].sum() / (PEAK_FLOP_PER_S * threads)
    narrowest = DRAM_BYTES_PER_S if "contention" in effects else DRAM_BYTES_PER_S * threads
    assert makespan_s >= carried_bytes(trace, "DRAM") / narrowest


@pytest.mark.parametrize("effect", sorted(set(EFFECTS) - set(UNIT_EFFECTS)))
def test_every_effect_costs_time_and_can_be_switched_off(effect: str) -> None:
    slower, faster = (traced("prefill:45", effects) for effects in (ALL_EFFECTS, without([effect])))
    assert faster.makespans_s()[0] < slower.makespans_s()[0]
    assert faster.meta.notes == (f"without {effect}",)


def shortest_handover_s(trace: Trace) -> float:
    """Shortest time between a task being ready on a free worker and its start."""
    tasks = trace.tasks.sort_values(["worker", "start_s"])
    free_s = tasks.groupby("worker")["end_s"].shift(1).fillna(0.0)
    return float((tasks["start_s"] - pd.concat([free_s, tasks["ready_s"]], axis=1).max(axis=1)).min())


def test_dispatch_is_the_time_from_ready_to_start() -> None:
    assert shortest_handover_s(traced("decode:33")) == pytest.approx(DISPATCH_S, abs=2 * TICK_S)
    assert shortest_handover_s(traced("decode:33", without(["dispatch"]))) == 0.0


def test_the_barrier_is_the_time_from_the_last_end_to_ready() -> None:
    def between_layers_s(trace: Trace) -> set[float]:
        ends, starts = (trace.tasks.groupby("layer")[column] for column in ("end_s", "ready_s"))
        last, first = ends.max(), starts.min()
        return {round(float(first[layer] - last[layer - 1]), 12) for layer in range(1, 5)}

    # A layer of a prompt ends with tasks of both workers.
    assert between_layers_s(traced("prefill:45")) == {BARRIER_S}
    assert between_layers_s(traced("prefill:45", without(["barrier"]))) == {0.0}


def test_without_contention_each_task_moves_its_bytes_as_if_alone() -> None:
    program, plan = lowered("decode:33")
    trace = SimExecutor(CHIP, without(["contention"])).run(program, plan)
    costing = Costing.of(CHIP, program, ALL_EFFECTS)
    rates = {"DRAM": CORE_BYTES_PER_S, "L3": 30e9, "L2": 60e9}
    for task, worker, transfer_s in trace.tasks[["task", "worker", "transfer_s"]].itertuples(index=False):
        levels: dict[str, float] = {}
        for transfer in costing.cost(task, worker).transfers:
            levels[transfer.level] = levels.get(transfer.level, 0.0) + transfer.n_bytes
        alone_s = max((n_bytes / rates[level] for level, n_bytes in levels.items()), default=0.0)
        assert transfer_s == pytest.approx(alone_s, abs=2 * TICK_S)
    dram = trace.links["link"] == "DRAM"
    assert trace.links.loc[dram, "granted_bytes_per_s"].max() == pytest.approx(2 * CORE_BYTES_PER_S)


def test_the_cap_of_an_agent_keeps_one_core_from_all_of_dram() -> None:
    def peak(effects: frozenset[str]) -> float:
        trace = traced("decode:33", effects, threads=1)
        return float(trace.links[trace.links["link"] == "DRAM"]["granted_bytes_per_s"].max())

    assert peak(ALL_EFFECTS) == CORE_BYTES_PER_S
    assert peak(without(["agent_cap"])) == DRAM_BYTES_PER_S


def test_an_unknown_effect_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(SmesimError, match="unknown effect 'friction'; accepted: contention, agent_cap"):
        SimExecutor(CHIP, ["contention", "friction"])
    with pytest.raises(SmesimError, match="unknown effect 'friction'"):
        without(["friction"])


def test_a_program_for_more_cores_than_the_chip_has_is_refused() -> None:
    program, plan = lowered("decode:33", two_core_chip(cores=4))
    with pytest.raises(ProgramError, match=r"worker 2 of the program: .*core 2.*two-core"):
        SimExecutor(CHIP).run(program, plan)


def test_a_program_of_another_plan_is_refused() -> None:
    program, _ = lowered("decode:33")
    _, other = lowered("decode:34")
    with pytest.raises(ProgramError, match="accepted: a program and its own plan"):
        SimExecutor(CHIP).run(program, other)


# -- experts


@pytest.mark.parametrize("tokens", [1, 40])
def test_the_weights_of_reached_experts_come_from_memory_once_and_one_row_is_a_vector(tokens: int) -> None:
    model = tiny_moe(d_model=2048, d_expert=512, experts=16, experts_per_token=4, layers=1)
    plan = cpu_only(build_graph(model, Phase.prefill(tokens)), CHIP)
    program = lower(plan)
    costing, cost = Costing.of(CHIP, program, ALL_EFFECTS), CoreCosts(CHIP.clusters[0], ALL_EFFECTS, 2)
    op = program.op_sites.index("up_experts")
    of_up = (program.tasks["op"] == op) & (program.tasks["kind"] == TaskKind.EXPERT_GEMM)
    tasks = np.flatnonzero(of_up)
    reached = int(program.ops["experts"][op])
    assert reached == (4 if tokens == 1 else 16)
    costs = [costing.cost(int(task), 0) for task in tasks]
    weights = [c.transfers[0] for c in costs]
    assert {w.level for w in weights} == {"DRAM"}
    streamed = sum(w.n_bytes for w in weights)
    assert streamed == reached * 512 * 2048 * 4
    compute_s = sum(c.compute_s for c in costs)
    if tokens == 1:
        assert compute_s == pytest.approx(reached * cost.gemv_s(32, 2048))
    else:
        products_s = 16 * cost.gemm_s(10, MR, (0, 2), 32, 2048)
        assert compute_s == pytest.approx(products_s + cost.exposed_s("gemm_f32", streamed))


def test_experts_with_as_many_rows_are_one_class() -> None:
    """16 experts of which 4 get a row more: two classes for each length of a range, and all of one cost the same."""
    model = tiny_moe(d_model=128, d_expert=64, experts=16, experts_per_token=4, layers=1)
    program = lower(cpu_only(build_graph(model, Phase.prefill(45)), CHIP))
    costing, op = Costing.of(CHIP, program, ALL_EFFECTS), program.op_sites.index("up_experts")
    classes = classes_of(program, facts_of(program).op_keys, 0, len(program.tasks))
    of_up = np.flatnonzero((program.tasks["op"] == op) & (program.tasks["kind"] == TaskKind.EXPERT_GEMM)).tolist()
    costs: dict[tuple[int, ...], set[TaskCost]] = {}
    for task in of_up:
        costs.setdefault(classes[task], set()).add(costing.cost_once(task, 0))
    widths = {int(row["end1"] - row["begin1"]) for row in program.tasks[of_up]}
    assert len(costs) == 2 * len(widths) < len(of_up)
    assert {len(same) for same in costs.values()} == {1}


def test_tiles_of_one_panel_take_as_much_longer_as_a_lone_stream_is_slower() -> None:
    described = two_core_chip(cores=1)
    cluster = described.clusters[0]
    one = next(iter(cluster.core.kernels[0].parameters.values()))
    share = one.model_copy(update={"value": 0.5, "unit": "1"})
    gemv = KernelModel(name="gemv_f32", isa="avx2", parameters={"lone_stream_share": share})
    core = cluster.core.model_copy(update={"kernels": (*cluster.core.kernels, gemv)})
    chip = described.model_copy(update={"clusters": (cluster.model_copy(update={"core": core}),)})
    graph = build_graph(catalog.load("llama-3.2-1b"), Phase.decode(16), layers=1).alone("gate_proj")
    plan = cpu_only(graph, chip)
    gemv_s = {}
    for panels in (1, 4):
        tile = plan.operators[0].tile.model_copy(update={"n": 16 * panels})
        entry = plan.operators[0].model_copy(update={"tile": tile})
        changed = plan.model_copy(update={"operators": (entry,)})
        tasks = SimExecutor(chip).run(lower(changed, graph), changed).tasks
        gemv_s[panels] = (tasks["end_s"] - tasks["start_s"]).sum()
    assert gemv_s[1] == pytest.approx(2 * gemv_s[4], rel=1e-3)


@pytest.mark.parametrize(
    ("context", "level", "share"), [(16, "L2", 0.0), (1000, "L3", 0.5 * CORE_BYTES_PER_S / 30e9), (9000, "DRAM", 0.5)]
)
def test_old_keys_and_values_are_waited_for_unless_they_are_in_a_cores_own_cache(
    context: int, level: str, share: float
) -> None:
    chip = two_core_chip(cores=1)
    graph = build_graph(catalog.load("llama-3.2-1b"), Phase.decode(context), layers=1).alone("attention")
    graph = dataclasses.replace(graph, elsewhere_bytes=0.0)  # asked again and again
    program = lower(cpu_only(graph, chip), graph)
    costing = Costing.of(chip, program, ALL_EFFECTS)
    (task, *_) = np.flatnonzero(program.tasks["kind"] == TaskKind.ATTENTION)
    cost = costing.cost(int(task), 0)
    assert cost.transfers[0].level == level
    assert cost.serial_s == pytest.approx(share * (cost.compute_s + cost.serial_s))


def test_products_of_few_rows_take_as_much_longer_as_their_kernel_draws_less() -> None:
    described = two_core_chip(cores=1)
    graph = build_graph(catalog.load("llama-3.2-1b"), Phase.prefill(2), layers=1).alone("gate_proj")
    cluster = described.clusters[0]
    gemm = cluster.core.kernels[0]
    one = next(iter(gemm.parameters.values()))
    seconds = {}
    for share in (1.0, 0.25):
        drawn = gemm.parameters | {"stream_share": one.model_copy(update={"value": share, "unit": "1"})}
        kernels = (gemm.model_copy(update={"parameters": drawn}), *cluster.core.kernels[1:])
        core = cluster.core.model_copy(update={"kernels": kernels})
        chip = described.model_copy(update={"clusters": (cluster.model_copy(update={"core": core}),)})
        plan = cpu_only(graph, chip)
        tasks = SimExecutor(chip).run(lower(plan, graph), plan).tasks
        products = tasks[tasks["kind"] == "gemm"]
        seconds[share] = (products["end_s"] - products["start_s"]).sum()
    assert seconds[0.25] > 2 * seconds[1.0]
