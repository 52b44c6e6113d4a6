"""From measurements to a chip: every number with how it was got."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np

from smesim import __version__
from smesim.errors import DeviceError
from smesim.exec.blocks import IN_BLOCKS
from smesim.exec.device import Device
from smesim.exec.lowp_tables import blocks_beside, lowp_beside
from smesim.exec.probe import topology
from smesim.exec.probe.coefficients import Coefficients, WarmBlocks, WarmNumbers, fit_coefficients
from smesim.exec.probe.drift import REFERENCE_KERNEL
from smesim.exec.probe.little_models import LittleRun, planned_runs, planned_stages, run_all
from smesim.exec.probe.lone_streams import stream_shares
from smesim.exec.probe.loops import (
    DRAM_BYTES,
    REPEATS,
    Bandwidth,
    peak_flop_per_s,
    read_bandwidth,
)
from smesim.exec.probe.task_fits import FittedKernel
from smesim.exec.probe.timing import Timing
from smesim.exec.probe.warm import (
    WarmProduct,
    gemv_seconds_per_element,
    product_kernel,
    quantize_seconds_per_element,
)
from smesim.exec.probe.yardstick import Yardstick
from smesim.hwmodel.chip import (
    DRAM,
    Cache,
    Chip,
    Cluster,
    CoreSpec,
    DTypeName,
    FactorPoint,
    KernelModel,
    Memory,
    Sync,
)
from smesim.hwmodel.quantity import Evidence, Quantity
from smesim.plan.formats import FORMATS, product_format
from smesim.plan.program import Number
from smesim.workload.dtypes import DType

Peaks = dict[str, dict[str, Timing]]
"""Peak rates by instruction set and dtype."""

Progress = Callable[[str, int, int], None]
"""Called with (what is measured, steps done, steps in all)."""

CLUSTER = "host"
QUICK_FORMATS = (DType.F32,)
"""The formats of weights whose products a quick probe fits where it is not asked for others as well."""
LOW_PRECISION: tuple[DTypeName, ...] = ("bf16", "s8")
SOURCE = f"smesim probe {__version__} on this machine"
PROVISIONAL_S = 1e-6  # hand-over costs before they are measured; they only guide tile sizes


class _Stamp:
    """Makes quantities that say when and by what they were measured."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ")

    def measured(self, timing: Timing, unit: str) -> Quantity:
        return Quantity(
            value=timing.median, unit=unit, provenance="measured", source=SOURCE, command=self._command,
            date=self._date, repeats=timing.repeats, spread=timing.spread,
        )  # fmt: skip

    def fitted(self, value: float, unit: str, kernel: FittedKernel) -> Quantity:
        if unit == "1" and value.is_integer() and value > 1:
            return self.constant(value)
        if not kernel.samples:  # a loop of its own, not a fit
            return self.measured(Timing(value, kernel.residual, REPEATS), unit)
        return Quantity(
            value=value, unit=unit, provenance="fitted", source=SOURCE, command=self._command, date=self._date,
            repeats=max(kernel.samples, 1),
            reason=f"{kernel.method} over {kernel.samples} tasks, median residual {kernel.residual:.1%}",
        )  # fmt: skip

    def constant(self, value: float) -> Quantity:
        return Quantity(
            value=value, unit="1", provenance="data_sheet", source="the native kernels: a constant of theirs"
        )  # fmt: skip

    def reported(self, value: float, unit: str) -> Quantity:
        return Quantity(
            value=value, unit=unit, provenance="data_sheet", source="the operating system", date=self._date
        )  # fmt: skip


