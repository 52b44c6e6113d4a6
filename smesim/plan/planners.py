"""Planners: from a graph and a chip to a plan.

`cpu_only` puts everything on the cores' vector pipes. `matrix_only` gives what a matrix unit can do, products of
matrices and attention, to the workers that drive one. `roofline` compares for each operator the cores, the matrix
units and both together (`choices.py`), and takes what ends first. Work row by row always runs on all cores.

Every entry says why: what bounds it, its predicted time, and the modes that were not taken with theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from smesim.errors import PlanError
from smesim.hwmodel.chip import Chip
from smesim.hwmodel.library import fingerprint
from smesim.plan.choices import Choice, Choices
from smesim.plan.layout import with_out_layouts
from smesim.plan.rules import Rules
from smesim.plan.schema import Mode, Plan, WorkerPlan
from smesim.plan.teams import computes_f32, core_workers, matrix_workers, row_team
from smesim.workload.dtypes import DType
from smesim.workload.graph import OperatorGraph
from smesim.workload.operators import Operator

WORTH_ANOTHER_UNIT = 0.02
"""A mode that uses more kinds of units must be predicted to save this part of the time of one that uses fewer."""
_KINDS_OF_UNITS: dict[Mode, int] = {"cpu": 0, "matrix": 1, "cooperative": 2}


class Planner(Protocol):
    """What all planners are: `forced` are modes by site that they must take, `options` fields of `Plan` that say how
    the graph was built (`last_layer_rows`, `lm_head_rows`), and `layout_reuse`."""

    def __call__(
        self, graph: OperatorGraph, chip: Chip, threads: int | None = None, *,
        forced: Mapping[str, Mode] | None = None, **options: Any,
    ) -> Plan: ...  # fmt: skip


def cpu_only(
    graph: OperatorGraph, chip: Chip, threads: int | None = None, *, forced: Mapping[str, Mode] | None = None,
    **options: Any,
) -> Plan:  # fmt: skip
    """A plan that uses no matrix unit; PlanError if one is forced."""
    return _plan("cpu_only", graph, chip, core_workers(chip, threads), _only("cpu"), forced, options)


def matrix_only(
    graph: OperatorGraph, chip: Chip, threads: int | None = None, *, forced: Mapping[str, Mode] | None = None,
    **options: Any,
) -> Plan:  # fmt: skip
    """A plan that gives to the matrix units all products of matrices and attention to prompts.

    What has one row only is left to the cores. PlanError if the chip has no unit that multiplies f32.
    """
    workers = matrix_workers(chip, threads)

    def choose(operator: Operator, choices: tuple[Choice, ...]) -> Choice:
        return _only("cpu" if operator.activation_rows == 1 else "matrix")(operator, choices)

    return _plan("matrix_only", graph, chip, workers, choose, forced, options)


def roofline(
    graph: OperatorGraph, chip: Chip, threads: int | None = None, *, forced: Mapping[str, Mode] | None = None,
    **options: Any,
) -> Plan:  # fmt: skip
    """For each operator the mode that is predicted to end first; the simpler one where that saves little."""
    has_units = any(computes_f32(instance.unit) for instance in chip.unit_instances)
    workers = matrix_workers(chip, threads) if has_units and threads != 1 else core_workers(chip, threads)

    def choose(operator: Operator, choices: tuple[Choice, ...]) -> Choice:
        limit = choices[0].seconds / (1 - WORTH_ANOTHER_UNIT)
        good = [choice for choice in choices if choice.seconds <= limit]
        return min(good, key=lambda choice: _KINDS_OF_UNITS[choice.mode])

    return _plan("roofline", graph, chip, workers, choose, forced, options)


PLANNERS: dict[str, Planner] = {"cpu_only": cpu_only, "matrix_only": matrix_only, "roofline": roofline}


def planner(name: str) -> Planner:
    """The planner of that name; PlanError names the planners there are."""
    try:
        return PLANNERS[name]
    except KeyError:
        raise PlanError(f"unknown planner {name!r}; accepted: {', '.join(PLANNERS)}") from None


Chooser = Callable[[Operator, tuple[Choice, ...]], Choice]


def _only(mode: Mode) -> Chooser:
    """The choice of that mode; another where the operator cannot run in it."""

    def choose(operator: Operator, choices: tuple[Choice, ...]) -> Choice:
        return next((choice for choice in choices if choice.mode == mode), choices[0])

    return choose


def _plan(
    planner: str, graph: OperatorGraph, chip: Chip, workers: tuple[WorkerPlan, ...], choose: Chooser,
    forced: Mapping[str, Mode] | None, options: dict[str, Any],
) -> Plan:  # fmt: skip
    dtypes = graph.dtypes
    if (dtypes.activations, dtypes.kv) != (DType.F32,) * 2:
        raise PlanError(
            f"dtypes {dtypes.activations}/{dtypes.kv} (activations/KV) asked for; planners make plans for f32"
        )
    forced = dict(forced or {})
    for site in forced:
        if site not in graph.sites:
            raise PlanError(f"--force names operator {site!r}; accepted: {', '.join(graph.sites)}")
    choices, rows = Choices(chip, graph, workers), row_team(chip, workers)
    rules = Rules(chip, graph, workers, rows)
    entries = []
    for site, operators in graph.sites.items():
        operator = operators[0]
        possible = choices.of(operator)
        if site in forced:
            chosen = _forced(site, forced[site], possible)
            entries.append(rules.entry(operator, chosen, possible) if chosen else rules.row_entry(operator))
        else:
            entries.append(
                rules.entry(operator, choose(operator, possible), possible) if possible else rules.row_entry(operator)
            )
    return Plan(
        model=graph.config,
        phase=str(graph.phase),
        weights_dtype=dtypes.weights,
        layers=graph.layers,
        chip=chip.name,
        chip_fingerprint=fingerprint(chip),
        planner=planner,
        stand_in=chip.has_stand_in,
        workers=workers,
        operators=with_out_layouts(graph, entries, options.get("layout_reuse", "full")),
        **options,
    )


def _forced(site: str, mode: Mode, possible: tuple[Choice, ...]) -> Choice | None:
    """The choice of a forced mode; None for work row by row, which can only run on cores."""
    if not possible and mode == "cpu":
        return None
    for choice in possible:
        if choice.mode == mode:
            return choice
    modes = ", ".join(sorted(choice.mode for choice in possible)) or "cpu"
    raise PlanError(f"--force {site}={mode}: this operator has no such mode with these workers; accepted: {modes}")
