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
from smesim.exec.device import Device, KernelTable, native
from smesim.exec.lowp_tables import LowpTable, blocks_beside, table_beside
from smesim.exec.probe.timing import Timing, repeat_in_turn, seconds_in_turn
from smesim.exec.probe.yardstick import Yardstick
from smesim.plan.program import Number
from smesim.workload.dtypes import BLOCK_ELEMENTS

SHALLOW, DEEP = 64, 512
"""Depths, the larger one no more than a block of the kernel's: each block loads and stores the accumulators."""
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
class BlockSizes:
    """Rows and columns of a kernel's micro-tiles, the depth of a block in k, and panels that it takes together."""

    mr: int
    nr: int
    kc: int
    panels: int


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
    lone_panel: float = 1.0
    """What a k-step takes of a panel that a kernel for several has by itself, over what it takes beside others."""

    def at(self, product_flop_per_s: float) -> WarmProduct:
        """The times when the yardstick runs at that rate."""
        slower = self.product_flop_per_s / product_flop_per_s
        kstep_s = tuple(s * slower for s in self.kstep_s)
        return WarmProduct(kstep_s, self.tile_s * slower, product_flop_per_s, self.lone_panel)

    @classmethod
    def measure(cls, device: Device, yardstick: Yardstick, number: Number = Number.F32) -> WarmProduct:
        """With operands of that format, by the kernels of `device`."""
        repeats = FEW_REPEATS if number.lhs is Number.Q8 else REPEATS
        kernels = product_kernel(device, number)
        mr = kernels.sizes.mr
        depths = (SHALLOW, min(DEEP, kernels.sizes.kc))
        shapes = [(height, k, PANELS) for height in range(1, mr + 1) for k in depths]
        shapes += [(mr, k, 1) for k in depths]
        loops = [_product(device, *shape, number) for shape in shapes]
        product_s: list[float] = []
        calls = [loop.run for loop in loops] + [loops[0].run_empty, lambda: product_s.append(yardstick.product_s())]
        *seconds, empty_s, _ = seconds_in_turn(calls, repeats).min(axis=0).tolist()
        for_nothing_s = empty_s / loops[0].passes
        each_s = [(s / loop.passes - for_nothing_s) / loop.amount for s, loop in zip(seconds, loops, strict=True)]
        a_tile_s = np.array(each_s).reshape(mr + 1, len(depths))
        *each_s, alone_s = _ksteps(a_tile_s, depths).tolist()
        # A lower micro-tile does not take longer than a higher one; where it seems to, its operands lay badly.
        kstep_s = np.minimum.accumulate(each_s[::-1])[::-1].tolist()
        lone_panel = max(1.0, alone_s / kstep_s[-1]) if kernels.sizes.panels > 1 else 1.0
        tile_s = float(np.maximum(np.median(a_tile_s[:-1, 0] - SHALLOW * np.array(kstep_s)), 0.0))
        return cls((0.0, *kstep_s), tile_s, yardstick.product_flop / min(product_s), lone_panel)