def probe(
    device: Device, *, threads: int | None = None, quick: bool = False, formats: Sequence[DType] | None = None,
    seed: int = 0, command: str = "smesim probe", progress: Progress | None = None,
) -> Chip:  # fmt: skip
    """Measure this machine; a chip of one cluster of `threads` cores, by default all that this process may use.

    `quick` runs fewer little models, and of the formats of weights f32 alone where `formats` does not name others; what
    products with weights in other blocks cost in a core's own caches is measured, whatever is asked for.
    Takes some 55 s quick on two cores, more than twice as long whole. Raises DeviceError.
    """
    report = progress or (lambda what, done, total: None)
    given = formats or (QUICK_FORMATS if quick else tuple(FORMATS))
    fitted = list(dict.fromkeys((DType.F32, *given)))
    numbers = [product_format(weights).number for weights in fitted]
    count = len(device.cores) if threads is None else threads
    if not 1 <= count <= len(device.cores):
        raise DeviceError(
            f"{count} threads asked for; accepted: 1..{len(device.cores)}, the usable cores of this machine"
        )
    planned = [*planned_runs(quick, count, fitted), *planned_stages(count)]
    steps = 4 + len(planned)
    done = 0

    def step(what: str) -> None:
        nonlocal done
        report(what, done, steps)
        done += 1

    step("peak rate of the multiply-add pipes")
    peaks = peak_flop_per_s(device)
    step("bandwidth of caches and memory")
    levels = topology.caches(device.cores[0])
    bandwidths = {f"L{c.level}": read_bandwidth(device, _working_set(c, count), count) for c in levels}
    bandwidths[DRAM] = read_bandwidth(device, DRAM_BYTES, count)
    stamp = _Stamp(command)
    sketch = _chip(device, stamp, peaks, bandwidths, levels, count, None, "before the little models ran")
    step("k-steps of the micro-kernels")
    one = Yardstick(device, sketch, 1)
    yardsticks = {1: one} | ({count: Yardstick(device, sketch, count, share=one)} if count > 1 else {})
    warm = [_warm(device, one, number) for number in numbers]
    blocks = WarmBlocks(
        tuple(_warm(device, one, number) for number in IN_BLOCKS if number not in numbers),
        quantize_seconds_per_element(device).median,
    )
    runs = list(run_all(device, sketch, planned, yardsticks, seed, lambda: step("little models")))
    step("fitting the cost function")
    last = float(max((cache.size_bytes for cache in levels), default=0))
    coefficients = fit_coefficients(runs, warm[0], warm[1:], blocks, count, last)
    report("done", steps, steps)
    return _chip(device, stamp, peaks, bandwidths, levels, count, coefficients, _note(device, runs, quick))


def _warm(device: Device, yardstick: Yardstick, number: Number) -> WarmNumbers:
    kernels = product_kernel(device, number)
    product = WarmProduct.measure(device, yardstick, number)
    gemv = gemv_seconds_per_element(device, number)
    return WarmNumbers(number, product, gemv, stream_shares(device, number), kernels.sizes)


