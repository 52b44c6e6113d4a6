"""bf16 in memory: rounded from f32, laid out as the kernels read it, and filled from a seed.

A bf16 number is the upper half of an f32, rounded to nearest, ties to even. Weights from a seed are those of f32,
rounded: they are drawn piece by piece and packed at once, so that no f32 copy of them is ever whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from smesim.exec.device import native
from smesim.exec.lowp_tables import BF16_GROUP, lowp_beside
from smesim.plan.formats import NR

PIECE_BYTES = 8 << 20
"""Of f32 numbers that a thread draws before it packs them."""

Bits = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float32]


def rounded(values: Floats) -> Bits:
    """The nearest bf16 of each number, as its bits; a NaN stays one."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    nearest = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), bits >> 16 | 0x40, nearest).astype(np.uint16)


def widened(bits: Bits) -> Floats:
    """The same numbers as f32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def packed_rhs(values: Floats) -> Bits:
    """Weights [n][k] as the layout rhs_bf16_n16k2 has them, flat."""
    n, k = values.shape
    full = np.zeros((-(-n // NR) * NR, -(-k // BF16_GROUP) * BF16_GROUP), np.uint16)
    full[:n, :k] = rounded(values)
    return full.reshape(-1, NR, full.shape[1] // BF16_GROUP, BF16_GROUP).transpose(0, 2, 1, 3).ravel()


def unpacked_rhs(flat: Bits, n: int, k: int) -> Floats:
    """Weights [n][k] from their packed form."""
    groups = -(-k // BF16_GROUP)
    panels = flat.reshape(-1, groups, NR, BF16_GROUP).transpose(0, 2, 1, 3)
    return widened(panels.reshape(-1, groups * BF16_GROUP)[:n, :k])


def fill_jobs(
    array: npt.NDArray[np.uint8], n: int, k: int, *, packed: bool, isa: str, seed: int, scale: float
) -> Iterator[Callable[[], int]]:
    """Calls that fill weights [n][k] from a seed, each its own rows; they return the bytes that they filled."""
    rows = max(1, PIECE_BYTES // (4 * k * NR)) * NR
    fill: Callable[[Bits, Floats, int, str], int] = _fill_packed if packed else _fill_rows
    out = array.view(np.uint16)

    def job(begin: int) -> int:
        return fill(out, drawn(isa, begin, min(begin + rows, n), k, seed, scale), begin, isa)

    return (partial(job, begin) for begin in range(0, n, rows))


def drawn(isa: str, begin: int, end: int, k: int, seed: int, scale: float) -> Floats:
    """Rows begin .. end of the f32 weights."""
    ffi, lib = native()
    piece = np.empty((end - begin, k), np.float32)
    origin = ffi.from_buffer("float *", piece, require_writable=True) - begin * k
    lib.sms_kernels_find(isa.encode()).fill_rows(origin, k, k, begin, end, seed, scale)
    return piece


def _fill_packed(out: Bits, piece: Floats, begin: int, isa: str) -> int:
    n, k = piece.shape
    depth = -(-k // BF16_GROUP) * BF16_GROUP
    panels = -(-n // NR)
    part = out[begin * depth : (begin + panels * NR) * depth]
    ffi, lib = native()
    pack: Any = lib.sms_lowp_find(lowp_beside(isa).isa.encode()).pack_rhs_bf16
    pack(ffi.from_buffer("float *", piece), k, n, k, 0, panels, ffi.from_buffer("uint16_t *", part))
    return 2 * len(part)


def _fill_rows(out: Bits, piece: Floats, begin: int, isa: str) -> int:
    """Row major is how a left operand lies whose strips are one row high; of one long row, only the end is padded."""
    n, k = len(piece), int(piece.shape[1])
    line = np.empty(n * k + n * k % BF16_GROUP, np.uint16)
    ffi, lib = native()
    pack: Any = lib.sms_lowp_find(lowp_beside(isa).isa.encode()).pack_lhs_bf16
    pack(ffi.from_buffer("float *", piece), n * k, 1, n * k, 1, 0, 1, ffi.from_buffer("uint16_t *", line))
    out[begin * k : (begin + n) * k] = line[: n * k]
    return 2 * n * k
