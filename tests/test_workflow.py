"""The way through the house in one call each, from names to a study and its files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from smesim import workflow
from smesim.errors import ChipError, DeviceError, PlanError
from smesim.exec.device import Device
from smesim.hwmodel import library
from smesim.hwmodel.chip import Chip
from smesim.sim import without
from smesim.trace import Comparison
from smesim.workload import Phase, catalog
from tests.sim.chips import two_core_chip
from tests.workload.workload_models import tiny

CORES = len(Device.here().cores)
CHIP = two_core_chip(cores=CORES)
PROBED = two_core_chip(cores=len(Device.here().cores)).model_copy(
    update={"name": "host", "host": True, "machine": Device.here().processor}
)
MODEL = tiny(layers=4)
PHASES = (Phase.prefill(12), Phase.decode(12))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SMESIM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


# -- chips


def test_the_last_probe_is_kept_where_the_user_wants_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert workflow.host_chip_path() == home / "host.toml"
    monkeypatch.delenv("SMESIM_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert workflow.host_chip_path() == Path("/cache/smesim/host.toml")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/me")
    assert workflow.host_chip_path() == Path("/me/.cache/smesim/host.toml")


def test_a_chip_is_a_preset_a_file_or_the_last_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smesim.exec.probe.probe", lambda *_, **__: pytest.fail("probed although there is a probe"))
    library.save(CHIP, tmp_path / "mine.toml")
    library.save(PROBED, workflow.host_chip_path())
    assert workflow.resolve_chip("apple-m4").name == "apple-m4"
    assert workflow.resolve_chip(str(tmp_path / "mine.toml")) == CHIP
    assert workflow.resolve_chip("host") == PROBED
    with pytest.raises(ChipError, match="unknown chip 'hots'"):
        workflow.resolve_chip("hots")


def test_a_machine_without_a_probe_is_probed_quickly_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[bool, str]] = []

    def fake_probe(device: Device, *, quick: bool, command: str, **_: object) -> Chip:
        asked.append((quick, command))
        return PROBED

    monkeypatch.setattr("smesim.exec.probe.probe", fake_probe)
    assert workflow.resolve_chip("host") == workflow.resolve_chip("host") == PROBED
    assert asked == [(True, "smesim probe --quick")]


def test_a_probe_is_written_where_asked_and_kept_as_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smesim.exec.probe.probe", lambda *_, **__: PROBED)
    workflow.probe_host(tmp_path / "chip.toml")
    assert library.load(tmp_path / "chip.toml") == library.load(workflow.host_chip_path()) == PROBED


def test_a_probe_of_another_machine_is_not_taken_for_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smesim.exec.probe.probe", lambda *_, **__: PROBED)
    library.save(PROBED.model_copy(update={"machine": "Some Other CPU"}), workflow.host_chip_path())
    assert workflow.resolve_chip("host") == PROBED


# -- plans and predictions


def test_a_plan_is_for_the_phase_chip_threads_and_layers_asked_for() -> None:
    plan = workflow.make_plan(MODEL, PHASES[0], two_core_chip(cores=4), threads=3, layers=2, last_layer_rows="logits")
    assert (plan.phase, plan.chip, len(plan.workers), plan.layers) == ("prefill:12", "two-core", 3, 2)
    assert plan.last_layer_rows == "logits"
    assert any(operator.site.startswith("last.") for operator in plan.operators)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"planner_name": "magic"}, "unknown planner 'magic'; accepted: cpu_only, matrix_only"),
        ({"threads": 0}, "accepted: 1.."),
        ({"threads": 65}, "accepted: 1.."),
        ({"last_layer_rows": "none"}, "accepted: all, logits"),
    ],
)
def test_a_plan_that_cannot_be_made_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message.replace(".", r"\.")):
        workflow.make_plan(MODEL, PHASES[0], CHIP, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("run_s", "repeats"), [(3.0, 5), (0.41, 5), (0.2, 11), (0.1, 21), (1e-3, 25), (0.0, 25)])
def test_what_is_short_is_repeated_more_often(run_s: float, repeats: int) -> None:
    assert workflow.typical_repeats(run_s) == repeats


def test_a_prediction_is_the_same_whether_the_plan_was_lowered_before_or_not() -> None:
    from smesim.plan.lower import lower

    plan = workflow.make_plan(MODEL, PHASES[0], CHIP)
    assert workflow.predict(plan, CHIP) == workflow.predict(plan, CHIP, program=lower(plan))


def test_effects_are_switched_off_by_name() -> None:
    plan = workflow.make_plan(MODEL, PHASES[0], CHIP)
    ideal = workflow.predict(plan, CHIP, without(["dispatch", "barrier"]))
    assert ideal.makespans_s()[0] < workflow.predict(plan, CHIP).makespans_s()[0]


# -- measurements and studies


def test_a_measurement_reports_its_progress_from_nothing_to_all() -> None:
    steps: list[tuple[str, float]] = []
    plan = workflow.make_plan(MODEL, PHASES[0], CHIP)
    trace = workflow.measure(plan, repeats=3, progress=lambda what, share: steps.append((what, share))).trace
    assert trace.meta.runs == 3
    runs = [share for what, share in steps if "run" in what]
    assert runs == [0.25, 0.5, 0.75, 1.0]
    weights = [share for what, share in steps if "weights" in what]
    assert weights == sorted(weights)
    assert weights[-1] <= 1.0


@pytest.fixture(scope="module")
def study() -> workflow.Study:
    return workflow.study(MODEL, PHASES, CHIP, layers=2, repeats=3, seed=5)


def test_a_study_has_a_plan_and_a_comparison_for_each_phase(study: workflow.Study) -> None:
    assert [plan.phase for plan in study.plans] == ["prefill:12", "decode:12"]
    assert [comparison.phase for comparison in study.comparisons] == ["prefill:12", "decode:12"]
    assert {plan.layers for plan in study.plans} == {2}
    assert study.report.machine == Device.here().summary()


def test_both_traces_of_a_comparison_are_of_one_plan(study: workflow.Study) -> None:
    for plan, comparison in zip(study.plans, study.comparisons, strict=True):
        metas = comparison.predicted.meta, comparison.measured.meta
        assert {meta.plan_fingerprint for meta in metas} == {plan.fingerprint()}
        assert metas[0].program_fingerprint == metas[1].program_fingerprint
        assert (metas[0].source, metas[1].source, metas[1].runs) == ("simulated", "measured", 3)


def parts_s(comparison: Comparison) -> float:
    budget = comparison.budget
    return budget.compute_s + budget.transfer_s + budget.overhead_s + budget.wait_s


def test_the_error_budget_of_a_real_measurement_adds_up(study: workflow.Study) -> None:
    for comparison in study.comparisons:
        difference = comparison.total.measured_s - comparison.total.predicted_s
        assert parts_s(comparison) == pytest.approx(difference, abs=1e-9)


def test_a_study_takes_no_more_threads_than_chip_and_machine_have() -> None:
    few, many = (workflow.study(MODEL, PHASES[:1], two_core_chip(cores=n), layers=1, repeats=1) for n in (1, 64))
    assert [len(s.plans[0].workers) for s in (few, many)] == [1, CORES]


def test_a_study_with_too_many_threads_is_refused() -> None:
    with pytest.raises(DeviceError, match=rf"{CORES + 1} workers; this machine has {CORES} usable cores"):
        workflow.study(MODEL, PHASES, two_core_chip(cores=64), layers=1, threads=CORES + 1)


# -- how many layers


def with_memory(monkeypatch: pytest.MonkeyPatch, n_bytes: int) -> None:
    here = dataclasses.replace(Device.here(), available_bytes=n_bytes)
    monkeypatch.setattr(workflow.Device, "here", classmethod(lambda cls: here))


def needed_bytes(layers: int) -> float:
    """What the hungrier of the two phases needs with so many layers, with the room that is left free."""
    from smesim.exec.executor import NativeExecutor
    from smesim.exec.memory import HEADROOM
    from smesim.plan.lower import lower

    plans = (workflow.make_plan(MODEL, phase, CHIP, layers=layers) for phase in PHASES)
    return max(NativeExecutor(Device.here()).check(lower(plan)).total_bytes for plan in plans) / HEADROOM


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_as_many_layers_are_taken_as_fit_into_memory(layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = int(needed_bytes(layers)) + 1
    with_memory(monkeypatch, limit)
    assert workflow.fitting_layers(MODEL, PHASES, CHIP, None) == layers


def test_a_model_of_which_not_one_layer_fits_is_refused_with_the_bill(monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory(monkeypatch, int(needed_bytes(1)) - 100)
    with pytest.raises(DeviceError, match=r"weights .* KV cache .* scratch"):
        workflow.fitting_layers(MODEL, PHASES, CHIP, None)


def test_the_demo_takes_as_many_layers_as_its_time_allows() -> None:
    model = catalog.load("smollm2-135m").model_copy(update={"layers": 9})

    def total_s(layers: int) -> float:
        plans = (workflow.make_plan(model, phase, CHIP, layers=layers) for phase in PHASES)
        return 6 * sum(float(workflow.predict(plan, CHIP).makespans_s()[0]) for plan in plans)

    for layers in (3, 8):
        assert workflow.layers_in_time(model, PHASES, CHIP, budget_s=total_s(layers)) == layers
    assert workflow.layers_in_time(model, PHASES, CHIP, budget_s=1e9) == 9
    assert workflow.layers_in_time(model, PHASES, CHIP, budget_s=1e-9) == 1
