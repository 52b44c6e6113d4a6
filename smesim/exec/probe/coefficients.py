"""The coefficients of `hwmodel.cost` for this machine, from the samples of the little models.

One thread first: it alone has the memory and the power budget, so its compute-bound tasks show what the loops cost.
What all threads together lose against that (clock, shared cache) becomes one factor for all kernels. Tasks that the
memory bounds are left out of these fits; they give the bandwidths instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from smesim.errors import DeviceError
from smesim.exec.blocks import IN_BLOCKS
from smesim.exec.probe.attention_fit import Warm, fit_attention, fit_stages
from smesim.exec.probe.fit import Fit
from smesim.exec.probe.little_models import LittleRun
from smesim.exec.probe.lone_streams import StreamShares
from smesim.exec.probe.samples import (
    gemm_features,
    handover_gaps,
    router_features,
    row_features,
    samples_of,
    stream_rates,
)
from smesim.exec.probe.task_fits import COMPUTE_BOUND_SHARE, FittedKernel, fit_samples, needed
from smesim.exec.probe.timing import Timing
from smesim.exec.probe.warm import BlockSizes, WarmProduct
from smesim.exec.probe.yardstick import Reference, typical
from smesim.plan.formats import QUANTIZE_KERNEL
from smesim.plan.program import Number, TaskKind
from smesim.plan.reuse import ROW_KERNELS

QUIET_SHARE = 0.05
"""Runs in which other processes took more of the machine than this are left out where enough others remain."""
USUAL_SHARE = 0.85
"""So are runs in which the yardstick was slower than this share of its usual rate: a host may for a while put two
virtual cores on one real one, which slows some kernels by half and others not at all."""


@dataclass(frozen=True)
class WarmNumbers:
    """What was measured of one format's products whose operands are in a core's own caches, and the kernels' blocks;
    and what few streams of weights draw of what several do from memory."""

    number: Number
    product: WarmProduct
    gemv_element_s: float
    streams: StreamShares
    sizes: BlockSizes


@dataclass(frozen=True)
class WarmBlocks:
    """What was measured of weights in those blocks that no little model was run with, and of what quantises."""

    products: tuple[WarmNumbers, ...]
    quantize_element_s: float


@dataclass(frozen=True)
class Coefficients:
    """Everything that the little models tell about the machine."""

    kernels: tuple[FittedKernel, ...]
    all_threads_factor: Timing
    dram_one_thread: Timing
    dram_all_threads: Timing
    references: dict[int, Reference]
    dispatch: Timing
    barrier: Timing


def fit_coefficients(
    runs: Sequence[LittleRun], warm_f32: WarmNumbers, others: Sequence[WarmNumbers], blocks: WarmBlocks, threads: int,
    last_cache_bytes: float,
) -> Coefficients:  # fmt: skip
    """Fit all kernels, as they are while the yardstick takes its median over the runs."""
    mr = warm_f32.sizes.mr
    runs = quiet_runs(runs)
    references = {t: typical([run.reference for run in runs if run.threads == t]) for t in {1, threads}}
    warm = warm_f32.product.at(references[1].product.median)
    one = Timing.of([references[1].memory.median * share for share in stream_rates(runs, 1)])
    many = Timing.of([references[threads].memory.median * share for share in stream_rates(runs, threads)])
    gemm_fit, gemm = _fit_gemm(runs, warm, one.median, warm_f32)
    factor = _all_threads_factor(
        runs, gemm_fit, warm, warm_f32.sizes, threads, many.median / threads, references[threads]
    )
    in_place = [gemm.parameters[f"s_per_kstep_h{h}"][0] if h else 0.0 for h in range(mr + 1)]
    kernels = [gemm, _gemv(warm_f32)]
    rates = {1: one.median, threads: many.median / threads}
    for low in others:
        steady = low.product.at(references[1].product.median)
        kernels += [_fit_gemm(runs, steady, one.median, low)[1], _fit_gemv(runs, low, rates, references)]
        # What multiplies with blocks reads quantised rows, which an operator of its own makes.
        kinds = (TaskKind.EMBED,) if low.number in IN_BLOCKS else (TaskKind.PACK_LHS, TaskKind.EMBED)
        kernels += [_fit_rows(runs, kind, ROW_KERNELS[kind], last_cache_bytes, threads, low.number) for kind in kinds]
    kernels += [kernel for low in blocks.products for kernel in (_warm_gemm(low, references[1]), _gemv(low))]
    kernels.append(_quantizing(runs, blocks.quantize_element_s, last_cache_bytes, threads))
    stages = fit_stages(runs, Warm(in_place, mr), threads, factor.median, references[1])
    kernels += [fit_attention(runs, Warm(in_place, mr), stages, rates, references[1]), *stages]
    ran = {int(kind) for run in runs for kind in np.unique(run.program.tasks["kind"])}
    in_f32 = [kind for kind in ROW_KERNELS if kind in ran and kind is not TaskKind.QUANTIZE]
    kernels += [_fit_rows(runs, kind, ROW_KERNELS[kind], last_cache_bytes, threads) for kind in in_f32]
    pack = next(kernel for kernel in kernels if kernel.name == ROW_KERNELS[TaskKind.PACK_LHS])
    pack_element_s = pack.parameters["s_per_element"][0]
    kernels.append(_fit_router(runs, gemm, warm_f32.gemv_element_s, pack_element_s, references[1]))
    dispatch, barrier = handover_gaps(runs)
    return Coefficients(
        kernels=tuple(kernels),
        all_threads_factor=factor,
        dram_one_thread=one,
        dram_all_threads=many,
        references=references,
        dispatch=Timing.of(dispatch),
        barrier=Timing.of(barrier or [0.0]),
    )


def quiet_runs(runs: Sequence[LittleRun]) -> Sequence[LittleRun]:
    """The runs without foreign load and with the machine at its usual speed, if there are enough of them with one
    thread and with all; else all runs. What only disturbed runs have, tasks of some kind, is better than nothing."""
    usual = {t: typical([run.reference for run in runs if run.threads == t]) for t in {run.threads for run in runs}}
    quiet = [
        run
        for run in runs
        if (run.trace.meta.foreign_load or 0.0) <= QUIET_SHARE
        and run.reference.product.median >= USUAL_SHARE * usual[run.threads].product.median
    ]
    enough = all(
        2 * sum(run.threads == t for run in quiet) >= sum(run.threads == t for run in runs)
        for t in {run.threads for run in runs}
    )
    if not enough:
        return runs
    known = set().union(*map(_task_kinds, quiet))
    kept = set(map(id, quiet))
    return [run for run in runs if id(run) in kept or not _task_kinds(run) <= known]


def _task_kinds(run: LittleRun) -> set[tuple[int, int]]:
    """(threads, kind of task) of all tasks of a run."""
    return {(run.threads, kind) for kind in np.unique(run.program.tasks["kind"]).tolist()}


def _needed_ratios(ratios: list[float]) -> list[float]:
    if not ratios:
        raise DeviceError("the probe has no compute-bound GEMM tasks; run it again when the machine is quieter")
    return ratios


def _fit_gemm(
    runs: Sequence[LittleRun], warm: WarmProduct, bytes_per_s: float, of: WarmNumbers
) -> tuple[Fit, FittedKernel]:
    """How much longer than warm products those of a model take, and what each byte from DRAM adds."""
    samples = samples_of(runs, TaskKind.GEMM, 1, warm.product_flop_per_s, of.number)
    rows = [(gemm_features(s, warm, of.sizes), s) for s in samples]
    rows = [(f, s) for f, s in rows if f[1] / bytes_per_s < COMPUTE_BOUND_SHARE * s.seconds]
    needed([s for _, s in rows], "compute-bound GEMM tasks")
    # A disturbed machine may be explained best by bytes alone; but products that take no time would be no cost model.
    fit = fit_samples(np.array([f for f, _ in rows]), [s for _, s in rows], positive=[0])
    stretch, per_byte = fit.coefficients
    parameters = {f"s_per_kstep_h{h}": (stretch * warm.kstep_s[h], "s") for h in range(1, of.sizes.mr + 1)}
    parameters |= {"s_per_tile": (stretch * warm.tile_s, "s"), "s_per_streamed_byte": (per_byte, "s/B")}
    parameters |= _sizes(of, warm)
    return fit, FittedKernel(f"gemm_{of.number.name.lower()}", parameters, fit.residual, fit.samples)


def _warm_gemm(of: WarmNumbers, steady: Reference) -> FittedKernel:
    """Products as they are with operands in a core's own caches: what those of a model add to that is not fitted."""
    warm = of.product.at(steady.product.median)
    parameters = {f"s_per_kstep_h{h}": (warm.kstep_s[h], "s") for h in range(1, of.sizes.mr + 1)}
    parameters |= {"s_per_tile": (warm.tile_s, "s")} | _sizes(of, warm)
    return FittedKernel(f"gemm_{of.number.name.lower()}", parameters, 0.0, 0)


