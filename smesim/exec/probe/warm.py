"""What a product costs whose operands are in the core's own caches: a k-step by its height, and a micro-tile.

A micro-tile of height h takes K times the k-step of that height, and a fixed time to load and store its accumulators.
Two depths K tell the two apart: in the samples of whole models they grow together, so that a fit could not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from smesim.exec.allocation import allocate
from smesim.exec.device import Device, native
from smesim.exec.lowp_tables import blocks_beside, table_beside
from smesim.exec.probe.timing import Timing, repeat, seconds_in_turn
from smesim.exec.probe.yardstick import Yardstick
from smesim.plan.program import Number
from smesim.workload.dtypes import BLOCK_ELEMENTS

DEPTHS = (64, 512)
PANELS = 4
"""With the larger depth, 131 kB of weights and as much of the left operand."""
STRIPS = 8
FLOP_A_CALL = 2e7  # a fifth of a millisecond
REPEATS = 25
FEW_REPEATS = 9
"""Of products with weights in blocks, of which there are three kinds: the probe is to be short."""
GEMV_BYTES, GEMV_PANELS = 1 << 18, 8
"""Of a product with one row whose weights stay in a core's own cache. As deep as they let it be: of a shallow one a
good part is what begins and ends a panel, of which products of a model have little."""
QUANTIZED_K = 512
GEMV_ELEMENTS, GEMV_REPEATS = 6_000_000, 25  # some 0.2 ms each time
QUANTIZED_PASSES, QUANTIZED_REPEATS = 200, 7


@dataclass(frozen=True)
class WarmProduct:
    """Times in seconds, when the yardstick on one thread runs at `product_flop_per_s`.

    They are the fastest of all repeats: where a machine is now faster and now slower by a third, as a virtual one is
    whose cores have neighbours, medians of short loops are of either state, and cannot be compared with each other.
    """

    kstep_s: tuple[float, ...]
    """One k-step of a micro-tile of height 0 .. mr."""
    tile_s: float
    product_flop_per_s: float

    def at(self, product_flop_per_s: float) -> WarmProduct:
        """The times when the yardstick runs at that rate."""
        slower = self.product_flop_per_s / product_flop_per_s
        return WarmProduct(tuple(s * slower for s in self.kstep_s), self.tile_s * slower, product_flop_per_s)

    @classmethod
    def measure(cls, device: Device, yardstick: Yardstick, number: Number = Number.F32) -> WarmProduct:
        """With operands of that format, by the kernels of `device`."""
        repeats = FEW_REPEATS if number.lhs is Number.Q8 else REPEATS
        mr = product_kernel(device, number).mr
        calls: list[Callable[[], object]] = []
        tiles: list[int] = []
        for height in range(1, mr + 1):
            for k in DEPTHS:
                call, count = _product(device, height, k, number)
                calls.append(call)
                tiles.append(count)
        product_s: list[float] = []
        calls.append(lambda: product_s.append(yardstick.product_s()))
        *seconds, _ = seconds_in_turn(calls, repeats).min(axis=0).tolist()
        a_tile_s = (np.array(seconds) / np.array(tiles)).reshape(mr, len(DEPTHS))
        kstep_s = _ksteps(a_tile_s)
        tile_s = float(np.maximum(np.median(a_tile_s[:, 0] - DEPTHS[0] * kstep_s), 0.0))
        return cls((0.0, *kstep_s.tolist()), tile_s, yardstick.product_flop / min(product_s))


def _ksteps(a_tile_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Seconds of a k-step by the height of the micro-tile, from those of whole ones, a column for each of `DEPTHS`.

    A shallow product that took no less than a deep one was disturbed; then the steps are given all of the deep one's
    time.
    """
    longer_s = a_tile_s[:, 1] - a_tile_s[:, 0]
    return np.asarray(np.where(longer_s > 0, longer_s / (DEPTHS[1] - DEPTHS[0]), a_tile_s[:, 1] / DEPTHS[1]))


@dataclass(frozen=True)
class ProductKernel:
    """The kernels of a device for products with weights of one format, and their blocks; kc is in k.

    An operand is one or two pointers: numbers, and where they are quantised their scales.
    """

    isa: str
    gemm: Callable[..., None]
    gemv: Callable[..., None]
    mr: int
    nr: int
    kc: int


_BLOCK_LEAVES = {Number.Q8_0: "q8", Number.Q4_0: "q4", Number.Q4_1: "q4_1"}


