"""Files of measurements: what is read, what is refused, and that a prediction never depends on a published value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from smesim.validate import records, run
from smesim.validate.adapters import ADAPTERS, OUTSIDE, answer
from smesim.validate.library import Library
from smesim.validate.machines import NotModelled

BUNDLED = records.load()
RECORD: dict[str, Any] = {
    "id": "m4ilp-0001", "chip": "Apple M4", "unit": "P-cluster SME unit", "metric": "FMOPA (FP32) peak",
    "dtype": "FP32", "value": 499.8, "unit_of_value": "GOPS", "threads": 1, "source": "somewhere",
    "shape_params": {"ilp_accumulators": 1, "p50_ms": 3.0}, "quote_or_location": None,
    "confidence": "high", "kind": "microbench", "split": "calibration",
}  # fmt: skip


def written(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "records.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_a_file_is_read_and_a_question_lacks_the_answer(tmp_path: Path) -> None:
    (record,) = records.load(written(tmp_path, [RECORD]))
    question = record.question()
    assert (record.block, question.block, question.threads) == ("m4ilp", "m4ilp", 1)
    assert question.shape == {"ilp_accumulators": 1}  # a time in the shape would give the value away
    assert not hasattr(question, "value")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ({}, "a JSON dict given; accepted: a list of records"),
        ([RECORD | {"split": "test"}], "m4ilp-0001: split: "),
        ([{k: v for k, v in RECORD.items() if k != "source"}], "m4ilp-0001: source: Field required"),
        ([RECORD | {"threads": 0}], "m4ilp-0001: threads: "),
        ([RECORD | {"speed": 1}], "m4ilp-0001: speed: Extra inputs"),
        ([RECORD | {"id": "m4ilp"}], "m4ilp: id: "),
        ([RECORD, RECORD], "id 'm4ilp-0001' given twice"),
        ([3], "record 0: the record: "),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(records.RecordsError, match=message):
        records.load(written(tmp_path, content))


SLOW = {"sgl", "dgx", "lf974", "adl"}  # hundreds of threads, or many layers: the other models show the same


def predictions(replaced: float | None) -> dict[str, float | str]:
    """What a few records of every block are predicted as, with published values and readings replaced or not."""
    library = Library()
    seen: dict[str, int] = {}
    found: dict[str, float | str] = {}
    for record in BUNDLED:
        seen[record.block] = seen.get(record.block, 0) + 1
        if seen[record.block] > (1 if record.kind == "llm" else 2) or record.block in SLOW:
            continue
        if replaced is not None:
            shape = {k: replaced if k in ("p50_ms", "min_ms") else v for k, v in record.shape_params.items()}
            record = record.model_copy(update={"value": replaced, "shape_params": shape})  # noqa: PLW2901
        try:
            found[record.id] = answer(record.question(), library)
        except NotModelled as reason:
            found[record.id] = str(reason)
    return found


def test_no_prediction_depends_on_a_published_value() -> None:
    as_published = predictions(None)
    assert as_published == predictions(12345.678)
    assert sum(isinstance(value, float) for value in as_published.values()) > 60


def test_every_block_is_answered_or_says_why_not() -> None:
    blocks = set(records.blocks_of(BUNDLED))
    assert blocks >= set(ADAPTERS)
    assert not set(ADAPTERS) & set(OUTSIDE)
    for block in sorted(blocks - set(ADAPTERS)):
        record = next(record for record in BUNDLED if record.block == block)
        with pytest.raises(NotModelled, match=OUTSIDE.get(block, "no adapter")):
            answer(record.question(), Library())


def test_acceptance_rows_are_carried_but_not_answered() -> None:
    accepted = [record for record in BUNDLED if record.split == "acceptance"]
    assert accepted
    assert run.validate(accepted).summary.calibration == 0


def test_a_replaced_number_changes_what_depends_on_it_and_nothing_else() -> None:
    record = next(record for record in BUNDLED if record.id == "m4ilp-0001")
    other = next(record for record in BUNDLED if record.block == "corsix")
    key = "chip:apple-m4/clusters.0.matrix_units.0.clock_hz"
    plain, slow = Library(), Library({key: Library().chip("apple-m4").unit_instances[0].unit.clock_hz.value / 2})
    assert answer(record.question(), slow) == pytest.approx(answer(record.question(), plain) / 2)
    assert answer(other.question(), slow) == answer(other.question(), plain)
