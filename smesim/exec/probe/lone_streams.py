"""What a product of one row draws from memory when it reads one panel of weights at a time, beside several.

Panels are read side by side, as many as `GEMV_STREAMS`: each is a stream of its own to the prefetchers of the hardware,
and one stream alone does not keep as many misses in flight as a core can have. A tile of fewer panels reads them one
after the other, and so does the end of every tile whose panels cannot all be read so. Both are timed in turn, so that
what is kept, their ratio, does not drift with the machine.
"""

from __future__ import annotations

from collections.abc import Callable

from smesim.exec.device import Device, native
from smesim.exec.probe.timing import repeat_in_turn
from smesim.exec.probe.warm import operand, product_kernel
from smesim.hwmodel.product_cost import GEMV_STREAMS
from smesim.plan.formats import format_of_number
from smesim.plan.program import Number

STREAMED_BYTES = 128 << 20  # of which a last-level cache keeps little until they are read again
K = 4096
REPEATS = 7


def lone_stream_share(device: Device, number: Number = Number.F32) -> float:
    """What one stream of weights draws from memory, as a share of what several side by side do; at most 1."""
    ffi, _ = native()
    kernels = product_kernel(device, number)
    together = GEMV_STREAMS * kernels.nr
    columns = STREAMED_BYTES // format_of_number(number).rhs_bytes(together, K) * together
    panels = columns // kernels.nr
    x = operand(Number.Q8 if number.lhs is Number.Q8 else Number.F32, K)
    rhs, (y,) = operand(number, columns * K), operand(Number.F32, columns)

    def streaming(side_by_side: int) -> Callable[[], None]:
        def multiply() -> None:
            for panel in range(0, panels, side_by_side):
                kernels.gemv(*x, *rhs, columns, K, ffi.NULL, y, panel, panel + side_by_side)

        return multiply

    lone, several = repeat_in_turn([streaming(1), streaming(GEMV_STREAMS)], REPEATS)
    return min(1.0, several.median / lone.median)
