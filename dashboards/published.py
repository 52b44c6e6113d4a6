"""Predictions held against published measurements: the result of `smesim validate`, from its file or made anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from smesim.errors import SmesimError
from smesim.validate import records, run

_RECORD_KEYS = {"id", "block", "predicted", "published", "unit", "error"}
_BLOCK_KEYS = {"block", "kind", "count", "median_error", "p90_error", "worst_error"}


@dataclass(frozen=True)
class Published:
    """A result of `smesim validate`, with the keys that `--json` prints."""

    records: tuple[dict[str, Any], ...]
    blocks: tuple[dict[str, Any], ...]
    summary: dict[str, Any]


def checked(content: dict[str, Any], where: str) -> Published:
    """The result in a JSON object; SmesimError for rows that lack what is shown of them."""
    for name, wanted in (("records", _RECORD_KEYS), ("blocks", _BLOCK_KEYS)):
        rows = content[name]
        if not isinstance(rows, list) or not all(isinstance(row, dict) and wanted <= row.keys() for row in rows):
            keys = ", ".join(sorted(wanted))
            accepted = "validation.json of 'smesim validate --out'"
            raise SmesimError(f"{where}: {name}: rows need {keys}; accepted: {accepted}")
    if not isinstance(content["summary"], dict):
        raise SmesimError(f"{where}: summary: an object is needed")
    return Published(tuple(content["records"]), tuple(content["blocks"]), content["summary"])


def predict(blocks: Sequence[str], progress: Callable[[str, float], None] = lambda _what, _share: None) -> Published:
    """Validate some blocks of the records that smesim carries, all if none is named."""
    return checked(run.as_json(run.validate(records.load(), blocks, progress=progress)), "validation")


def blocks_table(found: Published) -> pd.DataFrame:
    """One row a block: how many records, and how far off predictions are, cross-validated too where one has fitted."""
    columns = {
        "block": "block", "kind": "kind", "count": "records", "not_modelled": "left out", "median_error": "median, %",
        "p90_error": "p90, %", "worst_error": "worst, %", "bias": "bias, %",
        "cross_validated_median_error": "cross-validated median, %", "kendall_tau": "tau of series",
    }  # fmt: skip
    frame = pd.DataFrame(found.blocks).reindex(columns=list(columns)).rename(columns=columns)
    for name in frame.columns:
        if name.endswith(", %"):
            frame[name] = frame[name].astype(float) * 100
    return frame


def rows_table(found: Published, block: str) -> pd.DataFrame:
    """The records of one block with what was asked, both values, the error in per cent, and the source."""
    sources = {record.id: record for record in records.load()}
    rows = []
    for row in found.records:
        if row["block"] != block:
            continue
        record = sources.get(row["id"])
        asked = f"{record.chip}, {record.unit}: {record.metric}" if record else ""
        error = None if row["error"] is None else row["error"] * 100
        rows.append(
            (row["id"], asked, row["predicted"], row["published"], row["unit"], error, row.get("reason") or "",
             record.source if record else "")
        )  # fmt: skip
    columns = ["id", "asked", "predicted", "published", "unit", "error, %", "not modelled because", "source"]
    frame = pd.DataFrame(rows, columns=columns)
    numbers = ["predicted", "published", "error, %"]
    frame[numbers] = frame[numbers].astype(float)
    return frame


def sentences(found: Published) -> tuple[str, ...]:
    """The summary in words; what a file does not say is left out."""
    summary = found.summary
    said = []
    if {"records", "blocks", "calibration", "not_modelled"} <= summary.keys():
        said.append(
            f"{summary['records']} published numbers in {summary['blocks']} blocks;"
            f" {summary['not_modelled']} of {summary['calibration']} are not modelled."
        )
    if isinstance(median := summary.get("median_error"), float):
        said.append(f"Median error {median:.1%}.")
    if isinstance(medians := summary.get("median_of_medians"), float):
        said.append(f"Median of the blocks' medians, every block alike, {medians:.1%}.")
    return tuple(said)
