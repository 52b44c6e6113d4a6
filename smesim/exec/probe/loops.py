"""Peaks and bandwidths: short loops in C, one thread or all of them at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, takewhile

from smesim.exec.allocation import allocate
from smesim.exec.device import Device, native
from smesim.exec.probe.timing import Timing, repeat

REPEATS = 7
FMA_ITERATIONS = 2_000_000
READ_AT_LEAST_BYTES = 64 << 20  # long enough for the clock, also where the working set is small
DRAM_BYTES = 256 << 20


@dataclass(frozen=True)
class Bandwidth:
    """Bytes per second that one thread and all threads together read from a working set of so many bytes a thread."""

    working_set_bytes: int
    one_thread: Timing
    all_threads: Timing


def at_once(calls: Sequence[Callable[[], object]], cores: Sequence[int]) -> Callable[[], None]:
    """A call that runs all the given ones at the same time, a thread each, and returns when all have ended.

    Each thread stays on its own one of `cores`, as the workers of a run do: left alone, the system may start two on
    one core and take milliseconds to part them.
    """

    def on_its_core(call: Callable[[], object], core: int) -> None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {core})  # of this thread
        call()

    def run() -> None:
        threads = [
            threading.Thread(target=on_its_core, args=pair) for pair in zip(calls, cores[: len(calls)], strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


def peak_flop_per_s(device: Device) -> dict[str, dict[str, Timing]]:
    """Multiply-add peaks of one core by instruction set and dtype, FLOP/s; a multiply-add of integers is 2 too.

    "f32" and "f64" of the instruction sets of the f32 kernels, "bf16" and "s8" of those of the kernels of low
    precision: some names are in both.
    """
    _, lib = native()
    peaks: dict[str, dict[str, Timing]] = {}
    for table in device.kernels:
        if table.supported and not table.test_only:
            kernels = lib.sms_kernels_find(table.isa.encode())
            peaks[table.isa] = {
                "f32": _peak(kernels.fma_peak, kernels.fma_flop),
                "f64": _peak(kernels.fma_peak_f64, kernels.fma_flop_f64),
            }
    for isa in lowp_isas():
        kernels = lib.sms_lowp_find(isa.encode())
        peaks.setdefault(isa, {}).update(
            bf16=_peak(kernels.bf16_peak, kernels.bf16_peak_flop), s8=_peak(kernels.s8_peak, kernels.s8_peak_op)
        )
    return peaks


def _peak(loop: Callable[[int], object], flop_per_iteration: int) -> Timing:
    """FLOP/s of a loop of the kernels."""
    return repeat(partial(loop, FMA_ITERATIONS), REPEATS).rate(FMA_ITERATIONS * flop_per_iteration)


def lowp_isas() -> tuple[str, ...]:
    """Instruction sets of the kernels of low precision that run here, the fastest first."""
    ffi, lib = native()
    tables = takewhile(lambda table: table != ffi.NULL, (lib.sms_lowp_at(index) for index in count()))
    return tuple(
        ffi.string(table.isa).decode() for table in tables if lib.sms_lowp_supported(table) and not table.test_only
    )


def reader(device: Device, n_bytes: int, passes: int) -> Callable[[], None]:
    """A call that reads a block of its own `passes` times."""
    ffi, lib = native()
    kernels = lib.sms_kernels_find(device.isa.encode())
    block = allocate(n_bytes)
    block[:] = 1
    pointer = ffi.from_buffer("float *", block)

    def read() -> None:
        kernels.read_bandwidth(pointer, n_bytes // 4, passes)

    return read


def read_bandwidth(device: Device, working_set_bytes: int, threads: int) -> Bandwidth:
    """Read bandwidth of a working set of that many bytes a thread, over and over until the clock can see it."""
    passes = max(1, READ_AT_LEAST_BYTES // working_set_bytes)
    readers = [reader(device, working_set_bytes, passes) for _ in range(threads)]
    amount = float(passes * working_set_bytes)
    return Bandwidth(
        working_set_bytes,
        repeat(readers[0], REPEATS).rate(amount),
        repeat(at_once(readers, device.cores), REPEATS).rate(amount * len(readers)),
    )
