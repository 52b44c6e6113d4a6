"""What the pages show, without browser or server: tables, pictures, edited chips, opened files, work in a process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dashboards import figures, gantt, jobs, one_task, opening, palette, published, tables, what_if
from dashboards.question import Question, from_parameters
from smesim import workflow
from smesim.ablation import Step
from smesim.errors import ChipError, SmesimError
from smesim.hwmodel import library
from smesim.hwmodel.quantity import PROVENANCES
from smesim.plan.diff import plan_differences
from smesim.plan.schema import Plan
from smesim.trace import Trace, compare, write_trace
from smesim.workload import DType, Phase, build_graph, catalog
from tests.dashboards.slow_work import slow
from tests.trace import examples

CHIP = library.load("apple-m4")
MODEL = catalog.load("smollm2-135m")
PHASE = Phase.prefill(16)
DRAM = ("memory", "bandwidth_bytes_per_s")
UNIT_COUNT = ("clusters", 0, "matrix_units", 0, "count")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return workflow.make_plan(MODEL, PHASE, CHIP, planner_name="roofline", layers=1)


@pytest.fixture(scope="module")
def trace(plan: Plan) -> Trace:
    return workflow.predict(plan, CHIP)


def test_an_address_gives_the_question_back_and_is_checked_as_any_input() -> None:
    asked = Question(phase="decode", tokens=300, chip="apple-m1", forced="q_proj=cpu")
    assert from_parameters(asked.parameters()) == asked
    assert from_parameters({}) == Question()
    assert from_parameters({"chip": "host", "unknown": "1"}, ("host",)).chip == "host"
    assert str(asked.as_phase()) == "decode:300"
    for wrong in ({"tokens": "-1"}, {"tokens": "9" * 20}, {"model": "gpt"}, {"chip": "host"}, {"layers": "x"}):
        with pytest.raises(SmesimError, match="accepted: "):
            from_parameters(wrong)


def test_every_origin_has_a_mark_and_no_two_look_alike() -> None:
    marks = [palette.mark(name) for name in (*PROVENANCES, "simulated", "stand-in", "emulated")]
    assert len({mark[0] for mark in marks}) == len(marks)
    assert palette.trace_mark("measured", stand_in=True) == "● measured, ⇄ stand-in"
    colours = [colour for colour, _ in palette.MODES.values()]
    assert len(set(colours)) == len({symbol for _, symbol in palette.MODES.values()}) == len(palette.MODES)


def test_the_roofline_has_every_site_under_the_roof_of_its_mode(plan: Plan) -> None:
    graph = build_graph(MODEL, PHASE, layers=1)
    found = workflow.roofs(graph, CHIP)
    table = tables.roofline_table(found, graph, plan).set_index("site")
    assert list(table.index) == list(graph.sites)
    q_proj = table.loc["q_proj"]
    assert q_proj["shape"] == "16 x 576 x 576"
    assert q_proj["GFLOP"] == pytest.approx(2 * 16 * 576 * 576 / 1e9)
    assert q_proj["FLOP/B"] == pytest.approx(q_proj["GFLOP"] * 1e3 / q_proj["MB"])
    figure = figures.roofline(found, table.reset_index())
    drawn = {str(line.name): line for line in figure.data}
    assert {"roof of cores (f32)", "roof of matrix (f32)", "roof of both (f32)"} <= drawn.keys()
    roofs = {mode: max(drawn[f"roof of {name} (f32)"].y) for name, (mode, _) in palette.ROOFS.items()}
    for mode in ("cpu", "matrix", "cooperative"):
        if f"planned {mode}" in drawn:
            assert max(drawn[f"planned {mode}"].y) <= roofs[mode] * 1.0001
    assert figure.layout.xaxis.title.text.endswith("FLOP/B")
    assert figure.layout.yaxis.title.text.endswith("GFLOP/s")


def test_the_plan_says_why_and_what_was_not_taken(plan: Plan) -> None:
    table = tables.plan_table(plan).set_index("site")
    entry = plan.site("q_proj")
    assert entry.reason
    assert table.loc["q_proj", "mode"] == entry.mode
    assert table.loc["q_proj", "estimate, ms"] == entry.reason.predicted_s * 1e3
    for other in entry.reason.runners_up:
        assert other.mode in str(table.loc["q_proj", "runners-up"])
    forced = workflow.make_plan(MODEL, PHASE, CHIP, planner_name="roofline", layers=1, forced={"down_proj": "cpu"})
    differences = tables.differences_table(plan_differences(plan, forced), "roofline", "roofline")
    rows = differences[(differences["of"] == "down_proj") & (differences["what"] == "mode")]
    assert rows[["roofline (1)", "roofline (2)"]].to_numpy().tolist() == [[plan.site("down_proj").mode, "cpu"]]


def test_a_window_shows_its_tasks_and_merges_them_where_there_are_too_many(trace: Trace) -> None:
    end_s = float(trace.makespans_s()[0])
    every = gantt.drawn({"predicted": trace})
    assert (len(every.slices), every.singly, every.window_s) == (trace.tasks_per_run, True, (0.0, end_s))
    middle = gantt.drawn({"predicted": trace}, (end_s / 4, end_s / 2))
    rows = trace.tasks
    assert set(middle.slices["task"]) == set(rows[(rows["end_s"] > end_s / 4) & (rows["start_s"] < end_s / 2)]["task"])
    fewer = gantt.drawn({"predicted": trace}, most=50)
    assert not fewer.singly
    assert len(fewer.slices) < len(every.slices)
    assert fewer.slices["end_s"].max() == every.slices["end_s"].max()


def test_one_points_at_the_task_that_lies_there(trace: Trace) -> None:
    shown = gantt.drawn({"predicted": trace, "again": trace})
    places = gantt.spots(shown)
    assert (places["start_s"] <= places["at_s"]).all()
    assert (places["at_s"] <= places["end_s"]).all()
    assert set(places["lane"]) == set(shown.slices["lane"])
    few = gantt.drawn({"predicted": trace}, (0.0, float(trace.makespans_s()[0]) / 20))
    assert len(few.slices) <= gantt.MOST_PLAIN_SPOTS
    assert set(gantt.spots(few)["task"]) == set(few.slices["task"])
    drawing = gantt.figure({"predicted": trace, "again": trace}, shown)
    (pointed,) = (line for line in drawing.data if line.mode == "markers")
    assert len(pointed.x) == len(places)
    assert pointed.marker.opacity == 0
    clicked = {"points": [{"customdata": pointed.customdata[0]}], "box": []}
    assert gantt.looked(clicked) == gantt.Looked(task=places["task"].iloc[0])
    assert gantt.looked({"points": [{"customdata": [7]}], "box": [{"x": [5.0, -1.0]}]}).window_ms == (0.0, 5.0)
    assert gantt.looked({"points": [], "box": [{"x": [5.0, 5.0]}]}) == gantt.Looked()


def test_the_mean_bandwidth_of_stretches_keeps_the_bytes() -> None:
    links = pd.DataFrame({"link": ["a", "b", "a"], "start_s": [1.0, 0.0, 3.0], "granted_bytes_per_s": [8.0, 99.0, 2.0]})
    assert gantt.mean_granted(links, "a", (0.0, 4.0), 4).tolist() == [0.0, 8.0, 8.0, 2.0]
    assert gantt.mean_granted(links, "a", (0.0, 4.0), 1).tolist() == [(2 * 8.0 + 2.0) / 4]


def test_the_timeline_has_prediction_above_measurement_and_frames_tasks() -> None:
    traces = {"predicted": examples.predicted(), "measured": examples.measured()}
    figure = gantt.figure(traces, gantt.drawn(traces), framed={"predicted": (2, 0), "measured": (2,)})
    lanes = figure.layout.yaxis.ticktext
    assert lanes == ("predicted cpu0", "predicted cpu1", "measured cpu0", "measured cpu1")
    assert list(figure.layout.yaxis.tickvals) == [0, -1, -2, -3]  # the first lane is at the top
    bars = [area for area in figure.data if area.fill == "toself"]
    assert {(low + high) / 2 for area in bars for low, high in zip(area.y[::5], area.y[2::5], strict=True)} == {
        0, -1, -2, -3
    }  # fmt: skip
    assert sum(len(area.x) for area in bars) == 5 * 2 * traces["predicted"].tasks_per_run
    kinds = {kind: palette.KINDS[kind] for kind in ("linear", "rms_norm")}
    assert {area.name: area.fillcolor for area in bars} == kinds
    frames = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    assert [(shape.x0, shape.x1, shape.line.dash) for shape in frames] == [
        (2e3, 7e3, "solid"), (0, 2e3, "dot"), (3e3, 8e3, "solid")
    ]  # fmt: skip
    assert figure.layout.xaxis3.title.text.endswith("ms")


def test_more_tasks_than_a_browser_draws_plainly_are_drawn_with_webgl(
    trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = {"predicted": trace}
    shown = gantt.drawn(traces)
    plain = [area for area in gantt.figure(traces, shown).data if area.fill == "toself"]
    monkeypatch.setattr(gantt, "MOST_PLAIN", len(shown.slices) - 1)
    assert not shown.plainly
    lines = {line.name: line for line in gantt.figure(traces, shown).data if line.type == "scattergl" and line.name}
    assert lines.keys() == {area.name for area in plain}
    for area in plain:
        line = lines[area.name]
        assert line.line.color == area.fillcolor
        assert (line.x[::3].tolist(), line.x[1::3].tolist()) == (area.x[::5].tolist(), area.x[1::5].tolist())
    assert gantt.drawn(traces, most=len(shown.slices) - 1).singly is False


def test_a_task_says_what_it_waited_for_and_what_its_error_is_made_of() -> None:
    predicted, measured = examples.predicted(), examples.measured()
    facts = one_task.facts(predicted, 3)
    assert (facts["worker"], facts["duration, µs"]) == ("cpu1", 3e6)
    assert facts["waited for"] == "task 2, layers.0.q_proj"
    assert one_task.facts(predicted, 0)["waited for"] is None
    # If the first product needed nothing, it would wait for its worker only, which is busy until 3 s.
    columns = examples.measured_columns() | {"ready_s": [0.0, 0.0, 3.0, 9.0]}
    needed = {"predecessor": [0, 1, 2], "successor": [2, 3, 3]}
    wait = one_task.last_wait(Trace.build(examples.meta("measured"), columns, dependencies=needed), 1)
    assert wait
    assert (wait.task, wait.words) == (0, "its worker, busy with task 0, layers.0.attn_norm")
    comparison = compare(predicted, measured)
    split = one_task.error_split(comparison, 1)
    difference = split.pop("measured minus predicted")
    assert list(split) == ["compute", "transfer", "overhead", "wait"]
    assert sum(split.values()) == pytest.approx(difference)
    # Predicted 4 s, of them 0.5 s overhead; measured 5 s, and 1 s from being ready to its start.
    assert split["compute"] == pytest.approx((5 - 3.5) * 1e6)
    assert split["overhead"] == pytest.approx((1 - 0.5) * 1e6)


def test_a_comparison_is_shown_by_site_kind_and_mode() -> None:
    comparison = compare(examples.predicted(), examples.measured())
    sites = tables.sites_of([comparison], [{"q_proj": "matrix"}])
    table = tables.sites_table(sites)
    assert dict(zip(table["site"], table["mode"], strict=True)) == {"attn_norm": "", "q_proj": "matrix", "lm_head": ""}
    for figure in (figures.scatter(table), figures.bars(table), figures.error_budget(comparison, sites)):
        assert "ms" in figure.layout.xaxis.title.text
    bands = [line.name for line in figures.scatter(table).data if line.fill == "toself"]
    assert bands == ["within 20%", "within 10%"]
    both = tables.sites_of([comparison, comparison])
    assert both["label"].tolist() == [f"{site} (prefill:16)" for site in table["site"]] * 2
    budget = figures.error_budget(comparison, both[both["op_kind"] == "rms_norm"])
    assert list(budget.data[0].y) == ["attn_norm (prefill:16)"] * 2 + ["total"]


def test_the_waterfall_falls_from_the_first_step_to_the_last(plan: Plan) -> None:
    times_ms = {"cores only": 9.0, "+ unit": 4.0, "+ all": 5.0}
    steps = [Step(name, plan, ms / 1e3, None, None) for name, ms in times_ms.items()]
    table = tables.steps_table(steps)
    assert table["saves, ms"].tolist() == pytest.approx([0, 5, -1])
    assert table["speed-up"].tolist() == pytest.approx([1, 9 / 4, 9 / 5])
    (bars,) = figures.waterfall(table).data
    assert sum(bars.y[:-1]) == pytest.approx(5.0)
    measured = tables.steps_table([replace(step, measured_s=0.01, spread_s=0.001) for step in steps])
    assert list(figures.waterfall(measured).data[1].y) == [10.0] * 3


def test_an_edited_number_is_a_guess_and_is_checked_as_a_file_is() -> None:
    assert what_if.edited(CHIP, {DRAM: CHIP.memory.bandwidth_bytes_per_s.value}) is CHIP
    changes = {DRAM: 500e9, UNIT_COUNT: 2.0}
    other = what_if.edited(CHIP, changes)
    assert other.memory.bandwidth_bytes_per_s.value == 500e9
    assert other.memory.bandwidth_bytes_per_s.provenance == "guessed"
    assert len(other.unit_instances) == len(CHIP.unit_instances) + 1
    assert what_if.from_text(what_if.as_text(changes), CHIP) == changes
    with pytest.raises(ChipError, match=r"edited chip: .*accepted"):
        what_if.edited(CHIP, {DRAM: -1.0})
    with pytest.raises(SmesimError, match="accepted: NUMBER=VALUE"):
        what_if.from_text("memory.colour=3", CHIP)
    for knob in what_if.knobs(CHIP):  # each of them can be changed
        value = 2 * knob.value or 1e-6
        changed = {k.path: k.value for k in what_if.knobs(what_if.edited(CHIP, {knob.path: value}))}
        assert changed[knob.path] == value


def test_another_chip_takes_another_time_and_other_modes(plan: Plan) -> None:
    weak = what_if.edited(CHIP, {(*UNIT_COUNT[:-1], "flop_per_s", "f32"): 1e9})
    weak_plan = workflow.make_plan(MODEL, PHASE, weak, planner_name="roofline", layers=1)
    seconds = workflow.simulated_s(plan, CHIP), workflow.simulated_s(weak_plan, weak)
    found = what_if.effect((plan, weak_plan), seconds)
    assert found.edited_s > found.preset_s
    assert found.speed_up < 1
    assert found.modes
    assert all(before != after for _, before, after in found.modes)


def test_a_map_has_a_time_for_each_pair_and_none_where_no_such_chip_can_be() -> None:
    said: list[str] = []
    core_count = ("clusters", 0, "core_count")
    found = what_if.grid(
        CHIP, (DRAM, core_count), ((60e9, 120e9), (0.0, 4.0)), MODEL, PHASE, "cpu_only", DType.F32, 1,
        progress=lambda what, _share: said.append(what),
    )  # fmt: skip
    assert said == ["1 of 4", "2 of 4", "3 of 4", "4 of 4"]
    assert np.isnan(found.seconds[0]).all()
    assert found.seconds[1, 0] > found.seconds[1, 1] > 0
    figure = figures.heat_map(found.seconds * 1e3, found.x, found.y, "DRAM, B/s", "cores")
    assert figure.layout.xaxis.title.text == "DRAM, B/s"
    tokens, batch = what_if.phase_knobs(PHASE)
    assert (tokens.value, batch.value) == (16, 1)
    longer = what_if.grid(
        CHIP, (tokens.path, batch.path), ((8.0, 16.0), (1.0, 2.0)), MODEL, PHASE, "cpu_only", DType.F32, 1
    ).seconds  # fmt: skip
    assert longer[0, 0] < longer[0, 1] < longer[1, 1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.pkl", b"", "x.pkl: a file ends in .toml, .json, .csv here"),
        ("../../etc/x.json", b"{}", "^x.json: schema_version is None"),
        ("x.toml", b"name = ", "x.toml: not TOML"),
        ("x.csv", b"a,b\n", "x.csv: .*header"),
        ("x.json", b"\xff", "x.json: not text"),
        ("x.json", b"[" * 100_000, "x.json: unreadable JSON"),
        ("x.json", b'{"format": "smesim-trace"}', "x.json: "),
        ("x.json", b'{"records": [1], "blocks": [], "summary": {}}', "x.json: records: .*validate"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_says_what_is_accepted(name: str, content: bytes, message: str) -> None:
    with pytest.raises(SmesimError, match=message) as refused:
        opening.open_bytes(name, content)
    assert "/tmp" not in str(refused.value)


def test_what_was_written_is_opened(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert opening.open_bytes("chip.toml", library.dumps(CHIP).encode()) == CHIP
    assert opening.open_bytes("plan.json", plan.to_json().encode()) == plan
    study = tmp_path / "study"
    for side, made in (("predicted", examples.predicted()), ("measured", examples.measured())):
        write_trace(made, study / f"{side}-prefill-16.json")
    (tmp_path / "outside.json").write_text("{}")
    (study / "link.json").symlink_to(tmp_path / "outside.json")
    assert opening.studies_in(study) == ("predicted-prefill-16.json",)
    assert opening.studies_by_folder(tmp_path) == {"study": {"prefill-16": "study/predicted-prefill-16.json"}}
    assert opening.open_file(opening.inside(study, "predicted-prefill-16.json")) == examples.predicted()
    for name in ("../outside.json", "link.json", "/etc/passwd"):
        with pytest.raises(SmesimError, match="accepted: files in that folder"):
            opening.inside(study, name)
    monkeypatch.setattr(opening, "MOST_BYTES", 10)
    with pytest.raises(SmesimError, match="accepted: up to 10"):
        opening.open_bytes("plan.json", plan.to_json().encode())


def test_a_block_is_predicted_and_shown_with_its_sources() -> None:
    content: dict[str, Any] = {
        "records": [
            {"id": "m4ilp-0001", "block": "m4ilp", "predicted": 2.0, "published": 1.0, "unit": "x", "error": 1.0}
        ],
        "blocks": [dict.fromkeys(("block", "kind", "count", "median_error", "p90_error", "worst_error"), 0.5)],
        "summary": {"median_error": 0.021},
    }  # fmt: skip
    found = published.checked(json.loads(json.dumps(content)), "test")
    assert published.sentences(found) == ("Median error 2.1%.",)
    assert published.blocks_table(found)["median, %"].tolist() == [50.0]
    rows = published.rows_table(found, "m4ilp")
    assert rows["error, %"].tolist() == [100.0]
    assert rows["source"].iloc[0]
    assert list(figures.published(rows, "x").data[1].y) == [2.0]
    predicted = published.predict(["m4ilp"])
    assert {record["block"] for record in predicted.records} == {"m4ilp"}


def ended(job: jobs.Job) -> jobs.Job:
    while job.status == "running":
        job.poll(wait_s=60)
    return job


def test_work_in_a_process_says_how_far_it_is_ends_fails_and_can_be_cancelled() -> None:
    running, others = jobs.Job(slow, "hang"), [jobs.Job(slow, text) for text in ("done", "refuse", "die")]
    done, refused, died = map(ended, others)
    assert (done.status, done.result, done.what, done.share) == ("done", "DONE", "begun", 0.5)
    assert (refused.status, refused.error) == ("failed", "refused; accepted: something else")
    assert died.status == "failed"
    assert "exit code 3" in died.error
    running.poll(wait_s=60)
    assert (running.status, running.what) == ("running", "begun")
    running.cancel()
    assert running.status == "cancelled"
    done.cancel()
    assert done.status == "done"
