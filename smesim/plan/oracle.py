"""The planner that leaves nothing out: `oracle` simulates every way to run an operator that it knows, each by itself.

The space of an operator is small: its modes, tiles of several widths, who is given what and who draws, divisions
between units and cores in steps of a twentieth, columns or rows; for experts parts of their columns, for attention
blocks, depths and parts of the past.
What it finds is as good as can be found operator by operator, which says how much the quick planners lose; it takes
seconds where `roofline` takes microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from smesim.errors import PlanError
from smesim.hwmodel.chip import Chip
from smesim.plan.planners import Planning
from smesim.plan.rules import PANELS_TOGETHER
from smesim.plan.schema import Assignment, Mode, OperatorPlan, Plan, TileShape
from smesim.plan.search import variations
from smesim.plan.teams import both_workers
from smesim.plan.tiles import NR
from smesim.workload.graph import OperatorGraph
from smesim.workload.operators import Attention, GroupedLinear, Linear

SimulateAlone = Callable[[Plan, OperatorGraph], float]
"""Seconds of a plan for a graph that is part of the plan's model."""

WIDTHS = (0.5, 1.0, 2.0)
ROW_PARTS = (1, 2, 3, 4, 6, 8)
COLUMN_PARTS = (1, 2, 3, 4, 6, 8, 12)
DIVISIONS = 20
"""Steps in which a product is divided between those who drive units and the cores."""
QUERY_BLOCKS, KEY_BLOCKS, DEPTHS = (32, 64, 128), (64, 128, 256, 512), (1, 2, 4)


def oracle(
    graph: OperatorGraph, chip: Chip, threads: int | None = None, *, simulate: SimulateAlone,
    progress: Callable[[str, float], None] = lambda what, share: None, forced: Mapping[str, Mode] | None = None,
    overlap: bool = True, **options: Any,
) -> Plan:  # fmt: skip
    """For each operator the entry that is fastest by itself, of all that `candidates` knows."""
    planning = Planning(graph, chip, both_workers(chip, threads), forced, overlap, options)
    entries = []
    for i, (site, possible) in enumerate(planning.possible.items()):
        progress(f"trying all: {site}", i / len(planning.possible))
        entries.append(best_alone(planning, site, simulate)[0] if possible else planning.entry(site, None))
    return planning.plan("oracle", entries)


def best_alone(planning: Planning, site: str, simulate: SimulateAlone) -> tuple[OperatorPlan, float]:
    """The candidate for a site that is simulated to be fastest, and its seconds; not for work row by row."""
    alone = planning.of_graph(planning.graph.alone(site))
    best: tuple[OperatorPlan, float] | None = None
    for entry in candidates(planning, site):
        try:
            seconds = simulate(alone.plan("oracle", [entry]), alone.graph)
        except PlanError:
            continue  # none that can run
        if best is None or seconds < best[1]:
            best = entry, seconds
    if best is None:
        raise PlanError(f"none of the ways to run {site} can be simulated on {planning.chip.name}")
    return best


def candidates(planning: Planning, site: str) -> Iterator[OperatorPlan]:
    """Every way to run an operator that there is to try, each once."""
    seen: set[OperatorPlan] = set()
    for choice in planning.possible[site]:
        start = planning.entry(site, choice)
        for entry in (start, *variations(planning, start), *_beyond(planning, start)):
            if entry not in seen:
                seen.add(entry)
                yield entry


def _beyond(planning: Planning, start: OperatorPlan) -> Iterator[OperatorPlan]:
    """What a search would need several steps for: combinations of what can be varied."""
    operator = planning.graph.sites[start.site][0]
    if isinstance(operator, Attention) and start.pipeline is not None:
        for query_block in QUERY_BLOCKS:
            for key_block in KEY_BLOCKS:
                for depth in DEPTHS:
                    blocks = {"query_block": query_block, "key_block": key_block, "depth": depth}
                    yield start.model_copy(update={"pipeline": start.pipeline.model_copy(update=blocks)})
    if isinstance(operator, GroupedLinear):
        yield from _of_experts(operator, start)
    if isinstance(operator, Linear):
        panels = -(-operator.n // NR)
        # One row is multiplied with several panels side by side: fewer would wait for memory one after the other.
        least = start.grain if operator.m > 1 else max(start.grain, PANELS_TOGETHER)
        divisions = list(_divisions(planning, start)) if start.mode == "cooperative" else [start.shares]
        for parts in ROW_PARTS:
            rows = TileShape(m=-(-operator.m // parts), n=NR * min(least, panels))
            for assignment in ("static", "shared"):
                yield start.model_copy(update={"tile": rows, "assignment": assignment, "shares": ()})
        for factor in WIDTHS:
            width = min(panels, max(1, round(start.tile.n / NR * factor)))
            tile = TileShape(m=start.tile.m, n=NR * width)
            yield start.model_copy(update={"tile": tile, "assignment": "shared"})
            for shares in divisions:
                for assignment in ("static", "static_then_shared"):
                    yield start.model_copy(update={"tile": tile, "assignment": assignment, "shares": shares})


def _of_experts(operator: GroupedLinear, start: OperatorPlan) -> Iterator[OperatorPlan]:
    """Experts' columns in so many parts, fixed, drawn, or both."""
    steps = -(-operator.n // (NR * start.grain))
    kinds: tuple[Assignment, ...] = ("static", "shared", "static_then_shared")
    for parts in COLUMN_PARTS:
        tile = TileShape(m=start.tile.m, n=NR * min(-(-operator.n // NR), start.grain * -(-steps // parts)))
        for assignment in kinds if len(start.workers) > 1 else ():
            yield start.model_copy(update={"tile": tile, "assignment": assignment})


def _divisions(planning: Planning, entry: OperatorPlan) -> Iterator[tuple[float, ...]]:
    """Shares by which those who drive units get a part of the columns, and the cores the rest."""
    drives = [planning.workers[worker].role == "matrix" for worker in entry.workers]
    own = entry.shares or (1.0,) * len(drives)
    units = sum(share for share, is_driver in zip(own, drives, strict=True) if is_driver)
    cores = sum(own) - units
    if not (units and cores):
        return
    for step in range(1, DIVISIONS):
        part = step / DIVISIONS
        yield tuple(
            share / units * part if is_driver else share / cores * (1 - part)
            for share, is_driver in zip(own, drives, strict=True)
        )
