"""Two kinds of workers on one operator, measured on this machine: wide kernels stand in for a matrix unit.

    python benchmarks/cooperation.py                     # products and attention of llama-3.2-3b
    python benchmarks/cooperation.py --only products --json

Products: one worker with wide kernels alone, one with narrow kernels alone, all with narrow kernels, and both kinds
together, divided by the planner. `gain` is the best of the first three over the time together, `of_ideal` the time in
which the first two would do it if nothing disturbed them, over the time together. Attention in stages: products on
wide kernels and softmax on narrow ones, and the same kernels in the same blocks with one block in flight, so without
overlap. Contestants take turns; figures are of medians, so that a machine that slows down slows all of them, and of the
best times, which other work on the machine disturbs least.

Two cores of a virtual machine need not be two whole cores. So in every turn there is also a loop of multiply-adds that
touches no memory, on one thread and on two: `machine` says how much of two threads' work the machine did.
"""

import argparse
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
from smesim.exec._native import lib

from smesim.exec.device import Device
from smesim.exec.executor import NativeExecutor
from smesim.exec.tensors import Tensors
from smesim.hwmodel.chip import Chip
from smesim.plan.lower import lower
from smesim.plan.pipeline import pipelined
from smesim.plan.planners import cpu_only, roofline
from smesim.plan.program import TaskKind
from smesim.plan.schema import Plan
from smesim.trace import Trace
from smesim.workflow import HOST_STAND_IN, resolve_chip
from smesim.workload import DType, DTypes, OperatorGraph, Phase, build_graph, catalog

MODEL = "llama-3.2-3b"
PRODUCTS, PROMPTS = ("q_proj", "k_proj", "gate_proj", "down_proj"), (128, 512)
LENGTHS = (512, 2048)
QUERY_BLOCK, KEY_BLOCK = 64, 256
GAIN_TARGET, IDEAL_TARGET, OVERLAP_TARGET = 1.25, 0.93, 1.2
REPEATS = 9


CONTROL_S = 0.02


@dataclass(frozen=True)
class Product:
    """Median seconds of each contestant; gains of medians and of best times."""

    site: str
    tokens: int
    weights: str
    wide_s: float
    narrow_s: float
    all_narrow_s: float
    together_s: float
    gain: float
    of_ideal: float
    best_gain: float
    best_of_ideal: float
    machine: float


@dataclass(frozen=True)
class Overlap:
    """Median seconds, and the part of the softmax that ran beside a product of another block."""

    tokens: int
    blocks: str
    overlapped_s: float
    alternating_s: float
    speedup: float
    best_speedup: float
    softmax_beside_products: float
    machine: float


class Control:
    """How much of two threads' work the machine does at a time: multiply-adds in registers on one and on both."""

    def __init__(self) -> None:
        self.kernels = lib.sms_kernels_best()
        self.iterations = 1000
        while self._took(1) < CONTROL_S:
            self.iterations *= 2
        self.found: list[float] = []

    def look(self) -> None:
        self.found.append(self._took(1) / self._took(2))

    def _took(self, threads: int) -> float:
        started = [threading.Thread(target=self.kernels.fma_peak, args=(self.iterations,)) for _ in range(threads)]
        begin = time.perf_counter()
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
        return time.perf_counter() - begin


def measured(
    graph: OperatorGraph, plans: Mapping[str, Plan], repeats: int, control: Control
) -> tuple[dict[str, list[Trace]], float]:
    """A trace of each plan for every repeat; the plans take turns. And the median of what `control` found meanwhile."""
    executor = NativeExecutor(Device.here().with_stand_in())
    ready, weights = {}, None
    for name, plan in plans.items():
        program = lower(plan, graph)
        executor.check(program, weights)
        weights = Tensors.random(program, plan.model, executor.device, 0, share=weights)
        ready[name] = (program, weights, plan)
    found: dict[str, list[Trace]] = {name: [] for name in plans}
    control.found.clear()
    for _ in range(repeats):
        control.look()
        for name, (program, tensors, plan) in ready.items():
            found[name].append(executor.run(program, tensors, plan))
    return found, statistics.median(control.found)


def times_s(traces: Mapping[str, list[Trace]], of: Callable[[list[float]], float]) -> dict[str, float]:
    return {name: of([float(trace.makespans_s()[0]) for trace in found]) for name, found in traces.items()}


def gains(took: Mapping[str, float]) -> tuple[float, float]:
    """Over the best of those alone, and of what wide and narrow kernels would reach undisturbed."""
    alone_s = min(took[name] for name in ("wide", "narrow", "all_narrow"))
    ideal_s = 1 / (1 / took["wide"] + 1 / took["narrow"])
    return alone_s / took["together"], ideal_s / took["together"]


