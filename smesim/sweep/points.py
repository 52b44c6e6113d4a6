"""Points: a sweep's questions, numbered.

A number is read like a clock: the question turns slowest, then the axes in the file's order, then the draw of what is
sampled. So each number stands for the same question wherever it is asked, nobody has to keep a list, and a stretch of
numbers is all that a worker needs. Points that a condition excludes leave gaps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from smesim.errors import SweepError
from smesim.sweep.conditions import Condition
from smesim.sweep.schema import Number, Span, Sweep, Value, listed_steps

ONLY_QUESTION = "base"
"""The name of the question of a file that has no table of them."""


@dataclass(frozen=True)
class Point:
    """One question with its number: what is asked, by key."""

    number: int
    question: str
    values: dict[str, Value] = field(default_factory=dict)


class Points:
    """All points of a sweep, by number."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._keys = sweep.keys
        self._questions = list((sweep.questions or {ONLY_QUESTION: {}}).items())
        self._axes = [
            listed_steps(names, axis_values(axis) if isinstance(axis, Span) else axis)
            for names, axis in sweep.axes.items()
            if not _sampled(axis)
        ]
        self._conditions = [Condition(text) for text in sweep.conditions]

    @property
    def count(self) -> int:
        """Numbers there are: points, and gaps where a condition excludes one."""
        return len(self._questions) * self.per_question

    def count_asked(self) -> int:
        """Points that no condition excludes."""
        return sum(1 for _ in self.between(0, self.count)) if self._conditions else self.count

    @cached_property
    def per_question(self) -> int:
        return math.prod(len(steps) for steps in self._axes) * max(1, len(self._drawn))

    def at(self, number: int) -> Point | None:
        """The point of a number; None where a condition excludes it. SweepError if there is no such number."""
        if not 0 <= number < self.count:
            raise SweepError(f"point {number} asked for; accepted: 0..{self.count - 1}")
        question, rest = divmod(number, self.per_question)
        name, own = self._questions[question]
        chosen: dict[str, Any] = {**self._sweep.base, **own}
        if self._drawn:
            rest, draw = divmod(rest, len(self._drawn))
            chosen |= self._drawn[draw]
        for steps in reversed(self._axes):
            rest, place = divmod(rest, len(steps))
            chosen |= steps[place]
        if all(condition.holds(chosen | {"question": name}) for condition in self._conditions):
            return Point(number, name, {key: chosen[key] for key in self._keys if key in chosen})
        return None

    def between(self, first: int, end: int) -> Iterator[Point]:
        """The points of the numbers from `first` to before `end`."""
        for number in range(first, end):
            point = self.at(number)
            if point is not None:
                yield point

    def question_of(self, number: int) -> str:
        return self._questions[number // self.per_question][0]

    def all_values(self, key: str) -> tuple[Value, ...]:
        """Every value that a key has in some question, each once; not for keys that are sampled."""
        tables = [self._sweep.base, *(own for _, own in self._questions)]
        tables += [step for steps in self._axes for step in steps]
        return tuple(dict.fromkeys(table[key] for table in tables if key in table))

    @cached_property
    def _drawn(self) -> list[dict[str, Number]]:
        """The draws of what is sampled, all axes together."""
        spans = {names: axis for names, axis in self._sweep.axes.items() if isinstance(axis, Span) and _sampled(axis)}
        sample = self._sweep.sample
        if not spans or sample is None:
            return []
        unit = _unit_cube(sample.method, len(spans), sample.count, sample.seed)
        columns = [[_between(span, float(u)) for u in unit[:, i]] for i, span in enumerate(spans.values())]
        return [dict(zip(spans, row, strict=True)) for row in zip(*columns, strict=True)]


def _sampled(axis: object) -> bool:
    return isinstance(axis, Span) and axis.sample is not None


def axis_values(span: Span) -> list[Number]:
    """The values of a range in equal steps or equal ratios, each once, ends included where steps reach them."""
    low, high = span.ends
    if span.step is not None:
        steps = int((high - low) / span.step * (1 + 1e-12) + 1e-12)
        found: list[Number] = [low + i * span.step for i in range(steps + 1)]
    else:
        spaced = np.geomspace if span.log is not None else np.linspace
        found = [float(value) for value in spaced(low, high, span.count or 1)]
    if span.whole and (span.step is None or isinstance(span.step, int)):
        found = [round(value) for value in found]
    return list(dict.fromkeys(found))


def _unit_cube(method: str, dimensions: int, count: int, seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """`count` rows in [0, 1): drawn independently, or by Sobol's sequence with its digits scrambled by the seed."""
    if method == "random":
        return np.random.default_rng(seed).random((count, dimensions))
    try:
        from scipy.stats import qmc
    except ModuleNotFoundError:
        raise SweepError(
            "a Sobol sample needs scipy; accepted: method = 'random', or pip install 'smesim[sweep]'"
        ) from None
    # Sobol's sequence is balanced in powers of two; the first of one that is long enough are taken.
    exponent = max(0, (count - 1).bit_length())
    cube = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed)).random_base2(exponent)
    return np.asarray(cube[:count], dtype=np.float64)


def _between(span: Span, u: float) -> Number:
    """Where a number of [0, 1) lies between the ends of a span; whole numbers are all equally likely."""
    low, high = span.ends
    upper = high + 1 if span.whole else high
    value = low * (upper / low) ** u if span.scale == "log" else low + (upper - low) * u
    return min(int(value), int(high)) if span.whole else float(value)
