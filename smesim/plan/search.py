"""A planner that asks the simulator: `search` improves a plan step by step.

It starts from the choices of `choices.py`, for all workers and for fewer of them, and varies what the analytic answer
had to guess: which mode in company with the operators around it, how large a tile, fixed or drawn, of a pipeline the
sizes of its blocks and rings, and whether work row by row is worth dividing. What a variant is worth is the simulated
time of the whole phase with two of its layers, since all layers are alike.

The simulator comes in as a function, because plans do not know who predicts them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from smesim.errors import PlanError
from smesim.hwmodel.chip import Chip
from smesim.plan.choices import LEAST_PART, PAST_SPLITS
from smesim.plan.layout import ROW_MAJOR
from smesim.plan.planners import Planning, roofline_entries
from smesim.plan.schema import Assignment, Mode, OperatorPlan, Plan, TileShape, WorkerPlan
from smesim.plan.teams import both_workers
from smesim.plan.tiles import NR
from smesim.workload.graph import OperatorGraph
from smesim.workload.operators import Attention, GroupedLinear, Linear

Simulate = Callable[[Plan], float]
"""Seconds that a plan is predicted to take; PlanError or ProgramError for one that cannot run."""
Progress = Callable[[str, float], None]
Entries = Mapping[str, OperatorPlan]
"""The entries of a plan by their sites."""

LAYERS_SEARCHED = 2
DEFAULT_BUDGET_S = 30.0
ROUNDS = 3
STARTS = 3
"""Plans that the search starts from, the best of those for all workers and for fewer."""
FEW_WORKERS = 8
WORTHWHILE = 1e-3
"""Part of the whole time that a change must save to be taken."""
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
SHIFTS = (0.8, 0.9, 0.95, 1.05, 1.1, 1.25, 1.5, 2.0, 3.0)
PIPELINES = {"depth": (1, 2, 3, 4), "query_block": (32, 64, 128), "key_block": (64, 128, 256, 512)}


def _quiet(what: str, share: float) -> None:
    return None


def search(
    graph: OperatorGraph, chip: Chip, threads: int | None = None, *, simulate: Simulate,
    budget_s: float = DEFAULT_BUDGET_S, progress: Progress = _quiet, forced: Mapping[str, Mode] | None = None,
    overlap: bool = True, **options: Any,
) -> Plan:  # fmt: skip
    """The plan of `roofline`, improved operator by operator, the longest first, by what makes the whole faster: the
    best of that for all workers and for fewer of them.

    Workers that would only be waited for are not in it. It stops when a round over all operators changed nothing, after
    a few rounds, or after `budget_s` seconds. Never slower, by the simulator, than the plan of `roofline`.
    """
    planning = Planning(graph, chip, both_workers(chip, threads), forced, overlap, options)
    return _Search(planning, simulate, budget_s, progress).run()


def _smaller_teams(planning: Planning) -> Iterator[Planning]:
    """The same for the first of the workers only, the most first: all but one, the whole clusters, or half of them and
    so on; of few, any number. What is short is held up by every worker that it waits for."""
    workers = planning.workers
    counts = {*range(1, len(workers) if len(workers) <= FEW_WORKERS else 1), len(workers) - 1}
    counts |= {len(workers) >> halvings for halvings in range(1, len(workers).bit_length())}
    counts |= {i for i in range(1, len(workers)) if workers[i].cluster != workers[i - 1].cluster}
    for count in sorted(counts - {0}, reverse=True):
        try:
            yield Planning(
                planning.graph, planning.chip, workers[:count], planning.forced, planning.overlap, planning.options
            )
        except PlanError:
            continue  # a forced mode that these have not


class _Search:
    def __init__(self, planning: Planning, simulate: Simulate, budget_s: float, progress: Progress) -> None:
        self.planning = planning
        self.simulate = simulate
        self.progress = progress
        self.deadline = time.monotonic() + budget_s
        self.budget_s = budget_s
        self.seen: dict[str, float] = {}

    def run(self) -> Plan:
        """The best of what is found from the best few starts: all workers, or fewer of them."""
        found: list[tuple[float, Planning, Entries]] = []
        for planning in (self.planning, *_smaller_teams(self.planning)):
            if found and self.late():
                break
            quick: Entries = {entry.site: entry for entry in roofline_entries(planning)}
            found.append((self.seconds(planning, quick), planning, quick))
        best_s, team, best = found[0]
        for start_s, planning, start in sorted(found, key=lambda of: of[0])[:STARTS]:
            seconds, entries = self.climbed(planning, start, start_s)
            if seconds < best_s:
                best_s, team, best = seconds, planning, entries
        return team.plan("search", best.values())

    def late(self) -> bool:
        return time.monotonic() > self.deadline

    def climbed(self, planning: Planning, entries: Entries, best: float) -> tuple[float, Entries]:
        """The entries, changed one by one as long as that makes the whole faster, and the seconds they take then."""
        sites = sorted(entries, key=lambda site: -_predicted_s(entries[site]))
        for _ in range(ROUNDS):
            before = best
            for site in sites:
                for variant in _variants(planning, site, entries[site]):
                    if self.late():
                        return best, entries
                    self.progress(f"searching: {site}", 1 - (self.deadline - time.monotonic()) / self.budget_s)
                    changed = {**entries, site: variant}
                    seconds = self.seconds(planning, changed)
                    if seconds < best * (1 - WORTHWHILE):
                        entries, best = changed, seconds
            if best == before:
                break
        return best, entries

    def seconds(self, planning: Planning, entries: Entries) -> float:
        """Of the phase with a few layers; infinite where the variant is none that can run."""
        whole = planning.plan("search", entries.values())
        plan = whole.model_copy(update={"layers": min(LAYERS_SEARCHED, whole.layers)})
        key = plan.fingerprint()
        if key not in self.seen:
            try:
                self.seen[key] = self.simulate(plan)
            except PlanError:
                self.seen[key] = float("inf")
        return self.seen[key]


def _variants(planning: Planning, site: str, current: OperatorPlan) -> Iterator[OperatorPlan]:
    """Other modes first, then what can be varied of the mode that it has now."""
    for choice in planning.possible[site]:
        entry = planning.entry(site, choice)
        if (entry.mode, entry.pipeline is None) != (current.mode, current.pipeline is None):
            yield entry
    yield from variations(planning, current)


def variations(planning: Planning, entry: OperatorPlan) -> Iterator[OperatorPlan]:
    """The entry with other tiles, another assignment, or other blocks of its pipeline; not the entry itself."""
    operator = planning.graph.sites[entry.site][0]
    changes: list[dict[str, Any]] = list(_with_fewer_workers(entry, planning.workers))
    if isinstance(operator, Linear | GroupedLinear):
        panels = -(-operator.n // NR)
        widths = {min(panels, max(1, round(entry.tile.n / NR * factor))) for factor in FACTORS}
        changes += [{"tile": TileShape(m=entry.tile.m, n=NR * width)} for width in sorted(widths)]
        kinds: tuple[Assignment, ...] = ("static", "shared", "static_then_shared")
        changes += [{"assignment": kind} for kind in kinds if len(entry.workers) > 1]
        changes += [{"shares": shares} for shares in _shifted(entry)]
    if isinstance(operator, Linear) and operator.m > 1:
        changes += _with_other_rows(operator.m, entry)
    if isinstance(operator, Linear) and operator.m > 1 and entry.lhs_layout != ROW_MAJOR:
        changes += [{"partition": "rows" if entry.partition == "columns" else "columns"}]
    if isinstance(operator, Attention) and entry.pipeline is not None:
        for name, values in PIPELINES.items():
            changes += [{"pipeline": entry.pipeline.model_copy(update={name: value})} for value in values]
    elif isinstance(operator, Attention) and operator.tokens > 1:
        rows = {max(1, min(operator.tokens, round(entry.tile.m * factor))) for factor in FACTORS}
        changes += [{"tile": TileShape(m=m, n=entry.tile.n)} for m in sorted(rows)]
    elif not isinstance(operator, Linear | GroupedLinear | Attention):
        changes += [{"tile": tile, "workers": workers} for tile, workers in planning.rules.row_divisions(operator)]
    elif isinstance(operator, Attention):
        changes += [{"past_split": parts} for parts in PAST_SPLITS if operator.past // parts >= LEAST_PART]
    for change in changes:
        changed = entry.model_copy(update=change)
        if changed != entry:
            yield changed


def _with_fewer_workers(entry: OperatorPlan, workers: Sequence[WorkerPlan]) -> Iterator[dict[str, Any]]:
    """Without the last of those that take part, or half of them: what is short may not be worth waiting for all.

    Not so few that only one role of a cooperation is left: that is another mode.
    """
    whole, roles = len(entry.workers), {workers[w].role for w in entry.workers}
    for count in sorted({whole - 1, whole // 2} - {0}, reverse=True):
        left = entry.workers[:count]
        if entry.pipeline is None and {workers[w].role for w in left} == roles:
            yield {"workers": left, "shares": entry.shares[:count]}


def _with_other_rows(rows: int, entry: OperatorPlan) -> Iterator[dict[str, Any]]:
    """Tiles of a part of the rows more or fewer, half as many or twice. Who has no columns of his own draws them: fixed
    ones of other rows are seldom as many for each, and drawn ones need not be."""
    parts = -(-rows // entry.tile.m)
    for other in sorted({parts // 2, parts - 1, parts + 1, 2 * parts} - {0, parts}):
        tile = TileShape(m=-(-rows // other), n=entry.tile.n)
        yield {"tile": tile} if entry.shares else {"tile": tile, "assignment": "shared"}


def _shifted(entry: OperatorPlan) -> Iterator[tuple[float, ...]]:
    """The shares with somewhat more or less for those that have the largest, which drive the units."""
    if len(set(entry.shares)) < 2:
        return
    largest = max(entry.shares)
    for factor in SHIFTS:
        yield tuple(share * factor if share == largest else share for share in entry.shares)


def _predicted_s(entry: OperatorPlan) -> float:
    return 0.0 if entry.reason is None else entry.reason.predicted_s

