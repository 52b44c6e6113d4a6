"""A probe's chip brought up to date: two ratios go in, and nothing else changes."""

from __future__ import annotations

import pytest

from smesim.exec.probe.drift import REFERENCE_KERNEL, chip_of_now
from smesim.exec.probe.timing import Timing
from smesim.exec.probe.yardstick import Reference
from smesim.hwmodel.chip import DRAM, Chip, KernelModel, factor_at
from smesim.hwmodel.quantity import Quantity
from smesim.plan.planners import cpu_only
from smesim.workflow import predict
from smesim.workload import Phase, build_graph
from tests.sim.chips import two_core_chip
from tests.workload.workload_models import tiny

THEN = {"memory_t1": 20e9, "product_t1": 80e9, "memory_t2": 30e9, "product_t2": 150e9}


def measured(value: float, unit: str) -> Quantity:
    return Quantity(
        value=value, unit=unit, provenance="measured", source="a test", command="a test", date="2026-11-21", repeats=5,
        spread=0.0,
    )  # fmt: skip


def probed_chip() -> Chip:
    chip = two_core_chip()
    cluster = chip.clusters[0]
    yardstick = KernelModel(
        name=REFERENCE_KERNEL,
        isa="avx2",
        parameters={n: measured(v, "B/s" if n.startswith("memory") else "FLOP/s") for n, v in THEN.items()},
    )
    core = cluster.core.model_copy(update={"kernels": (*cluster.core.kernels, yardstick)})
    return chip.model_copy(update={"clusters": (cluster.model_copy(update={"core": core}), *chip.clusters[1:])})


def now(memory: float, product: float) -> Reference:
    return Reference(Timing(memory, 0.0, 5), Timing(product, 0.0, 5))


def test_nothing_has_changed() -> None:
    chip = probed_chip()
    same, note = chip_of_now(chip, now(30e9, 150e9), 2)
    assert same.memory.bandwidth_bytes_per_s.value == chip.memory.bandwidth_bytes_per_s.value
    assert factor_at(same.clusters[0].multi_core_factors, 2) == factor_at(chip.clusters[0].multi_core_factors, 2)
    assert "memory +0%" in note
    assert "products +0%" in note


def test_memory_and_cores_are_scaled_by_their_own_ratio() -> None:
    chip = probed_chip()
    drifted, note = chip_of_now(chip, now(45e9, 120e9), 2)
    before, after = chip.clusters[0], drifted.clusters[0]
    memory = drifted.memory.bandwidth_bytes_per_s
    assert memory.value == pytest.approx(1.5 * chip.memory.bandwidth_bytes_per_s.value)
    assert memory.provenance == "derived"
    assert memory.reason is not None
    factors = factor_at(after.multi_core_factors, 2), factor_at(before.multi_core_factors, 2)
    assert factors[0] == pytest.approx(0.8 * factors[1])
    assert after.core.flop_per_s == before.core.flop_per_s
    assert after.core.load_bytes_per_s == before.core.load_bytes_per_s
    assert after.core.kernels == before.core.kernels
    assert "memory +50%" in note
    assert "products -20%" in note


def test_one_thread_is_held_by_its_own_cap() -> None:
    chip = probed_chip()
    drifted, _ = chip_of_now(chip, now(10e9, 80e9), 1)
    before, after = chip.clusters[0].core.load_bytes_per_s, drifted.clusters[0].core.load_bytes_per_s
    assert after[DRAM].value == pytest.approx(0.5 * before[DRAM].value)
    assert {level: q for level, q in after.items() if level != DRAM} == {
        level: q for level, q in before.items() if level != DRAM
    }


def test_a_chip_that_has_drifted_is_predicted_with_whatever_was_asked_of_it_before() -> None:
    graph = build_graph(tiny(), Phase.prefill(200), layers=1)
    seconds = []
    for asked_before in (False, True):
        chip = probed_chip()
        if asked_before:
            predict(cpu_only(graph, chip, 2), chip)
        slower, _ = chip_of_now(chip, now(30e9, 75e9), 2)
        seconds.append(predict(cpu_only(graph, probed_chip(), 2), slower).makespans_s()[0])
    as_probed = predict(cpu_only(graph, probed_chip(), 2), probed_chip()).makespans_s()[0]
    assert seconds[0] == seconds[1] > 1.2 * as_probed


@pytest.mark.parametrize("chip", [two_core_chip(), probed_chip()], ids=["no yardstick", "other threads"])
def test_a_chip_without_that_yardstick_stays_as_it_is(chip: Chip) -> None:
    same, note = chip_of_now(chip, now(45e9, 120e9), 3)
    assert same is chip
    assert "no yardstick on 3 threads" in note
