"""Numbers of a comparison as people read them; the terminal and the report say them in the same words."""

from __future__ import annotations

import math

from smesim.trace.compare import Comparison

UNKNOWN = "-"

PROBLEM_ERROR, DOUBTFUL_ERROR = 0.25, 0.10
"""Beyond 25 % an error is shown as a problem, beyond 10 % as doubtful: the limits by which predictions are
judged."""


def _decimals(milliseconds: float) -> int:
    return 1 if milliseconds >= 100 else 2 if milliseconds >= 1 else 4


def format_ms(seconds: float) -> str:
    """Milliseconds, three significant digits or more from 1 ms up, four decimals below; "-" if unknown."""
    return UNKNOWN if math.isnan(seconds) else f"{seconds * 1e3:.{_decimals(seconds * 1e3)}f}"


def format_measured_ms(measured_s: float, spread_s: float) -> str:
    """A measured time with its spread, where there is one, to the same decimals."""
    text = format_ms(measured_s)
    return text if math.isnan(spread_s) else f"{text} ± {spread_s * 1e3:.{_decimals(measured_s * 1e3)}f}"


def format_error(error: float) -> str:
    """A relative error in percent, with its sign; "-" if unknown."""
    return UNKNOWN if math.isnan(error) else f"{error:+.1%}"


def format_share(share: float) -> str:
    """A share in percent; "-" if unknown."""
    return UNKNOWN if math.isnan(share) else f"{share:.1%}"


def format_layers(layers: int) -> str:
    """The number of layers, in words that fit it."""
    return f"{layers} layer{'' if layers == 1 else 's'}"


def statistics_lines(comparison: Comparison) -> tuple[str, ...]:
    """How good the prediction is, what the difference of the totals is made of, and what the prediction notes."""
    found = comparison.statistics
    tau = UNKNOWN if math.isnan(found.kendall_tau) else f"{found.kendall_tau:.2f}"
    quality = (
        f"operators: median error {format_share(found.median_error)}, "
        f"worst {format_error(found.worst_error)} ({found.worst_operator or 'none'}), "
        f"bias {format_error(found.bias)}, {format_share(found.share_within_10_percent)} within 10 %, "
        f"{format_share(found.share_within_25_percent)} within 25 %, Kendall tau {tau}"
    )
    budget = comparison.budget
    parts = (
        ("compute", budget.compute_s),
        ("transfer", budget.transfer_s),
        ("overhead", budget.overhead_s),
        ("waiting", budget.wait_s),
    )
    said = ", ".join(f"{name} {1e3 * seconds:+.3g}" for name, seconds in parts)
    notes = comparison.predicted.meta.notes
    load = comparison.measured.meta.foreign_load
    return (
        quality,
        f"measured minus predicted: {1e3 * budget.total_s:+.3g} ms = {said} (ms)",
        *([f"prediction: {'; '.join(notes)}"] if notes else []),
        *([] if load is None else [f"measurement: other processes took {load:.0%} of the machine"]),
    )
