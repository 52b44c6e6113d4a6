"""Repeated measurements: the median says what to expect, the interquartile range how far to trust it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Timing:
    """Median and interquartile range of so many repeats, in seconds (or whatever unit the values had)."""

    median: float
    spread: float
    repeats: int

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Timing:
        array = np.asarray(values, np.float64)
        low, middle, high = np.percentile(array, [25, 50, 75])
        return cls(float(middle), float(high - low), array.size)

    def per(self, amount: float) -> Timing:
        """The time of one where so many were timed."""
        return Timing(self.median / amount, self.spread / amount, self.repeats)

    def rate(self, amount: float) -> Timing:
        """The rate at which `amount` was done; the spread keeps its share of the median."""
        return Timing(amount / self.median, amount / self.median * self.spread / self.median, self.repeats)


def repeat_in_turn(calls: Sequence[Callable[[], object]], repeats: int) -> list[Timing]:
    """Time every call `repeats` times, one after the other in turn, after a round that does not count.

    A machine that is slow for a while is then slow for all of them, so that their times can be compared.
    """
    return [Timing.of(column) for column in seconds_in_turn(calls, repeats).T]


def seconds_in_turn(calls: Sequence[Callable[[], object]], repeats: int) -> npt.NDArray[np.float64]:
    """The same one by one: seconds of each repeat (row) of each call (column)."""
    values = np.empty((repeats, len(calls)))
    for count in range(-1, repeats):
        for i, call in enumerate(calls):
            before = time.perf_counter()
            call()
            values[max(count, 0), i] = time.perf_counter() - before
    return values


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
