"""A bare install: with the core dependencies alone, every module imports and a plan can be simulated.

The core is what pyproject.toml requires and what that requires in turn. A fresh interpreter refuses every import from
outside it, as if nothing else were installed. Start-up is guarded by what gets imported, not by the clock.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REFUSE = """
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"No module named {name!r}: not part of a bare install", name=name)

refused = set(%s)
sys.meta_path.insert(0, Refuse())
"""
SIMULATE = """
from smesim.hwmodel.library import load
from smesim.plan.lower import lower
from smesim.plan.planners import cpu_only
from smesim.sim import SimExecutor
from smesim.workload import Phase, build_graph, catalog

chip = load("apple-m4")
graph = build_graph(catalog.load("smollm2-135m"), Phase.parse("prefill:8"), layers=1)
plan = cpu_only(graph, chip, threads=1)
trace = SimExecutor(chip).run(lower(plan, graph), plan)
print(trace.tasks["end_s"].max())
"""
IMPORT_ALL = """
import importlib, pkgutil, smesim

for module in pkgutil.walk_packages(smesim.__path__, "smesim."):
    importlib.import_module(module.name)
    print(module.name)
"""
SLOW_TO_IMPORT = {"numpy", "pandas", "simpy", "cffi", "plotly"}
"""What a page of help must not wait for: 0.1 to 1 s each."""


def core_distributions() -> set[str]:
    """The core dependencies and all that they require, by canonical name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: set[str] = set()
    left = list(project["dependencies"])
    while left:
        requirement = left.pop()
        name = canonical(re.split(r"[^\w.-]", requirement)[0])
        if "extra ==" in requirement or name in found:
            continue
        found.add(name)
        # What is not installed is required on some other platform.
        with contextlib.suppress(metadata.PackageNotFoundError):
            left += metadata.requires(name) or []
    return found


def installed_beyond_the_core() -> set[str]:
    """Top-level names that can be imported here and belong to no part of a bare install."""
    bare = core_distributions() | {"smesim"}
    owners_of = metadata.packages_distributions()
    return {top for top, owners in owners_of.items() if not bare & {canonical(owner) for owner in owners}}


def canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def run_bare(program: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in a fresh interpreter that has smesim, the core and the standard library only."""
    refuse = REFUSE % repr(sorted(installed_beyond_the_core()))
    return subprocess.run(
        [sys.executable, "-c", refuse + program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )


def test_the_bare_interpreter_refuses_what_an_extra_brings() -> None:
    """The guard itself works: pytest is installed here, and no part of the core."""
    done = run_bare("import pytest")
    assert "not part of a bare install" in done.stderr


def test_every_module_imports_with_the_core_alone() -> None:
    done = run_bare(IMPORT_ALL)
    assert done.returncode == 0, done.stderr
    files = {path.relative_to(ROOT).with_suffix("") for path in (ROOT / "smesim").rglob("*.py")}
    modules = {".".join(file.parts).removesuffix(".__init__") for file in files} - {"smesim"}
    assert modules <= set(done.stdout.split()), "every module was reached"


def test_a_plan_is_simulated_with_the_core_alone() -> None:
    done = run_bare(SIMULATE)
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout) < 1


@pytest.mark.parametrize(
    ("arguments", "too_slow"),
    [
        (["--help"], SLOW_TO_IMPORT | {"pydantic"}),
        # From here on typer itself has pydantic read the options.
        (["models", "--help"], SLOW_TO_IMPORT),
        (["compare", "--help"], SLOW_TO_IMPORT),
    ],
)
def test_help_waits_for_no_heavy_import(arguments: list[str], too_slow: set[str]) -> None:
    program = f"""
import json, sys
sys.argv = ["smesim", *{arguments!r}]
from smesim.cli import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print(json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert not loaded & too_slow


def test_a_model_runs_without_the_memory_that_tables_of_traces_take() -> None:
    """pandas, and pyarrow with it, take 70 MB, which is nothing to a trace and much beside a small model."""
    program = "import sys, smesim.show_session; print({'pandas', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
