"""How fast the simulator is: flows a second, tasks a second, and the seconds for a whole model tile by tile.

    python benchmarks/simulator.py [--chip apple-m4] [--phase prefill:512] [--json]

Times are the best of several repeats, so that other load on the machine counts as little as possible.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Generator
from functools import partial

import simpy

from smesim.hwmodel import library
from smesim.hwmodel.sharing import max_min_rates
from smesim.plan.lower import lower
from smesim.plan.planners import cpu_only
from smesim.sim import SimExecutor
from smesim.sim.fluid import FluidNetwork
from smesim.workload import catalog
from smesim.workload.graph import build_graph
from smesim.workload.phase import Phase

REPEATS = 5
MODEL = "llama-3.2-3b"
FLOWS = 20_000
CORE_BYTES_PER_S, L2_BYTES_PER_S, DRAM_BYTES_PER_S = 1e10, 3e10, 1.3e10


def best_s(action: Callable[[], object]) -> float:
    """Shortest of several runs, seconds."""
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return min(times)


def links(agents: int) -> dict[str, float]:
    cores = {f"core{i}": CORE_BYTES_PER_S for i in range(agents)}
    return cores | {"L2": L2_BYTES_PER_S, "DRAM": DRAM_BYTES_PER_S}


def move_flows(agents: int) -> None:
    """Agents that each move one transfer after the other over three links, all of them contested."""
    env = simpy.Environment()
    network = FluidNetwork(env, links(agents))

    def agent(number: int) -> Generator[simpy.Event, None, None]:
        sizes = random.Random(number)
        for _ in range(FLOWS // agents):
            yield network.transfer((f"core{number}", "L2", "DRAM"), 1e6 * sizes.random(), 2e10)

    for number in range(agents):
        env.process(agent(number))
    env.run()


def solve_rates(agents: int, contested: bool) -> None:
    paths = [(f"core{i}", "L2", "DRAM") for i in range(agents)]
    caps = [CORE_BYTES_PER_S * (1 + i % 3) if contested else DRAM_BYTES_PER_S / agents for i in range(agents)]
    capacities = links(agents)
    for _ in range(1000):
        max_min_rates(paths, caps, capacities)


def measure(chip_name: str, phase: str) -> dict[str, float]:
    chip = library.load(chip_name)
    graph = build_graph(catalog.load(MODEL), Phase.parse(phase))
    plan = cpu_only(graph, chip)
    program = lower(plan)
    executor = SimExecutor(chip)
    each_s = best_s(lambda: executor.timeline(program, repeat_equal=False))
    results: dict[str, float] = {}
    for agents in (2, 8, 16):
        results[f"flows_per_s_{agents}_agents"] = FLOWS / best_s(partial(move_flows, agents))
        for contested in (False, True):
            name = f"max_min_solutions_per_s_{agents}_flows_{'contested' if contested else 'free'}"
            results[name] = 1000 / best_s(partial(solve_rates, agents, contested))
    return results | {
        "tasks": program.n_tasks,
        "workers": program.n_workers,
        "tasks_per_s_every_layer_simulated": program.n_tasks / each_s,
        "timeline_s_every_layer_simulated": each_s,
        "timeline_s": best_s(lambda: executor.timeline(program)),
        "trace_s": best_s(lambda: executor.run(program, plan)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chip", default="apple-m4", help="preset or chip file")
    parser.add_argument("--phase", default="prefill:512")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    results = measure(arguments.chip, arguments.phase)
    if arguments.json:
        print(json.dumps(results))
        return
    print(f"{MODEL}, {arguments.phase}, {arguments.chip}")
    for name, value in results.items():
        print(f"  {name:<45} {value:>14,.3f}")


if __name__ == "__main__":
    main()
