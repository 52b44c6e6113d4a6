"""Validating: every record of a file answered, and the answers judged block by block.

Cross-validated predictions are those that the last fit left beside the data; a record that is not in it has none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from smesim.errors import SmesimError
from smesim.sim.effects import ALL_EFFECTS
from smesim.validate.adapters import answer
from smesim.validate.library import Library
from smesim.validate.machines import NotModelled
from smesim.validate.records import PublishedRecord, blocks_of
from smesim.validate.statistics import Answer, BlockStatistics, Summary, block_statistics, summarise

CROSSED = "cross_validated.json"


@dataclass(frozen=True)
class Validation:
    """All answers, their blocks, and the summary."""

    answers: tuple[Answer, ...]
    blocks: tuple[BlockStatistics, ...]
    summary: Summary

    def of(self, block: str) -> tuple[Answer, ...]:
        return tuple(a for a in self.answers if a.record.block == block)


def cross_validated() -> dict[str, float]:
    """By record id, what a fit to the other rows of its block predicts."""
    file = resources.files("smesim.validate") / "data" / CROSSED
    predictions: dict[str, float] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return predictions


def validate(
    records: Sequence[PublishedRecord], blocks: Sequence[str] = (), effects: frozenset[str] = ALL_EFFECTS,
    progress: Callable[[str, float], None] = lambda _what, _share: None,
) -> Validation:  # fmt: skip
    """Answer the records of some blocks (all if none is named) with some effects on.

    SmesimError for a block that no record is of.
    """
    known = tuple(blocks_of(tuple(records)))
    for block in blocks:
        if block not in known:
            raise SmesimError(f"unknown block {block!r}; accepted: {', '.join(known)}")
    chosen = [record for record in records if not blocks or record.block in blocks]
    library = Library(effects=effects)
    crossed = cross_validated()
    answers = []
    for position, record in enumerate(chosen):
        progress(record.block, position / len(chosen))
        answers.append(_answer(record, library, crossed.get(record.id)))
    statistics = tuple(
        block_statistics(block, [a for a in answers if a.record.block == block])
        for block in dict.fromkeys(record.block for record in chosen)
    )
    return Validation(tuple(answers), statistics, summarise(answers, statistics))


def _answer(record: PublishedRecord, library: Library, crossed: float | None) -> Answer:
    if record.value is None:
        return Answer(record, None, None, "the record has no number")
    try:
        return Answer(record, answer(record.question(), library), crossed)
    except NotModelled as reason:
        return Answer(record, None, None, str(reason))


def as_json(validation: Validation) -> dict[str, Any]:
    """Records, blocks and summary as `--json` prints them. A record has seven keys, `predicted` null and `reason` given
    where it is not modelled."""
    return {
        "records": [
            {
                "id": a.record.id, "block": a.record.block, "predicted": a.predicted, "published": a.record.value,
                "unit": a.record.unit_of_value, "error": a.error, "reason": a.reason,
            }
            for a in validation.answers
        ],
        "blocks": [
            {
                "block": b.block, "kind": b.kind, "count": b.count, "not_modelled": b.not_modelled,
                "geometric_mean_ratio": b.geometric_mean_ratio, "median_error": b.median_error,
                "p90_error": b.p90_error, "worst_error": b.worst_error, "bias": b.bias,
                "cross_validated_median_error": b.crossed_median_error,
                "cross_validated_p90_error": b.crossed_p90_error,
                "cross_validated_worst_error": b.crossed_worst_error,
                "kendall_tau": b.tau, "best_named": b.best_named[0], "contests": b.best_named[1],
                "series": [{"name": s.name, "tau": s.tau, "best_is_named": s.best_is_named} for s in b.series],
            }
            for b in validation.blocks
        ],
        "summary": {
            **vars(validation.summary), "not_modelled_share": validation.summary.not_modelled_share,
            "classes": [
                {
                    "kind": c.kind, "rows": c.rows, "not_modelled": c.not_modelled, "median_error": c.median_error,
                    "p90_error": c.p90_error, "worst_error": c.worst_error,
                    "cross_validated_median_error": c.crossed_median_error,
                    "cross_validated_p90_error": c.crossed_p90_error,
                    "cross_validated_worst_error": c.crossed_worst_error,
                    "worst_block": c.worst_block, "worst_block_cross_validated_median_error": c.worst_block_median,
                }
                for c in validation.summary.classes
            ],
        },
    }  # fmt: skip
