"""Columns as Arrow's memory: what Arrow itself makes of the same values."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smesim.sweep.columns import arrow_column

VALUES: dict[Any, st.SearchStrategy[Any]] = {
    pa.string(): st.text(max_size=5),
    pa.float64(): st.floats(allow_nan=False),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.bool_(): st.booleans(),
}


@settings(max_examples=25)
@given(st.data())
@pytest.mark.parametrize("kind", list(VALUES), ids=str)
def test_a_column_has_the_values_it_was_made_of(kind: Any, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.none() | VALUES[kind], max_size=20))
    column = arrow_column(pa, kind, values)
    column.validate(full=True)
    assert column.equals(pa.array(values, kind))


def test_what_is_no_text_is_written_as_text() -> None:
    assert arrow_column(pa, pa.string(), [("contention", "barrier"), 8, None]).to_pylist() == [
        "contention,barrier", "8", None,
    ]  # fmt: skip
