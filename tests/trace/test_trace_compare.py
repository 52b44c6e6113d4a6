"""Prediction against measurement: joins, refusals, and an error budget that adds up."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smesim.errors import TraceError
from smesim.trace import ComparisonReport, ErrorBudget, Trace, compare
from smesim.trace.compare import PARTS
from smesim.trace.statistics import Statistics, interquartile_range, kendall_tau, relative_error
from tests.trace import examples


def test_example_by_hand() -> None:
    comparison = compare(examples.predicted(), examples.measured((1.0, 1.5, 0.5)))
    sites = comparison.sites
    assert sites["predicted_s"].tolist() == [2.0, 5.0, 3.0]
    assert sites["measured_s"].tolist() == [3.0, 6.0, 3.0]
    assert sites["error"].tolist() == [2.0 / 3.0 - 1, 5.0 / 6.0 - 1, 0.0]
    assert sites["spread_s"].tolist() == [1.5, 3.0, 1.5]
    assert sites["bound"].tolist() == ["wait", "compute", "wait"]
    assert sites["share"].tolist() == [3.0 / 12, 6.0 / 12, 3.0 / 12]
    assert (comparison.total.predicted_s, comparison.total.measured_s) == (10.0, 12.0)
    assert comparison.total.spread_s == 6.0
    assert comparison.total.error == 10.0 / 12.0 - 1
    assert comparison.budget == ErrorBudget(compute_s=1.0, transfer_s=0.0, overhead_s=0.5, wait_s=0.5)


def test_tasks_join_one_to_one() -> None:
    tasks = compare(examples.predicted(), examples.measured()).tasks
    assert tasks["task"].tolist() == [0, 1, 2, 3]
    assert tasks["predicted_s"].tolist() == [2.0, 4.0, 5.0, 3.0]
    assert tasks["measured_s"].tolist() == [2.0, 5.0, 5.0, 2.0]
    assert tasks["compute_error_s"].tolist() == [0.0, 1.5, 0.5, 0.0]
    assert tasks["transfer_error_s"].tolist() == [0.5, 0.0, 0.0, -0.5]
    assert tasks["overhead_error_s"].tolist() == [0.5, 0.5, -0.5, 0.5]
    assert tasks["wait_error_s"].tolist() == [1.0, 1.0, -1.0, 0.0]


def test_an_even_number_of_runs_is_split_between_the_middle_two() -> None:
    comparison = compare(examples.predicted(), examples.measured((1.0, 9.0, 0.1, 1.5)))
    assert comparison.total.measured_s == 15.0
    assert comparison.budget.total_s == pytest.approx(5.0, rel=1e-12)


@examples.PROPERTY
@given(examples.trace_pairs())
def test_the_four_parts_add_up_to_the_difference_of_the_totals(pair: tuple[Trace, Trace]) -> None:
    comparison = compare(*pair)
    difference_s = comparison.total.measured_s - comparison.total.predicted_s
    scale_s = comparison.total.measured_s + comparison.total.predicted_s
    assert comparison.budget.total_s == pytest.approx(difference_s, rel=1e-9, abs=1e-12 * scale_s)
    for frame in (comparison.sites, comparison.operators):
        for part in PARTS:
            expected = getattr(comparison.budget, f"{part}_s")
            assert frame[f"{part}_error_s"].sum() == pytest.approx(expected, rel=1e-9, abs=1e-12 * scale_s)
    assert comparison.sites["predicted_s"].sum() == pytest.approx(comparison.total.predicted_s)


@examples.PROPERTY
@given(examples.trace_pairs())
def test_a_perfect_prediction_has_no_error(pair: tuple[Trace, Trace]) -> None:
    predicted, _ = pair
    told = ("compute_s", "transfer_s", "overhead_s", "bound")
    columns = {str(name): values for name, values in predicted.tasks.items() if name not in told}
    measured = Trace.build(predicted.meta.model_copy(update={"source": "measured"}), columns)
    comparison = compare(predicted, measured)
    assert comparison.total.measured_s == comparison.total.predicted_s
    assert comparison.budget.wait_s == pytest.approx(0.0, abs=1e-12)
    assert comparison.budget.total_s == pytest.approx(0.0, abs=1e-12)
    measurable = comparison.sites["measured_s"] > 0
    assert (comparison.sites["error"][measurable] == 0).all()


@pytest.mark.parametrize(
    ("predicted", "measured", "message"),
    [
        (
            {},
            {"program_fingerprint": "program-2"},
            "different programs: 'program-1' was predicted, 'program-2' meas",
        ),
        ({}, {"source": "emulated"}, "emulated time says nothing of hardware speed"),
        ({}, {"workers": ["a", "b", "c"]}, "2 workers were predicted, 3 measured"),
        ({"program_fingerprint": "program-3"}, {}, "'program-3' was predicted"),
    ],
)
def test_refusals(predicted: dict[str, Any], measured: dict[str, Any], message: str) -> None:
    second = Trace.build(examples.meta(**{"source": "measured"} | measured), examples.measured_columns())
    with pytest.raises(TraceError, match=message) as refusal:
        compare(examples.predicted(**predicted), second)
    assert "\n" not in str(refusal.value)


def test_refuses_two_of_a_kind_and_different_tasks() -> None:
    with pytest.raises(TraceError, match="a measured with a measured trace"):
        compare(examples.measured(), examples.measured())
    with pytest.raises(TraceError, match="a measured with a simulated trace"):
        compare(examples.measured(), examples.predicted())
    other = Trace.build(examples.meta("measured"), examples.measured_columns() | {"op": [0, 1, 2, 3]})
    with pytest.raises(TraceError, match="their tasks differ in 'op'"):
        compare(examples.predicted(), other)


def test_json_has_the_promised_shape() -> None:
    report = ComparisonReport((compare(examples.predicted(), examples.measured((1.0, 1.5, 0.5))),))
    content = json.loads(report.to_json())
    assert content == {
        "machine": "a test bench",
        "phases": [
            {
                "phase": "prefill:16",
                "total": {
                    "predicted_s": 10.0,
                    "measured_s": 12.0,
                    "spread_s": 6.0,
                    "error": 10.0 / 12.0 - 1,
                },
                "operators": [
                    {
                        "name": name,
                        "kind": kind,
                        "predicted_s": predicted_s,
                        "measured_s": measured_s,
                        "spread_s": measured_s / 2,
                        "error": predicted_s / measured_s - 1,
                        "bound": bound,
                    }
                    for name, kind, predicted_s, measured_s, bound in (
                        ("attn_norm", "rms_norm", 2.0, 3.0, "wait"),
                        ("q_proj", "linear", 5.0, 6.0, "compute"),
                        ("lm_head", "linear", 3.0, 3.0, "wait"),
                    )
                ],
            }
        ],
    }


def test_the_spread_of_one_run_is_unknown_not_zero() -> None:
    comparison = compare(examples.predicted(), examples.measured())
    assert math.isnan(comparison.total.spread_s)
    content = json.loads(ComparisonReport((comparison,)).to_json())
    assert content["phases"][0]["total"]["spread_s"] is None
    assert content["phases"][0]["operators"][0]["spread_s"] is None


def test_a_report_is_about_one_machine() -> None:
    here = compare(examples.predicted(), examples.measured())
    there = compare(examples.predicted(), examples.measured(machine="another bench"))
    with pytest.raises(TraceError, match="one machine; given: a test bench, another bench"):
        ComparisonReport((here, there))
    with pytest.raises(TraceError, match="no phase"):
        ComparisonReport(())


def test_statistics_by_hand() -> None:
    found = Statistics.of(["a", "b", "c", "d"], [1.05, 2.0, 3.0, 0.5], [1.0, 2.5, 2.0, 0.001])
    assert found.operators == 4
    assert found.median_error == pytest.approx((0.2 + 0.5) / 2)
    assert found.worst_error == pytest.approx(499.0)
    assert found.worst_operator == "d"
    assert found.bias == pytest.approx((0.05 - 0.2 + 0.5 + 499.0) / 4)
    assert (found.share_within_10_percent, found.share_within_25_percent) == (0.25, 0.5)
    assert found.significant == ("a", "b", "c")
    assert found.significant_beyond_25_percent == ("c",)
    # Of six pairs only b and c are ranked the wrong way round.
    assert found.kendall_tau == pytest.approx((5 - 1) / 6)


def test_statistics_of_nothing_measured_are_unknown() -> None:
    found = Statistics.of(["a"], [1.0], [0.0])
    assert math.isnan(found.median_error)
    assert math.isnan(found.bias)
    assert found.worst_operator == ""


def test_kendall_tau_with_ties() -> None:
    assert kendall_tau([1, 2, 3], [10, 20, 30]) == 1.0
    assert kendall_tau([1, 2, 3], [3, 2, 1]) == -1.0
    # Pairs: (1,1) tied in x; 4 concordant, 1 discordant of 5 left in x, 6 untied in y.
    assert kendall_tau([1, 1, 2, 3], [1, 2, 4, 3]) == pytest.approx((4 - 1) / math.sqrt(5 * 6))
    assert math.isnan(kendall_tau([1, 1], [1, 2]))


@examples.PROPERTY
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=12))
def test_kendall_tau_against_counting_pairs(points: list[tuple[int, int]]) -> None:
    concordant = discordant = untied_x = untied_y = 0
    for i, (x1, y1) in enumerate(points):
        for x2, y2 in points[:i]:
            product = (x1 - x2) * (y1 - y2)
            concordant += product > 0
            discordant += product < 0
            untied_x += x1 != x2
            untied_y += y1 != y2
    tau = kendall_tau([x for x, _ in points], [y for _, y in points])
    if untied_x and untied_y:
        assert tau == pytest.approx((concordant - discordant) / math.sqrt(untied_x * untied_y))
    else:
        assert math.isnan(tau)


def test_spread_and_error() -> None:
    assert interquartile_range([1.0, 2.0, 3.0, 4.0, 5.0]) == 2.0
    assert np.isnan(interquartile_range([[1.0, 2.0]])).tolist() == [True, True]
    assert relative_error([1.1, 1.0], [1.0, 0.0]) == pytest.approx([0.1, math.nan], nan_ok=True)
