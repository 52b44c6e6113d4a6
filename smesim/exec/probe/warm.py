"""What a product costs whose operands are in the core's own caches: a k-step by its height, and a micro-tile.

A micro-tile of height h takes K times the k-step of that height, and a fixed time to load and store its accumulators.
Two depths K tell the two apart: in the samples of whole models they grow together, so that a fit could not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from smesim.exec.device import Device, native
from smesim.exec.probe.timing import repeat_in_turn
from smesim.exec.probe.yardstick import Yardstick
from smesim.exec.tensors import allocate

DEPTHS = (64, 512)
PANELS = 4
"""With the larger depth, 131 kB of weights and as much of the left operand."""
STRIPS = 8
FLOP_A_CALL = 2e7  # a fifth of a millisecond
REPEATS = 25


@dataclass(frozen=True)
class WarmProduct:
    """Times in seconds, taken while the yardstick on one thread ran at `product_flop_per_s`."""

    kstep_s: tuple[float, ...]
    """One k-step of a micro-tile of height 0 .. mr."""
    tile_s: float
    product_flop_per_s: float

    def at(self, product_flop_per_s: float) -> WarmProduct:
        """The times when the yardstick runs at that rate."""
        slower = self.product_flop_per_s / product_flop_per_s
        return WarmProduct(tuple(s * slower for s in self.kstep_s), self.tile_s * slower, product_flop_per_s)

    @classmethod
    def measure(cls, device: Device, yardstick: Yardstick) -> WarmProduct:
        _, lib = native()
        mr = int(lib.sms_kernels_find(device.isa.encode()).mr)
        calls: list[Callable[[], object]] = []
        tiles: list[int] = []
        for height in range(1, mr + 1):
            for k in DEPTHS:
                call, count = _product(device, height, k)
                calls.append(call)
                tiles.append(count)
        product_s: list[float] = []
        calls.append(lambda: product_s.append(yardstick.product_s()))
        *seconds, _ = (timing.median for timing in repeat_in_turn(calls, REPEATS))
        a_tile_s = (np.array(seconds) / np.array(tiles)).reshape(mr, len(DEPTHS))
        kstep_s = (a_tile_s[:, 1] - a_tile_s[:, 0]) / (DEPTHS[1] - DEPTHS[0])
        tile_s = float(np.maximum(np.median(a_tile_s[:, 0] - DEPTHS[0] * kstep_s), 0.0))
        return cls((0.0, *kstep_s.tolist()), tile_s, yardstick.product_flop / float(np.median(product_s)))


def _product(device: Device, height: int, k: int) -> tuple[Callable[[], None], int]:
    """A call that computes micro-tiles of one height, and how many."""
    ffi, lib = native()
    kernels = lib.sms_kernels_find(device.isa.encode())
    mr, n = int(kernels.mr), PANELS * int(kernels.nr)
    # Strips are balanced: only with few of them are all of a height that is below mr.
    strips = max(s for s in range(1, STRIPS + 1) if -(-height * s // mr) == s)
    rows = height * strips
    lhs, rhs, out = (allocate(4 * count).view(np.float32) for count in (rows * k, n * k, rows * n))
    lhs[:], rhs[:] = 0.25, 0.5
    a, b, c = (ffi.from_buffer("float *", array) for array in (lhs, rhs, out))
    passes = max(1, int(FLOP_A_CALL / (2 * rows * n * k)))

    def multiply() -> None:
        for _ in range(passes):
            kernels.gemm(a, rows, k, mr, b, n, ffi.NULL, c, n, 0, strips, 0, PANELS)

    return multiply, passes * strips * PANELS
