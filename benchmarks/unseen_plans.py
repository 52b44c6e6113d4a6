"""Plans that nothing was fitted to, predicted and measured on this machine: does the better prediction run faster?

    python benchmarks/unseen_plans.py                # ten shapes, eight plans each, with a stand-in for a matrix unit
    python benchmarks/unseen_plans.py --plans 4 --json

A shape is one operator of a model and phase. Its plans are drawn from all that the planner `oracle` knows: other modes,
divisions, tiles, assignments, depths and blocks of pipelines. All plans of a shape take turns, with the yardstick
between them, so that a prediction is for the machine as it was meanwhile. Reported are the errors of all plans, and for
each shape whether predictions and measurements put the plans in the same order (Kendall's tau; also of those pairs only
that are measured more than 5 % apart), and how much slower the plan is that was predicted to be best than the one that
was.
"""

import argparse
import json
import random
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import combinations

from smesim.exec.device import Device
from smesim.exec.executor import NativeExecutor
from smesim.exec.probe.drift import chip_of_now
from smesim.exec.probe.yardstick import Yardstick
from smesim.exec.tensors import Tensors
from smesim.hwmodel.chip import Chip
from smesim.plan.lower import lower
from smesim.plan.oracle import candidates
from smesim.plan.planners import Planning
from smesim.plan.schema import OperatorPlan
from smesim.plan.teams import both_workers, core_workers
from smesim.trace.statistics import kendall_tau
from smesim.workflow import HOST_STAND_IN, resolve_chip, simulated_s
from smesim.workload import OperatorGraph, Phase, build_graph, catalog

SHAPES = (
    ("llama-3.2-3b", "prefill:128", "q_proj"),
    ("llama-3.2-3b", "prefill:512", "k_proj"),
    ("llama-3.2-3b", "prefill:128", "gate_proj"),
    ("llama-3.2-3b", "prefill:512", "down_proj"),
    ("llama-3.2-3b", "prefill:512", "attention"),
    ("llama-3.2-3b", "decode:1024", "gate_proj"),
    ("llama-3.2-3b", "decode:1024", "attention"),
    ("qwen3-30b-a3b", "prefill:128", "q_proj"),
    ("qwen3-30b-a3b", "prefill:512", "attention"),
    ("qwen3-30b-a3b", "prefill:128", "down_experts"),
)
PLANS, REPEATS = 8, 15
MEDIAN_TARGET, P90_TARGET, TAU_TARGET, REGRET_TARGET = 0.10, 0.20, 0.8, 0.05


@dataclass(frozen=True)
class Planned:
    """One plan of a shape: what it is, and median seconds."""

    what: str
    predicted_s: float
    measured_s: float

    @property
    def error(self) -> float:
        return self.predicted_s / self.measured_s - 1


@dataclass(frozen=True)
class Shape:
    model: str
    phase: str
    site: str
    plans: tuple[Planned, ...]

    @property
    def tau(self) -> float:
        return kendall_tau([p.predicted_s for p in self.plans], [p.measured_s for p in self.plans])

    @property
    def clear_tau(self) -> float:
        """The same of those pairs of plans that are measured to differ by more than what counts as equally good."""
        pairs = [(a, b) for a, b in combinations(self.plans, 2) if abs(a.measured_s / b.measured_s - 1) > REGRET_TARGET]
        agree = sum((a.predicted_s < b.predicted_s) == (a.measured_s < b.measured_s) for a, b in pairs)
        return 2 * agree / len(pairs) - 1 if pairs else 1.0

    @property
    def regret(self) -> float:
        """How much slower what was predicted to be best is than what was."""
        chosen = min(self.plans, key=lambda p: p.predicted_s)
        return chosen.measured_s / min(p.measured_s for p in self.plans) - 1


def drawn(graph: OperatorGraph, chip: Chip, count: int, seed: int) -> list[tuple[Planning, OperatorPlan]]:
    """Plans for the one operator of a graph, as many of each mode as of the others, and of one worker alone."""
    (site,) = graph.sites
    both = Planning(graph, chip, both_workers(chip, None), None, True, {})
    one = Planning(graph, chip, core_workers(chip, 1), None, True, {})
    by_mode: dict[tuple[str, bool], list[OperatorPlan]] = {}
    for entry in candidates(both, site):
        by_mode.setdefault((entry.mode, entry.pipeline is not None), []).append(entry)
    chance = random.Random(f"{seed} {graph.config.name} {graph.phase} {site}")
    for entries in by_mode.values():
        chance.shuffle(entries)
    found = [(one, one.entry(site, one.possible[site][0]))]
    while len(found) < count and any(by_mode.values()):
        found += [(both, entries.pop()) for entries in by_mode.values() if entries]
    return found[:count]


