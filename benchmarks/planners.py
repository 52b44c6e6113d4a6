"""How much the quick planners lose against trying everything, and how long they take to decide.

    python benchmarks/planners.py                                   # three models, four chips, prompts and decode steps
    python benchmarks/planners.py --chip apple-m4 --phase prefill:128 --json

A shape is one operator of a model's phase on a chip. Each is planned by `roofline`, by `search` and by `oracle`, and
each plan is simulated by itself; the loss is how much longer it takes than the oracle's. The seconds of planning are
those that `roofline` takes for one operator, best of several.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from smesim.hwmodel import library
from smesim.hwmodel.chip import Chip
from smesim.plan.oracle import best_alone
from smesim.plan.planners import Planning, roofline
from smesim.plan.schema import OperatorPlan, Plan
from smesim.plan.search import search
from smesim.plan.teams import both_workers
from smesim.workflow import simulated_s
from smesim.workload import OperatorGraph, Phase, build_graph, catalog

MODELS = ("llama-3.2-3b", "qwen3-4b", "qwen3-30b-a3b")
CHIPS = ("apple-m4", "apple-m4-pro", "phone-d9500", "server-lx2")
PHASES = ("prefill:128", "prefill:512", "decode:512")
ROOFLINE_TARGET, SEARCH_TARGET, PART = 1.05, 1.01, 0.9
DECISION_TARGET_S = 1e-3
SEARCH_BUDGET_S = 5.0


@dataclass(frozen=True)
class Shape:
    """One operator: predicted seconds of each planner's plan for it, and what `roofline` took to decide."""

    chip: str
    model: str
    phase: str
    site: str
    roofline_s: float
    search_s: float
    oracle_s: float
    modes: str
    decision_s: float


def described(entry: OperatorPlan) -> str:
    return entry.mode + (" in stages" if entry.pipeline is not None else "")


def shapes(chip: Chip, model: str, phase: str) -> Iterator[Shape]:
    """Every operator that there is something to decide about."""
    whole = build_graph(catalog.load(model), Phase.parse(phase), layers=1)
    planning = Planning(whole, chip, both_workers(chip, None), None, True, {})
    for site, possible in planning.possible.items():
        if not possible:
            continue
        graph = whole.alone(site)
        simulate = simulator(chip, graph)
        quick = roofline(graph, chip)
        best, oracle_s = best_alone(planning, site, lambda plan, alone: simulated_s(plan, chip, alone))
        searched_s = simulate(search(graph, chip, simulate=simulate, budget_s=SEARCH_BUDGET_S))
        modes = f"{described(quick.site(site))} / {described(best)}"
        decision_s = min(decide_s(planning, site) for _ in range(5))
        yield Shape(chip.name, model, phase, site, simulate(quick), searched_s, oracle_s, modes, decision_s)


def simulator(chip: Chip, graph: OperatorGraph) -> Callable[[Plan], float]:
    return lambda plan: simulated_s(plan, chip, graph)


def decide_s(planning: Planning, site: str) -> float:
    """What `roofline` takes to weigh the modes of one operator and to make its entry."""
    begin = time.perf_counter()
    possible = planning.choices.of(planning.graph.sites[site][0])
    planning.entry(site, possible[0])
    return time.perf_counter() - begin


def part_within(found: list[Shape], planner: str, factor: float) -> float:
    return sum(getattr(s, f"{planner}_s") <= factor * s.oracle_s for s in found) / len(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chip", action="append", help="a preset or chip file; default: four presets")
    parser.add_argument("--model", action="append", help="default: three models")
    parser.add_argument("--phase", action="append", help="default: two prompts and a decode step")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found: list[Shape] = []
    for name in arguments.chip or CHIPS:
        chip = library.load(name)
        for model in arguments.model or MODELS:
            for phase in arguments.phase or PHASES:
                for shape in shapes(chip, model, phase):
                    found.append(shape)
                    loss, searched = shape.roofline_s / shape.oracle_s - 1, shape.search_s / shape.oracle_s - 1
                    print(
                        f"{shape.chip:13s} {shape.model:14s} {shape.phase:12s} {shape.site:14s}"
                        f" oracle {shape.oracle_s * 1e6:9.1f} us  roofline {loss:+7.1%}  search {searched:+7.1%}"
                        f"  decided in {shape.decision_s * 1e3:5.2f} ms  {shape.modes}",
                        file=sys.stderr, flush=True,
                    )  # fmt: skip
    figures = {
        "shapes": len(found),
        "roofline_within_5_percent": part_within(found, "roofline", ROOFLINE_TARGET),
        "search_within_1_percent": part_within(found, "search", SEARCH_TARGET),
        "slowest_decision_s": max(s.decision_s for s in found),
        "decisions_below_1_ms": sum(s.decision_s < DECISION_TARGET_S for s in found) / len(found),
    }
    if arguments.json:
        print(json.dumps(figures | {"rows": [asdict(shape) for shape in found]}))
    else:
        print(*(f"{name}: {value:.4g}" for name, value in figures.items()), sep="\n")


if __name__ == "__main__":
    main()
