"""The space that tuning searches: what of a plan can be chosen, operator by operator, as named parameters.

    entry = varied(chooser, planning, "q_proj", start)

Each operator that has choices has parameters of its own: its mode; of a product how wide and how high its tiles are,
who hands them out, and how its columns are divided between those who drive units and the cores; of attention its
blocks, rings and lanes, or the parts of the past; and of all how many workers stand aside. A **chooser** is asked for
one parameter after another, so which there are may follow from those before. Every parameter has a value that leaves
things as the planner made them: with all of these the entry is the one to start from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from smesim.plan.choices import LEAST_PART, PAST_SPLITS, Choice
from smesim.plan.layout import ROW_MAJOR
from smesim.plan.planners import Planning
from smesim.plan.schema import OperatorPlan, TileShape
from smesim.plan.search import FACTORS, PIPELINES
from smesim.plan.tiles import NR
from smesim.workload.operators import Attention, GroupedLinear, Linear, Operator

Option = str | int | float
AS_PLANNED = "as planned"
ASSIGNMENTS = (AS_PLANNED, "static", "shared", "static_then_shared")
RATIOS = (0.6, 1.6)
"""How much more or less than planned those get who drive units, of a product that is divided."""


class Chooser(Protocol):
    """Whoever says what the parameters are; `usual` is the value that leaves things as they were planned."""

    def one_of(self, name: str, options: Sequence[Option], usual: Option) -> Any: ...

    def between(self, name: str, low: float, high: float, usual: float) -> float: ...


class Given:
    """A chooser whose parameters are given, and as planned where they are not; `asked` notes all of them."""

    def __init__(self, values: Mapping[str, Option] | None = None) -> None:
        self._values = dict(values or {})
        self.asked: dict[str, Option] = {}

    def one_of(self, name: str, options: Sequence[Option], usual: Option) -> Any:
        return self.asked.setdefault(name, self._values.get(name, usual))

    def between(self, name: str, low: float, high: float, usual: float) -> float:
        return float(self.asked.setdefault(name, self._values.get(name, usual)))


def tunable(planning: Planning) -> tuple[str, ...]:
    """The sites that have something to choose: products and attention."""
    return tuple(site for site, possible in planning.possible.items() if possible)


def varied(chooser: Chooser, planning: Planning, site: str, start: OperatorPlan) -> OperatorPlan:
    """The entry of a site as the chooser wants it; `start` is what a planner made of it.

    Not every combination can run: PlanError says so where the plan is lowered.
    """
    named = {_named(choice): choice for choice in planning.possible[site]}
    usual = f"{start.mode} in stages" if start.pipeline is not None else str(start.mode)
    way = chooser.one_of(f"{site}.mode", tuple(sorted(named)), usual)
    entry = planning.entry(site, named[way])
    ask = _Asked(chooser, f"{site}.{way}")
    operator = planning.graph.sites[site][0]
    entry = entry.model_copy(update=_blocks(ask, operator, entry))
    entry = entry.model_copy(update=_division(ask, planning, operator, entry))
    return entry.model_copy(update=_aside(ask, entry))


def _named(choice: Choice) -> str:
    return f"{choice.mode} in stages" if choice.pipeline is not None else str(choice.mode)


class _Asked:
    """A chooser asked for the parameters of one site in one mode."""

    def __init__(self, chooser: Chooser, prefix: str) -> None:
        self._chooser, self._prefix = chooser, prefix

    def one_of(self, name: str, options: Sequence[Option], usual: Option) -> Any:
        return self._chooser.one_of(f"{self._prefix}.{name}", tuple(options), usual)

    def between(self, name: str, low: float, high: float, usual: float) -> float:
        return self._chooser.between(f"{self._prefix}.{name}", low, high, usual)


def _blocks(ask: _Asked, operator: Operator, entry: OperatorPlan) -> dict[str, Any]:
    """How large the tasks are."""
    if isinstance(operator, Linear | GroupedLinear):
        panels = -(-operator.n // NR)
        width = min(panels, max(1, round(entry.tile.n / NR * ask.one_of("width", FACTORS, 1.0))))
        rows = entry.tile.m
        if isinstance(operator, Linear) and operator.m > 1:
            rows = max(1, min(operator.m, round(rows * ask.one_of("height", FACTORS, 1.0))))
        return {"tile": TileShape(m=rows, n=NR * width)}
    if not isinstance(operator, Attention):
        return {}
    if entry.pipeline is not None:
        pipeline = entry.pipeline
        blocks = {
            name: ask.one_of(name, sorted({*values, getattr(pipeline, name)}), getattr(pipeline, name))
            for name, values in PIPELINES.items()
        }
        lanes = max(1, round(pipeline.lanes * ask.one_of("lanes", (0.5, 1.0, 2.0), 1.0)))
        return {"pipeline": pipeline.model_copy(update={**blocks, "lanes": lanes})}
    if operator.tokens > 1:
        rows = round(entry.tile.m * ask.one_of("rows", FACTORS, 1.0))
        return {"tile": TileShape(m=max(1, min(operator.tokens, rows)), n=entry.tile.n)}
    splits = [parts for parts in PAST_SPLITS if parts == 1 or operator.past // parts >= LEAST_PART]
    return {"past_split": ask.one_of("past_split", sorted({*splits, entry.past_split}), entry.past_split)}


def _division(ask: _Asked, planning: Planning, operator: Operator, entry: OperatorPlan) -> dict[str, Any]:
    """Who hands the tasks out, along which side of the product, and how much those get who drive units."""
    if len(entry.workers) == 1 or entry.pipeline is not None:
        return {}
    changes: dict[str, Any] = {}
    options = ASSIGNMENTS if isinstance(operator, Linear | GroupedLinear) else ASSIGNMENTS[:3]
    assignment = ask.one_of("assignment", options, AS_PLANNED)
    if assignment != AS_PLANNED:
        changes["assignment"] = assignment
    if isinstance(operator, Linear) and operator.m > 1 and entry.lhs_layout != ROW_MAJOR:
        partition = ask.one_of("partition", ("columns", "rows"), entry.partition)
        changes["partition"] = partition
    if len(set(entry.shares)) > 1:
        ratio = ask.between("ratio", *RATIOS, 1.0)
        drives = [planning.workers[worker].role == "matrix" for worker in entry.workers]
        shares = zip(entry.shares, drives, strict=True)
        changes["shares"] = tuple(share * ratio if is_driver else share for share, is_driver in shares)
    return changes


def _aside(ask: _Asked, entry: OperatorPlan) -> dict[str, Any]:
    """How many of the workers, the last ones, leave the operator to the others."""
    if len(entry.workers) == 1 or entry.pipeline is not None:
        return {}
    most = len(entry.workers) // 2
    aside = ask.one_of("aside", tuple(range(most + 1)) if most < 5 else (0, 1, 2, most // 2, most), 0)
    count = len(entry.workers) - aside
    return {"workers": entry.workers[:count], "shares": entry.shares[:count]}