def _ksteps(a_tile_s: npt.NDArray[np.float64], depths: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Seconds of a k-step by the height of the micro-tile, from those of whole ones, a column for each of two `depths`.

    A shallow product that took no less than a deep one was disturbed; then the steps are given all of the deep one's
    time.
    """
    longer_s = a_tile_s[:, 1] - a_tile_s[:, 0]
    return np.asarray(np.where(longer_s > 0, longer_s / (depths[1] - depths[0]), a_tile_s[:, 1] / depths[1]))


@dataclass(frozen=True)
class ProductKernel:
    """The kernels of a device for products with weights of one format, and their blocks; kc is in k.

    An operand is one or two pointers: numbers, and where they are quantised their scales.
    """

    isa: str
    gemm: Callable[..., None]
    gemv: Callable[..., None]
    sizes: BlockSizes


_BLOCK_LEAVES = {Number.Q8_0: "q8", Number.Q4_0: "q4", Number.Q4_1: "q4_1"}


def product_kernel(device: Device, number: Number) -> ProductKernel:
    """The kernels by which a device's cores multiply with weights of a format."""
    _, lib = native()
    if number is Number.F32:
        table = device.kernel_table(device.isa)
        leaves = lib.sms_kernels_find(table.isa.encode())
        return ProductKernel(table.isa, leaves.gemm, leaves.gemv, _sizes(table, leaves))
    beside = table_beside(device.isa, number)
    if number is Number.BF16:
        leaves = lib.sms_lowp_find(beside.isa.encode())
        return ProductKernel(beside.isa, leaves.gemm_bf16, leaves.gemv_bf16, _sizes(beside, leaves))
    leaves = lib.sms_blocks_find(beside.isa.encode())
    gemm, gemv = (getattr(leaves, f"{name}_{_BLOCK_LEAVES[number]}") for name in ("gemm", "gemv"))
    return ProductKernel(beside.isa, gemm, gemv, _sizes(beside, leaves))


def _sizes(table: KernelTable | LowpTable, leaves: Any) -> BlockSizes:
    return BlockSizes(table.mr, table.nr, table.kc, int(leaves.panels))


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


@dataclass(frozen=True)
class Loop:
    """A kernel called `passes` times with `work` of so great an `amount`, or with nothing to do: a call from here takes
    as long as some thousand multiply-adds."""

    kernel: Callable[..., None]
    passes: int
    work: tuple[Any, ...]
    nothing: tuple[Any, ...]
    amount: int

    def run(self) -> None:
        kernel, work = self.kernel, self.work
        for _ in range(self.passes):
            kernel(*work)

    def run_empty(self) -> None:
        kernel, nothing = self.kernel, self.nothing
        for _ in range(self.passes):
            kernel(*nothing)


def gemv_seconds_per_element(device: Device, number: Number = Number.F32) -> float:
    """Time per weight of a GEMV whose weights are in the core's own cache, the least that was seen, seconds."""
    ffi, _ = native()
    kernels = product_kernel(device, number)
    n = GEMV_PANELS * kernels.sizes.nr
    k = int(GEMV_BYTES / (n * number.n_bytes)) // BLOCK_ELEMENTS * BLOCK_ELEMENTS
    x = operand(Number.Q8 if number.lhs is Number.Q8 else Number.F32, k)
    rhs, (y,) = operand(number, n * k), operand(Number.F32, n)
    given = (*x, *rhs, n, k, ffi.NULL, y, 0)
    loop = Loop(kernels.gemv, max(1, GEMV_ELEMENTS // (n * k)), (*given, GEMV_PANELS), (*given, 0), n * k)
    whole_s, empty_s = seconds_in_turn([loop.run, loop.run_empty], GEMV_REPEATS).min(axis=0).tolist()
    return float(whole_s - empty_s) / (loop.passes * loop.amount)


def _product(device: Device, height: int, k: int, panels: int, number: Number) -> Loop:
    """What computes micro-tiles of one height; the amount is how many."""
    ffi, _ = native()
    kernels = product_kernel(device, number)
    mr, n = kernels.sizes.mr, panels * kernels.sizes.nr
    # Strips are balanced: only with few of them are all of a height that is below mr.
    strips = max(s for s in range(1, STRIPS + 1) if -(-height * s // mr) == s)
    rows = height * strips
    a, b, (c,) = operand(number.lhs, rows * k), operand(number, n * k), operand(Number.F32, rows * n)
    passes = max(1, int(FLOP_A_CALL / (2 * rows * n * k)))
    given = (*a, rows, k, mr, *b, n, ffi.NULL, c, n)
    return Loop(kernels.gemm, passes, (*given, 0, strips, 0, panels), (*given, 0, 0, 0, 0), strips * panels)


def quantize_seconds_per_element(device: Device) -> Timing:
    """Time per number to quantise activations that are in the core's own cache, seconds."""
    _, lib = native()
    table = blocks_beside(device.isa)
    quantize: Any = lib.sms_blocks_find(table.isa.encode()).quantize_lhs_q8
    rows, k = table.mr, QUANTIZED_K
    (x,), out = operand(Number.F32, rows * k), operand(Number.Q8, rows * k)
    given = (x, k, rows, k, table.mr)
    loop = Loop(quantize, QUANTIZED_PASSES, (*given, 0, 1, *out), (*given, 0, 0, *out), rows * k)
    whole, empty = repeat_in_turn([loop.run, loop.run_empty], QUANTIZED_REPEATS)
    return Timing(whole.median - empty.median, whole.spread, whole.repeats).per(loop.passes * loop.amount)
