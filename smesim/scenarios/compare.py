"""Ours beside others: times of the same work, point by point, and how many times faster we are than each.

A point that a contender has no answer for (no such kernel, no matrix unit) is left out of that contender's ratios.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from smesim.errors import SmesimError
from smesim.scenarios.findings import Cell, Table


@dataclass(frozen=True)
class Compared:
    """One point: what it is, our seconds and how we get them, and the seconds of others by name."""

    point: tuple[Cell, ...]
    ours_s: float
    others_s: Mapping[str, float]
    mode: str = ""

    def ratio(self, other: str) -> float | None:
        """How many times faster we are."""
        return self.others_s[other] / self.ours_s if other in self.others_s else None


def tried(seconds: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """The seconds of those contenders that have an answer."""
    found = {}
    for name, ask in seconds.items():
        try:
            found[name] = ask()
        except SmesimError:
            continue  # the engine has no such kernel, or the chip no such unit
    return found


def ratios(compared: Iterable[Compared], other: str) -> list[float]:
    """How many times faster we are than one of the others, at all points that it has an answer for."""
    return [ratio for each in compared if (ratio := each.ratio(other)) is not None]


def table(title: str, point: Sequence[str], others: Sequence[str], compared: Sequence[Compared]) -> Table:
    """One row a point: our time and mode, then each other's time and our ratio to it."""
    columns = [*point, "ours, ms", "mode"]
    for other in others:
        columns += [f"{other}, ms", "x"]
    rows = []
    for each in compared:
        row: list[Cell] = [*each.point, each.ours_s * 1e3, each.mode]
        for other in others:
            row += [each.others_s[other] * 1e3 if other in each.others_s else None, each.ratio(other)]
        rows.append(tuple(row))
    return Table(title, tuple(columns), tuple(rows))
