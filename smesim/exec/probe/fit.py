"""Non-negative least squares for a handful of coefficients.

Few coefficients, all of which are times that cannot be negative: every subset of them is tried, the rest being zero,
and the best fit without a negative coefficient wins. With at most six coefficients that is 63 small problems, exact
and free of step sizes. A coefficient that is known not to be zero is in all of the subsets.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """Coefficients, and the median of |relative residual| over the samples."""

    coefficients: tuple[float, ...]
    residual: float
    samples: int


def non_negative_fit(
    features: Floats, seconds: Floats, weights: Floats | None = None, positive: Collection[int] = ()
) -> Fit:
    """Coefficients c >= 0 that minimise the weighted squared *relative* error of features @ c against seconds.

    Those at `positive` are above 0, also where zero would explain the samples better.
    features: (samples, coefficients); seconds: (samples,), all positive; weights: (samples,), equal if None.
    Relative, so that short tasks count as much as long ones. Samples far off (a foreign process was in the way) are
    left out once and the fit repeated.
    """
    keep = np.ones(len(seconds), bool)
    for _ in range(2):
        roots = np.ones(int(keep.sum())) if weights is None else np.sqrt(weights[keep])
        best = _best_subset(features[keep] / seconds[keep, None], roots, frozenset(positive))
        relative = features @ best / seconds - 1.0
        middle = np.median(relative)
        spread = np.median(np.abs(relative - middle))
        keep = np.abs(relative - middle) <= OUTLIER_SPREADS * max(float(spread), 0.01)
    return Fit(tuple(float(c) for c in best), float(np.median(np.abs(relative))), len(seconds))


OUTLIER_SPREADS = 6.0


def _best_subset(scaled: Floats, roots: Floats, needed: frozenset[int]) -> Floats:
    """The fit of scaled @ c to ones by a subset with all `needed`; each row counts with the square of its root."""
    n_samples, n = scaled.shape
    scaled, ones = scaled * roots[:, None], roots
    best, least = np.zeros(n), np.inf
    for size in range(1, n + 1):
        for subset in combinations(range(n), size):
            if not needed <= set(subset):
                continue
            columns = scaled[:, subset]
            if n_samples < size or not columns.any(axis=0).all():
                continue
            scale = np.abs(columns).max(axis=0)  # columns may differ by twelve orders of magnitude
            solution = np.linalg.lstsq(columns / scale, ones, rcond=None)[0] / scale
            if (solution < 0).any():
                continue
            error = float(((columns @ solution - ones) ** 2).sum())
            if error < least * (1 - 1e-9):
                least = error
                best = np.zeros(n)
                best[list(subset)] = solution
    return best
