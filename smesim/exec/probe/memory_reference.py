"""What the memory gives right now: a short read loop on as many threads as the run has.

On a virtual machine this changes while one looks: the host moves the virtual cores, or gives the bandwidth to others,
and for ten seconds or a minute all threads together draw a third more or less, while arithmetic runs as before. So
the loop is run between the repeats of a measurement, in the probe and in a comparison; the ratio of the two says how
far the memory has drifted in between.
"""

from __future__ import annotations

import numpy as np

from smesim.exec.device import Device
from smesim.exec.probe.loops import at_once, reader
from smesim.exec.probe.timing import Timing, repeat

REFERENCE_BYTES = 128 << 20
"""A thread's block: too large for any cache, and read in some 10 ms."""


class MemoryReference:
    """Takes samples of the read bandwidth of `threads` threads together, bytes/s."""

    def __init__(self, device: Device, threads: int) -> None:
        self._read = at_once([reader(device, REFERENCE_BYTES, 1) for _ in range(threads)])
        self._amount = float(REFERENCE_BYTES * threads)
        self._samples: list[float] = []

    def sample(self) -> None:
        """Read everything twice and keep the rate of the second time."""
        self._samples.append(repeat(self._read, 1).rate(self._amount).median)

    def take(self) -> Timing:
        """Median and spread of the samples since the last call (at least one must have been taken)."""
        taken, self._samples = self._samples, []
        return Timing.of(np.asarray(taken).tolist())