def products(chip: Chip, repeats: int, weights: DType, control: Control) -> Iterator[Product]:
    for tokens in PROMPTS:
        whole = build_graph(catalog.load(MODEL), Phase.parse(f"prefill:{tokens}"), DTypes(weights=weights), layers=1)
        for site in PRODUCTS:
            graph = whole.alone(site)
            plans = {
                "wide": by_itself(roofline(graph, chip, forced={site: "matrix"})),
                "narrow": by_itself(roofline(graph, chip, forced={site: "cpu"})),
                "all_narrow": cpu_only(graph, chip),
                "together": roofline(graph, chip, forced={site: "cooperative"}),
            }
            traces, machine = measured(graph, plans, repeats, control)
            took, best = times_s(traces, statistics.median), times_s(traces, min)
            yield Product(
                site, tokens, str(weights), took["wide"], took["narrow"], took["all_narrow"], took["together"],
                *gains(took), *gains(best), machine,
            )  # fmt: skip


def by_itself(plan: Plan) -> Plan:
    """The plan with nobody's help in packing: a role's own workers pack what they multiply."""
    return plan.model_copy(update={"operators": tuple(e.model_copy(update={"packers": ()}) for e in plan.operators)})


def overlaps(chip: Chip, repeats: int, control: Control) -> Iterator[Overlap]:
    for tokens in LENGTHS:
        graph = build_graph(catalog.load(MODEL), Phase.parse(f"prefill:{tokens}"), layers=1).alone("attention")
        plan = roofline(graph, chip, forced={"attention": "cooperative"})
        entry = pipelined(
            plan.site("attention"), plan.workers, query_block=QUERY_BLOCK, key_block=KEY_BLOCK, qk="matrix",
            softmax="cpu", pv="matrix", assignment="shared",
        )  # fmt: skip
        assert entry.pipeline is not None
        plan = plan.model_copy(update={"operators": (entry,)})
        one_block = entry.pipeline.model_copy(update={"depth": 1, "lanes": 1})
        alternating = plan.model_copy(update={"operators": (entry.model_copy(update={"pipeline": one_block}),)})
        traces, machine = measured(graph, {"overlapped": plan, "alternating": alternating}, repeats, control)
        took, best = times_s(traces, statistics.median), times_s(traces, min)
        blocks = f"{entry.pipeline.query_block} x {entry.pipeline.key_block}, depth {entry.pipeline.depth}"
        beside = statistics.median(softmax_beside_products(trace) for trace in traces["overlapped"])
        speedup, best_speedup = took["alternating"] / took["overlapped"], best["alternating"] / best["overlapped"]
        yield Overlap(
            tokens, blocks, took["overlapped"], took["alternating"], speedup, best_speedup, beside, machine
        )  # fmt: skip


def softmax_beside_products(trace: Trace) -> float:
    """The part of the softmax's time during which another worker multiplied for some block."""
    tasks = trace.tasks
    softmax = tasks[tasks["kind"] == TaskKind.ATTENTION_SOFTMAX.name.lower()]
    products = (TaskKind.ATTENTION_QK.name.lower(), TaskKind.ATTENTION_PV.name.lower())
    others = tasks[tasks["kind"].isin(products)]
    begins, ends = others["start_s"].to_numpy(), others["end_s"].to_numpy()
    beside_s = total_s = 0.0
    for begin, end, worker in zip(softmax["start_s"], softmax["end_s"], softmax["worker"], strict=True):
        elsewhere = others["worker"].to_numpy() != worker
        shared = np.minimum(ends[elsewhere], end) - np.maximum(begins[elsewhere], begin)
        beside_s += min(float(np.maximum(shared, 0.0).sum()), end - begin)
        total_s += end - begin
    return beside_s / total_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("products", "attention"))
    parser.add_argument("--weights", default="bf16", help="format of the weights: f32 or bf16")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    weights = DType.parse(arguments.weights)
    chip = resolve_chip(HOST_STAND_IN, weights=weights)
    rows: list[Product | Overlap] = []
    control = Control()
    if arguments.only != "attention":
        for product in products(chip, arguments.repeats, weights, control):
            rows.append(product)
            print(
                f"{product.site:10s} {product.tokens:4d} rows {product.weights}: wide {product.wide_s * 1e3:7.2f} ms,"
                f" narrow {product.narrow_s * 1e3:7.2f}, all narrow {product.all_narrow_s * 1e3:7.2f},"
                f" together {product.together_s * 1e3:7.2f}: {product.gain:.3f}x (target {GAIN_TARGET}, at most"
                f" {product.gain / product.of_ideal:.2f}x),"
                f" {product.of_ideal:.1%} of the ideal (target {IDEAL_TARGET:.0%}); best times"
                f" {product.best_gain:.2f}x, {product.best_of_ideal:.1%}; machine {product.machine:.0%}",
                file=sys.stderr,
            )
    if arguments.only != "products":
        for overlap in overlaps(chip, arguments.repeats, control):
            rows.append(overlap)
            print(
                f"attention {overlap.tokens:4d} tokens, blocks of {overlap.blocks}: {overlap.overlapped_s * 1e3:.1f} ms"
                f" overlapped, {overlap.alternating_s * 1e3:.1f} ms one block at a time: {overlap.speedup:.2f}x"
                f" (target {OVERLAP_TARGET}), best times {overlap.best_speedup:.2f}x, machine {overlap.machine:.0%};"
                f" {overlap.softmax_beside_products:.0%} of the softmax beside products",
                file=sys.stderr,
            )
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows]))


if __name__ == "__main__":
    main()