def _sizes(of: WarmNumbers, warm: WarmProduct) -> dict[str, tuple[float, str]]:
    """A kernel's constants, what it draws from memory, and where it takes several panels together, what one of them
    costs by itself."""
    sizes = of.sizes
    parameters = {"mr": (float(sizes.mr), "1"), "nr": (float(sizes.nr), "1"), "kc": (float(sizes.kc), "1")}
    parameters |= {"stream_share": (of.streams.product, "1")}
    if sizes.panels > 1:
        parameters |= {"panels": (float(sizes.panels), "1"), "lone_panel_factor": (warm.lone_panel, "1")}
    return parameters


def _gemv(of: WarmNumbers) -> FittedKernel:
    parameters = {"s_per_element": (of.gemv_element_s, "s/element"), "lone_stream_share": (of.streams.lone, "1")}
    return FittedKernel(f"gemv_{of.number.name.lower()}", parameters, 0.0, 0)


def _fit_gemv(
    runs: Sequence[LittleRun], of: WarmNumbers, bytes_per_s: Mapping[int, float], references: Mapping[int, Reference]
) -> FittedKernel:
    """Weights of few bits take about as long to multiply with as to read, and then not all of one hides behind the
    other: what a product takes longer than its bytes, as a share of its arithmetic.

    `bytes_per_s`: what one thread draws from DRAM, by how many are at it.
    """
    waiting = [0.0]
    for threads, rate in bytes_per_s.items():
        for run in (run for run in runs if run.threads == threads):
            drift = run.reference.memory.median / references[threads].memory.median
            for sample in samples_of([run], TaskKind.GEMV, threads, number=of.number):
                panels, k = int(sample.row["end1"]) - int(sample.row["begin1"]), int(sample.op["k"])
                weights = panels * of.sizes.nr * k
                compute_s, n_bytes = weights * of.gemv_element_s, weights * of.number.n_bytes
                waiting.append((sample.seconds - n_bytes / (rate * drift)) / compute_s)
    share = float(np.clip(np.median(waiting), 0.0, 1.0))
    kernel = _gemv(of)
    return replace(kernel, parameters=kernel.parameters | {"serial_share": (share, "1")})


