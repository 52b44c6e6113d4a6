"""Repeated measurements: the median says what to expect, the interquartile range how far to trust it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timing:
    """Median and interquartile range of so many repeats, in seconds (or whatever unit the values had)."""

    median: float
    spread: float
    repeats: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Timing:
        low, middle, high = np.percentile(np.asarray(values, np.float64), [25, 50, 75])
        return cls(float(middle), float(high - low), len(values))

    def rate(self, amount: float) -> Timing:
        """The rate at which `amount` was done; the spread keeps its share of the median."""
        return Timing(amount / self.median, amount / self.median * self.spread / self.median, self.repeats)


def repeat(call: Callable[[], object], repeats: int, at_least_s: float = 0.0) -> Timing:
    """Time a call `repeats` times, after one that does not count, and until `at_least_s` have passed."""
    call()
    values: list[float] = []
    begin = time.perf_counter()
    while len(values) < repeats or time.perf_counter() - begin < at_least_s:
        before = time.perf_counter()
        call()
        values.append(time.perf_counter() - before)
    return Timing.of(values)