def _working_set(cache: topology.CacheFacts, threads: int) -> int:
    """Half of a core's own cache; of a shared one a share that leaves room for those of the threads that share it."""
    sharers = max(1, min(threads, len(cache.shared_by)))
    return max(4096, int(cache.size_bytes * 0.5 / sharers) // 4096 * 4096)


def _note(device: Device, runs: list[LittleRun], quick: bool) -> str:
    foreign = float(np.median([run.trace.meta.foreign_load or 0.0 for run in runs]))
    how = "quick probe" if quick else "probe"
    warning = "; the machine was busy, so expect the numbers to be low" if foreign > BUSY_SHARE else ""
    return f"{how} with the {device.isa} kernels; other processes took {foreign:.0%} of the machine{warning}"


BUSY_SHARE = 0.05


def _chip(
    device: Device, stamp: _Stamp, peaks: Peaks, bandwidths: dict[str, Bandwidth],
    levels: tuple[topology.CacheFacts, ...], threads: int, fitted: Coefficients | None, note: str,
) -> Chip:  # fmt: skip
    dram_one = fitted.dram_one_thread if fitted else bandwidths[DRAM].one_thread
    dram_all = fitted.dram_all_threads if fitted else bandwidths[DRAM].all_threads
    dram_all = dram_all if dram_all.median >= dram_one.median else dram_one
    loads = {level: stamp.measured(b.one_thread, "B/s") for level, b in bandwidths.items() if level != DRAM}
    loads[DRAM] = stamp.measured(dram_one, "B/s")
    # Where it is not known what products cost, at least how high their strips are: the planner lays out by that.
    kernels = tuple(_blocks(stamp, device, product_format(weights).number) for weights in FORMATS)
    factors: tuple[FactorPoint, ...] = ()
    dispatch, barrier = Timing(PROVISIONAL_S, 0.0, 1), Timing(PROVISIONAL_S, 0.0, 1)
    if fitted:
        dispatch, barrier = fitted.dispatch, fitted.barrier
        names = {kernel.name for kernel in fitted.kernels}
        kernels = tuple(kernel for kernel in kernels if kernel.name not in names) + tuple(
            KernelModel(
                name=k.name,
                isa=_isa_of(k.name, device),
                parameters={name: stamp.fitted(value, unit, k) for name, (value, unit) in k.parameters.items()},
            )
            for k in fitted.kernels
        )
        if threads > 1:
            factors = (FactorPoint(threads=threads, factor=stamp.measured(fitted.all_threads_factor, "1")),)
    sync = stamp.measured(barrier, "s")
    fork = sync.model_copy(update={"provenance": "derived", "reason": "taken to be as long as a barrier"})
    return Chip(
        schema_version=1,
        name="host",
        description=device.summary(),
        provenance_note=note,
        host=True,
        machine=device.processor,
        memory=Memory(
            bandwidth_bytes_per_s=stamp.measured(dram_all, "B/s"),
            capacity_bytes=stamp.reported(float(device.memory_bytes), "B"),
        ),
        sync=Sync(dispatch_s=stamp.measured(dispatch, "s"), barrier_s=sync, fork_s=fork),
        caches=tuple(_cache(stamp, c, bandwidths[f"L{c.level}"], threads) for c in levels),
        clusters=(
            Cluster(
                name=CLUSTER,
                structure=Evidence(provenance="data_sheet", source="the operating system"),
                core_count=threads,
                core=CoreSpec(
                    name=CLUSTER,
                    isa=device.isa,
                    clock_hz=_clock(stamp, device, peaks[device.isa]["f32"]),
                    flop_per_s=_core_peaks(stamp, device.isa, peaks),
                    load_bytes_per_s=loads,
                    kernels=(*_peak_models(stamp, peaks), *_reference_models(stamp, device.isa, fitted), *kernels),
                ),
                multi_core_factors=factors,
            ),
        ),
    )


def _isa_of(kernel: str, device: Device) -> str:
    """The instruction set of a kernel, by the format that its name ends with."""
    if kernel.endswith("_f32"):
        return device.isa
    return lowp_beside(device.isa).isa if kernel.endswith("_bf16") else blocks_beside(device.isa).isa


def _blocks(stamp: _Stamp, device: Device, number: Number) -> KernelModel:
    kernel = product_kernel(device, number)
    sizes = {"mr": kernel.sizes.mr, "nr": kernel.sizes.nr, "kc": kernel.sizes.kc}
    return KernelModel(
        name=f"gemm_{number.name.lower()}",
        isa=kernel.isa,
        parameters={name: stamp.constant(float(size)) for name, size in sizes.items()},
    )


def _core_peaks(stamp: _Stamp, isa: str, peaks: Peaks) -> dict[DTypeName, Quantity]:
    """What the core gives in each dtype: by the kernels in use, or by the fastest where those have no peak."""
    best: dict[DTypeName, Timing] = {"f32": peaks[isa]["f32"], "f64": peaks[isa]["f64"]}
    for dtype in LOW_PRECISION:
        rates = {name: by_dtype[dtype] for name, by_dtype in peaks.items() if dtype in by_dtype}
        fastest = max(rates.values(), key=lambda t: t.median)
        best[dtype] = rates.get(lowp_beside(isa).isa, fastest)
    return {dtype: stamp.measured(timing, "FLOP/s") for dtype, timing in best.items()}


def _peak_models(stamp: _Stamp, peaks: Peaks) -> tuple[KernelModel, ...]:
    """The multiply-add peaks of every instruction set that runs here, also of those that the kernels do not use."""
    return tuple(
        KernelModel(
            name="fma_peak",
            isa=isa,
            parameters={f"{dtype}_flop_per_s": stamp.measured(t, "FLOP/s") for dtype, t in by_dtype.items()},
        )
        for isa, by_dtype in peaks.items()
    )


def _reference_models(stamp: _Stamp, isa: str, fitted: Coefficients | None) -> tuple[KernelModel, ...]:
    """What the yardstick gave between the runs, by how many threads ran it."""
    if fitted is None:
        return ()
    parameters: dict[str, Quantity] = {}
    for threads, reference in fitted.references.items():
        parameters[f"memory_t{threads}"] = stamp.measured(reference.memory, "B/s")
        parameters[f"product_t{threads}"] = stamp.measured(reference.product, "FLOP/s")
    return (KernelModel(name=REFERENCE_KERNEL, isa=isa, parameters=parameters),)


def _cache(stamp: _Stamp, facts: topology.CacheFacts, bandwidth: Bandwidth, cores: int) -> Cache:
    # What only the hardware threads of one core share is that core's own, and each has its part of it.
    siblings = len(facts.shared_by)
    own = siblings <= topology.threads_per_core() and cores > 1
    return Cache(
        name=f"L{facts.level}",
        scope="core" if own else "chip",
        clusters=(CLUSTER,),
        size_bytes=stamp.reported(facts.size_bytes / siblings if own else float(facts.size_bytes), "B"),
        bandwidth_bytes_per_s=None if own else stamp.measured(bandwidth.all_threads, "B/s"),
    )


def _clock(stamp: _Stamp, device: Device, peak: Timing) -> Quantity:
    lanes = device.kernel_table(device.isa).lanes
    return Quantity(
        value=peak.median / (4 * lanes), unit="Hz", provenance="derived", source=SOURCE,
        reason=f"measured f32 peak over 2 multiply-adds of {lanes} lanes a cycle, which is assumed",
    )  # fmt: skip
