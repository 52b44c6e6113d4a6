"""What comes out of a scenario: tables, verdicts that are worked out from their numbers, and pictures as data.

A verdict holds predictions against what was published:

* a **range** is met if the median of the predictions lies in it;
* a **maximum** ("up to 3.94x") is met if the largest prediction reaches it, and by how much it is passed is said too;
* a **value** or a ratio is met if the prediction is as near as the claim's tolerance, of several values the median of
  their errors.

A verdict without a published figure says what the numbers show, and nothing is met or missed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from smesim.errors import ScenarioError
from smesim.scenarios.schema import Published

Cell = str | float | int | None


@dataclass(frozen=True)
class Table:
    """Rows under columns; numbers stay numbers until they are shown."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Verdict:
    """One sentence; whether what was published is met (None: nothing was), and by how much it is missed or passed."""

    says: str
    met: bool | None
    off: float | None = None


@dataclass(frozen=True)
class Series:
    """One line or set of bars."""

    name: str
    x: tuple[Cell, ...]
    y: tuple[float | None, ...]
    published: bool = False


@dataclass(frozen=True)
class Chart:
    """A picture as data: lines over numbers, or bars over names; `bands` are published ranges of y."""

    title: str
    kind: Literal["lines", "bars"]
    x_title: str
    y_title: str
    series: tuple[Series, ...]
    bands: tuple[tuple[float, float, str], ...] = ()
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Findings:
    """All that a scenario found."""

    tables: tuple[Table, ...]
    verdicts: tuple[Verdict, ...]
    charts: tuple[Chart, ...] = ()

    @property
    def summary(self) -> str:
        """How many of the published figures are met, of those that predictions were held against."""
        judged = [verdict.met for verdict in self.verdicts if verdict.met is not None]
        return f"{sum(judged)} of {len(judged)} comparisons with published figures are met." if judged else ""


def number(value: float) -> str:
    """A number as sentences and tables show it: whole, or four digits, without an exponent where it is of everyday
    size."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value):
        return f"{value:,.0f}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:.3g}" if abs(value) < 1e-3 else f"{value:,.{min(digits, 3)}f}"


def noted(says: str) -> Verdict:
    """What numbers show where nothing was published."""
    return Verdict(says, None)


def _figures(low: float, high: float, unit: str) -> str:
    unit = unit if unit == "x" else f" {unit}"
    return f"{number(low)}{unit}" if low == high else f"{number(low)} to {number(high)}{unit}"


def judged(claim: Published, predicted: Sequence[float], of: str = "") -> Verdict:
    """Predictions against a published range or maximum; `of` names the points. ScenarioError for no predictions."""
    if not predicted:
        raise ScenarioError(f"no prediction to hold against {claim.says!r}; accepted: one or more")
    low, high = claim.band
    least, most, middle = min(predicted), max(predicted), statistics.median(predicted)
    where = f" ({of})" if of else ""
    if claim.statistic == "maximum":
        off = most / high - 1
        met = off >= 0
        word = f"reached, and passed by {off:.0%}" if met else f"not reached: {-off:.0%} short"
        return Verdict(
            f"{claim.says}{where}: predicted up to {number(most)}{_unit(claim)}, published up to"
            f" {number(high)}{_unit(claim)}: {word}.", met, off,
        )  # fmt: skip
    if claim.statistic == "range":
        inside = sum(low <= value <= high for value in predicted)
        off = middle / low - 1 if middle < low else middle / high - 1 if middle > high else 0.0
        word = "met" if off == 0 else f"not met: the median is {abs(off):.0%} {'below' if off < 0 else 'above'} it"
        return Verdict(
            f"{claim.says}{where}: predicted {_figures(least, most, claim.unit)}, median {number(middle)}, published"
            f" {_figures(low, high, claim.unit)}; {inside} of {len(predicted)} points inside: {word}.", off == 0, off,
        )  # fmt: skip
    return judged_pairs(claim, [(value, high) for value in predicted], of)


def judged_pairs(claim: Published, pairs: Sequence[tuple[float, float]], of: str = "") -> Verdict:
    """Pairs of prediction and published value, by the median of their errors."""
    if not pairs:
        raise ScenarioError(f"no prediction to hold against {claim.says!r}; accepted: one or more")
    errors = [abs(predicted / published - 1) for predicted, published in pairs]
    middle, worst = statistics.median(errors), max(errors)
    met = middle <= claim.tolerance
    where = f" ({of})" if of else ""
    if len(pairs) == 1:
        predicted, published = pairs[0]
        shown = f"predicted {number(predicted)}{_unit(claim)}, published {number(published)}{_unit(claim)}"
        return Verdict(
            f"{claim.says}{where}: {shown}, off by {predicted / published - 1:+.0%}: {'met' if met else 'not met'}.",
            met, predicted / published - 1,
        )  # fmt: skip
    return Verdict(
        f"{claim.says}{where}: {len(pairs)} values, median error {middle:.1%}, worst {worst:.1%}:"
        f" {'met' if met else 'not met'} (within {claim.tolerance:.0%}).", met, middle,
    )  # fmt: skip


def _unit(claim: Published) -> str:
    return claim.unit if claim.unit == "x" else f" {claim.unit}"


def stops_gaining(x: Sequence[float], y: Sequence[float], least_gain: float = 0.05) -> float | None:
    """From which x on no later y is better than its own by the least gain; None if the last step still gains so much.

    More y is better; x ascend.
    """
    for i in range(len(x) - 1):
        if max(y[i + 1 :]) < y[i] * (1 + least_gain):
            return x[i]
    return None


def crossing(x: Sequence[float], y: Sequence[float], wanted: float) -> float | None:
    """The first x at which y reaches what is wanted, between points in equal ratios; None where it does not."""
    for (x0, y0), (x1, y1) in zip(zip(x, y, strict=True), zip(x[1:], y[1:], strict=True), strict=False):
        if min(y0, y1) <= wanted <= max(y0, y1):
            share = 0.0 if y0 == y1 else (wanted - y0) / (y1 - y0)
            return float(x0 * (x1 / x0) ** share)
    return None
