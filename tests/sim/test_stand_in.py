"""Wide kernels in the place of a matrix unit: what each worker runs, what it costs, and that the numbers are right."""

from __future__ import annotations

import numpy as np
import pytest

from smesim.exec.device import Device
from smesim.exec.executor import NativeExecutor
from smesim.exec.lowp_tables import lowp_beside
from smesim.exec.probe.stand_in import joined
from smesim.exec.tensors import Tensors
from smesim.hwmodel.chip import Chip
from smesim.plan.lower import lower
from smesim.plan.pipeline import pipelined
from smesim.plan.planners import Planner, cpu_only, matrix_only, roofline
from smesim.plan.program import TaskKind
from smesim.plan.schema import Plan
from smesim.sim import SimExecutor
from smesim.workload import DType, DTypes, Phase, build_graph, catalog
from smesim.workload.operators import Linear
from tests.exec.native_models import Case, Cut, little, logits, make_case, reference
from tests.sim.chips import two_core_chip

FASTER = 2.0


def stand_in_chip() -> Chip:
    """Two cores, each with a stand-in of twice its rate: that of an other probe, on kernels of twice the speed."""
    narrow = two_core_chip()
    cluster = narrow.clusters[0]

    def faster(quantity, unit=FASTER):
        return quantity.model_copy(update={"value": quantity.value * unit})

    kernels = tuple(
        kernel.model_copy(
            update={
                "parameters": {
                    name: faster(q, 1 / FASTER) if name.startswith("s_per") else q
                    for name, q in kernel.parameters.items()
                }
            }
        )
        for kernel in cluster.core.kernels
    )
    rates = {dtype: faster(rate) for dtype, rate in cluster.core.flop_per_s.items()}
    core = cluster.core.model_copy(update={"isa": "avx512", "flop_per_s": rates, "kernels": kernels})
    return joined(narrow, narrow.model_copy(update={"clusters": (cluster.model_copy(update={"core": core}),)}))


CHIP = stand_in_chip()
DEVICE = Device.here()


def cooperative(plan: Plan, unit_share: float) -> Plan:
    """Both workers share every product, the one that drives the unit by its share; all else as planned."""
    shares = {0: unit_share, 1: 1.0 - unit_share}
    entries = tuple(
        e.model_copy(
            update={
                "mode": "cooperative", "workers": (0, 1), "shares": (shares[0], shares[1]), "assignment": "static",
                "tile": e.tile.model_copy(update={"n": 16}),
            }
        )
        if e.kind == "linear"
        else e
        for e in plan.operators
    )  # fmt: skip
    return plan.model_copy(update={"operators": entries})


@pytest.mark.parametrize("weights", [DType.F32, DType.BF16])
def test_a_cooperative_plan_gives_the_numbers_of_the_reference(weights: DType) -> None:
    case = make_case(little(), Phase.prefill(29), Cut(weights=weights), seed=3)
    graph = build_graph(case.plan.model, case.phase, DTypes(weights=weights))
    plan = cooperative(matrix_only(graph, CHIP, 2), 2 / 3)
    case = Case(plan, lower(plan), case.arrays)
    device = Device.here() if DEVICE.matrix_isa is None else DEVICE.with_stand_in()
    if len(device.cores) < 2:
        pytest.skip("needs two cores")
    tensors = Tensors.from_arrays(case.program, plan.model, device, case.arrays)
    meta = NativeExecutor(device).run(case.program, tensors, plan).meta
    expected = reference(case).logits
    assert (np.abs(logits(case, tensors) - expected.value) <= expected.error).all()
    assert meta.stand_in
    assert plan.stand_in
    both = {device.with_stand_in().matrix_isa or "", device.with_stand_in().isa}
    expected_isas = both if weights is DType.F32 else {lowp_beside(isa).isa for isa in both}
    assert set(meta.kernels["linear"].split("+")) == expected_isas


def test_the_unit_runs_the_widest_kernels_and_the_cores_the_next_narrower_ones() -> None:
    wide, narrow = DEVICE.stand_in_isas
    beside = DEVICE.with_stand_in()
    assert (beside.matrix_isa, beside.isa) == (wide, narrow)
    assert beside.stand_in_isas == (wide, narrow)
    assert wide == DEVICE.isa
    assert narrow == {"avx512": "avx2", "avx2": "fma128"}.get(wide, "portable")
    assert not DEVICE.kernel_table(wide).stand_in


