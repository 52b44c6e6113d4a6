"""What is said of answers: closed forms of errors, orders and winners; fits that find what rows were made with."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from smesim.errors import SmesimError
from smesim.hwmodel import library as chips
from smesim.validate import fit_report, fitting, records, report, run
from smesim.validate.adapters import answer
from smesim.validate.library import Library
from smesim.validate.records import PublishedRecord
from smesim.validate.refitting import Problem, groups, refit
from smesim.validate.statistics import Answer, block_statistics, class_statistics, quantile, summarise
from tests.command_line import CommandLine

KEPT = "chip:apple-m1-max/clusters.0.matrix_units.0.sharing.kept"
CORSIX = [record for record in records.load() if record.block == "corsix"][:40:2]


def record(
    number: int, value: float, threads: int | None = None, unit: str = "a", of: str = "tok/s"
) -> PublishedRecord:  # fmt: skip
    return PublishedRecord(
        id=f"block-{number:04}", chip="c", unit=unit, metric="m", dtype="f32", value=value, unit_of_value=of,
        shape_params={}, threads=threads, source="s", quote_or_location=None,
        confidence="high", kind="llm", split="calibration",
    )  # fmt: skip


def test_errors_of_a_block() -> None:
    answers = [Answer(record(1, 10.0), 11.0, 12.0), Answer(record(2, 10.0), 8.0)]
    answers.append(Answer(record(3, 1.0), None, None, "why"))
    block = block_statistics("block", answers)
    assert (block.count, block.not_modelled) == (3, 1)
    assert block.geometric_mean_ratio == pytest.approx(math.sqrt(1.1 * 0.8))
    assert block.median_error == pytest.approx(0.15)
    assert (block.p90_error, block.worst_error) == (pytest.approx(0.2), pytest.approx(0.2))
    assert block.bias == pytest.approx(-0.05)
    assert block.crossed_median_error == pytest.approx(0.2)
    summary = summarise(answers, [block])
    assert (summary.calibration, summary.not_modelled_share) == (3, pytest.approx(1 / 3))


def test_errors_of_a_class_are_of_calibration_rows_and_cross_validated_where_something_was_fitted() -> None:
    other = record(4, 10.0).model_copy(update={"split": "acceptance"})
    answers = [Answer(record(1, 10.0), 10.0, 13.0), Answer(record(2, 10.0), 11.0), Answer(other, 99.0)]
    answers.append(Answer(record(3, 10.0), None, None, "why"))
    found = class_statistics("llm", answers)
    assert (found.rows, found.not_modelled) == (3, 1)
    assert (found.median_error, found.worst_error) == (pytest.approx(0.05), pytest.approx(0.1))
    assert (found.crossed_median_error, found.crossed_worst_error) == (pytest.approx(0.2), pytest.approx(0.3))
    assert (found.worst_block, found.worst_block_median) == ("block", pytest.approx(0.2))
    assert class_statistics("kernel", answers).median_error is None


def test_series_over_threads_and_contests_between_units() -> None:
    published, predicted = (10.0, 30.0, 20.0, 5.0), (11.0, 25.0, 26.0, 4.0)
    answers = [Answer(record(i, v, i + 1), p) for i, (v, p) in enumerate(zip(published, predicted, strict=True))]
    block = block_statistics("block", answers)
    (series,) = block.series
    assert series.tau == pytest.approx((5 - 1) / 6)  # of six pairs one is ordered the other way
    assert not series.best_is_named
    units = [Answer(record(8, 10.0, 1, "a", "ms"), 9.0), Answer(record(9, 12.0, 1, "b", "ms"), 20.0)]
    (contest,) = block_statistics("block", units).contests
    assert contest.best_is_named  # of times the least is best
    assert quantile([], 0.9) is None


def test_a_fit_finds_what_rows_were_made_with_and_moves_nothing_else() -> None:
    made = Library({KEPT: 0.6})
    rows = [r.model_copy(update={"value": answer(r.question(), made)}) for r in CORSIX]
    found = fitting.fit(rows, iterations=6)
    assert {p.key for p in found.parameters} >= {KEPT}
    assert found.values[KEPT] == pytest.approx(0.6, rel=0.02)
    crossed = [abs(found.cross_validated[r.id] / float(r.value or 1.0) - 1.0) for r in rows]
    assert max(crossed) < 0.05


def test_a_refit_ends_where_its_own_rows_want_it() -> None:
    """A straight line against its closed form, and a curve that derivatives of the start miss."""
    slopes, given = np.array([[1.0, 0.5], [0.0, 2.0], [1.0, -1.0]]), np.array([0.1, 0.4, -0.2])
    weights, priors = np.array([0.3, 0.1]), np.array([0.2, 0.0])
    far = np.full(2, 9.0)
    line = Problem(lambda x: slopes @ x - given, priors, weights, -far, far, 1e6)
    x = refit(line, np.zeros(2), -given, slopes)
    square = slopes.T @ slopes + np.diag(weights**2)
    assert x == pytest.approx(np.linalg.solve(square, slopes.T @ given + weights**2 * priors), abs=1e-3)
    curve = Problem(lambda x: np.expm1(x) - 1.0, np.zeros(1), np.full(1, 1e-6), -far[:1], far[:1], 0.2)
    assert refit(curve, np.zeros(1), np.full(1, -1.0), np.ones((1, 1))) == pytest.approx([math.log(2.0)], abs=5e-3)
    held = Problem(lambda x: x - 3.0, np.zeros(1), np.full(1, 0.1), -far[:1], np.ones(1), 0.2)
    assert refit(held, np.zeros(1), np.full(1, -3.0), np.ones((1, 1))) == pytest.approx([1.0])  # its bound


def test_rows_that_share_no_number_are_fitted_apart() -> None:
    depends = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]], np.bool_)
    assert list(groups(depends)) == [([0, 1, 3], [0, 1]), ([2], [2]), ([], [3])]


def test_only_calibration_rows_and_only_the_named_numbers_are_fitted(tmp_path: Path) -> None:
    context = [r.model_copy(update={"split": "acceptance"}) for r in CORSIX]
    with pytest.raises(SmesimError, match="nothing to fit"):
        fitting.fit(context)
    with pytest.raises(SmesimError, match="nothing to fit"):
        fitting.fit(CORSIX, ["chip:apple-m4"])
    found = fitting.fit(CORSIX, ["chip:apple-m1-max"], iterations=3)
    written = fit_report.write(found, tmp_path)
    assert [path.name for path in written] == ["apple-m1-max.toml", "cross_validated.json"]
    sharing = chips.load(written[0]).unit_instances[0].unit.sharing
    assert sharing is not None
    assert sharing.kept.value == pytest.approx(found.values[KEPT], rel=1e-3)
    assert (sharing.kept.provenance, sharing.kept.prior) == ("fitted", sharing.kept.prior)
    assert sharing.kept.prior is not None


def test_any_file_of_the_schema_is_answered_row_by_row(smesim: CommandLine, tmp_path: Path) -> None:
    known = next(r for r in records.load() if r.block == "m4ilp")
    rows = {
        "m4ilp-0001": {},
        "m4ilp-0900": {"metric": "a word that no adapter expects", "shape_params": {"ilp_accumulators": "many"}},
        "m9new-0001": {},
        "smepilot-0001": {"split": "acceptance"},
        "m4thr-0001": {"unit": "whole chip (GPU/MLX)"},
        "m4op-0001": {"value": None, "split": "context"},
    }
    path = tmp_path / "hidden.json"
    path.write_text(json.dumps([known.model_dump() | {"id": name} | changed for name, changed in rows.items()]))
    printed = smesim("validate", "--data", str(path), "--json").json()
    assert list(printed) == ["records", "blocks", "summary"]
    for row in printed["records"]:
        assert list(row) == ["id", "block", "predicted", "published", "unit", "error", "reason"]
        assert (row["predicted"] is None) == (row["reason"] is not None)
    reasons = {row["id"]: row["reason"] for row in printed["records"]}
    assert [name for name, reason in reasons.items() if reason is None] == ["m4ilp-0001"]
    assert reasons["m9new-0001"] == "no adapter for this block"
    assert reasons["m4thr-0001"].startswith("GPU: neither cores")
    assert (printed["summary"]["calibration"], printed["summary"]["not_modelled"]) == (4, 3)
    assert [c["kind"] for c in printed["summary"]["classes"]] == ["microbench", "kernel", "llm"]


def test_validate_prints_json_and_writes_a_page_with_five_headings(smesim: CommandLine) -> None:
    printed = smesim("validate", "--block", "m4ilp", "--block", "m4arch", "--json").json()
    assert set(printed) == {"records", "blocks", "summary"}
    first = printed["records"][0]
    assert {"id", "block", "predicted", "published", "unit", "error", "reason"} <= set(first)
    assert any(r["predicted"] is None and r["reason"] for r in printed["records"])
    validation = run.validate(records.load(), ["m4ilp", "lc20070"])
    headings = [line for line in report.markdown(validation).splitlines() if line.startswith("## ")]
    assert headings == [
        "## Where it is right", "## Where it is wrong", "## Why", "## How far to trust it", "## How to reproduce",
    ]  # fmt: skip
    page = report.html(validation)
    assert "| Prefill and decode of models | 7 | 0 |" in report.markdown(validation)
    assert 'id="plot-m4ilp"' in page
    assert "lc20070" in page


def test_an_unknown_block_or_effect_is_refused(smesim: CommandLine) -> None:
    assert "unknown block 'm5ilp'" in smesim("validate", "--block", "m5ilp").refusal()
    assert "unknown effect 'luck'" in smesim("validate", "--without", "luck").refusal()
    assert "unknown block 'm5ilp'" in smesim("fit", "--block", "m5ilp").refusal()
    assert "unknown chip or engine 'm5'" in smesim("fit", "--preset", "m5", "--block", "m4thr").refusal()
    assert "nothing to fit" in smesim("fit", "--preset", "apple-m4", "--block", "m4thr").refusal()