def product_kernel(device: Device, number: Number) -> ProductKernel:
    """The kernels by which a device's cores multiply with weights of a format."""
    _, lib = native()
    if number is Number.F32:
        table = device.kernel_table(device.isa)
        leaves = lib.sms_kernels_find(table.isa.encode())
        return ProductKernel(table.isa, leaves.gemm, leaves.gemv, table.mr, table.nr, table.kc)
    beside = table_beside(device.isa, number)
    if number is Number.BF16:
        leaves = lib.sms_lowp_find(beside.isa.encode())
        return ProductKernel(beside.isa, leaves.gemm_bf16, leaves.gemv_bf16, beside.mr, beside.nr, beside.kc)
    leaves = lib.sms_blocks_find(beside.isa.encode())
    gemm, gemv = (getattr(leaves, f"{name}_{_BLOCK_LEAVES[number]}") for name in ("gemm", "gemv"))
    return ProductKernel(beside.isa, gemm, gemv, beside.mr, beside.nr, beside.kc)


ONE_F16 = np.full(1, 0x3C00, np.uint16)
_ONES: dict[Number, tuple[tuple[str, npt.NDArray[Any], float], ...]] = {
    Number.F32: (("float *", np.ones(1, np.float32), 1.0),),
    Number.BF16: (("uint16_t *", np.full(1, 0x3F80, np.uint16), 1.0),),
    Number.Q8: (("int8_t *", np.ones(1, np.int8), 1.0), ("float *", np.ones(1, np.float32), 1 / 32)),
    Number.Q8_0: (("int8_t *", np.ones(1, np.int8), 1.0), ("uint16_t *", ONE_F16, 1 / 32)),
    Number.Q4_0: (("uint8_t *", np.full(1, 0x11, np.uint8), 1 / 2), ("uint16_t *", ONE_F16, 1 / 32)),
    Number.Q4_1: (("uint8_t *", np.full(1, 0x11, np.uint8), 1 / 2), ("uint16_t *", ONE_F16, 2 / 32)),
}
"""Ones in each format: by part of an operand its type in C, what fills it, and how much of that a number has."""


def operand(number: Number, elements: int) -> tuple[Any, ...]:
    """C pointers to the parts of an operand of so many ones, which keep them alive."""
    ffi, _ = native()
    pointers = []
    for c_type, one, share in _ONES[number]:
        array = allocate(int(elements * share) * one.itemsize).view(one.dtype)
        array[:] = one
        pointers.append(ffi.from_buffer(c_type, array))
    return tuple(pointers)


def gemv_seconds_per_element(device: Device, number: Number = Number.F32) -> float:
    """Time per weight of a GEMV whose weights are in the core's own cache, the least that was seen, seconds."""
    ffi, _ = native()
    kernels = product_kernel(device, number)
    n = GEMV_PANELS * kernels.nr
    k = int(GEMV_BYTES / (n * number.n_bytes)) // BLOCK_ELEMENTS * BLOCK_ELEMENTS
    passes = max(1, GEMV_ELEMENTS // (n * k))
    x = operand(Number.Q8 if number.lhs is Number.Q8 else Number.F32, k)
    rhs, (y,) = operand(number, n * k), operand(Number.F32, n)

    def multiply() -> None:
        for _ in range(passes):
            kernels.gemv(*x, *rhs, n, k, ffi.NULL, y, 0, GEMV_PANELS)

    return float(seconds_in_turn([multiply], GEMV_REPEATS).min()) / (passes * n * k)


def _product(device: Device, height: int, k: int, number: Number) -> tuple[Callable[[], None], int]:
    """A call that computes micro-tiles of one height, and how many."""
    ffi, _ = native()
    kernels = product_kernel(device, number)
    mr, n = kernels.mr, PANELS * kernels.nr
    # Strips are balanced: only with few of them are all of a height that is below mr.
    strips = max(s for s in range(1, STRIPS + 1) if -(-height * s // mr) == s)
    rows = height * strips
    a, b, (c,) = operand(number.lhs, rows * k), operand(number, n * k), operand(Number.F32, rows * n)
    passes = max(1, int(FLOP_A_CALL / (2 * rows * n * k)))

    def multiply() -> None:
        for _ in range(passes):
            kernels.gemm(*a, rows, k, mr, *b, n, ffi.NULL, c, n, 0, strips, 0, PANELS)

    return multiply, passes * strips * PANELS


def quantize_seconds_per_element(device: Device) -> Timing:
    """Time per number to quantise activations that are in the core's own cache, seconds."""
    _, lib = native()
    table = blocks_beside(device.isa)
    quantize: Any = lib.sms_blocks_find(table.isa.encode()).quantize_lhs_q8
    rows, k = table.mr, QUANTIZED_K
    (x,), out = operand(Number.F32, rows * k), operand(Number.Q8, rows * k)

    def pack() -> None:
        for _ in range(QUANTIZED_PASSES):
            quantize(x, k, rows, k, table.mr, 0, 1, *out)

    return repeat(pack, QUANTIZED_REPEATS).per(QUANTIZED_PASSES * rows * k)
