"""What the machine gives right now: two short loops, on as many threads as the run has.

On a virtual machine this changes while one looks. The host moves the virtual cores, lends their time to others, or
gives the memory's bandwidth away: for seconds or minutes all threads together draw a third more or less from memory,
or compute a tenth slower. So a read loop and a multiply-add loop are run between the repeats of a measurement, in the
probe and in a comparison; the ratio of the two says how far the machine has drifted in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from smesim.exec.device import Device, native
from smesim.exec.probe.loops import at_once, reader
from smesim.exec.probe.timing import Timing, repeat

READ_BYTES = 128 << 20
"""A thread's block: too large for any cache, and read in some 10 ms."""
ITERATIONS = 8_000_000
"""Of the multiply-add loop: some 10 ms, so that it meets its share of interruptions."""


@dataclass(frozen=True)
class Reference:
    """What the loops gave between the runs: bytes/s and FLOP/s of all the threads together."""

    memory: Timing
    arithmetic: Timing


class ReferenceLoops:
    """Takes samples of both loops on `threads` threads."""

    def __init__(self, device: Device, threads: int) -> None:
        _, lib = native()
        kernels = lib.sms_kernels_find(device.isa.encode())
        self._loops: tuple[tuple[Callable[[], object], float], ...] = (
            (at_once([reader(device, READ_BYTES, 1) for _ in range(threads)]), float(READ_BYTES * threads)),
            (
                at_once([partial(kernels.fma_peak, ITERATIONS)] * threads),
                float(ITERATIONS * kernels.fma_flop * threads),
            ),
        )
        self._samples: list[list[float]] = [[], []]

    def sample(self) -> None:
        """Run each loop twice and keep the rate of the second time."""
        for samples, (loop, amount) in zip(self._samples, self._loops, strict=True):
            samples.append(repeat(loop, 1).rate(amount).median)

    def take(self) -> Reference:
        """Medians and spreads of the samples since the last call (at least one must have been taken)."""
        memory, arithmetic = (Timing.of(samples) for samples in self._samples)
        self._samples = [[], []]
        return Reference(memory, arithmetic)


def typical(references: Sequence[Reference]) -> Reference:
    """The median of several references."""
    return Reference(
        Timing.of([r.memory.median for r in references]), Timing.of([r.arithmetic.median for r in references])
    )
