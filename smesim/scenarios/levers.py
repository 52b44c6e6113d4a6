"""What would have to be true of the hardware: numbers of a chip are multiplied until a published figure is met.

All paths of a lever are multiplied by the same factor, and everything else stays: rates, caps and counts of the preset.
The factor that is found lies between two that were tried. A chip that lacks a number of a lever is not moved by it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from smesim.hwmodel.chip import Chip
from smesim.scenarios.findings import Cell, Verdict, crossing, number
from smesim.scenarios.schema import Lever, Published
from smesim.scenarios.times import Changes

EVERY = "*"
"""In a path: all entries of a list or table."""


def scaled(chip: Chip, paths: Sequence[str], factor: float) -> Changes:
    """Changes that multiply the numbers at some ways of a chip file by a factor."""
    content = chip.model_dump(mode="json", exclude_none=True)
    found = [pair for path in paths for pair in _numbers(content, path.split("."), ())]
    return tuple((way, value * factor) for way, value in found)


def _numbers(at: Any, path: list[str], way: tuple[str, ...]) -> list[tuple[str, float]]:
    if not path:
        value = at.get("value") if isinstance(at, dict) else at
        return [(".".join(way), float(value))] if isinstance(value, int | float) else []
    head, rest = path[0], path[1:]
    if isinstance(at, dict):
        names = list(at) if head == EVERY else [head]
        return [pair for name in names if name in at for pair in _numbers(at[name], rest, (*way, name))]
    if isinstance(at, list):
        places = [i for i, each in enumerate(at) if head in (EVERY, str(i)) or _name(each) == head]
        return [pair for i in places for pair in _numbers(at[i], rest, (*way, str(i)))]
    return []


def _name(entry: Any) -> str | None:
    return str(entry["name"]) if isinstance(entry, dict) and "name" in entry else None


@dataclass(frozen=True)
class Pulled:
    """What a lever did to a claim's statistic: one row for each chip and factor, and a sentence."""

    rows: tuple[tuple[Cell, ...], ...]
    verdicts: tuple[Verdict, ...]


def pull(
    lever: Lever, claim: Published, chips: Sequence[tuple[str, Chip]],
    predict: Callable[[str, Changes], Sequence[float]],
) -> Pulled:  # fmt: skip
    """Predict a claim's figures on each chip with the lever at each factor, and say where they are met.

    `predict` gives the figures of a chip with some numbers changed. The statistic is the largest figure of a claim
    "up to", else the median.
    """
    rows: list[tuple[Cell, ...]] = []
    verdicts = []
    for name, chip in chips:
        figures = []
        for factor in lever.factors:
            changes = scaled(chip, lever.paths, factor)
            if not changes:
                break
            values = predict(name, changes)
            figures.append(max(values) if claim.statistic == "maximum" else statistics.median(values))
            rows.append((lever.says, name, factor, figures[-1]))
        if figures:
            verdicts.append(_sentence(lever, claim, name, figures))
    return Pulled(tuple(rows), tuple(verdicts))


def _sentence(lever: Lever, claim: Published, chip: str, figures: Sequence[float]) -> Verdict:
    low, high = claim.band
    as_is = figures[lever.factors.index(1.0)]
    said = f"{claim.says}, {lever.says} of {chip}"
    enough = as_is >= high if claim.statistic == "maximum" else low <= as_is <= high
    if enough:
        return Verdict(f"{said}: met as it is ({number(as_is)}{claim.unit}).", None)
    wanted = high if claim.statistic == "maximum" or as_is > high else low
    one = lever.factors.index(1.0)
    up = crossing(lever.factors[one:], figures[one:], wanted)
    factor = up or crossing(lever.factors[one::-1], figures[one::-1], wanted)
    if factor is not None:
        return Verdict(
            f"{said}: {number(factor)} times the preset's would give {number(wanted)}{claim.unit}"
            f" (as it is: {number(as_is)}{claim.unit}).", None,
        )  # fmt: skip
    reach = f"{number(min(figures))}{claim.unit} to {number(max(figures))}{claim.unit}"
    span = f"{number(lever.factors[0])} to {number(lever.factors[-1])} times the preset's"
    return Verdict(f"{said}: no factor that was tried reaches {number(wanted)}{claim.unit}; {span} give {reach}.", None)
