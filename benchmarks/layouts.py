"""What reusing layouts is worth: time spent packing in a prefill layer, measured natively in one run.

    python benchmarks/layouts.py [--tokens 128 512] [--threads 2] [--repeats 9]

The same layers are planned with `layout_reuse` none, shared_packs and full, and the three programs are executed in
turn, with the same weights. Time spent packing is that of the pack tasks, and what norms and activations take longer
than they do row major. Ratios are of runs of one turn, so that a machine that drifts does not decide; the medians of
them are printed, with the best turn's in brackets. Weights are compared with one packed copy of them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from smesim.exec.device import Device
from smesim.exec.executor import NativeExecutor, RunTimes
from smesim.exec.tensors import Tensors
from smesim.hwmodel import library
from smesim.plan.explain import layout_report
from smesim.plan.layout import LAYOUT_REUSES
from smesim.plan.lower import lower
from smesim.plan.planners import cpu_only
from smesim.plan.program import Program, TaskKind
from smesim.workload import Phase, build_graph, catalog

ROWS = (TaskKind.RMSNORM, TaskKind.SWIGLU, TaskKind.RMSNORM_PACKED, TaskKind.SWIGLU_PACKED)


@dataclass(frozen=True)
class Spent:
    """Seconds of work in the layers of one run, over all workers; `run_s` is the run's own duration."""

    packing_s: float
    rows_s: float
    run_s: float


def spent(program: Program, times: RunTimes) -> Spent:
    seconds = (times.end_ns - times.start_ns) * 1e-9
    in_layer = program.ops["layer"][program.tasks["op"]] >= 0
    kinds = program.tasks["kind"]
    return Spent(
        float(seconds[in_layer & (kinds == TaskKind.PACK_LHS)].sum()),
        float(seconds[in_layer & np.isin(kinds, ROWS)].sum()),
        times.seconds,
    )


def measure(model: str, chip_name: str, tokens: int, threads: int, layers: int, repeats: int) -> None:
    device = Device.here()
    config, chip = catalog.load(model), library.load(chip_name)
    graph = build_graph(config, Phase.prefill(tokens), layers=layers)
    plans = {reuse: cpu_only(graph, chip, threads, layout_reuse=reuse) for reuse in LAYOUT_REUSES}
    executor, share, runs = NativeExecutor(device), None, {}
    programs = {reuse: lower(plan, graph) for reuse, plan in plans.items()}
    for reuse, program in programs.items():
        executor.check(program, share)
        share = Tensors.random(program, config, device, 0, share=share)
        runs[reuse] = executor.stopwatch(program, share)
        runs[reuse]()
    turns = [{reuse: spent(programs[reuse], run()) for reuse, run in runs.items()} for _ in range(repeats)]

    print(f"{model}, prefill:{tokens}, {layers} layers, {threads} threads, {device.isa}, {repeats} turns")
    none = np.array([turn["none"].packing_s for turn in turns])
    for reuse in reversed(LAYOUT_REUSES):
        plain = np.array([min(turn["none"].rows_s, turn["shared_packs"].rows_s) for turn in turns])
        extra = np.array([turn[reuse].rows_s for turn in turns]) - plain if reuse == "full" else 0.0
        packing = np.array([turn[reuse].packing_s for turn in turns])
        fall = 1.0 - (packing + extra) / none
        run = np.array([turn[reuse].run_s / turn["none"].run_s for turn in turns])
        tasks = float(np.median(packing)) / layers * 1e6
        rows = float(np.median(np.zeros(repeats) + extra)) / layers * 1e6
        print(
            f"  {reuse:13} pack tasks {tasks:7.0f} us a layer, norms and activations {rows:+6.0f} us:"
            f" packing falls by {np.median(fall):6.1%} ({fall.max():.1%}), the run takes {np.median(run):.3f}"
        )
    print(f"  weights: {layout_report(plans['full'], programs['full']).weight_copies:.3f} of one packed copy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama-3.2-3b")
    parser.add_argument("--chip", default="server-spr-amx", help="preset or chip file to choose tiles by")
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    for tokens in given.tokens:
        measure(given.model, given.chip, tokens, given.threads, given.layers, given.repeats)


if __name__ == "__main__":
    main()
