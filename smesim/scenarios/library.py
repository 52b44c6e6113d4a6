"""Which scenarios there are, and running one: NAME.toml with NAME.py beside it.

The script has one function, `study(scenario, times) -> Findings`. It is read when the scenario is run, and nothing
imports it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from smesim.errors import ScenarioError
from smesim.scenarios.findings import Findings
from smesim.scenarios.schema import Scenario, load_scenario
from smesim.scenarios.times import Progress, Times

FOLDER = "scenarios"
STUDY = "study"
Study = Callable[[Scenario, Times], Findings]


def folder() -> Path:
    """Where scenarios lie: under the current folder, else in the checkout that this package is part of."""
    own = Path(__file__).resolve().parents[2] / FOLDER
    here = Path(FOLDER)
    return here if _files(here) or not own.is_dir() else own


def _files(where: Path) -> list[Path]:
    return sorted(path for path in where.glob("*.toml") if path.with_suffix(".py").is_file())


def names() -> tuple[str, ...]:
    """Names of the scenarios, sorted."""
    return tuple(path.stem for path in _files(folder()))


def path_of(name_or_path: str) -> Path:
    """The file of a scenario's name, or a path to one; ScenarioError lists the names there are."""
    if name_or_path.endswith(".toml"):
        return Path(name_or_path)
    if name_or_path not in names():
        close = difflib.get_close_matches(name_or_path, names(), n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        known = ", ".join(names()) or f"none, {folder()} has no scenarios"
        raise ScenarioError(f"unknown scenario {name_or_path!r}{hint}; accepted: {known}, or a path to a .toml file")
    return folder() / f"{name_or_path}.toml"


def study_of(path: Path) -> Study:
    """The function of the script beside a scenario's file; ScenarioError if there is none."""
    script = path.with_suffix(".py")
    spec = spec_from_file_location(f"scenario_{path.stem.replace('-', '_')}", script)
    if not script.is_file() or spec is None or spec.loader is None:
        raise ScenarioError(f"{script}: no such file; accepted: a script with 'def {STUDY}(scenario, times)'")
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ScenarioError(f"{script}, line {error.lineno}: {error.msg}; accepted: Python") from None
    found: Study | None = getattr(module, STUDY, None)
    if not callable(found):
        raise ScenarioError(f"{script}: no function {STUDY!r}; accepted: 'def {STUDY}(scenario, times)'")
    return found


def run(path: Path, scenario: Scenario | None = None, progress: Progress = lambda what: None) -> Findings:
    """Run the script of a scenario's file; `scenario` is what it is given, the file's own content if None."""
    return study_of(path)(scenario or load_scenario(path), Times(progress))
