import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smesim.units import (
    GIGA,
    KILO,
    MEGA,
    MICRO,
    MILLI,
    NANO,
    TERA,
    format_bytes,
    format_flop,
    format_rate,
    format_seconds,
)


def test_prefixes_are_decimal():
    assert [NANO, MICRO, MILLI, KILO, MEGA, GIGA, TERA] == [1e-9, 1e-6, 1e-3, 1e3, 1e6, 1e9, 1e12]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.234e-3, "1.23 ms"),
        (45.64e-6, "45.6 µs"),
        (107.389e-3, "107 ms"),
        (2, "2.00 s"),
        (4321, "4320 s"),
        (3e-9, "3.00 ns"),
        (2.5e-10, "0.25 ns"),
        (0, "0 ns"),
        (-0.002, "-2.00 ms"),
        (0.9996, "1.00 s"),
        (math.nan, "nan s"),
        (math.inf, "inf s"),
    ],
)
def test_seconds(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (96, "96 B"),
        (999.7, "1.00 kB"),
        (12_850_298_880, "12.9 GB"),
        (1 << 30, "1.07 GB"),
        (2e12, "2.00 TB"),
    ],
)
def test_bytes(n_bytes, text):
    assert format_bytes(n_bytes) == text


def test_flop_and_rates():
    assert format_flop(703_874_919_680) == "704 GFLOP"
    assert format_rate(31.2e9, "B") == "31.2 GB/s"
    assert format_rate(95.14e9, "FLOP") == "95.1 GFLOP/s"
    assert format_rate(0.5, "tokens") == "0.50 tokens/s"
    assert format_rate(7.5, "tokens") == "7.50 tokens/s"


@given(st.floats(min_value=1e-9, max_value=9.99e14))
def test_what_is_shown_is_the_value_to_three_digits(value):
    scale = {"n": 1e-9, "µ": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    if value >= 1:
        number, unit = format_bytes(value).split()
        assert float(number) * scale[unit.removesuffix("B")] == pytest.approx(value, rel=5.001e-3)
    if value < 1000:
        number, unit = format_seconds(value).split()
        assert float(number) * scale[unit.removesuffix("s")] == pytest.approx(value, rel=5.001e-3)
