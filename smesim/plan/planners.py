"""Planners: from a graph and a chip to a plan.

`cpu_only` puts everything on the cores' vector pipes. `matrix_only` gives what a matrix unit can do, products of
matrices and attention, to the workers that drive one. `roofline` compares for each operator the cores, the matrix
units and both together (`choices.py`), and takes what ends first. Work row by row always runs on all cores.

Every entry says why: what bounds it, its predicted time, and the modes that were not taken with theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from smesim.errors import PlanError
from smesim.hwmodel.chip import Chip
from smesim.hwmodel.library import fingerprint
from smesim.plan.choices import Choice, Choices
from smesim.plan.formats import cache_number
from smesim.plan.layout import with_out_layouts
from smesim.plan.rules import Rules
from smesim.plan.schema import Division, Mode, OperatorPlan, Plan, WorkerPlan
from smesim.plan.teams import both_workers, core_workers, matrix_workers
from smesim.workload.dtypes import DType
from smesim.workload.graph import OperatorGraph
from smesim.workload.operators import KvAppend, Linear, Operator

WORTH_ANOTHER_UNIT = 0.02
"""A mode that uses more kinds of units must be predicted to save this part of the time of one that uses fewer."""
_KINDS_OF_UNITS: dict[Mode, int] = {"cpu": 0, "matrix": 1, "cooperative": 2}


class Planner(Protocol):
    """What all planners are: `forced` are modes by site that they must take, without `overlap` no attention runs in
    stages on units and cores at once, `options` are fields of `Plan` that say how
    the graph was built (`last_layer_rows`, `lm_head_rows`), and `layout_reuse`."""

    def __call__(
        self, graph: OperatorGraph, chip: Chip, threads: int | None = None, *,
        forced: Mapping[str, Mode] | None = None, overlap: bool = True, **options: Any,
    ) -> Plan: ...  # fmt: skip


def cpu_only(
    graph: OperatorGraph, chip: Chip, threads: int | None = None, *, forced: Mapping[str, Mode] | None = None,
    overlap: bool = True, **options: Any,
) -> Plan:  # fmt: skip
    """A plan that uses no matrix unit; PlanError if one is forced."""
    return _plan("cpu_only", graph, chip, threads, forced, overlap, options)


def matrix_only(
    graph: OperatorGraph, chip: Chip, threads: int | None = None, *, forced: Mapping[str, Mode] | None = None,
    overlap: bool = True, **options: Any,
) -> Plan:  # fmt: skip
    """A plan that gives to the matrix units all products of matrices and attention to prompts.

    What has one row only is left to the cores. PlanError if the chip has no unit that multiplies f32.
    """
    return _plan("matrix_only", graph, chip, threads, forced, overlap, options)


def roofline(
    graph: OperatorGraph, chip: Chip, threads: int | None = None, *, forced: Mapping[str, Mode] | None = None,
    overlap: bool = True, **options: Any,
) -> Plan:  # fmt: skip
    """For each operator the mode that is predicted to end first; the simpler one where that saves little."""
    return _plan("roofline", graph, chip, threads, forced, overlap, options)


PLANNERS: dict[str, Planner] = {"cpu_only": cpu_only, "matrix_only": matrix_only, "roofline": roofline}


def planner(name: str) -> Planner:
    """The planner of that name; PlanError names the planners there are."""
    try:
        return PLANNERS[name]
    except KeyError:
        raise PlanError(f"unknown planner {name!r}; accepted: {', '.join(PLANNERS)}, search, oracle") from None


def parse_forced(text: str | None) -> dict[str, Mode]:
    """Modes by site from "q_proj=cpu,attention=matrix"; PlanError says what is wrong with it."""
    forced: dict[str, Mode] = {}
    for item in text.split(",") if text else ():
        site, _, word = item.strip().partition("=")
        mode = next((mode for mode in _KINDS_OF_UNITS if mode == word), None)
        if mode is None:
            modes = ", ".join(_KINDS_OF_UNITS)
            raise PlanError(f"--force {item!r}; accepted: OPERATOR=MODE,..., a mode of {modes}")
        if forced.get(site, mode) != mode:
            raise PlanError(f"--force {site}={forced[site]} and {site}={mode}; accepted: one mode for an operator")
        forced[site] = mode
    return forced


Chooser = Callable[[Operator, tuple[Choice, ...]], Choice]


def _only(mode: Mode, choices: tuple[Choice, ...]) -> Choice:
    """The choice of that mode; another where the operator cannot run in it."""
    return next((choice for choice in choices if choice.mode == mode), choices[0])


def _soonest(choices: tuple[Choice, ...]) -> Choice:
    """What ends first, of the modes that end about as soon the simplest."""
    limit = choices[0].seconds / (1 - WORTH_ANOTHER_UNIT)
    good = [choice for choice in choices if choice.seconds <= limit]
    return min(good, key=lambda choice: _KINDS_OF_UNITS[choice.mode])


_POLICIES: dict[str, tuple[Callable[[Chip, int | None], tuple[WorkerPlan, ...]], Chooser]] = {
    "cpu_only": (core_workers, lambda operator, choices: _only("cpu", choices)),
    "matrix_only": (
        matrix_workers, lambda operator, choices: _only("cpu" if operator.activation_rows == 1 else "matrix", choices)
    ),
    "roofline": (both_workers, lambda operator, choices: _soonest(choices)),
}  # fmt: skip
"""Of each planner who works, and what it takes of the choices that there are."""


class Planning:
    """All that planners of one graph, chip and workers have in common; `options` are fields of the plan.

    PlanError for a graph that there are no plans for, or a forced mode that there is not.
    """

    def __init__(
        self, graph: OperatorGraph, chip: Chip, workers: tuple[WorkerPlan, ...], forced: Mapping[str, Mode] | None,
        overlap: bool, options: dict[str, Any],
    ) -> None:  # fmt: skip
        dtypes = graph.dtypes
        if dtypes.activations is not DType.F32:
            raise PlanError(f"activations of {dtypes.activations} asked for; planners make plans for f32")
        cache_number(dtypes.kv)
        self.forced = forced = dict(forced or {})
        for site in forced:
            if site not in graph.sites:
                raise PlanError(f"--force names operator {site!r}; accepted: {', '.join(graph.sites)}")
        self.overlap = overlap
        self.graph, self.chip, self.workers, self.options = graph, chip, workers, options
        self.rules = Rules(chip, graph, workers)
        self.choices = choices = Choices(chip, graph, workers)
        self.possible: dict[str, tuple[Choice, ...]] = {}
        for site, operators in graph.sites.items():
            possible = tuple(c for c in choices.of(operators[0]) if overlap or c.pipeline is None)
            self.possible[site] = _forced(site, forced[site], possible) if site in forced else possible

    def of_graph(self, part: OperatorGraph) -> Planning:
        """The same for a part of the graph."""
        forced = {site: mode for site, mode in self.forced.items() if site in part.sites}
        return Planning(part, self.chip, self.workers, forced, self.overlap, self.options)

    def entry(self, site: str, choice: Choice | None) -> OperatorPlan:
        """A site's entry by a choice; by the rules alone for work row by row."""
        operator = self.graph.sites[site][0]
        if isinstance(operator, KvAppend):
            return self.choices.of_append(operator, self.rules.row_entry(operator))
        if choice is None:
            return self.rules.row_entry(operator)
        entry = self.rules.entry(operator, choice, self.possible[site])
        if entry.mode != "cpu" and isinstance(operator, Linear) and operator.m > 1:
            entry = entry.model_copy(update={"packers": self.choices.packers(operator)})
        return entry

    def division(self, entries: Iterable[OperatorPlan]) -> Division:
        """The entries as they go together: who reads what another writes reads it in one layout."""
        reuse = self.options.get("layout_reuse", "full")
        return Division(self.workers, with_out_layouts(self.graph, entries, reuse), reuse)

    def plan(self, planner: str, entries: Iterable[OperatorPlan]) -> Plan:
        return Plan(
            model=self.graph.config,
            phase=str(self.graph.phase),
            weights_dtype=self.graph.dtypes.weights,
            head_dtype=self.graph.dtypes.head,
            kv_dtype=self.graph.dtypes.kv,
            routed=self.graph.routed,
            layers=self.graph.layers,
            chip=self.chip.name,
            chip_fingerprint=fingerprint(self.chip),
            planner=planner,
            stand_in=self.chip.has_stand_in,
            workers=self.workers,
            operators=self.division(entries).operators,
            **self.options,
        )


