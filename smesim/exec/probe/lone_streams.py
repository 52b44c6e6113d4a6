"""What products draw from memory whose kernels read few panels of weights at a time, beside one that reads several.

Each panel is a stream of its own to the prefetchers of the hardware, and few streams do not keep as many misses in
flight as a core can have. A product of one row reads as many panels side by side as `GEMV_STREAMS`; a tile of fewer
reads them one after the other, and so does the end of every tile whose panels cannot all be read so. A product of
several rows reads the one or two panels of its micro-kernel. All are timed in turn, so that what is kept, their ratio,
does not drift with the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from smesim.exec.device import Device, native
from smesim.exec.probe.timing import repeat_in_turn
from smesim.exec.probe.warm import operand, product_kernel
from smesim.hwmodel.product_cost import GEMV_STREAMS
from smesim.plan.formats import format_of_number
from smesim.plan.program import Number

STREAMED_BYTES = 128 << 20  # of which a last-level cache keeps little until they are read again
K = 4096
ROWS = 2  # so few that their arithmetic takes no time beside that
REPEATS = 7


class StreamShares(NamedTuple):
    """What one stream alone, and a product of few rows, draw of what several streams draw from memory; at most 1."""

    lone: float
    product: float


def stream_shares(device: Device, number: Number = Number.F32) -> StreamShares:
    """Both for products with weights of a format."""
    ffi, _ = native()
    kernels = product_kernel(device, number)
    together = GEMV_STREAMS * kernels.sizes.nr
    columns = STREAMED_BYTES // format_of_number(number).rhs_bytes(together, K) * together
    panels, mr = columns // kernels.sizes.nr, kernels.sizes.mr
    rows, lhs = operand(number.lhs, ROWS * K), Number.Q8 if number.lhs is Number.Q8 else Number.F32
    x, rhs, (y,) = operand(lhs, K), operand(number, columns * K), operand(Number.F32, ROWS * columns)

    def streaming(side_by_side: int) -> Callable[[], None]:
        def multiply() -> None:
            for panel in range(0, panels, side_by_side):
                kernels.gemv(*x, *rhs, columns, K, ffi.NULL, y, panel, panel + side_by_side)

        return multiply

    def multiply_rows() -> None:
        kernels.gemm(*rows, ROWS, K, mr, *rhs, columns, ffi.NULL, y, columns, 0, 1, 0, panels)

    lone, several, of_rows = repeat_in_turn([streaming(1), streaming(GEMV_STREAMS), multiply_rows], REPEATS)
    return StreamShares(min(1.0, several.median / lone.median), min(1.0, several.median / of_rows.median))
