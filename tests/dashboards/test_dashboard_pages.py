"""Each page as Streamlit runs it, without a browser: what it asks, what its controls change, how it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboards import gantt, palette, work
from dashboards.app import PAGES
from dashboards.question import Question
from smesim import cli_dashboard
from smesim.cli_dashboard import FILES_VARIABLE
from smesim.hwmodel import library
from smesim.plan.planners import roofline
from smesim.trace import write_trace
from smesim.workload import Phase, build_graph, catalog
from tests.command_line import CommandLine
from tests.trace import examples

SCRIPT = "from dashboards import app\nfrom dashboards.views import parts\n\napp.show({!r}, parts.ask())\n"
SMALL = {"model": "smollm2-135m", "layers": "1", "tokens": "8"}
ADDRESS_S = 60
"""How long a page may take before the test says that it hangs."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files with one study in it, and a home without a probe."""
    monkeypatch.setenv("SMESIM_HOME", str(tmp_path / "home"))
    files = tmp_path / "files"
    monkeypatch.setenv(FILES_VARIABLE, str(files))
    for side, trace in (("predicted", examples.predicted()), ("measured", examples.measured())):
        write_trace(trace, files / "study" / f"{side}-prefill-16.json")
    return files


def opened(name: str, **asked: str) -> AppTest:
    page = AppTest.from_string(SCRIPT.format(name), default_timeout=ADDRESS_S)
    for key, value in (SMALL | asked).items():
        page.query_params[key] = value
    return sound(page.run())


def refusal(name: str, **asked: str) -> str:
    page = AppTest.from_string(SCRIPT.format(name), default_timeout=ADDRESS_S)
    for key, value in (SMALL | asked).items():
        page.query_params[key] = value
    return str(page.run().error[0].value)


def address(page: AppTest, name: str) -> str:
    """A value in the address bar, which some versions of Streamlit give as a list of one."""
    return "".join(page.query_params[name])


def sound(page: AppTest) -> AppTest:
    assert [error.message for error in page.exception] == []
    assert [error.value for error in page.error] == []
    return page


def test_every_page_opens_under_its_title() -> None:
    for name, (title, _) in PAGES.items():
        assert opened(name).title[0].value == title


def test_the_address_holds_what_is_asked_and_a_wrong_one_is_refused() -> None:
    page = opened("roofline", chip="apple-m1")
    assert page.selectbox("ask-chip").value == "apple-m1"
    least = page.metric[0].value
    sound(page.select_slider("ask-tokens").set_value(64).run())
    assert address(page, "tokens") == "64"
    assert page.metric[0].value != least
    assert "accepted: apple-m1" in refusal("roofline", chip="no-such-chip")


def test_a_mode_is_forced_and_given_free_again() -> None:
    page = opened("plan", tokens="64")
    free = page.dataframe[0].value.set_index("site")["mode"]
    assert free["down_proj"] != "cpu"
    page.selectbox("at-site").select("down_proj").run()
    sound(page.button("force").click().run())
    forced = page.dataframe[0].value.set_index("site")["mode"]
    assert forced["down_proj"] == "cpu"
    assert address(page, "forced") == "down_proj=cpu"
    assert page.metric[1].label == "Without what is forced"
    sound(page.button("force-reset").click().run())
    assert page.dataframe[0].value.set_index("site")["mode"].equals(free)
    differing = page.dataframe[1].value
    assert {"roofline", "cpu_only"} <= set(differing.columns)
    assert not differing.empty


def test_the_timeline_shows_predictions_and_studies_and_a_task() -> None:
    page = opened("timeline")
    assert "△ predicted" in page.caption[0].value
    sound(page.selectbox("at-look").select("study/predicted-prefill-16.json").run())
    assert "● measured" in page.caption[0].value
    assert address(page, "look") == "study/predicted-prefill-16.json"
    task = next(field for field in page.number_input if field.label.startswith("Task"))
    sound(task.set_value(3).run())
    facts, split = (table.value for table in page.dataframe)
    assert list(facts.columns) == ["what", "predicted", "measured"]
    assert facts.set_index("what").loc["waited for", "predicted"] == "task 2, layers.0.q_proj"
    parts = split.set_index("error of this task")["µs of its worker"]
    assert parts.iloc[1:].sum() == pytest.approx(parts.iloc[0])
    shared = opened("timeline", look="study/predicted-prefill-16.json", task="3", **{"from-ms": "3000.0"})
    assert [field.value for field in shared.number_input if field.label.endswith("ms")] == [3000.0, 12000.0]
    assert shared.dataframe[0].value.equals(facts)
    sound(shared.button("whole").click().run())
    assert "from-ms" not in shared.query_params


def test_every_task_of_a_long_run_is_drawn_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gantt, "MOST_PLAIN", 100)
    page = opened("timeline")
    assert page.caption[1].value.startswith("Neighbours of one operator")
    sound(page.toggle("at-every").set_value(True).run())
    assert page.caption[1].value.startswith("Drag or turn the wheel")
    assert address(page, "every") == "yes"
    shared = opened("timeline", every="yes")
    assert shared.caption[1].value == page.caption[1].value
    refused = opened("timeline", every="no")
    assert [warning.value for warning in refused.warning] == ["address: every='no'; accepted: yes"]


