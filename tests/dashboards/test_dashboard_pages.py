"""Each page as Streamlit runs it, without a browser: what it asks, what its controls change, how it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboards.app import PAGES
from smesim import cli_dashboard
from smesim.cli_dashboard import FILES_VARIABLE
from smesim.hwmodel import library
from smesim.trace import write_trace
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
    refused = AppTest.from_string(SCRIPT.format("roofline"), default_timeout=ADDRESS_S)
    refused.query_params["chip"] = "no-such-chip"
    refused.query_params["model"] = "smollm2-135m"
    assert "accepted: apple-m1" in refused.run().error[0].value


def test_a_mode_is_forced_and_given_free_again() -> None:
    page = opened("plan", tokens="64")
    free = page.dataframe[0].value.set_index("site")["mode"]
    assert free["down_proj"] != "cpu"
    page.selectbox("force-site").select("down_proj").run()
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
    page.selectbox("timeline-source").select("study/predicted-prefill-16.json").run()
    assert "● measured" in page.caption[0].value
    task = next(field for field in page.number_input if field.label.startswith("Task"))
    sound(task.set_value(3).run())
    facts = page.dataframe[0].value.set_index("what")
    assert list(facts.columns) == ["predicted", "measured"]
    assert facts.loc["waited for", "predicted"] == "task 2, layers.0.q_proj"


def test_a_comparison_is_shown_with_its_error() -> None:
    page = opened("predicted-measured")
    shown = {metric.label.split(" ")[0]: metric.value for metric in page.metric}
    assert shown == {"Predicted": "10.0 s", "Measured": "12.0 s", "Error": "-16.7%"}
    kind = page.dataframe[0].value["kind"].iloc[0]
    sound(page.multiselect("kinds").select(kind).run())
    assert set(page.dataframe[0].value["kind"]) == {kind}


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
    page.selectbox("on-disk").select("mine.toml").run()
    sound(page.button("open").click().run())
    assert page.subheader[0].value == "mine.toml"
    assert "? guessed" in set(page.dataframe[0].value["provenance"])
    page.selectbox("on-disk").select("bad.json").run()
    page.button("open").click().run()
    assert "bad.json: line 1: not JSON" in page.error[0].value


def test_the_command_starts_a_server_for_this_machine_only(smesim: CommandLine) -> None:
    said = smesim("dashboard", "--port", "8600", "--files", "results", "--json").json()
    assert said["url"] == "http://127.0.0.1:8600"
    command = said["command"]
    assert command[command.index("--server.address") + 1] == cli_dashboard.LOCAL
    assert Path(command[4]).name == "app.py"
    assert said["environment"][FILES_VARIABLE] == str(smesim.folder / "results")
    assert "--port" in smesim("dashboard", "--port", "0").refusal()
