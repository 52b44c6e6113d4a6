"""The way through the house in one call each: plan, predict, measure, compare, and the files that a study leaves.

The command line goes through here.

    model, chip = catalog.load("llama-3.2-3b"), resolve_chip("host")
    plan = make_plan(model, Phase.parse("prefill:128"), chip, threads=2, layers=4)
    prediction = predict(plan, chip)
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from smesim.errors import DeviceError, PlanError
from smesim.exec.adaptive import AdaptedRuns, run_adaptively
from smesim.exec.device import Device
from smesim.exec.executor import NativeExecutor
from smesim.exec.probe.drift import chip_of_now
from smesim.exec.probe.stand_in import STAND_IN_CHIP
from smesim.exec.probe.yardstick import MEMORY_BYTES, Reference, Yardstick
from smesim.exec.tensors import Tensors
from smesim.hwmodel import library
from smesim.hwmodel.chip import Chip
from smesim.hwmodel.roofline import (
    Demand,
    OperatorPoint,
    Roofline,
    cooperative_agents,
    core_agents,
    matrix_unit_agents,
)
from smesim.plan.explain import LayoutReport, layout_report
from smesim.plan.formats import FORMATS, product_format
from smesim.plan.layout import LAYOUT_REUSES
from smesim.plan.lower import lower
from smesim.plan.oracle import oracle
from smesim.plan.planners import planner
from smesim.plan.program import Program
from smesim.plan.schema import Mode, Plan
from smesim.plan.search import DEFAULT_BUDGET_S, search
from smesim.sim import ALL_EFFECTS, SimExecutor
from smesim.trace import Comparison, ComparisonReport, Trace, WholePart, compare
from smesim.workload import DType, DTypes, ModelConfig, OperatorGraph, Phase, build_graph
from smesim.workload.operators import GroupedLinear, Linear

Progress = Callable[[str, float], None]
"""Called with (what is going on, share of it that is done)."""

HOST = "host"
HOST_STAND_IN = STAND_IN_CHIP
"""This machine with wide kernels that stand in for a matrix unit, and narrow ones for its cores."""
FEWEST_REPEATS, MOST_REPEATS = 5, 25
LEAST_MEASURED_S = 2.0


def _quiet(what: str, share: float) -> None:
    return None


def kept_files() -> Path:
    """The folder of what is kept from one run to the next: $SMESIM_HOME, else in the user's cache folder."""
    home = os.environ.get("SMESIM_HOME")
    cache = os.environ.get("XDG_CACHE_HOME")
    return Path(home) if home else (Path(cache) if cache else Path.home() / ".cache") / "smesim"


def host_chip_path(name: str = HOST) -> Path:
    """Where this machine's last probe of that name is kept."""
    return kept_files() / f"{name}.toml"


def resolve_chip(
    name_or_path: str, progress: Progress = _quiet, weights: DType = DType.F32, in_models: bool = True
) -> Chip:
    """A preset, a chip file, or "host": this machine's last probe, made on the spot (quick) where there is none that
    knows products with `weights`, `in_models` if it is to predict and not only to plan by. So is "host-stand-in"."""
    if name_or_path not in (HOST, HOST_STAND_IN):
        return library.load(name_or_path, also=(HOST, HOST_STAND_IN))
    path = host_chip_path(name_or_path)
    formats = [weights]
    if path.exists() and is_this_machine(kept := library.load(path)):
        if weights is DType.F32 or kept.has_fitted_products(product_format(weights).name, in_models):
            return kept
        formats += [w for w in FORMATS if kept.has_fitted_products(product_format(w).name)]
    return probe_host(path, quick=True, formats=formats, stand_in=name_or_path == HOST_STAND_IN, progress=progress)


def probe_host(
    path: Path, *, quick: bool = False, formats: Sequence[DType] | None = None, threads: int | None = None,
    seed: int = 0, stand_in: bool = False, progress: Progress = _quiet,
) -> Chip:  # fmt: skip
    """Measure this machine and write its chip file, there and as this machine's last probe."""
    from smesim.exec.probe import probe, probe_with_stand_in

    Device.here().refuse_if_emulated("a probe")
    more = [str(weights) for weights in formats or () if weights is not DType.F32]
    asked = f" --formats {','.join(more)}" if more else ""
    command = f"smesim probe{' --stand-in' if stand_in else ''}{' --quick' if quick else ''}{asked}"
    kept = host_chip_path(HOST_STAND_IN if stand_in else HOST)
    chip = (probe_with_stand_in if stand_in else probe)(
        Device.here(), threads=threads, quick=quick, formats=formats, seed=seed, command=command,
        progress=lambda what, done, total: progress(what, done / total),
    )  # fmt: skip
    library.save(chip, path)
    whole = chip.core_count == len(Device.here().cores)
    if path != kept and whole:  # a probe of some cores only does not stand for the machine
        library.save(chip, kept)
    return chip


