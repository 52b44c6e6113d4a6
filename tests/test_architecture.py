"""The rooms and the arrows between them, read from the source with ``ast``: no import goes against the data.

What a room may import is said here once; ``docs/architecture.md`` draws the same picture for people.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "smesim"
MODULES = sorted(PACKAGE.rglob("*.py"))
PAGES = sorted((ROOT / "dashboards").rglob("*.py"))
ROOMS = {module.relative_to(PACKAGE).parts[0] for module in MODULES if module.parent != PACKAGE}
LARGEST_MODULE_LINES = 400

MAY_IMPORT = {
    "workload": set[str](),
    "hwmodel": set[str](),
    "trace": set[str](),
    "plan": {"workload", "hwmodel"},
    "sim": {"workload", "hwmodel", "plan", "trace"},
    "exec": {"workload", "hwmodel", "plan", "trace"},
    "engines": {"workload", "hwmodel", "plan", "trace", "sim"},
    "validate": {"workload", "hwmodel", "plan", "trace", "sim", "engines"},
    "sweep": {"workload", "hwmodel", "plan", "sim"},
    "scenarios": {"workload", "hwmodel", "plan", "sim", "engines", "sweep", "validate"},
}
"""For each room, the other rooms it may import. Modules beside the rooms are for all of them, or for none."""

FOR_EVERY_ROOM = {"errors", "files", "units"}
COMES_WITH_TYPER = {"rich"}
STANDALONE_FOLDERS = ("dashboards", "scenarios", "benchmarks", "validation", "tests")


def imported_names(module: Path) -> set[str]:
    """Full dotted names of everything a module imports anywhere in it, relative imports resolved."""
    package = list(module.relative_to(ROOT).parent.parts)
    names = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"), str(module))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            names |= {f"{source}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names |= {str(word.value) for word in node.args if isinstance(word, ast.Constant)}
    return names


def room_of(dotted: str) -> str | None:
    """The room, or the module beside the rooms, that a dotted name lies in; None outside smesim."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "smesim" and len(parts) > 1 else None


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_room_is_known_here() -> None:
    assert set(MAY_IMPORT) == ROOMS, "say in MAY_IMPORT what the new room may import"


def test_a_folder_of_modules_is_a_package_or_it_would_not_be_installed() -> None:
    assert {name_of(module.parent) for module in MODULES if not (module.parent / "__init__.py").exists()} == set()


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_imports_only_what_lies_before_it(room: str) -> None:
    allowed = MAY_IMPORT[room] | FOR_EVERY_ROOM | {room, "__version__"}
    against = [
        f"{name_of(module)} imports {dotted}"
        for module in sorted((PACKAGE / room).rglob("*.py"))
        for dotted in sorted(imported_names(module))
        if room_of(dotted) not in {None, *allowed}
    ]
    assert not against


def test_what_is_for_every_room_needs_no_room() -> None:
    for name in FOR_EVERY_ROOM:
        needs = {room_of(dotted) for dotted in imported_names(PACKAGE / f"{name}.py")} - {None}
        assert needs <= FOR_EVERY_ROOM, name


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_no_module_imports_what_stands_outside_the_package(module: Path) -> None:
    outside = {dotted.split(".")[0] for dotted in imported_names(module)} & set(STANDALONE_FOLDERS)
    assert not outside


def test_nothing_imports_the_dashboard_but_its_own_tests_and_benchmark() -> None:
    others = [path for folder in ("benchmarks", "native", "tests", "tools") for path in (ROOT / folder).rglob("*.py")]
    importing = [path for path in others if any(n.split(".")[0] == "dashboards" for n in imported_names(path))]
    own = ROOT / "tests" / "dashboards"
    assert [path for path in importing if path.parent != own and path != ROOT / "benchmarks" / "dashboard.py"] == []


@pytest.mark.parametrize("module", PAGES, ids=name_of)
def test_the_dashboard_reads_public_names_and_asks_in_its_pages_only(module: Path) -> None:
    names = imported_names(module)
    private = [n for n in names if n.startswith("smesim.") and any(part.startswith("_") for part in n.split("."))]
    assert not private
    asks = any(name.split(".")[0] == "streamlit" for name in names)
    assert not asks or module.parent.name == "views" or module.stem in {"app", "work"}


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_c_is_called_through_cffi_only(module: Path) -> None:
    assert "ctypes" not in {dotted.split(".")[0] for dotted in imported_names(module)}


@pytest.mark.parametrize("module", [*MODULES, *PAGES], ids=name_of)
def test_no_module_is_too_long_to_read_at_once(module: Path) -> None:
    assert len(module.read_text(encoding="utf-8").splitlines()) <= LARGEST_MODULE_LINES


@pytest.mark.parametrize("module", [*MODULES, *PAGES], ids=name_of)
def test_every_module_says_first_what_it_is(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree) or not tree.body, "a module's docstring explains its concept"


def test_every_third_party_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for_users = [group for name, group in project["optional-dependencies"].items() if name != "dev"]
    requirements = [*project["dependencies"], *(requirement for group in for_users for requirement in group)]
    declared = {re.split(r"[^\w.-]", requirement)[0] for requirement in requirements}
    imported = {dotted.split(".")[0] for module in [*MODULES, *PAGES] for dotted in imported_names(module)}
    assert imported - sys.stdlib_module_names - {"smesim", "dashboards"} <= declared | COMES_WITH_TYPER


def test_tests_mirror_the_rooms() -> None:
    """Each room has its folder of tests, and each folder of tests is a room's or one of the shared ones."""
    folders = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").glob("*/**/test_*.py")}
    assert folders >= ROOMS
    assert folders - ROOMS <= {"native", "emulated", "builds", "oracles", "dashboards"}


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))], ids=name_of)
def test_files_that_a_page_names_exist(page: Path) -> None:
    first_folders = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "out")
    named = re.findall(rf"`((?:{first_folders})/[\w./-]+\.\w+)`", page.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []
