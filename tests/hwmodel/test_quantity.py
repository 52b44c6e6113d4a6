"""A quantity carries unit and provenance, and cannot be had without them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from smesim.hwmodel.quantity import BytesPerS, Factor, Quantity, Seconds


class Holder(BaseModel):
    rate: BytesPerS | None = None
    delay: Seconds | None = None
    factor: Factor | None = None


def given(**changes: Any) -> dict[str, Any]:
    return {"value": 1.0, "unit": "B/s", "provenance": "measured", "source": "a paper", **changes}


def test_measured_quantity_keeps_how_it_was_measured() -> None:
    entry = given(spread=0.1, command="smesim probe", date="2026-11-21", repeats=20)
    quantity = Quantity.model_validate(entry)
    assert quantity.model_dump(exclude_none=True) == entry


def test_provenance_is_part_of_the_text() -> None:
    guess = Quantity(value=2e9, unit="Hz", provenance="guessed", source="none", reason="looks like the other")
    assert str(guess) == "2e+09 Hz (guessed)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unit": "GB/s"}, "unit 'GB/s' given; accepted: 1, s, Hz, B, B/s"),
        ({"provenance": "believed"}, "'measured', 'fitted', 'data_sheet', 'derived' or 'guessed'"),
        ({"provenance": "guessed"}, "'guessed' without a reason"),
        ({"source": ""}, "at least 1 character"),
        ({"value": float("nan")}, "finite"),
        ({"value": float("inf")}, "finite"),
        ({"value": "12"}, "valid number"),
        ({"value": True}, "valid number"),
        ({"spread": -1.0}, "greater than or equal to 0"),
        ({"repeats": 0}, "greater than or equal to 1"),
        ({"date": "yesterday"}, "match pattern"),
        ({"low": 1.5}, "low = 1.5 given for a value of 1; accepted: low <= value"),
        ({"high": 0.5}, "high = 0.5 given for a value of 1; accepted: high >= value"),
        ({"scale": 2}, "unknown key 'scale'; accepted: value, unit"),
    ],
)
def test_wrong_entries_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        Quantity.model_validate(given(**changes))


@pytest.mark.parametrize("missing", ["value", "unit", "provenance", "source"])
def test_value_unit_provenance_and_source_are_required(missing: str) -> None:
    entry = given()
    del entry[missing]
    with pytest.raises(ValidationError, match=missing):
        Quantity.model_validate(entry)


@pytest.mark.parametrize(
    ("field", "value", "unit", "message"),
    [
        ("rate", 1.0, "s", "unit 's' given; accepted: 'B/s'"),
        ("rate", 0.0, "B/s", "0 given; accepted: above zero"),
        ("rate", -1.0, "B/s", "-1 given; accepted: above zero"),
        ("delay", -1.0, "s", "-1 given; accepted: zero or more"),
        ("factor", 2.5, "1", "2.5 given; accepted: at most 2"),
    ],
)
def test_fields_check_unit_and_sign(field: str, value: float, unit: str, message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        Holder.model_validate({field: given(value=value, unit=unit)})


def test_a_delay_may_be_zero() -> None:
    holder = Holder.model_validate({"delay": given(value=0.0, unit="s")})
    assert holder.delay is not None
    assert holder.delay.value == 0.0


def test_a_quantity_cannot_be_changed() -> None:
    quantity = Quantity.model_validate(given())
    with pytest.raises(ValidationError, match="frozen"):
        quantity.value = 2.0
