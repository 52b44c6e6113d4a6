"""The probe of this machine, once: a valid chip whose every number says how it was got, and none is a guess."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smesim.errors import DeviceError
from smesim.exec.device import Device
from smesim.exec.lowp_tables import blocks_beside, lowp_beside
from smesim.exec.probe import chipfile, little_models, loops, probe, warm, yardstick
from smesim.exec.probe.little_models import MIXED, NARROW, WIDE, planned_runs
from smesim.exec.probe.loops import lowp_isas
from smesim.exec.probe.stand_in import joined
from smesim.hwmodel import library
from smesim.hwmodel.chip import Chip
from smesim.plan.lower import lower
from smesim.plan.planners import cpu_only, matrix_only
from smesim.sim import SimExecutor
from smesim.workload import DType, DTypes, ModelConfig, Phase, build_graph, catalog
from smesim.workload.operators import GroupedLinear, Linear, Router

HERE = Device.here()
REPEATED = (loops, warm, little_models)
"""What measures several times, so that a chip can be relied on; here nobody relies on its numbers."""


def in_little(patch: pytest.MonkeyPatch, repeats: int) -> None:
    """For the same reason all is measured less often, in shorter loops, and with models of half the width."""
    for module in REPEATED:
        patch.setattr(module, "REPEATS", repeats)
    patch.setattr(loops, "FMA_ITERATIONS", loops.FMA_ITERATIONS // 8)
    patch.setattr(loops, "READ_AT_LEAST_BYTES", loops.READ_AT_LEAST_BYTES // 8)
    patch.setattr(warm, "FLOP_A_CALL", warm.FLOP_A_CALL / 8)
    patch.setattr(warm, "GEMV_ELEMENTS", warm.GEMV_ELEMENTS // 8)
    patch.setattr(yardstick, "MODEL", halved(yardstick.MODEL))
    little = {model: halved(model) for model in (WIDE, NARROW, MIXED)}
    patch.setattr(little_models, "MIXED", little[MIXED])
    for runs in ("QUICK_RUNS", "LOW_PRECISION_RUNS", "STAGED_RUNS"):
        patch.setattr(little_models, runs, tuple((little[model], *run) for model, *run in getattr(little_models, runs)))


def halved(model: ModelConfig) -> ModelConfig:
    """The model at half its width, with as many heads."""
    narrower = ("d_model", "d_ff", "head_dim", "vocab", "d_expert")
    return model.model_copy(update={name: getattr(model, name) // 2 for name in narrower})


@pytest.fixture(scope="module")
def probed() -> tuple[Chip, list[tuple[str, int, int]]]:
    steps: list[tuple[str, int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        in_little(patch, 2)
        chip = probe(
            HERE, quick=True, formats=[DType.BF16, DType.Q4_0], progress=lambda *step: steps.append(step),
            command="a test",
        )  # fmt: skip
    return chip, steps


def evidence(value: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Everything in a chip that has a provenance, with its key."""
    if isinstance(value, dict):
        if "provenance" in value:
            yield key, value
        for name, inner in value.items():
            yield from evidence(inner, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from evidence(inner, f"{key}[{i}]")


@pytest.mark.slow
def test_every_number_says_how_it_was_got_and_none_is_guessed(probed) -> None:
    chip, _ = probed
    found = dict(evidence(chip.model_dump(mode="json")))
    assert len(found) > 20
    for key, fact in found.items():
        assert fact["provenance"] in ("measured", "fitted", "derived", "data_sheet"), key
        assert fact["source"], key
        if fact["provenance"] == "measured":
            assert fact["command"] == "a test", key
            assert fact["repeats"] >= 1, key
            assert fact["spread"] is not None, key
            assert fact["date"], key
        if fact["provenance"] in ("fitted", "derived"):
            assert fact["reason"], key


@pytest.mark.slow
def test_the_chip_is_this_machine(probed) -> None:
    chip, _ = probed
    assert chip.host
    assert chip.machine == HERE.processor
    assert chip.core_count == len(HERE.cores)
    models = chip.clusters[0].core.kernels
    assert {model.isa for model in models if model.name != "fma_peak"} == {
        HERE.isa, lowp_beside(HERE.isa).isa, blocks_beside(HERE.isa).isa,
    }  # fmt: skip
    fitted = {model.name for model in models if any(q.provenance == "fitted" for q in model.parameters.values())}
    for dtype in ("f32", "bf16"):
        assert {f"gemm_{dtype}", f"pack_lhs_{dtype}", f"embed_{dtype}"} <= fitted
        (gemv,) = (model for model in models if model.name == f"gemv_{dtype}")
        assert 0 < gemv.parameters["lone_stream_share"].value <= 1
    assert {"gemm_q8_0", "gemv_q8_0", "gemm_q4_0", "gemm_q4_1", "quantize_q8"} <= {model.name for model in models}
    assert {"gemm_q4_0", "embed_q4_0", "quantize_q8"} <= fitted
    assert [chip.has_fitted_products(dtype) for dtype in ("f32", "bf16", "q4_0", "q8_0")] == [True, True, True, False]
    assert chip.has_fitted_products("q8_0", in_models=False)
    waits = {model.name: model.parameters.get("serial_share") for model in models}["gemv_q4_0"]
    assert waits is not None
    assert 0 <= waits.value <= 1
    peaks = {model.isa: set(model.parameters) for model in models if model.name == "fma_peak"}
    assert set(peaks) == {k.isa for k in HERE.kernels if k.supported and not k.test_only} | set(lowp_isas())
    assert all({"f32_flop_per_s", "f64_flop_per_s"} <= peaks[k.isa] for k in HERE.kernels if k.isa in peaks)
    assert all({"bf16_flop_per_s", "s8_flop_per_s"} <= peaks[isa] for isa in lowp_isas())
    assert set(chip.clusters[0].core.flop_per_s) == {"f32", "f64", "bf16", "s8"}
    assert "quick probe" in chip.provenance_note


@pytest.mark.slow
def test_the_chip_survives_its_file(probed, tmp_path: Path) -> None:
    chip, _ = probed
    library.save(chip, tmp_path / "host.toml")
    assert library.load(tmp_path / "host.toml") == chip


@pytest.mark.slow
def test_the_chip_predicts_a_model(probed) -> None:
    chip, _ = probed
    plan = cpu_only(build_graph(catalog.load("smollm2-135m"), Phase.prefill(16), layers=2), chip)
    trace = SimExecutor(chip).run(lower(plan), plan)
    assert trace.makespans_s()[0] > 0


@pytest.mark.slow
@pytest.mark.parametrize("weights", [DType.F32, DType.BF16])
def test_two_probes_make_a_chip_with_a_stand_in_that_predicts_plans_for_both_roles(
    probed, weights: DType, tmp_path: Path
) -> None:
    chip = joined(probed[0], probed[0])
    library.save(chip, tmp_path / "stand-in.toml")
    assert library.load(tmp_path / "stand-in.toml") == chip
    assert chip.has_stand_in
    assert "stand-in" in chip.description
    assert "stand-in" in chip.provenance_note
    if chip.core_count > 1:
        graph = build_graph(catalog.load("smollm2-135m"), Phase.prefill(16), DTypes(weights=weights), layers=2)
        plan = matrix_only(graph, chip)
        assert SimExecutor(chip).run(lower(plan), plan).meta.stand_in


@pytest.mark.slow
def test_progress_counts_to_its_end(probed) -> None:
    _, steps = probed
    done = [count for _, count, _ in steps]
    total = steps[-1][2]
    assert done == sorted(done)
    assert steps[-1] == ("done", total, total)
    assert {count for _, _, count in steps} == {total}


@pytest.mark.parametrize("threads", [0, -1, len(HERE.cores) + 1])
def test_a_number_of_threads_that_this_machine_has_not_is_refused(threads: int) -> None:
    with pytest.raises(DeviceError, match=rf"{threads} threads asked for; accepted: 1\.\.{len(HERE.cores)}"):
        probe(HERE, threads=threads)


def test_the_quick_runs_are_part_of_the_whole() -> None:
    quick, whole = planned_runs(True, 2), planned_runs(False, 2)
    assert set(quick) < set(whole)
    assert {run.threads for run in quick} == {1, 2}
    assert {run.threads for run in planned_runs(True, 1)} == {1}
    assert {run.weights for run in quick} == {DType.F32}
    assert {run.weights for run in planned_runs(True, 2, (DType.F32, DType.BF16))} == {DType.F32, DType.BF16}


def products(model: ModelConfig) -> set[tuple[int, int]]:
    graph = build_graph(model, Phase.prefill(2))
    routers = {(o.experts, o.dim) for o in graph.operators if isinstance(o, Router)}
    return {(o.n, o.k) for o in graph.operators if isinstance(o, Linear | GroupedLinear)} | routers


def test_no_product_of_the_little_models_is_one_of_a_catalogue_model() -> None:
    """A prediction of a published model must not be the repetition of a measurement."""
    published = set().union(*(products(catalog.load(name)) for name in catalog.names()))
    for model in (WIDE, NARROW, MIXED):
        assert not published & products(model)


def test_nor_is_one_of_the_yardsticks() -> None:
    published = set().union(*(products(catalog.load(name)) for name in catalog.names()))
    assert not products(yardstick.MODEL) & (published | products(WIDE) | products(NARROW) | products(MIXED))


@pytest.mark.skipif(not any(k.isa == "wide16" and k.supported for k in HERE.kernels), reason="needs AVX2")
def test_strips_of_the_little_models_are_as_high_as_the_kernels_that_are_probed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also on a machine whose fastest kernels have other strips than those of a chip that says nothing."""
    wide = replace(HERE.kernel_table("wide16"), test_only=False)
    device = replace(HERE, kernels=(wide, *(k for k in HERE.kernels if k.isa == "portable")))
    heights: set[int] = set()

    class EnoughError(Exception):
        pass

    def run_all(device: Device, sketch: Chip, runs: Any, yardsticks: Any, *rest: Any) -> None:
        for stick in yardsticks.values():
            stick.look()
            stick.look()
            reference = stick.take([1.0])
            assert reference.memory.median > 0
            assert reference.product.median > 0
        program = lower(cpu_only(build_graph(WIDE, Phase.prefill(30)), sketch))
        heights.update(program.ops["lhs_mr"].tolist())
        raise EnoughError

    in_little(monkeypatch, 1)
    monkeypatch.setattr(chipfile, "IN_BLOCKS", ())  # the portable ones, beside such kernels, take a minute
    monkeypatch.setattr(chipfile, "run_all", run_all)
    with pytest.raises(EnoughError):
        probe(device, quick=True, formats=[DType.F32])
    assert heights - {0} == {wide.mr}
