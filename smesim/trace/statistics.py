"""How good a prediction is, in a handful of numbers.

A relative error is predicted / measured - 1: above zero the prediction is too slow, below zero too fast. Its
median says how far off an operator usually is, its worst case how far off one can be, its mean (the bias)
whether the errors lean to one side, and Kendall's tau whether the prediction at least ranks the operators as
the measurement does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

SIGNIFICANT_SHARE = 0.01
"""An operator below 1 % of the total may be off by any factor without anyone noticing."""


def relative_error(predicted_s: ArrayLike, measured_s: ArrayLike) -> NDArray[np.float64]:
    """predicted / measured - 1, NaN where nothing was measured (0 s)."""
    predicted, measured = np.asarray(predicted_s, dtype=np.float64), np.asarray(measured_s, dtype=np.float64)
    return predicted / np.where(measured > 0, measured, np.nan) - 1


def interquartile_range(values: ArrayLike) -> NDArray[np.float64]:
    """Spread over the first axis (the runs); NaN for fewer than two runs, whose spread nobody knows."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) < 2:
        return np.full(array.shape[1:], np.nan)
    low, high = np.percentile(array, (25, 75), axis=0)
    return np.asarray(high - low)


def kendall_tau(first: ArrayLike, second: ArrayLike) -> float:
    """Kendall's tau-b of two sequences of equal length: 1 same order, -1 reversed, NaN if either is constant.

    (concordant - discordant) / sqrt(pairs untied in the first * pairs untied in the second); Kendall, "The
    treatment of ties in ranking problems", Biometrika 33 (1945). O(n**2), for hundreds of operators.
    """
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    x_order, y_order = np.sign(x[:, None] - x[None, :]), np.sign(y[:, None] - y[None, :])
    untied = np.sqrt(np.count_nonzero(x_order) * np.count_nonzero(y_order))
    return float(np.sum(x_order * y_order) / untied) if untied else float("nan")


@dataclass(frozen=True)
class Statistics:
    """Over the operators of one phase (all layers of a site are one operator). NaN where nothing was
    measured."""

    operators: int
    median_error: float
    """Median of the absolute relative errors."""
    worst_error: float
    """The relative error that is largest in size, with its sign."""
    worst_operator: str
    bias: float
    """Mean of the signed relative errors."""
    kendall_tau: float
    share_within_10_percent: float
    share_within_25_percent: float
    significant: tuple[str, ...]
    """Operators above 1 % of the measured total."""
    significant_beyond_25_percent: tuple[str, ...]

    @classmethod
    def of(cls, names: Sequence[str], predicted_s: ArrayLike, measured_s: ArrayLike) -> Statistics:
        predicted, measured = (
            np.asarray(predicted_s, dtype=np.float64),
            np.asarray(measured_s, dtype=np.float64),
        )
        error = relative_error(predicted, measured)
        known = np.flatnonzero(~np.isnan(error))
        size = np.abs(error[known])
        significant = measured > SIGNIFICANT_SHARE * measured.sum()
        worst = int(known[np.argmax(size)]) if known.size else -1
        nothing = float("nan")
        return cls(
            operators=len(names),
            median_error=float(np.median(size)) if known.size else nothing,
            worst_error=float(error[worst]) if known.size else nothing,
            worst_operator=names[worst] if known.size else "",
            bias=float(np.mean(error[known])) if known.size else nothing,
            kendall_tau=kendall_tau(predicted, measured),
            share_within_10_percent=float(np.mean(size <= 0.10)) if known.size else nothing,
            share_within_25_percent=float(np.mean(size <= 0.25)) if known.size else nothing,
            significant=tuple(names[i] for i in np.flatnonzero(significant).tolist()),
            significant_beyond_25_percent=tuple(
                names[i] for i in np.flatnonzero(significant & (np.abs(error) > 0.25)).tolist()
            ),
        )