def test_a_worker_that_drives_a_stand_in_costs_what_the_units_kernels_cost() -> None:
    graph = build_graph(little(d_model=256, d_ff=512), Phase.prefill(60))
    on_cores = cpu_only(graph, CHIP, 1)
    driver = on_cores.workers[0].model_copy(update={"role": "matrix", "unit": 0})
    entries = tuple(e.model_copy(update={"mode": "matrix"}) for e in on_cores.operators)
    on_unit = on_cores.model_copy(update={"workers": (driver,), "operators": entries})
    executor = SimExecutor(CHIP, {"kernel_efficiency", "edge_tiles", "tile_overhead"})
    times = []
    for plan in (on_cores, on_unit):
        trace = executor.run(lower(plan), plan)
        assert trace.meta.stand_in
        products = trace.tasks["kind"] == TaskKind.GEMM.name.lower()
        times.append(trace.tasks["compute_s"][products].sum())
    assert times[1] == pytest.approx(times[0] / FASTER, rel=1e-6)


def test_a_prediction_depends_on_who_has_the_larger_share() -> None:
    graph = build_graph(little(d_model=256, d_ff=1024, vocab=512), Phase.prefill(60))
    plan = matrix_only(graph, CHIP, 2)
    assert [worker.role for worker in plan.workers] == ["matrix", "cpu"]
    times = {}
    for share in (2 / 3, 1 / 3):
        shared = cooperative(plan, share)
        trace = SimExecutor(CHIP).run(lower(shared), shared)
        products = trace.tasks[trace.tasks["kind"] == "gemm"]
        times[share] = float((products.groupby("op")["end_s"].max() - products.groupby("op")["start_s"].min()).sum())
    assert times[2 / 3] < 0.75 * times[1 / 3]


def test_stages_that_multiply_on_a_stand_in_cost_what_its_kernels_cost() -> None:
    plan = matrix_only(build_graph(little(d_model=256, d_ff=512), Phase.prefill(64)), CHIP, 2)
    products = {}
    for role in ("matrix", "cpu"):
        entry = pipelined(
            plan.site("attention"), plan.workers, depth=2, query_block=16, key_block=16, qk=role, pv=role
        )
        staged = plan.model_copy(
            update={"operators": tuple(entry if o.site == "attention" else o for o in plan.operators)}
        )
        tasks = SimExecutor(CHIP, {"kernel_efficiency", "edge_tiles"}).run(lower(staged), staged).tasks
        products[role] = tasks[tasks["kind"].isin(["attention_qk", "attention_pv"])]["compute_s"].sum()
    assert products["matrix"] == pytest.approx(products["cpu"] / FASTER, rel=1e-6)


@pytest.mark.parametrize("weights", [DType.F32, DType.BF16])
@pytest.mark.parametrize("planner", [cpu_only, matrix_only, roofline])
def test_planners_predict_products_on_a_stand_in_about_as_the_simulator_does(planner: Planner, weights: DType) -> None:
    graph = build_graph(catalog.load("smollm2-135m"), Phase.prefill(128), DTypes(weights=weights), layers=1)
    plan = planner(graph, CHIP, 2)
    assert (plan.stand_in, plan.weights_dtype) == (True, weights)
    tasks = SimExecutor(CHIP).run(lower(plan), plan).tasks
    by_site = tasks[tasks["kind"] == "gemm"].groupby("site", observed=True)
    spans = by_site["end_s"].max() - by_site["start_s"].min()
    for site in ("q_proj", "gate_proj", "down_proj"):
        reason = plan.site(site).reason
        assert reason is not None
        assert spans[site] == pytest.approx(reason.predicted_s, rel=0.25)


@pytest.mark.parametrize("weights", [DType.F32, DType.BF16])
def test_roofline_divides_products_by_the_speed_of_both_kinds_of_kernels(weights: DType) -> None:
    graph = build_graph(catalog.load("smollm2-135m"), Phase.prefill(128), DTypes(weights=weights), layers=1)
    entry = roofline(graph, CHIP, 2).site("gate_proj")
    assert (entry.mode, entry.workers) == ("cooperative", (0, 1))
    assert entry.shares[0] / entry.shares[1] == pytest.approx(FASTER, rel=0.1)
    assert entry.reason is not None
    assert {other.mode for other in entry.reason.runners_up} == {"cpu", "matrix"}


def test_strips_for_a_stand_in_are_as_high_as_its_kernels_take() -> None:
    graph = build_graph(little(), Phase.prefill(60))
    plan = matrix_only(graph, CHIP, 2)
    linear = {site for site, operators in graph.sites.items() if isinstance(operators[0], Linear)}
    layouts = {e.lhs_layout for e in plan.operators if e.site in linear and e.mode == "matrix"}
    assert layouts == {"lhs_f32_m6"}
