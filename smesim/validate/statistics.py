"""How good predictions are: per block, within series of threads, and over all blocks weighed equally.

An error is predicted / published - 1. A **series** are records that differ in the number of threads alone; Kendall's
tau says how far prediction and publication order them alike, and whether the thread count that was best is named best.
A **contest** are records that differ in what computes alone (engine, unit); the winner is the best of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, median

from smesim.validate.records import PublishedRecord

LEAST_IN_SERIES = 3
LEAST_IN_CONTEST = 2
FALLING_UNITS = {"ms", "us", "s", "cycles"}
"""Units of which less is better."""


@dataclass(frozen=True)
class Answer:
    """A record and what was predicted for it; `reason` says why nothing was. `crossed`: predicted by a fit to the other
    rows of its block."""

    record: PublishedRecord
    predicted: float | None
    crossed: float | None = None
    reason: str | None = None

    @property
    def error(self) -> float | None:
        """Of the prediction; None without one, or where the published value is none."""
        return _error(self.predicted, self.record.value)

    @property
    def crossed_error(self) -> float | None:
        return _error(self.crossed, self.record.value)

    @property
    def unseen_error(self) -> float | None:
        """Cross-validated where a fitted number enters, else as it is: the record had no part in the prediction."""
        return self.error if self.crossed is None or self.predicted is None else self.crossed_error


def _error(predicted: float | None, published: float | None) -> float | None:
    return None if predicted is None or not published else predicted / published - 1.0


@dataclass(frozen=True)
class Series:
    """Records that differ in one thing, in that order: predicted and published values."""

    name: str
    labels: tuple[str, ...]
    predicted: tuple[float, ...]
    published: tuple[float, ...]
    less_is_better: bool

    @property
    def tau(self) -> float:
        """Kendall's tau-a; a pair that is equal in either counts as ordered neither way."""
        pairs = list(combinations(range(len(self.predicted)), 2))
        signs = [
            _sign(self.predicted[i] - self.predicted[j]) * _sign(self.published[i] - self.published[j])
            for i, j in pairs
        ]
        return sum(signs) / len(pairs)

    @property
    def best_is_named(self) -> bool:
        return self._best(self.predicted) == self._best(self.published)

    def _best(self, values: Sequence[float]) -> int:
        pick: Callable[..., float] = min if self.less_is_better else max
        return values.index(pick(values))


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


@dataclass(frozen=True)
class BlockStatistics:
    """One block: counts, errors, and its series."""

    block: str
    kind: str
    count: int
    not_modelled: int
    geometric_mean_ratio: float | None
    median_error: float | None
    p90_error: float | None
    worst_error: float | None
    bias: float | None
    crossed_median_error: float | None
    crossed_p90_error: float | None
    crossed_worst_error: float | None
    series: tuple[Series, ...]
    contests: tuple[Series, ...]

    @property
    def tau(self) -> float | None:
        """The mean over its series."""
        return fmean(series.tau for series in self.series) if self.series else None

    @property
    def best_named(self) -> tuple[int, int]:
        """In how many of its series and contests the best is named, of how many."""
        both = (*self.series, *self.contests)
        return sum(each.best_is_named for each in both), len(both)


def quantile(values: Iterable[float], share: float) -> float | None:
    """The smallest value that at least this share does not exceed; None of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def block_statistics(block: str, answers: Sequence[Answer]) -> BlockStatistics:
    """All that is said of one block's answers."""
    errors = [a.error for a in answers if a.error is not None]
    crossed = [abs(a.crossed_error) for a in answers if a.crossed_error is not None]
    sizes = [abs(e) for e in errors]
    logs = [math.log1p(e) for e in errors if e > -1.0]
    return BlockStatistics(
        block=block,
        kind=answers[0].record.kind,
        count=len(answers),
        not_modelled=sum(a.predicted is None for a in answers),
        geometric_mean_ratio=math.exp(fmean(logs)) if logs else None,
        median_error=median(sizes) if sizes else None,
        p90_error=quantile(sizes, 0.9),
        worst_error=max(sizes, default=None),
        bias=fmean(errors) if errors else None,
        crossed_median_error=median(crossed) if crossed else None,
        crossed_p90_error=quantile(crossed, 0.9),
        crossed_worst_error=max(crossed, default=None),
        series=tuple(_series(answers, LEAST_IN_SERIES, by_unit=False)),
        contests=tuple(_series(answers, LEAST_IN_CONTEST, by_unit=True)),
    )