def described(entry: OperatorPlan) -> str:
    blocks = "" if entry.pipeline is None else f" q{entry.pipeline.query_block} k{entry.pipeline.key_block}"
    depth = "" if entry.pipeline is None else f" d{entry.pipeline.depth}"
    shares = "/".join(f"{share / sum(entry.shares):.2f}" for share in entry.shares)
    parts = f" past/{entry.past_split}" if entry.past_split > 1 else ""
    tile = f"{entry.tile.m}x{entry.tile.n}"
    return f"{entry.mode} {tile} {entry.assignment} by {entry.partition} {shares}{blocks}{depth}{parts}".strip()


def shapes(chip: Chip, plans: int, repeats: int, seed: int) -> Iterator[Shape]:
    device = Device.here().with_stand_in()
    executor, yardsticks = NativeExecutor(device), {n: Yardstick(device, chip, n) for n in (1, chip.core_count)}
    for model, phase, site in SHAPES:
        # A run is timed behind another of the same plan, so what it touches is as near as that leaves it.
        graph = build_graph(catalog.load(model), Phase.parse(phase), layers=1).alone(site)
        graph = replace(graph, elsewhere_bytes=0.0)
        ready, tensors = [], None
        for planning, entry in drawn(graph, chip, plans, seed):
            plan = planning.plan("drawn", [entry])
            program = lower(plan, graph)
            executor.check(program, tensors)
            tensors = Tensors.random(program, plan.model, device, seed, share=tensors)
            ready.append((plan, program, tensors))
        took_s: list[list[float]] = [[] for _ in ready]
        for _ in range(repeats):
            for yardstick in yardsticks.values():
                yardstick.look()
            for seconds, (plan, program, own) in zip(took_s, ready, strict=True):
                executor.run(program, own, plan)
                seconds.append(float(executor.run(program, own, plan).makespans_s()[0]))
        for yardstick in yardsticks.values():
            yardstick.look()
        round_s = [2 * sum(round_of) for round_of in zip(*took_s, strict=True)]
        now = {n: chip_of_now(chip, yardstick.take(round_s), n)[0] for n, yardstick in yardsticks.items()}
        done = []
        for seconds, (plan, _, _) in zip(took_s, ready, strict=True):
            predicted_s = simulated_s(plan, now[len(plan.workers)], graph)
            done.append(Planned(described(plan.operators[0]), predicted_s, statistics.median(seconds)))
        yield Shape(model, phase, site, tuple(done))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plans", type=int, default=PLANS, help="plans of each shape")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = []
    for shape in shapes(resolve_chip(HOST_STAND_IN), arguments.plans, arguments.repeats, arguments.seed):
        found.append(shape)
        head = f"{shape.model} {shape.phase} {shape.site}: tau {shape.tau:.2f}, {shape.clear_tau:.2f} of clear pairs"
        print(f"{head}, the predicted best {shape.regret:.1%} behind the best", file=sys.stderr)
        for plan in shape.plans:
            times = f"predicted {plan.predicted_s * 1e3:8.3f} ms, measured {plan.measured_s * 1e3:8.3f}"
            print(f"    {plan.what:70s} {times} {plan.error:+.1%}", file=sys.stderr)
    errors = sorted(abs(plan.error) for shape in found for plan in shape.plans)
    figures = {
        "plans": len(errors),
        "median_error": statistics.median(errors),
        "within_20_percent": sum(error <= P90_TARGET for error in errors) / len(errors),
        "least_tau": min(shape.tau for shape in found),
        "shapes_with_tau_from_0.8": sum(shape.tau >= TAU_TARGET for shape in found) / len(found),
        "shapes_with_tau_from_0.8_of_clear_pairs": sum(shape.clear_tau >= TAU_TARGET for shape in found) / len(found),
        "best_within_5_percent": sum(shape.regret <= REGRET_TARGET for shape in found) / len(found),
    }
    if arguments.json:
        print(json.dumps(figures | {"shapes": [asdict(shape) for shape in found]}))
    else:
        print(*(f"{name}: {value:.3g}" for name, value in figures.items()), sep="\n")


if __name__ == "__main__":
    main()
