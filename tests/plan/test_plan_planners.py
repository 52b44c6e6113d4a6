"""What planners decide: who does what, with strips that suit who does it."""

from __future__ import annotations

import json

import pytest

from smesim.errors import PlanError
from smesim.hwmodel import library
from smesim.hwmodel.chip import Chip
from smesim.plan.choices import Choices
from smesim.plan.diff import plan_differences
from smesim.plan.explain import APPENDED, layout_report
from smesim.plan.lower import lower
from smesim.plan.planners import Planner, cpu_only, matrix_only, roofline
from smesim.plan.program import ANY_WORKER, Program, TaskKind
from smesim.plan.rules import Rules
from smesim.plan.schema import OperatorPlan, Plan
from smesim.plan.teams import computes_f32
from smesim.plan.tiles import STATIC_PART
from smesim.sim import SimExecutor
from smesim.workload import DType, DTypes, Phase, build_graph, catalog
from smesim.workload.operators import Attention, Linear
from tests.plan.plans import with_entry
from tests.sim.chips import two_core_chip
from tests.workload.workload_models import tiny

PRESETS = [library.load(name) for name in library.names()]
WITH_UNIT = [chip for chip in PRESETS if any(computes_f32(unit.unit) for unit in chip.unit_instances)]
PREFILL, DECODE = (build_graph(tiny(), Phase.parse(phase), layers=1) for phase in ("prefill:40", "decode:40"))


def test_presets_with_and_without_a_unit_for_f32_are_there() -> None:
    assert WITH_UNIT
    assert len(WITH_UNIT) < len(PRESETS)


@pytest.mark.parametrize("chip", WITH_UNIT, ids=lambda chip: chip.name)
@pytest.mark.parametrize("threads", [2, None])
def test_matrix_only_gives_products_of_matrices_to_the_drivers_of_a_unit_and_the_rest_to_cores(
    chip: Chip, threads: int | None
) -> None:
    for graph in (PREFILL, DECODE):
        plan = matrix_only(graph, chip, threads)
        lower(plan, graph)
        roles = {i: worker.role for i, worker in enumerate(plan.workers)}
        for entry in plan.operators:
            operator = graph.sites[entry.site][0]
            products = isinstance(operator, Linear | Attention)
            assert entry.mode == ("matrix" if products and operator.activation_rows > 1 else "cpu")
            if products:
                assert {roles[worker] for worker in entry.workers} == {entry.mode}
    assert sorted({worker.core for worker in plan.workers}) == [worker.core for worker in plan.workers]


