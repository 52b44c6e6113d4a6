"""Units are decimal and always in the name: 1 GB is 1e9 bytes, 1 ms is 1e-3 s, a multiply-add is 2 FLOP.

Inside smesim every quantity is a plain number in its base unit (seconds, bytes, FLOP, bytes/s, FLOP/s) and
the name of the variable says which. Only what a person reads is scaled, by the functions below: three
significant digits and a decimal prefix.
"""

from __future__ import annotations

import math

NANO = 1e-9
MICRO = 1e-6
MILLI = 1e-3
KILO = 1e3
MEGA = 1e6
GIGA = 1e9
TERA = 1e12

_PREFIXES = (
    (1e-9, "n"),
    (1e-6, "µ"),
    (1e-3, "m"),
    (1.0, ""),
    (1e3, "k"),
    (1e6, "M"),
    (1e9, "G"),
    (1e12, "T"),
    (1e15, "P"),
)


def format_seconds(seconds: float) -> str:
    """A duration with the prefix that suits it: 1.23 ms, 45.6 µs, 2.00 s."""
    return _scaled(seconds, "s", smallest=1e-9, largest=1.0)


def format_bytes(n_bytes: float) -> str:
    """An amount of data: 96 B, 12.9 GB."""
    return _scaled(n_bytes, "B", smallest=1.0, largest=1e15)


def format_flop(flop: float) -> str:
    """An amount of arithmetic: 6.43 GFLOP."""
    return _scaled(flop, "FLOP", smallest=1.0, largest=1e15)


def format_rate(per_second: float, unit: str) -> str:
    """A rate of `unit` per second: format_rate(31.2e9, "B") is 31.2 GB/s, with "FLOP" 31.2 GFLOP/s."""
    return _scaled(per_second, f"{unit}/s", smallest=1.0, largest=1e15)


def _scaled(value: float, unit: str, *, smallest: float, largest: float) -> str:
    if not math.isfinite(value):
        return f"{value} {unit}"
    # Round before the prefix is chosen, else 999.7 B becomes "1000 B" and not "1.00 kB".
    rounded = float(f"{value:.3g}")
    scale, prefix = next(
        ((s, p) for s, p in reversed(_PREFIXES) if smallest <= s <= largest and abs(rounded) >= s),
        next((s, p) for s, p in _PREFIXES if s == smallest),
    )
    scaled = rounded / scale
    if scaled == 0 or (scale == 1.0 and unit in ("B", "FLOP") and rounded == value == int(value)):
        return f"{scaled:.0f} {prefix}{unit}"
    magnitude = math.floor(math.log10(abs(scaled)) + 1e-12)
    decimals = min(2, max(0, 2 - magnitude))
    return f"{scaled:.{decimals}f} {prefix}{unit}"
