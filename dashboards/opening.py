"""Opening files of one's own: chips, plans, traces and validations, read by the code that the command line reads with.

What comes through a browser is not trusted: its size is limited, its name is reduced to its last part, only formats
that are data (TOML, JSON, CSV) are read and nothing is unpickled, and from disk only what lies in the chosen folder,
links followed, is opened.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from dashboards import published
from dashboards.published import Published
from smesim.cli_dashboard import MOST_UPLOAD_MB
from smesim.errors import SmesimError
from smesim.hwmodel import library
from smesim.hwmodel.chip import Chip
from smesim.plan.schema import Plan, load_plan
from smesim.trace import Trace, read_trace
from smesim.trace.storage import FORMAT as TRACE_FORMAT

MOST_BYTES = MOST_UPLOAD_MB * 1_000_000
MOST_NAMED = 500
SUFFIXES = (".toml", ".json", ".csv")
_TIMES = ("predicted_s", "measured_s")


Opened = Chip | Plan | Trace | Published


def open_bytes(name: str, content: bytes) -> Opened:
    """What an uploaded file holds. SmesimError says which file, what is wrong, and what is accepted."""
    name = harmless_name(name)
    if len(content) > MOST_BYTES:
        raise SmesimError(f"{name}: {len(content)} bytes; accepted: up to {MOST_BYTES}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            return open_file(path)
        except SmesimError as error:
            raise SmesimError(str(error).replace(f"{folder}/", "")) from None


def harmless_name(name: str) -> str:
    """The last part of a name, of letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^\w.-]", "_", name.replace("\\", "/").rpartition("/")[2])[-100:].strip(".") or "file"


def open_file(path: Path) -> Opened:
    """What a file holds; the same errors as on the command line."""
    if path.suffix not in SUFFIXES:
        raise SmesimError(f"{path}: a file ends in {', '.join(SUFFIXES)} here, not in {path.suffix!r}")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise SmesimError(f"{path}: {error.strerror or error}; expected a chip, plan, trace or validation") from None
    if size > MOST_BYTES:
        raise SmesimError(f"{path}: {size} bytes; accepted: up to {MOST_BYTES}")
    if path.suffix == ".toml":
        return library.load(path)
    if path.suffix == ".csv":
        return read_trace(path)
    head = _json_keys(path)
    if head.get("format") == TRACE_FORMAT:
        return read_trace(path)
    if {"records", "blocks", "summary"} <= head.keys():
        return published.checked(head, str(path))
    return load_plan(path)


def _json_keys(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty for what is none, which the reader of plans then says."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def inside(folder: Path, name: str) -> Path:
    """A file of a folder by its relative name; SmesimError for one that lies outside it, by .. or by a link."""
    root = folder.resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise SmesimError(f"{name}: outside of {folder}; accepted: files in that folder")
    return path


def files_in(folder: Path) -> tuple[str, ...]:
    """What can be opened in a folder and below it, newest first; at most so many that a list of them can be read."""
    found = [path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file()]
    found.sort(key=lambda path: (-path.stat().st_mtime, str(path)))
    return tuple(str(path.relative_to(folder)) for path in found[:MOST_NAMED])


def studies_in(folder: Path) -> tuple[str, ...]:
    """Predicted traces in a folder that have a measured one beside them, as `smesim compare --out` leaves them."""
    names = [name for name in files_in(folder) if Path(name).name.startswith("predicted-")]
    return tuple(name for name in names if measured_beside(folder / name).is_file())


def studies_by_folder(folder: Path) -> dict[str, dict[str, str]]:
    """Of each folder with studies, by its name, the newest first, the predicted trace of each phase by that name."""
    found: dict[str, dict[str, str]] = {}
    for name in studies_in(folder):
        path = Path(name)
        found.setdefault(str(path.parent), {})[path.stem.removeprefix("predicted-")] = name
    return found


def measured_beside(predicted: Path) -> Path:
    """The measurement that belongs to a prediction of a study."""
    return predicted.with_name(predicted.name.replace("predicted-", "measured-", 1))


def total_beside(predicted: Path, phase: str) -> tuple[float, float] | None:
    """Seconds predicted and measured of a phase, as the comparison says that a study leaves: a few lines, where both
    traces may be many megabytes. None where there is no such file, or it does not say so."""
    path = predicted.with_name("comparison.json")
    phases = _json_keys(path).get("phases") if path.is_file() and path.stat().st_size <= MOST_BYTES else None
    for entry in phases if isinstance(phases, list) else ():
        total = entry.get("total") if isinstance(entry, dict) and entry.get("phase") == phase else None
        if isinstance(total, dict):
            seconds = [found for name in _TIMES if isinstance(found := total.get(name), float) and found > 0]
            if len(seconds) == len(_TIMES):
                return seconds[0], seconds[1]
    return None


def plan_beside(predicted: Path) -> Path:
    """The plan that both traces of a study are of."""
    return predicted.with_name(predicted.name.replace("predicted-", "plan-", 1)).with_suffix(".json")
