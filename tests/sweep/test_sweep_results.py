"""Questions to a table of points, against a definition that is spelt out."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smesim.errors import SweepError
from smesim.sweep import pareto_front
from smesim.sweep.results import best_of, matching, pivoted

FRAME = pd.DataFrame(
    {"chip": ["a", "a", "b", "b"], "tokens": [1, 2, 1, 2], "time_s": [4.0, 3.0, None, 1.0], "mode": list("xyxy")}
)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_the_pareto_front_is_exactly_the_rows_that_none_beats(rows: list[tuple[int, int, int]]) -> None:
    frame = pd.DataFrame(rows, columns=["time_s", "memory_bytes", "tokens_per_s"])
    front = pareto_front(frame, ["time_s", "memory_bytes", "-tokens_per_s"])

    def beats(one: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
        at_least = one[0] <= other[0] and one[1] <= other[1] and one[2] >= other[2]
        return at_least and one != other

    expected = [i for i, row in enumerate(rows) if not any(beats(other, row) for other in rows)]
    assert sorted(front.index) == expected


def test_best_of_each_group_leaves_out_rows_without_an_answer() -> None:
    assert best_of(FRAME, ["chip"], "time_s")["time_s"].tolist() == [3.0, 1.0]
    assert best_of(FRAME, ["chip"], "-time_s")["time_s"].tolist() == [4.0, 1.0]


def test_a_pivot_has_a_column_for_each_value() -> None:
    table = pivoted(FRAME, "tokens", "chip", "time_s")
    assert table.columns.tolist() == ["tokens", "chip=a", "chip=b"]
    assert table["chip=a"].tolist() == [4.0, 3.0]


@pytest.mark.parametrize("query", ["chip = 'a'", "nothing > 1", "time_s"])
def test_a_query_that_is_none_is_refused_with_the_columns_there_are(query: str) -> None:
    with pytest.raises(SweepError, match=r"accepted: .*chip"):
        matching(FRAME, query)


def test_a_column_that_is_missing_or_no_number_is_refused() -> None:
    with pytest.raises(SweepError, match="'size' asked for; accepted: chip, tokens"):
        pareto_front(FRAME, ["size"])
    with pytest.raises(SweepError, match="as a number; accepted: tokens, time_s"):
        best_of(FRAME, ["chip"], "mode")