def divide(
    planner: str, graph: OperatorGraph, chip: Chip, threads: int | None = None, *,
    forced: Mapping[str, Mode] | None = None, overlap: bool = True, **options: Any,
) -> Division:  # fmt: skip
    """What a planner's plan says of who does what, for those who need no more than that."""
    planning, choose = _planning(planner, graph, chip, threads, forced, overlap, options)
    return planning.division(_entries(planning, choose))


def _plan(
    planner: str, graph: OperatorGraph, chip: Chip, threads: int | None, forced: Mapping[str, Mode] | None,
    overlap: bool, options: dict[str, Any],
) -> Plan:  # fmt: skip
    planning, choose = _planning(planner, graph, chip, threads, forced, overlap, options)
    return planning.plan(planner, _entries(planning, choose))


def _planning(
    planner: str, graph: OperatorGraph, chip: Chip, threads: int | None, forced: Mapping[str, Mode] | None,
    overlap: bool, options: dict[str, Any],
) -> tuple[Planning, Chooser]:  # fmt: skip
    workers, choose = _POLICIES[planner]
    return Planning(graph, chip, workers(chip, threads), forced, overlap, options), choose


def _entries(planning: Planning, choose: Chooser) -> list[OperatorPlan]:
    return [
        planning.entry(site, choose(planning.graph.sites[site][0], possible) if possible else None)
        for site, possible in planning.possible.items()
    ]


def roofline_entries(planning: Planning) -> list[OperatorPlan]:
    """The entries of `roofline` for the workers of a planning."""
    return _entries(planning, _POLICIES["roofline"][1])


def _forced(site: str, mode: Mode, possible: tuple[Choice, ...]) -> tuple[Choice, ...]:
    """The choices of a forced mode; none for work row by row, which can only run on cores."""
    if not possible and mode == "cpu":
        return ()
    of_mode = tuple(choice for choice in possible if choice.mode == mode)
    if of_mode:
        return of_mode
    modes = ", ".join(sorted({choice.mode for choice in possible})) or "cpu"
    raise PlanError(f"--force {site}={mode}: this operator has no such mode with these workers; accepted: {modes}")