def _series(answers: Sequence[Answer], least: int, *, by_unit: bool) -> Iterable[Series]:
    groups: dict[tuple[object, ...], list[Answer]] = {}
    for answer in answers:
        if answer.predicted is not None and answer.record.value:
            question = answer.record.question()
            key = question.key(without_threads=not by_unit, without_unit=by_unit)
            groups.setdefault(key, []).append(answer)
    for group in groups.values():
        first = group[0].record
        labels = [a.record.unit if by_unit else str(a.record.threads) for a in group]
        if len(group) < least or len(set(labels)) < len(labels):
            continue
        if not by_unit:
            group.sort(key=lambda a: a.record.threads or 0)
            labels = [str(a.record.threads) for a in group]
        name = f"{first.metric}, {first.dtype}" + ("" if by_unit else f", {first.unit}")
        yield Series(
            name, tuple(labels), tuple(float(a.predicted or 0.0) for a in group),
            tuple(float(a.record.value or 0.0) for a in group), first.unit_of_value in FALLING_UNITS,
        )  # fmt: skip


CLASSES = ("microbench", "kernel", "llm")
"""Kinds of records that are judged together: loops and streams, products of matrices, models."""


@dataclass(frozen=True)
class ClassStatistics:
    """Calibration rows of one kind: errors as fitted, and cross-validated."""

    kind: str
    rows: int
    not_modelled: int
    median_error: float | None
    p90_error: float | None
    worst_error: float | None
    crossed_median_error: float | None
    crossed_p90_error: float | None
    crossed_worst_error: float | None
    worst_block: str | None
    worst_block_median: float | None
    """The block whose cross-validated median is the largest."""


def class_statistics(kind: str, answers: Sequence[Answer]) -> ClassStatistics:
    """All that is said of the calibration rows of one kind."""
    rows = [a for a in answers if a.record.kind == kind and a.record.split == "calibration"]
    sizes = [abs(a.error) for a in rows if a.error is not None]
    crossed = [abs(a.unseen_error) for a in rows if a.unseen_error is not None]
    medians = {
        block: median(abs(a.unseen_error) for a in rows if a.record.block == block and a.unseen_error is not None)
        for block in dict.fromkeys(a.record.block for a in rows if a.unseen_error is not None)
    }
    worst = max(medians, key=lambda block: medians[block], default=None)
    return ClassStatistics(
        kind, len(rows), sum(a.predicted is None for a in rows),
        median(sizes) if sizes else None, quantile(sizes, 0.9), max(sizes, default=None),
        median(crossed) if crossed else None, quantile(crossed, 0.9), max(crossed, default=None),
        worst, None if worst is None else medians[worst],
    )  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """All blocks, weighed equally."""

    records: int
    calibration: int
    not_modelled: int
    blocks: int
    median_of_medians: float | None
    median_error: float | None
    mean_bias: float | None
    mean_tau: float | None
    best_named: int
    contests: int
    classes: tuple[ClassStatistics, ...]

    @property
    def not_modelled_share(self) -> float:
        return self.not_modelled / self.calibration if self.calibration else 0.0


def summarise(answers: Sequence[Answer], blocks: Sequence[BlockStatistics]) -> Summary:
    """The summary of all answers and their blocks; shares are of calibration rows."""
    rows = [a for a in answers if a.record.split == "calibration"]
    medians = [b.median_error for b in blocks if b.median_error is not None]
    biases = [b.bias for b in blocks if b.bias is not None]
    taus = [series.tau for b in blocks for series in b.series]
    errors = [abs(a.error) for a in rows if a.error is not None]
    named = [b.best_named for b in blocks]
    return Summary(
        records=len(answers),
        calibration=len(rows),
        not_modelled=sum(a.predicted is None for a in rows),
        blocks=len(blocks),
        median_of_medians=median(medians) if medians else None,
        median_error=median(errors) if errors else None,
        mean_bias=fmean(biases) if biases else None,
        mean_tau=fmean(taus) if taus else None,
        best_named=sum(good for good, _ in named),
        contests=sum(of for _, of in named),
        classes=tuple(class_statistics(kind, answers) for kind in CLASSES),
    )
