"""What a fit found: its numbers beside those before, its errors beside the cross-validated ones, and files with
both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from smesim.engines.profile import load_document as engine_document
from smesim.engines.profile import names as engine_names
from smesim.errors import SmesimError
from smesim.files import write_atomically
from smesim.hwmodel import library as chips
from smesim.validate.fitting import Fit
from smesim.validate.library import chip_document, replaced
from smesim.validate.records import PublishedRecord, blocks_of
from smesim.validate.run import CROSSED
from smesim.validate.statistics import quantile


def chosen_records(records: Sequence[PublishedRecord], blocks: Sequence[str]) -> list[PublishedRecord]:
    """Records of some blocks, of all if none is named; SmesimError for one that there is not."""
    known = tuple(blocks_of(tuple(records)))
    for block in blocks:
        if block not in known:
            raise SmesimError(f"unknown block {block!r}; accepted: {', '.join(known)}")
    return [record for record in records if not blocks or record.block in blocks]


def documents_of(preset: str | None) -> tuple[str, ...]:
    """Files whose numbers a fit may change: those of a chip or an engine, all if none is named; SmesimError for a name
    that is neither."""
    if preset is None:
        return ()
    if preset not in (*chips.names(), *engine_names()):
        raise SmesimError(
            f"unknown chip or engine {preset!r}; accepted: {', '.join(chips.names())}; {', '.join(engine_names())}"
        )
    return f"chip:{preset}", f"engine:{preset}"


def parameter_rows(fit: Fit) -> list[tuple[str, ...]]:
    return [
        (p.key, f"{p.value:.4g}", f"{fit.values[p.key]:.4g}", f"{p.low:.3g}", f"{p.high:.3g}") for p in fit.parameters
    ]


def error_rows(fit: Fit, records: Sequence[PublishedRecord]) -> list[tuple[str, ...]]:
    return [
        (e["block"], str(e["rows"]), *(f"{e[key]:.1%}" for key in ("median", "p90", "cv_median", "cv_p90", "cv_worst")))
        for e in _errors(fit, records)
    ]


def _errors(fit: Fit, records: Sequence[PublishedRecord]) -> list[dict[str, Any]]:
    found = []
    for block in dict.fromkeys(record.block for record in records):
        rows = [r for r in records if r.block == block and r.id in fit.fitted]
        if not rows:
            continue
        own = [abs(fit.fitted[r.id] / float(r.value or 1.0) - 1.0) for r in rows]
        crossed = [abs(fit.cross_validated[r.id] / float(r.value or 1.0) - 1.0) for r in rows]
        found.append(
            {
                "block": block, "rows": len(rows), "median": median(own), "p90": quantile(own, 0.9),
                "cv_median": median(crossed), "cv_p90": quantile(crossed, 0.9), "cv_worst": max(crossed),
            }
        )  # fmt: skip
    return found


def as_json(fit: Fit, records: Sequence[PublishedRecord]) -> dict[str, Any]:
    """Numbers and errors as `--json` prints them."""
    return {
        "parameters": [
            {
                "number": p.key,
                "before": p.value,
                "fitted": fit.values[p.key],
                "low": p.low,
                "high": p.high,
                "prior": p.prior,
            }
            for p in fit.parameters
        ],
        "blocks": _errors(fit, records),
        "cross_validated": fit.cross_validated,
    }


def write(fit: Fit, folder: Path) -> tuple[Path, ...]:
    """Write each chip's and engine's file with its fitted numbers, and the cross-validated predictions."""
    folder.mkdir(parents=True, exist_ok=True)
    by_document: dict[str, dict[str, float]] = {}
    for key, value in fit.values.items():
        document, _, entry = key.partition("/")
        by_document.setdefault(document, {})[entry] = float(f"{value:.4g}")
    written = []
    for document, values in by_document.items():
        kind, _, name = document.partition(":")
        before = chip_document(chips.load(name)) if kind == "chip" else engine_document(name)
        path = folder / ("presets" if kind == "chip" else "profiles") / f"{name}.toml"
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, chips.dump_table(replaced(_with_priors(before, list(values)), values)))
        written.append(path)
    path = folder / CROSSED
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    rounded = {record: float(f"{value:.5g}") for record, value in fit.cross_validated.items()}
    write_atomically(path, json.dumps(known | rounded, indent=0, sort_keys=True) + "\n")
    return (*written, path)


def _with_priors(document: dict[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """The document with what each number was believed to be before its first fit beside it."""
    copy: dict[str, Any] = json.loads(json.dumps(document))
    for path in paths:
        node: Any = copy
        for part in path.split("."):
            node = node[int(part)] if isinstance(node, list) else node[part]
        node.setdefault("prior", node["value"])
    return copy
