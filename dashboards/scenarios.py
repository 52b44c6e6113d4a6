"""Scenarios as the dashboard shows them: the results that a checkout keeps, or made anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from smesim.errors import ScenarioError
from smesim.files import read_text
from smesim.scenarios import Findings, Scenario, library, load_scenario, pages

KEPT = Path("docs/scenarios")
"""Where a checkout keeps the results of `smesim scenario NAME --out docs/scenarios`."""


def known() -> dict[str, Scenario]:
    """All scenarios, by name."""
    return {name: load_scenario(library.path_of(name)) for name in library.names()}


def run(name: str, progress: Callable[[str, float], None] = lambda _what, _share: None) -> Findings:
    """Run a scenario; how far it is nobody knows, so the share stays."""
    return library.run(library.path_of(name), progress=lambda what: progress(what, 0.5))


def kept(name: str, folder: Path = KEPT) -> Findings | None:
    """The kept result of a scenario, None where there is none; ScenarioError for a file that is no result."""
    file = folder / f"{name}.json"
    if not file.is_file():
        return None
    try:
        content = json.loads(read_text(file, ScenarioError, "the result of a scenario"))
    except ValueError as error:
        accepted = f"what 'smesim scenario {name} --out' wrote"
        raise ScenarioError(f"{file}: not JSON ({error}); accepted: {accepted}") from None
    return pages.from_json(content, str(file))


def overview(scenarios: dict[str, Scenario], folder: Path = KEPT) -> pd.DataFrame:
    """One row a scenario: how many of the published figures that its kept result was held against it meets."""
    rows = []
    for name, scenario in scenarios.items():
        result = kept(name, folder)
        judged = [verdict.met for verdict in result.verdicts if verdict.met is not None] if result else []
        met = f"{sum(judged)} of {len(judged)}" if judged else "nothing published" if result else "not run"
        rows.append((name, scenario.title, met))
    return pd.DataFrame(rows, columns=["name", "scenario", "published figures met"])