def test_a_unit_has_no_more_drivers_than_help_it_and_only_cores_that_can_drive_it() -> None:
    for chip in WITH_UNIT:
        plan = matrix_only(PREFILL, chip)
        for instance in chip.unit_instances:
            drivers = [worker.core for worker in plan.workers if worker.unit == instance.index]
            assert len(drivers) <= -(-instance.unit.useful_drivers.value // 1)
            assert set(drivers) <= set(instance.cores)


def test_strips_for_a_unit_are_two_vectors_high() -> None:
    chip = library.load("apple-m4")
    plan = matrix_only(PREFILL, chip, 2)
    assert {entry.lhs_layout for entry in plan.operators if entry.mode == "matrix"} == {"lhs_f32_m32", "row_major"}
    assert "lhs_f32_m32" not in {entry.lhs_layout for entry in cpu_only(PREFILL, chip, 2).operators}


M4 = library.load("apple-m4")
LARGE = build_graph(catalog.load("llama-3.2-1b"), Phase.parse("prefill:128"), layers=1)


def entry_of(plan: Plan, site: str) -> OperatorPlan:
    return next(entry for entry in plan.operators if entry.site == site)


def test_roofline_lets_cores_and_unit_share_what_neither_does_faster_alone() -> None:
    plan = roofline(LARGE, M4)
    for site in ("q_proj", "o_proj", "gate_proj", "down_proj"):
        entry = entry_of(plan, site)
        assert entry.mode == "cooperative"
        assert entry.reason is not None
        assert {other.mode for other in entry.reason.runners_up} == {"cpu", "matrix"}
        assert all(other.predicted_s > entry.reason.predicted_s for other in entry.reason.runners_up)
        roles = [plan.workers[worker].role for worker in entry.workers]
        by_role = {role: max(s for s, r in zip(entry.shares, roles, strict=True) if r == role) for role in set(roles)}
        assert by_role["matrix"] > 5 * by_role["cpu"]
        assert sum(entry.shares) == -(-LARGE.sites[site][0].n // 16)


@pytest.mark.parametrize("planner", [matrix_only, roofline])
def test_columns_of_workers_of_different_speed_are_divided_as_their_shares_say(planner: Planner) -> None:
    plan = planner(LARGE, M4, forced={"gate_proj": "cooperative"})
    entry, program = entry_of(plan, "gate_proj"), lower(plan)
    ours = program.tasks[program.tasks["op"] == op_of(program, "gate_proj")]
    tasks = ours[ours["kind"] == TaskKind.GEMM]
    taken = dict.fromkeys(entry.workers, 0)
    for task in tasks[tasks["begin0"] == 0]:
        taken[int(task["worker"])] = taken.get(int(task["worker"]), 0) + int(task["end1"] - task["begin1"])
    divided = 1.0 if entry.assignment == "static" else STATIC_PART
    for worker, share in zip(entry.workers, entry.shares, strict=True):
        assert abs(taken[worker] - share * divided) <= 1
    assert sum(taken.values()) == sum(entry.shares)


def op_of(program: Program, site: str) -> int:
    return program.op_sites.index(site)


@pytest.mark.parametrize("chip", WITH_UNIT, ids=lambda chip: chip.name)
@pytest.mark.parametrize("phase", ["prefill:128", "decode:128"])
def test_roofline_predicts_products_about_as_the_simulator_does(chip: Chip, phase: str) -> None:
    graph = build_graph(catalog.load("llama-3.2-1b"), Phase.parse(phase), layers=1)
    plan = roofline(graph, chip, min(chip.core_count, 8))
    tasks = SimExecutor(chip).run(lower(plan), plan).tasks
    products = tasks[tasks["kind"].isin(["gemm", "gemv"])]
    by_site = products.groupby("site", observed=True)
    spans = by_site["end_s"].max() - by_site["start_s"].min()
    for site in ("q_proj", "gate_proj", "down_proj"):
        reason = entry_of(plan, site).reason
        assert reason is not None
        assert spans[site] == pytest.approx(reason.predicted_s, rel=0.25)


def test_a_forced_mode_is_taken_and_one_that_there_is_not_refused() -> None:
    plan = roofline(LARGE, M4, forced={"q_proj": "cpu", "attention": "matrix", "attn_norm": "cpu"})
    assert [entry_of(plan, site).mode for site in ("q_proj", "attention", "attn_norm")] == ["cpu", "matrix", "cpu"]
    lower(plan)
    with pytest.raises(PlanError, match=r"--force attn_norm=matrix: .* accepted: cpu"):
        roofline(LARGE, M4, forced={"attn_norm": "matrix"})
    with pytest.raises(PlanError, match=r"--force names operator 'query'; accepted: embed, "):
        roofline(LARGE, M4, forced={"query": "cpu"})
    with pytest.raises(PlanError, match=r"--force q_proj=matrix: .* accepted: cpu"):
        cpu_only(LARGE, M4, forced={"q_proj": "matrix"})


def test_roofline_uses_cores_alone_where_there_is_no_unit_or_one_thread() -> None:
    for plan in (roofline(LARGE, two_core_chip()), roofline(LARGE, M4, 1)):
        assert {entry.mode for entry in plan.operators} == {"cpu"}


def test_a_row_that_units_cannot_multiply_is_multiplied_by_the_cores_that_drive_them() -> None:
    """Where every core but one drives a unit of its own, and units have no instruction for a single row."""
    chip = library.load("server-lx2")
    graph = build_graph(catalog.load("smollm2-135m"), Phase.parse("decode:40"), layers=1)
    plan, on_cores = roofline(graph, chip), cpu_only(graph, chip)
    assert len(plan.site("lm_head").workers) > 100
    executor = SimExecutor(chip)
    assert executor.seconds(lower(plan, graph)) <= 1.05 * executor.seconds(lower(on_cores, graph))


def test_plans_can_be_told_apart() -> None:
    first, second = cpu_only(LARGE, M4, 4), cpu_only(LARGE, M4, 4)
    assert plan_differences(first, second) == ()
    forced = roofline(LARGE, M4, 4, forced={"q_proj": "cpu"})
    found = plan_differences(first, forced)
    assert ("", "planner", "cpu_only", "roofline") in [(d.site, d.field, d.first, d.second) for d in found]
    assert ("", "worker 0", "cpu on core 0", "matrix on core 0, unit 0") in [
        (d.site, d.field, d.first, d.second) for d in found
    ]
    assert ("k_proj", "mode", "cpu", "cooperative") in [(d.site, d.field, d.first, d.second) for d in found]
    assert not any(d.site == "q_proj" and d.field == "mode" for d in found)


def test_what_matrix_only_cannot_plan_is_refused() -> None:
    with pytest.raises(PlanError, match=r"chip two-core has no matrix unit for f32; accepted: .*cpu_only"):
        matrix_only(PREFILL, two_core_chip())
    with pytest.raises(PlanError, match=r"needs one that drives it and one for .* accepted: 2\.\."):
        matrix_only(PREFILL, library.load("apple-m4"), 1)
    with pytest.raises(PlanError, match=r"accepted: 1\.\."):
        matrix_only(PREFILL, library.load("apple-m4"), 1000)
    with pytest.raises(PlanError, match="weights of s8 asked for; accepted: f32, bf16, q8_0, q4_0, q4_1"):
        matrix_only(build_graph(tiny(), Phase.prefill(4), DTypes(weights=DType.S8)), library.load("apple-m4"), 2)
    first_cannot = chip_of_two_clusters()
    with pytest.raises(PlanError, match=r"none of the first 2 cores of .* accepted: 3\.\."):
        matrix_only(PREFILL, first_cannot, 2)


def chip_of_two_clusters() -> Chip:
    """A chip whose first two cores cannot drive its unit."""
    m4, cores = library.load("apple-m4"), two_core_chip().clusters[0]
    caches = tuple(c.model_copy(update={"clusters": (*c.clusters, cores.name)}) for c in m4.caches)
    return m4.model_copy(update={"clusters": (cores, *m4.clusters), "caches": caches})


@pytest.mark.parametrize("name", ["apple-m4", "apple-m4-pro", "phone-d9500"])
def test_attention_of_a_prompt_runs_as_the_simulator_finds_fastest(name: str) -> None:
    chip, graph = library.load(name), build_graph(catalog.load("llama-3.2-1b"), Phase.parse("prefill:512"), layers=1)
    attention, plan = graph.sites["attention"][0], roofline(graph, chip)
    possible = Choices(chip, graph, plan.workers).of(attention)
    assert {(choice.mode, choice.pipeline is not None) for choice in possible} == {
        ("cpu", False), ("matrix", False), ("cooperative", False), ("cooperative", True),
    }  # fmt: skip
    rules = Rules(chip, graph, plan.workers)
    simulated = []
    for choice in possible:
        entry = rules.entry(attention, choice, possible)
        entries = tuple(entry if each.site == "attention" else each for each in plan.operators)
        other = plan.model_copy(update={"operators": entries})
        tasks = SimExecutor(chip).run(lower(other), other).tasks
        mine = tasks[tasks["site"] == "attention"]
        simulated.append(float(mine["end_s"].max() - mine["start_s"].min()))
        assert choice.seconds == pytest.approx(simulated[-1], rel=0.3)
    assert simulated[0] <= 1.05 * min(simulated)
    assert entry_of(plan, "attention").pipeline == possible[0].pipeline


def test_left_operands_are_packed_by_whoever_is_predicted_to_do_it_faster() -> None:
    plan = roofline(LARGE, M4, layout_reuse="shared_packs")
    cores = tuple(i for i, worker in enumerate(plan.workers) if worker.role == "cpu")
    assert entry_of(plan, "o_proj").packers == cores
    program = lower(plan)
    packs = program.tasks[program.tasks["kind"] == TaskKind.PACK_LHS]
    assert set(packs["worker"].tolist()) - {ANY_WORKER} <= set(cores)
    data = M4.model_dump(mode="json", exclude_none=True)
    for cluster in data["clusters"]:
        cluster["core"]["flop_per_s"]["f32"]["value"] /= 1000  # so slow that a unit packs faster, whatever it takes
    slow = Chip.model_validate_json(json.dumps(data))
    drivers = tuple(i for i, worker in enumerate(plan.workers) if worker.role == "matrix")
    assert entry_of(roofline(LARGE, slow, layout_reuse="shared_packs"), "o_proj").packers == drivers
    for cluster in data["clusters"]:
        cluster["core"]["flop_per_s"]["f32"]["value"] *= 1000 / 4  # then an equal part takes either about as long
    alike = roofline(LARGE, Chip.model_validate_json(json.dumps(data)), layout_reuse="shared_packs")
    assert sorted(entry_of(alike, "o_proj").packers) == list(range(len(alike.workers)))


def append_s(chip: Chip, plan: Plan) -> float:
    """Simulated seconds from the first to the last of the tasks that append keys and values."""
    tasks = SimExecutor(chip).run(lower(plan), plan).tasks
    mine = tasks[tasks["site"] == "kv_append"]
    return float(mine["end_s"].max() - mine["start_s"].min())


def with_numbers(chip: Chip, core: float = 1.0, unit: float = 1.0) -> Chip:
    """The chip with cores that compute, and units that store, so many times as fast."""
    data = chip.model_dump(mode="json", exclude_none=True)
    for cluster in data["clusters"]:
        cluster["core"]["flop_per_s"]["f32"]["value"] *= core
        for driven in cluster.get("matrix_units", ()):
            for rate in driven["store_bytes_per_s"].values():
                rate["value"] *= unit
    return Chip.model_validate_json(json.dumps(data))


@pytest.mark.parametrize(
    ("chip", "threads", "phase", "by_units"),
    [
        (M4, 2, "prefill:32", True),
        (with_numbers(M4, unit=0.1), 2, "prefill:32", False),
        (M4, 2, "prefill:512", False),
        (with_numbers(M4, core=0.01), 10, "prefill:512,past=9", True),
        (M4, 10, "decode:512", True),
    ],
    ids=["few tokens", "a slow unit", "memory's time", "slow cores", "one token"],
)
def test_keys_and_values_are_packed_by_whoever_is_predicted_and_simulated_to_be_faster(
    chip: Chip, threads: int, phase: str, by_units: bool
) -> None:
    plan = roofline(build_graph(catalog.load("llama-3.2-1b"), Phase.parse(phase), layers=1), chip, threads)
    entry = entry_of(plan, "kv_append")
    drivers = tuple(i for i, worker in enumerate(plan.workers) if worker.role == "matrix")
    assert set(entry.packers) <= set(drivers)
    assert bool(entry.packers) == by_units
    other = with_entry(plan, "kv_append", packers=() if by_units else drivers)
    assert append_s(chip, plan) < append_s(chip, other)
    assert entry.reason is not None
    assert entry.reason.predicted_s < entry.reason.runners_up[0].predicted_s
    assert next(p.by for p in layout_report(plan, lower(plan)).of(APPENDED)).endswith("driver") == by_units


def test_packers_that_there_are_not_are_refused() -> None:
    plan = roofline(LARGE, M4, 4)
    wrong = {(9,): "packers has 9; the plan has workers 0..3", (1, 1): "packers names a worker twice"}
    for packers, wanted in wrong.items():
        entries = tuple(
            e.model_copy(update={"packers": packers}) if e.site == "o_proj" else e for e in plan.operators
        )
        with pytest.raises(PlanError, match=wanted):
            lower(plan.model_copy(update={"operators": entries}))
