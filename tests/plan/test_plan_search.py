"""The planner that asks the simulator: never slower than where it starts, and it finds what was spoilt."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from smesim.errors import PlanError
from smesim.hwmodel import library
from smesim.hwmodel.chip import Chip
from smesim.plan.lower import lower
from smesim.plan.planners import roofline
from smesim.plan.schema import Plan
from smesim.plan.search import search, variations
from smesim.sim import SimExecutor
from smesim.workload import Phase, build_graph
from tests.sim.chips import two_core_chip, unit_chip
from tests.workload.workload_models import tiny

GRAPH = build_graph(tiny(d_model=256, d_ff=512), Phase.parse("prefill:96"), layers=2)


def simulator(chip: Chip) -> Callable[[Plan], float]:
    executor = SimExecutor(chip)
    return lambda plan: float(executor.run(lower(plan), plan).makespans_s()[0])


@pytest.mark.parametrize("chip", [unit_chip(), two_core_chip()], ids=lambda chip: chip.name)
def test_a_searched_plan_is_no_slower_than_where_it_started(chip: Chip) -> None:
    simulate = simulator(chip)
    plan = search(GRAPH, chip, simulate=simulate, budget_s=60.0)
    assert plan.planner == "search"
    assert simulate(plan) <= simulate(roofline(GRAPH, chip))


def test_search_without_time_gives_the_plan_it_starts_from() -> None:
    chip = unit_chip()
    found, start = search(GRAPH, chip, simulate=simulator(chip), budget_s=0.0), roofline(GRAPH, chip)
    assert found.operators == start.operators


def test_search_takes_what_the_simulator_prefers_and_leaves_what_cannot_run() -> None:
    """A simulator that likes one mode only, and refuses another."""

    def simulate(plan: Plan) -> float:
        if plan.site("o_proj").mode == "cooperative":
            raise PlanError("not this one")
        return 1.0 - 0.1 * (plan.site("q_proj").mode == "matrix") - 0.1 * (plan.site("attention").mode == "cpu")

    chip = unit_chip()
    start = roofline(GRAPH, chip, forced={"o_proj": "matrix"})
    plan = search(GRAPH, chip, simulate=simulate, forced={"o_proj": "matrix"})
    assert plan.site("q_proj").mode == "matrix"
    assert plan.site("attention").mode == "cpu"
    assert plan.site("o_proj").mode == start.site("o_proj").mode == "matrix"
    lower(plan)


def test_variations_are_other_entries_that_can_run() -> None:
    chip = library.load("apple-m4-pro")
    graph = build_graph(tiny(d_model=256, d_ff=512), Phase.parse("prefill:96"), layers=1)
    plan = roofline(graph, chip, 4)
    for entry in plan.operators:
        found = list(variations(graph, entry))
        assert entry not in found
        for other in found:
            entries = tuple(other if e.site == entry.site else e for e in plan.operators)
            lower(plan.model_copy(update={"operators": entries}))
    assert sum(1 for _ in variations(graph, plan.site("gate_proj"))) >= 2