def _device_for(stand_in: bool) -> Device:
    """This machine, with its kernels as they are or with wide ones that stand in for a matrix unit."""
    return Device.here().with_stand_in() if stand_in else Device.here()


def is_this_machine(chip: Chip) -> bool:
    """Whether a chip is a probe of the machine that we are on."""
    return chip.host and chip.machine == Device.here().processor


def make_plan(
    model: ModelConfig, phase: Phase, chip: Chip, *, planner_name: str = "cpu_only", threads: int | None = None,
    layers: int | None = None, last_layer_rows: str = "all", layout_reuse: str = "full",
    forced: Mapping[str, Mode] | None = None, overlap: bool = True, weights: DType = DType.F32,
    budget_s: float = DEFAULT_BUDGET_S, progress: Progress = _quiet,
) -> Plan:  # fmt: skip
    """Divide one phase of a model; see `smesim.plan.planners` and, with its time `budget_s`, `smesim.plan.search`.

    `forced` are modes that sites must run in; without `overlap` no attention runs in stages.
    """
    if last_layer_rows not in ("all", "logits"):
        raise PlanError(f"last-layer rows {last_layer_rows!r} asked for; accepted: all, logits")
    if layout_reuse not in LAYOUT_REUSES:
        raise PlanError(f"layout reuse {layout_reuse!r} asked for; accepted: {', '.join(LAYOUT_REUSES)}")
    dtypes = DTypes(weights=weights)
    graph = build_graph(model, phase, dtypes, layers=layers, last_layer_rows=last_layer_rows)  # type: ignore[arg-type]
    options: dict[str, Any] = {
        "forced": forced, "overlap": overlap, "last_layer_rows": last_layer_rows, "layout_reuse": layout_reuse,
    }  # fmt: skip
    if planner_name == "search":
        return search(
            graph, chip, threads, simulate=lambda plan: simulated_s(plan, chip), budget_s=budget_s, progress=progress,
            **options,
        )  # fmt: skip
    if planner_name == "oracle":
        return oracle(
            graph, chip, threads, simulate=lambda plan, alone: simulated_s(plan, chip, alone), progress=progress,
            **options,
        )  # fmt: skip
    return planner(planner_name)(graph, chip, threads, **options)


def simulated_s(plan: Plan, chip: Chip, graph: OperatorGraph | None = None) -> float:
    """The time that a plan is predicted to take, without a trace of it; of a part of its model where `graph` is one."""
    return SimExecutor(chip).seconds(lower(plan, graph))


def explain_layouts(plan: Plan, chip: Chip) -> LayoutReport:
    """What a plan packs, why, and how long its tasks take on a chip."""
    program = lower(plan)
    tasks = predict(plan, chip, program=program).tasks
    seconds: Counter[tuple[str, str]] = Counter()
    for name, kind, start_s, end_s in zip(*(tasks[c] for c in ("op_name", "kind", "start_s", "end_s")), strict=True):
        seconds[name, kind] += end_s - start_s
    return layout_report(plan, program).with_seconds(seconds)


@dataclass(frozen=True)
class Roofs:
    """Every site of a graph under the roofs of a chip's cores, matrix units, and both together.

    A point is None where the roof's agents do not compute in the site's dtype.
    """

    linear_dtype: str
    demands: tuple[Demand, ...]
    roofs: dict[str, Roofline]
    points: dict[str, tuple[OperatorPoint | None, ...]]

    def total_s(self, name: str) -> float | None:
        """The sum over the sites, None unless the roof covers all of them."""
        times = [point.time_s for point in self.points[name] if point is not None]
        return sum(times) if len(times) == len(self.demands) else None


