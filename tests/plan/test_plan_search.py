"""The planner that asks the simulator: never slower than where it starts, and it finds what was spoilt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smesim.errors import PlanError
from smesim.hwmodel import library
from smesim.hwmodel.chip import Chip
from smesim.hwmodel.quantity import Quantity
from smesim.plan.lower import lower
from smesim.plan.oracle import candidates, oracle
from smesim.plan.planners import Planning, roofline
from smesim.plan.schema import Plan, TileShape
from smesim.plan.search import search, variations
from smesim.plan.teams import both_workers
from smesim.sim import SimExecutor
from smesim.workload import OperatorGraph, Phase, build_graph
from tests.sim.chips import two_core_chip, unit_chip
from tests.workload.workload_models import tiny, tiny_moe

GRAPH = build_graph(tiny(d_model=256, d_ff=512), Phase.parse("prefill:96"), layers=2)


def simulator(chip: Chip) -> Callable[[Plan], float]:
    executor = SimExecutor(chip)
    return lambda plan: executor.seconds(lower(plan))


@pytest.mark.parametrize("chip", [unit_chip(), two_core_chip()], ids=lambda chip: chip.name)
def test_a_searched_plan_is_no_slower_than_where_it_started(chip: Chip) -> None:
    simulate = simulator(chip)
    plan = search(GRAPH, chip, simulate=simulate, budget_s=60.0)
    assert plan.planner == "search"
    assert simulate(plan) <= simulate(roofline(GRAPH, chip))


FASTER_NEVER_SLOWER = 0.03
"""What `docs/architecture.md` allows for: the search climbs step by step, and from other plans elsewhere."""


@settings(max_examples=3)
@given(st.sampled_from(["prefill:24", "decode:60"]), st.integers(1, 2), st.sampled_from([1.0, 1.5, 4.0]))
def test_more_cores_or_bandwidth_never_make_a_searched_plan_slower(phase: str, cores: int, faster: float) -> None:
    """Invariant 6."""
    graph = build_graph(tiny(), Phase.parse(phase), layers=1)
    chip = two_core_chip(cores=cores)
    found_s = []
    for other in (chip, with_faster_memory(chip, faster) if faster > 1 else two_core_chip(cores=cores + 1)):
        executor = SimExecutor(other)

        def simulate(plan: Plan, executor: SimExecutor = executor) -> float:
            return executor.seconds(lower(plan))

        found_s.append(simulate(search(graph, other, simulate=simulate, budget_s=60.0)))
    assert found_s[1] <= found_s[0] * (1 + FASTER_NEVER_SLOWER)


def with_faster_memory(chip: Chip, factor: float) -> Chip:
    """So many times the bandwidth from memory, of the chip and of each core."""

    def more(of: Quantity) -> Quantity:
        return of.model_copy(update={"value": of.value * factor})

    (cluster,) = chip.clusters
    loads = cluster.core.load_bytes_per_s
    core = cluster.core.model_copy(update={"load_bytes_per_s": loads | {"DRAM": more(loads["DRAM"])}})
    memory = chip.memory.model_copy(update={"bandwidth_bytes_per_s": more(chip.memory.bandwidth_bytes_per_s)})
    return chip.model_copy(update={"memory": memory, "clusters": (cluster.model_copy(update={"core": core}),)})


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


@pytest.mark.parametrize("phase", ["prefill:96", "decode:400"])
def test_variations_are_other_entries_that_can_run(phase: str) -> None:
    chip = library.load("apple-m4-pro")
    graph = build_graph(tiny(d_model=256, d_ff=512), Phase.parse(phase), layers=1)
    planning = Planning(graph, chip, both_workers(chip, 4), None, True, {})
    plan = roofline(graph, chip, 4)
    cooperative = [(s, c) for s, choices in planning.possible.items() for c in choices if c.mode == "cooperative"]
    assert cooperative
    for entry in (*plan.operators, *(planning.entry(site, choice) for site, choice in cooperative)):
        found = list(variations(planning, entry))
        assert entry not in found
        for other in found:
            entries = tuple(other if e.site == entry.site else e for e in plan.operators)
            lower(plan.model_copy(update={"operators": entries}))
    assert sum(1 for _ in variations(planning, plan.site("gate_proj"))) >= 2


def test_the_oracle_is_at_least_as_good_as_the_others_operator_by_operator() -> None:
    chip = unit_chip()

    def alone_s(plan: Plan, part: OperatorGraph) -> float:
        return float(np.nanmax(SimExecutor(chip).timeline(lower(plan, part)).end_s))

    plan = oracle(GRAPH, chip, simulate=alone_s)
    lower(plan)
    assert plan.planner == "oracle"
    planning = Planning(GRAPH, chip, both_workers(chip, None), None, True, {})
    quick = roofline(GRAPH, chip)
    for site in ("q_proj", "down_proj", "attention"):
        part = planning.of_graph(GRAPH.alone(site))
        best, of_quick = (alone_s(part.plan("x", [p.site(site)]), part.graph) for p in (plan, quick))
        assert best <= of_quick
        assert len(set(candidates(planning, site))) > 20


def test_an_operator_alone_finds_its_weights_where_the_whole_model_left_them() -> None:
    """A small weight stays in a cache if nothing else is about, and does not where the rest of a model is."""
    chip = library.load("apple-m4")
    graph = build_graph(tiny(d_model=1024, d_ff=64, vocab=40_000), Phase.parse("decode:9"), layers=1)
    alone = graph.alone("q_proj")
    plan = roofline(alone, chip)
    times = []
    for part in (alone, replace(alone, elsewhere_bytes=0.0)):
        times.append(float(np.nanmax(SimExecutor(chip).timeline(lower(plan, part)).end_s)))
    assert alone.elsewhere_bytes > 1e8
    assert times[0] > 1.2 * times[1]


def test_rows_are_divided_where_there_are_more_units_than_columns() -> None:
    """Of a product with few columns on many units: some of its rows each, and twice as fast as by columns alone."""
    chip = library.load("server-lx2")
    graph = build_graph(tiny(d_model=1024), Phase.parse("prefill:512"), layers=1).alone("q_proj")
    entry = roofline(graph, chip).site("q_proj")
    assert entry.mode == "matrix"
    assert entry.tile.m < 512
    assert len(entry.workers) > 1024 // 32


def test_rows_are_drawn_where_fixed_blocks_of_them_would_not_come_out_even() -> None:
    """304 steps of columns on 303 units: halves of the rows are a third block for some, and quarters that are drawn end
    sooner."""
    chip = library.load("server-lx2")
    graph = build_graph(tiny(d_model=2560, d_ff=9728), Phase.parse("prefill:128"), layers=1).alone("gate_proj")
    plan = roofline(graph, chip)
    entry = plan.site("gate_proj")
    halves = divided(plan, tile=TileShape(m=64, n=32), assignment="static")
    assert (entry.assignment, entry.tile.m) == ("shared", 32)
    assert alone_s(plan, chip, graph) < 0.99 * alone_s(halves, chip, graph)


def test_search_finds_other_rows_for_tiles() -> None:
    chip = library.load("server-lx2")
    graph = build_graph(tiny(d_model=2560, d_ff=9728), Phase.parse("prefill:512"), layers=1).alone("gate_proj")
    planning = Planning(graph, chip, both_workers(chip, None), None, True, {})
    entry = roofline(graph, chip).site("gate_proj")
    rows = {other.tile.m for other in variations(planning, entry) if other.tile.n == entry.tile.n}
    assert {entry.tile.m // 2, entry.tile.m, 2 * entry.tile.m} < rows


@pytest.mark.parametrize(("tokens", "saved"), [(128, 0.05), (512, 0.4)])
def test_experts_are_divided_into_few_wide_blocks_where_agents_are_many(tokens: int, saved: float) -> None:
    """128 experts on 303 units: two blocks each, and not 24 steps, of which everybody draws ten and some eleven; and
    where no cache holds all rows an expert's are read twice instead of 24 times."""
    chip = library.load("server-lx2")
    model = tiny_moe(d_model=2048, d_expert=768, experts=128, experts_per_token=8)
    graph = build_graph(model, Phase.prefill(tokens), layers=1).alone("gate_experts")
    plan = roofline(graph, chip)
    entry = plan.site("gate_experts")
    steps = divided(plan, tile=TileShape(m=entry.tile.m, n=32), assignment="shared")
    assert (entry.assignment, entry.tile.n) == ("static", 384)
    assert alone_s(plan, chip, graph) < (1 - saved) * alone_s(steps, chip, graph)


def divided(plan: Plan, **changes: object) -> Plan:
    """The plan of one operator, divided in another way."""
    (entry,) = plan.operators
    return plan.model_copy(update={"operators": (entry.model_copy(update=changes),)})


def alone_s(plan: Plan, chip: Chip, graph: OperatorGraph) -> float:
    return SimExecutor(chip).seconds(lower(plan, graph))
