"""Validation: published measurements against predictions, block by block, with sources."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboards import figures, opening, published, work
from dashboards.published import Published
from dashboards.question import Question
from dashboards.views import address, parts
from smesim.validate import records

KEPT = Path("validation/published/validation.json")
"""Where a checkout keeps the result of the last `smesim validate --out validation/published`."""


def page(question: Question) -> None:
    found = _chosen()
    if found is None:
        return
    st.write(" ".join(published.sentences(found)))
    parts.table(published.blocks_table(found), "validation")
    answered = [str(block["block"]) for block in found.blocks if block["median_error"] is not None]
    if not answered:
        st.info("No block of these has an answer.")
        return
    block = address.choice(st, "Block", answered, "block")
    rows = published.rows_table(found, block)
    units = [str(unit) for unit in rows.loc[rows["predicted"].notna(), "unit"].unique()]
    unit = address.choice(st, "Unit", units, "unit") if len(units) > 1 else units[0]
    parts.picture(figures.published(rows[rows["unit"] == unit], unit), "published")
    parts.table(rows, "records")


def _chosen() -> Published | None:
    """A result that is there: opened, or kept in the checkout; else one block, predicted now."""
    results = {name: content for name, content in work.opened().items() if isinstance(content, Published)}
    if KEPT.is_file() and isinstance(kept := work.file_at(KEPT, KEPT.stat().st_mtime_ns), Published):
        results[str(KEPT)] = kept
    blocks = sorted({record.block for record in records.load()})
    names = [*results, *(f"block {block}, predicted now" for block in blocks)]
    source = address.choice(st, "Result", names, "result")
    if source in results:
        return results[source]
    block = source.removeprefix("block ").removesuffix(", predicted now")
    found: Published | None = parts.long_work("validation", block, published.predict, (block,))
    return found


def newest() -> Published | None:
    """The result that a checkout keeps, for the summary."""
    if not KEPT.is_file():
        return None
    content: opening.Opened = work.file_at(KEPT, KEPT.stat().st_mtime_ns)
    return content if isinstance(content, Published) else None