def roofs(graph: OperatorGraph, chip: Chip) -> Roofs:
    """Linear operators in the dtype of their weights (integer formats in s8), all others in f32."""
    weights = graph.dtypes.weights
    linear = "s8" if weights.is_quantized else str(weights)
    demands = tuple(
        Demand(
            site,
            linear if isinstance(ops[0], Linear | GroupedLinear) else "f32",
            float(sum(o.flop for o in ops)),
            float(sum(graph.moved_bytes(o) for o in ops)),
        )
        for site, ops in graph.sites.items()
    )
    under = {"cores": Roofline(chip, core_agents(chip))}
    if chip.unit_instances:
        under |= {"matrix": Roofline(chip, matrix_unit_agents(chip)), "both": Roofline(chip, cooperative_agents(chip))}
    points = {
        name: tuple(roof.points([d])[0] if d.dtype in roof.dtypes else None for d in demands)
        for name, roof in under.items()
    }
    return Roofs(linear, demands, under, points)


def predict(
    plan: Plan, chip: Chip, effects: frozenset[str] = ALL_EFFECTS, program: Program | None = None, note: str = "",
    engine: str | None = None,
) -> Trace:  # fmt: skip
    """Simulate a plan on a chip.

    `program` is the plan lowered, if the caller has it already; `note` goes into the head of the trace; `engine` forces
    SimPy or what is compiled.
    """
    trace = SimExecutor(chip, effects, engine).run(program or lower(plan), plan)
    if not note:
        return trace
    return replace(trace, meta=trace.meta.model_copy(update={"notes": (*trace.meta.notes, note)}))


@dataclass(frozen=True)
class Measurement:
    """A measured trace, the tensors it ran on (their weights can be shared with the next one), and what the yardstick
    gave between the runs (None where that was not asked for)."""

    trace: Trace
    tensors: Tensors
    reference: Reference | None


def measure(
    plan: Plan, *, repeats: int = FEWEST_REPEATS, seed: int = 0, isa: str | None = None, share: Tensors | None = None,
    program: Program | None = None, yardstick: Yardstick | None = None, progress: Progress = _quiet,
) -> Measurement:  # fmt: skip
    """Execute a plan on this machine with random weights. DeviceError before loading if it does not fit.

    A plan for a chip with a stand-in runs on narrow kernels where it says cpu, whether or not a worker drives the unit.
    A `yardstick` is run between the runs, to see what the machine gives at the time.
    """
    program = program or lower(plan)
    executor = NativeExecutor(_device_for(plan.stand_in), isa)
    bill = executor.check(program, share)
    filled, runs = 0, 0

    def weights_progress(n_bytes: int) -> None:
        nonlocal filled
        filled += n_bytes
        progress(f"{plan.phase}: weights", filled / max(bill.total_bytes, 1))

    def run_progress() -> None:
        nonlocal runs
        runs += 1
        progress(f"{plan.phase}: run {runs}", min(1.0, runs / (repeats + 1)))

    tensors = Tensors.random(program, plan.model, executor.device, seed, weights_progress, share)
    between = None if yardstick is None else yardstick.look
    # Emulated times say nothing, so there is nothing that a run before them could warm.
    warmup = 0 if executor.device.emulated else 1
    trace = executor.run(program, tensors, plan, repeats, warmup, run_progress, between)
    return Measurement(trace, tensors, None if yardstick is None else yardstick.take(trace.makespans_s()))


def measure_adaptively(
    plan: Plan, *, repeats: int, seed: int = 0, handicaps: Mapping[int, float] | None = None,
    progress: Progress = _quiet,
) -> AdaptedRuns:  # fmt: skip
    """Execute a plan again and again, divided anew where it could be faster; see `smesim.exec.adaptive`."""
    Device.here().refuse_if_emulated("dividing by measured times")
    executor = NativeExecutor(_device_for(plan.stand_in), handicaps=handicaps)
    program = lower(plan)
    executor.check(program)
    tensors = Tensors.random(program, plan.model, executor.device, seed)
    return run_adaptively(executor, plan, tensors, repeats, lambda run: progress(f"run {run}", run / repeats))


@dataclass(frozen=True)
class Study:
    """One model on this machine, predicted and measured: a plan, the chip that it was predicted on, and a comparison
    for each phase. `chip` is what was asked for; those of the phases are that one as the machine was at the time."""

    chip: Chip
    plans: tuple[Plan, ...]
    chips: tuple[Chip, ...]
    comparisons: tuple[Comparison, ...]
    whole: tuple[WholePart, ...] = ()
    """Of a model file that was run from its first token on: what its programs add up to."""

    @property
    def report(self) -> ComparisonReport:
        return ComparisonReport(self.comparisons, self.whole)

    @property
    def weights(self) -> str:
        """Where the numbers of the weights are from."""
        return "weights of its file" if self.whole else "true widths, random weights"


