"""What planners decide: who does what, with strips that suit who does it."""

from __future__ import annotations

import pytest

from smesim.errors import PlanError
from smesim.hwmodel import library
from smesim.hwmodel.chip import Chip
from smesim.plan.lower import lower
from smesim.plan.planners import cpu_only, matrix_only
from smesim.plan.teams import computes_f32
from smesim.workload import DType, DTypes, Phase, build_graph
from smesim.workload.operators import Attention, Linear
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
            products = isinstance(operator, Linear | Attention) and operator.activation_rows > 1
            assert entry.mode == ("matrix" if products else "cpu")
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


def test_what_matrix_only_cannot_plan_is_refused() -> None:
    with pytest.raises(PlanError, match=r"chip two-core has no matrix unit for f32; accepted: .*cpu_only"):
        matrix_only(PREFILL, two_core_chip())
    with pytest.raises(PlanError, match=r"needs one that drives it and one for .* accepted: 2\.\."):
        matrix_only(PREFILL, library.load("apple-m4"), 1)
    with pytest.raises(PlanError, match=r"accepted: 1\.\."):
        matrix_only(PREFILL, library.load("apple-m4"), 1000)
    with pytest.raises(PlanError, match="weights of q4_0 asked for; accepted: f32, bf16"):
        matrix_only(build_graph(tiny(), Phase.prefill(4), DTypes(weights=DType.Q4_0)), library.load("apple-m4"), 2)
    first_cannot = chip_of_two_clusters()
    with pytest.raises(PlanError, match=r"none of the first 2 cores of .* accepted: 3\.\."):
        matrix_only(PREFILL, first_cannot, 2)


def chip_of_two_clusters() -> Chip:
    """A chip whose first two cores cannot drive its unit."""
    m4, cores = library.load("apple-m4"), two_core_chip().clusters[0]
    caches = tuple(c.model_copy(update={"clusters": (*c.clusters, cores.name)}) for c in m4.caches)
    return m4.model_copy(update={"clusters": (cores, *m4.clusters), "caches": caches})
