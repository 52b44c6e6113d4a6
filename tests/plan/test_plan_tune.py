"""Tuning by trials: never slower than where it started, the same in one go or several, a reason for each change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smesim.cli import app
from smesim.errors import PlanError
from smesim.plan.lower import lower
from smesim.plan.planners import Planning, roofline
from smesim.plan.schema import Plan, load_plan
from smesim.plan.space import Given, tunable, varied
from smesim.plan.teams import both_workers
from smesim.plan.tune import tune
from smesim.sim import SimExecutor
from smesim.workload import OperatorGraph, Phase, build_graph
from tests.sim.chips import two_core_chip, unit_chip
from tests.workload.workload_models import tiny

CHIP = unit_chip()
GRAPH = build_graph(tiny(d_model=256, d_ff=512), Phase.parse("prefill:96"), layers=1)
START = roofline(GRAPH, CHIP)
SPOILT = roofline(GRAPH, CHIP, forced={"gate_proj": "cpu", "down_proj": "cpu"})


def planning(graph: OperatorGraph = GRAPH) -> Planning:
    return Planning(graph, CHIP, both_workers(CHIP, None), None, True, {})


def simulated_s(plan: Plan) -> float:
    return SimExecutor(CHIP).seconds(lower(plan, GRAPH))


@pytest.mark.parametrize("phase", ["prefill:96", "decode:600"])
@pytest.mark.parametrize("chip", [unit_chip(), two_core_chip()], ids=lambda chip: chip.name)
def test_the_usual_parameters_are_the_plan_to_start_from(phase: str, chip: object) -> None:
    graph = build_graph(tiny(d_model=256, d_ff=512), Phase.parse(phase), layers=1)
    start = roofline(graph, chip)  # type: ignore[arg-type]
    whole = Planning(graph, chip, start.workers, None, True, {})  # type: ignore[arg-type]
    entries = [entry if entry.site not in tunable(whole) else varied(Given(), whole, entry.site, entry)
               for entry in start.operators]  # fmt: skip
    assert whole.plan("roofline", entries) == start


def test_a_tuned_plan_is_faster_for_reasons_and_the_same_in_one_go_or_several(tmp_path: Path) -> None:
    once = tune(planning(), SPOILT, simulated_s, trials=24, seed=5)
    assert len(once.curve) == 24
    assert once.curve[0].seconds == once.start_s == simulated_s(SPOILT)
    assert [trial.best_s for trial in once.curve] == sorted((trial.best_s for trial in once.curve), reverse=True)
    assert once.seconds == simulated_s(once.plan) <= once.curve[-1].best_s < once.start_s
    changed = {change.site for change in once.changes}
    assert changed == {e.site for e, old in zip(once.plan.operators, SPOILT.operators, strict=True)
                       if e.model_copy(update={"reason": None, "out_layout": ""})
                       != old.model_copy(update={"reason": None, "out_layout": ""})}  # fmt: skip
    for change in once.changes:
        assert change.saved_s > 0
        before = {entry.site: entry for entry in once.plan.operators} | {change.site: change.before}
        assert simulated_s(planning().plan("tune", before.values())) == once.seconds + change.saved_s
    journal = tmp_path / "trials.log"
    for trials in (7, 24):
        again = tune(planning(), SPOILT, simulated_s, trials=trials, seed=5, journal=journal)
    assert again.curve == once.curve
    assert again.plan == once.plan
    other = tune(planning(), SPOILT, simulated_s, trials=3, seed=5, journal=journal, name="another question")
    assert other.curve == once.curve[:3]


def test_what_cannot_run_is_a_trial_without_a_time() -> None:
    def evaluate(plan: Plan) -> float:
        if plan.site("o_proj").mode != START.site("o_proj").mode:
            raise PlanError("not this one")
        return 1.0 - 0.1 * (plan.site("q_proj").mode == "cpu")

    found = tune(planning(), START, evaluate, trials=30, sites=["q_proj", "o_proj"])
    assert [change.site for change in found.changes] == ["q_proj"]
    assert found.changes[0].saved_s == pytest.approx(0.1)
    assert any(trial.seconds is None for trial in found.curve)
    with pytest.raises(PlanError, match="--sites names operator 'nothing'; accepted: q_proj"):
        tune(planning(), START, evaluate, trials=1, sites=["nothing"])


def test_the_command_writes_a_plan_that_can_be_read_and_the_curve(tmp_path: Path) -> None:
    plan, page, journal = tmp_path / "plan.json", tmp_path / "curve.html", tmp_path / "trials.log"
    asked = ["tune", "--model", "smollm2-135m", "--phase", "prefill:16", "--chip", "apple-m4", "--layers", "1"]
    asked += ["--sites", "q_proj,attention", "--out", str(plan), "--journal", str(journal)]
    done = CliRunner().invoke(app, [*asked, "--trials", "4", "--html", str(page), "--json"])
    record = json.loads(done.stdout)
    assert len(record["curve"]) == 4
    assert record["seconds"] <= record["start_s"]
    assert load_plan(plan).planner == "tune"
    assert "best so far" in page.read_text(encoding="utf-8")
    table = CliRunner().invoke(app, [*asked, "--trials", "5"])
    assert "after 5 trials" in " ".join(table.stdout.split())
    refused = CliRunner().invoke(app, [*asked, "--measured"])
    assert isinstance(refused.exception, PlanError)
    assert "--chip host" in str(refused.exception)