def study(
    model: ModelConfig, phases: Sequence[Phase], chip: Chip, *, planner_name: str = "cpu_only",
    threads: int | None = None, layers: int | None = None, repeats: int | None = None, seed: int = 0,
    layout_reuse: str = "full", refresh: bool = True, weights: DType = DType.F32, progress: Progress = _quiet,
) -> Study:  # fmt: skip
    """Plan, predict and measure each phase on this machine with the same weights.

    `layers` None takes as many as fit into memory, `threads` None as many as chip and machine both have cores,
    `repeats` None five, and more where these would be over before a machine that drifts has shown its range. For a
    chip that is this machine, `refresh` lets a little model between the runs say what the machine gives at the time,
    and predicts with that; no time of the program itself goes into the prediction.
    """
    Device.here().refuse_if_emulated("a comparison of predicted and measured times")
    if threads is None:
        threads = min(chip.core_count, len(Device.here().cores))
    if layers is None:
        layers = fitting_layers(model, phases, chip, threads, weights)
    plans, chips, comparisons, tensors = [], [], [], None
    device = _device_for(chip.has_stand_in)
    yardstick = Yardstick(device, chip, threads) if refresh and is_this_machine(chip) else None
    for phase in phases:
        plan = make_plan(
            model, phase, chip, planner_name=planner_name, threads=threads, layers=layers, layout_reuse=layout_reuse,
            weights=weights,
        )
        program = lower(plan)
        count = repeats or typical_repeats(float(predict(plan, chip, program=program).makespans_s()[0]))
        measured = measure(
            plan, repeats=count, seed=seed, share=tensors, program=program, yardstick=yardstick, progress=progress
        )
        tensors = measured.tensors
        tensors.keep_weights_only()
        progress(f"{phase}: predicting", 0.5)
        current, note = chip, ""
        if measured.reference is not None:
            current, note = chip_of_now(chip, measured.reference, len(plan.workers))
        predicted = predict(plan, current, program=program, note=note)
        plans.append(plan)
        chips.append(current)
        comparisons.append(compare(predicted, measured.trace))
    return Study(chip, tuple(plans), tuple(chips), tuple(comparisons))


def typical_repeats(run_s: float) -> int:
    """How often to repeat what takes so many seconds: five times, and as often as fits into two seconds up to 25. The
    number is odd, so that the median is a run."""
    fitting = int(LEAST_MEASURED_S / run_s) if run_s > 0 else MOST_REPEATS
    return min(max(FEWEST_REPEATS, fitting), MOST_REPEATS) | 1


def fitting_layers(
    model: ModelConfig, phases: Sequence[Phase], chip: Chip, threads: int | None, weights: DType = DType.F32
) -> int:
    """The most layers of a model whose phases fit into this machine's memory, or DeviceError with the bill for one."""
    executor = NativeExecutor(Device.here())

    def check(phase: Phase, layers: int) -> None:
        plan = make_plan(model, phase, chip, threads=threads, layers=layers, weights=weights)
        executor.check(lower(plan), reserve_bytes=MEMORY_BYTES if chip.host else 0)

    def fits(layers: int) -> bool:
        try:
            for phase in phases:
                check(phase, layers)
        except DeviceError:
            return False
        return True

    if fits(model.layers):
        return model.layers
    for phase in phases:
        check(phase, 1)
    return _most(model.layers, fits)


def _most(limit: int, holds: Callable[[int], bool]) -> int:
    """The largest of 1 .. limit that holds, 1 if none does; what holds for a number holds for all below it."""
    low, above = 1, limit + 1
    while above - low > 1:
        middle = (low + above) // 2
        low, above = (middle, above) if holds(middle) else (low, middle)
    return low


def layers_in_time(
    model: ModelConfig, phases: Sequence[Phase], chip: Chip, budget_s: float = 45.0, repeats: int = FEWEST_REPEATS
) -> int:
    """The most layers that fit into memory and, by the prediction, run all repeats of all phases within a time."""
    layers = fitting_layers(model, phases, chip, None)

    def seconds(n: int) -> float:
        predictions = (predict(make_plan(model, phase, chip, layers=n), chip) for phase in phases)
        return (repeats + 1) * sum(float(p.makespans_s()[0]) for p in predictions)

    return layers if seconds(layers) <= budget_s else _most(layers - 1, lambda n: seconds(n) <= budget_s)
