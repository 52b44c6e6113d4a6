"""The page of scenarios: what is kept is shown with its verdicts, and a file that is no result is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboards import scenarios
from smesim.errors import ScenarioError
from smesim.scenarios import pages

SCRIPT = """
from dashboards.question import Question
from dashboards.views import scenarios

scenarios.page(Question())
"""
PAGE_S = 60
ROOT = Path(__file__).resolve().parents[2]


def test_a_kept_result_is_shown_and_another_chosen() -> None:
    known = scenarios.known()
    page = AppTest.from_string(SCRIPT, default_timeout=PAGE_S).run()
    assert [error.message for error in page.exception] == []
    assert list(page.dataframe[0].value["name"]) == list(known)
    page.selectbox("at-scenario").select("lowbit-lookup").run()
    found = scenarios.kept("lowbit-lookup")
    assert found is not None
    said = "\n".join(markdown.value for markdown in page.markdown)
    assert known["lowbit-lookup"].question in said
    assert all(verdict.says in said for verdict in found.verdicts)
    assert list(page.dataframe[1].value.columns) == list(found.tables[0].columns)
    assert pages.markdown(known["lowbit-lookup"], found).strip() in said


def test_what_is_kept_is_counted_or_refused(tmp_path: Path) -> None:
    known = scenarios.known()
    assert set(scenarios.overview(known, tmp_path)["published figures met"]) == {"not run"}
    kept = json.loads((ROOT / "docs/scenarios/lowbit-lookup.json").read_text(encoding="utf-8"))
    judged = [verdict["met"] for verdict in kept["verdicts"] if verdict["met"] is not None]
    assert len(judged) == 3
    row = scenarios.overview(known).set_index("name").loc["lowbit-lookup"]
    assert row["published figures met"] == f"{judged.count(True)} of 3"
    (tmp_path / "smepilot.json").write_text("{", encoding="utf-8")
    with pytest.raises(ScenarioError, match=r"not JSON .*accepted: what 'smesim scenario smepilot --out' wrote"):
        scenarios.kept("smepilot", tmp_path)