def _quantizing(
    runs: Sequence[LittleRun], element_s: float, last_cache_bytes: float, threads: int
) -> FittedKernel:
    """What quantises rows: fitted where a little model had weights in blocks, else as in a core's own caches."""
    if any((run.program.tasks["kind"] == TaskKind.QUANTIZE).any() for run in runs):
        return _fit_rows(runs, TaskKind.QUANTIZE, QUANTIZE_KERNEL, last_cache_bytes, threads, Number.Q8)
    return FittedKernel(QUANTIZE_KERNEL, {"s_per_element": (element_s, "s/element")}, 0.0, 0)


def _all_threads_factor(
    runs: Sequence[LittleRun], fit: Fit, warm: WarmProduct, sizes: BlockSizes, threads: int, bytes_per_s: float,
    steady: Reference,
) -> Timing:  # fmt: skip
    """What a core's rate is multiplied by when all work: predicted with one thread over measured with all.

    Taken over whole runs, not task by task: a median task knows nothing of the time that interruptions take from some.
    A run in which the yardstick was slow is taken for as much faster as that usually is.
    """
    if threads == 1:
        return Timing(1.0, 0.0, 1)
    ratios: list[float] = []
    for run in runs:
        predicted_s, chosen = 0.0, []
        for sample in samples_of([run], TaskKind.GEMM, threads):
            features = gemm_features(sample, warm, sizes)
            if features[1] / bytes_per_s < COMPUTE_BOUND_SHARE * sample.seconds:
                predicted_s += float(np.dot(features, fit.coefficients))
                chosen.append(sample.task)
        if chosen:
            rows = np.isin(run.trace.by_run("task")[0], chosen)
            seconds = run.trace.by_run("end_s") - run.trace.by_run("start_s")
            seconds = seconds * run.reference.product.median / steady.product.median
            ratios += (predicted_s / seconds[:, rows].sum(axis=1)).tolist()
    return Timing.of(_needed_ratios(ratios))


def _fit_router(
    runs: Sequence[LittleRun], gemm: FittedKernel, gemv_element_s: float, pack_element_s: float, steady: Reference
) -> FittedKernel:
    """What is left of a router's tasks when the products in them are taken off: the choice among the scores."""
    samples = needed(samples_of(runs, TaskKind.ROUTER, 1, steady.product.median), "ROUTER tasks")
    of_gemm = {name: value for name, (value, _) in gemm.parameters.items()}
    features = np.array([router_features(s, of_gemm, gemv_element_s, pack_element_s) for s in samples])
    seconds = np.array([s.seconds for s in samples])
    per_score = float(np.median(np.maximum(seconds - features[:, 0], 0.0) / features[:, 1]))
    residual = float(np.median(np.abs(features @ [1.0, per_score] / seconds - 1.0)))
    parameters = {"s_per_score": (per_score, "s")}
    return FittedKernel("router_f32", parameters, residual, len(samples), "median of what its products leave")


def _fit_rows(
    runs: Sequence[LittleRun], kind: TaskKind, name: str, last_cache_bytes: float, threads: int,
    number: Number = Number.F32,
) -> FittedKernel:  # fmt: skip
    """With one thread and with all: only the latter read what another core wrote. `name` is the kernel's in some
    format."""
    name = f"{name.rpartition('_')[0]}_{number.name.lower()}"
    samples = [s for count in {1, threads} for s in samples_of(runs, kind, count, number=number)]
    samples = needed(samples, f"{kind.name} tasks")
    features = np.array([row_features(s, last_cache_bytes) for s in samples])
    fit = fit_samples(features, samples)
    per_task, per_element, per_row, per_first, per_byte, per_shared = fit.coefficients
    parameters = {
        "s_per_task": (per_task, "s"),
        "s_per_element": (per_element, "s/element"),
        "s_per_row": (per_row, "s"),
        "s_per_first_element": (per_first, "s/element"),
        "s_per_streamed_byte": (per_byte, "s/B"),
        "s_per_shared_byte": (per_shared, "s/B"),
    }
    return FittedKernel(name, parameters, fit.residual, fit.samples)