def test_the_overview_takes_times_from_the_short_files_of_a_study_where_they_are_there(folder: Path) -> None:
    study = folder / "study"

    def newest() -> str:
        return next(text.value for text in opened("overview").markdown if text.value.startswith("study, "))

    assert newest().endswith("10.0 s (△ predicted), 12.0 s (● measured), error -16.7%.")
    graph = build_graph(catalog.load("smollm2-135m"), Phase.prefill(16), layers=1)
    roofline(graph, library.load("apple-m4")).save(study / "plan-prefill-16.json")
    total = {"predicted_s": 3.0, "measured_s": 2.0}
    comparison = study / "comparison.json"
    comparison.write_text(json.dumps({"phases": [{"phase": "prefill:16", "total": total}]}), encoding="utf-8")
    assert newest().endswith("3.00 s (△ predicted), 2.00 s (● measured), error +50.0%.")
    comparison.write_text(json.dumps({"phases": [{"phase": "prefill:16", "total": total | {"measured_s": 0}}]}))
    assert newest().endswith("error -16.7%.")


def test_a_comparison_is_shown_with_its_error() -> None:
    page = opened("predicted-measured")
    (shown,) = page.metric
    assert (shown.label, shown.value, shown.delta) == (
        "prefill:16, △ predicted", "10.0 s", "-16.7% of 12.0 s (● measured)"
    )  # fmt: skip
    kind = page.dataframe[0].value["kind"].iloc[0]
    sound(page.multiselect("at-kinds").select(kind).run())
    assert set(page.dataframe[0].value["kind"]) == {kind}
    assert address(page, "kinds") == kind
    shared = opened("predicted-measured", kinds=kind)
    assert shared.dataframe[0].value.equals(page.dataframe[0].value)


def test_what_an_address_asks_of_a_page_is_checked() -> None:
    refused = opened("predicted-measured", study="no-such", kinds="linear,no-such-kind")
    assert [warning.value.partition("; accepted: ")[0] for warning in refused.warning] == [
        "address: study='no-such'", "address: kinds='no-such-kind'"
    ]  # fmt: skip
    assert "whole numbers from 1 to 120" in opened("ablation", budget="1e9").warning[0].value


def test_a_plan_that_is_searched_for_is_made_in_a_process_and_then_kept() -> None:
    assert "have the page 'Plan' make its plan first" in refusal("timeline", planner="oracle")
    page = opened("plan", planner="oracle")
    page.button("run-plan by oracle").click().run()
    ((key, job),) = page.session_state["jobs"].items()
    while (job.status, job.share) == ("running", 0.0):
        job.poll(wait_s=60)
    assert job.status == "running"  # it has simulated plans, and would take some seconds more
    job.cancel()
    question = Question(planner="roofline", **{name: page.session_state[f"ask-{name}"] for name in SMALL})
    work.keep_result(key, work.plan_of(question, library.load("apple-m4")))
    assert set(sound(page.run()).dataframe[0].value["mode"]) <= set(palette.MODES)
    assert opened("timeline", planner="oracle").caption[0].value.startswith("predicted: smollm2-135m")
    same = sound(page.selectbox("at-other").select("roofline").run())
    assert same.markdown[-1].value == "They make the same plan."


def test_a_chip_is_edited_by_the_page_and_by_its_address() -> None:
    page = opened("what-if")
    assert "preset so far" in page.info[0].value
    before = page.metric[0].value
    page.multiselect("edit-apple-m4").select("DRAM bandwidth").run()
    field = next(field for field in page.number_input if field.label.startswith("DRAM bandwidth"))
    assert "B/s" in field.label
    sound(field.set_value(2e9).run())
    assert page.metric[0].value != before
    assert "? guessed" in page.caption[0].value
    edits = address(page, "edits")
    assert edits == "memory.bandwidth_bytes_per_s=2000000000.0"
    shared = opened("what-if", edits=edits)
    assert [metric.value for metric in shared.metric] == [metric.value for metric in page.metric]
    sound(page.button("edit-reset").click().run())
    assert "preset so far" in page.info[0].value
    assert page.metric[0].value == before
    assert "edits" not in page.query_params


def test_long_work_is_cancelled_from_its_page() -> None:
    page = opened("ablation", model="llama-3.2-3b", layers="0", tokens="512")  # takes far longer than the test
    page.button("run-ablation").click().run()
    (job,) = page.session_state["jobs"].values()
    assert job.status == "running"
    cancel = next(button for button in page.button if button.label == "Cancel")
    cancel.click().run()
    assert job.status == "cancelled"
    sound(page.run())
    assert "cancelled" in page.warning[0].value


def test_files_are_opened_and_bad_ones_refused_in_one_line(folder: Path) -> None:
    library.save(library.load("apple-m1"), folder / "mine.toml")
    (folder / "bad.json").write_text("{")
    page = opened("files")
    page.selectbox("at-file").select("mine.toml").run()
    sound(page.button("open").click().run())
    assert page.subheader[0].value == "mine.toml"
    assert "? guessed" in set(page.dataframe[0].value["provenance"])
    page.selectbox("at-file").select("bad.json").run()
    page.button("open").click().run()
    assert "bad.json: line 1: not JSON" in page.error[0].value


def test_the_command_starts_a_server_for_this_machine_only(smesim: CommandLine) -> None:
    said = smesim("dashboard", "--port", "8600", "--files", "results", "--json").json()
    assert said["url"] == "http://127.0.0.1:8600"
    command = said["command"]
    assert command[command.index("--server.address") + 1] == cli_dashboard.LOCAL
    assert Path(command[1]).name == "app.py"
    assert said["environment"][FILES_VARIABLE] == str(smesim.folder / "results")
    assert "--port" in smesim("dashboard", "--port", "0").refusal()
