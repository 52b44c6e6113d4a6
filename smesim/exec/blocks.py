"""Weights in GGUF's blocks in memory: quantised from f32, laid out as the kernels read them, and filled from a seed.

A block is 32 neighbouring numbers of a row: integers of 4 or 8 bits, their scale, and of Q4_1 the least number.
Row major, weights lie as in a file, block after block; packed, the kernels' layout (`layout_blocks.h`) has all numbers
of a matrix first and then all scales. Weights from a seed are those of f32, quantised as llama.cpp does: they are drawn
piece by piece and packed at once, so that no f32 copy of them is ever whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from smesim.errors import DeviceError
from smesim.exec.bf16 import drawn
from smesim.exec.device import native
from smesim.exec.lowp_tables import blocks_beside
from smesim.plan.formats import NR, format_of_number
from smesim.plan.program import Number
from smesim.workload.dtypes import BLOCK_ELEMENTS

PIECE_BYTES = 4 << 20
"""Of f32 numbers that a thread draws before it packs them."""
HALF = BLOCK_ELEMENTS // 2
WORD = 4
"""Numbers that lie together in packed weights."""
Q4_ZERO = np.uint8(8)

IN_BLOCKS = (Number.Q8_0, Number.Q4_0, Number.Q4_1)
"""The formats that are blocks."""

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def row_bytes(number: Number, k: int) -> int:
    """Bytes of a row of GGUF's blocks; DeviceError unless k is whole blocks."""
    if k % BLOCK_ELEMENTS:
        name = number.name.lower()
        raise DeviceError(f"weights of {name} with rows of {k}; accepted: multiples of {BLOCK_ELEMENTS}")
    return int(k * number.n_bytes)


def pack_rhs(
    number: Number, rows: Bytes, n: int, k: int, out: Bytes, row: int = 0, isa: str | None = None
) -> None:
    """Bring GGUF's blocks of rows of a matrix [n][k] into the layout of the kernels, whole or from one of its rows on
    that begins a panel.

    `rows` are the bytes as a file has them, `out` those of the whole packed matrix (`rhs_bytes`). Threads may do
    different panels side by side. DeviceError if sizes do not fit.
    """
    stride = row_bytes(number, k)
    count, rest = divmod(rows.size, stride)
    end = row + count
    is_panels = row % NR == 0 and (end == n or (end % NR == 0 and end < n))
    if rest or not is_panels or out.size != format_of_number(number).rhs_bytes(n, k):
        raise DeviceError(
            f"{rows.size} bytes of {number.name.lower()} to pack into {out.size} from row {row} on; accepted for"
            f" {n} x {k}: whole panels of rows of {stride}, and {format_of_number(number).rhs_bytes(n, k)}"
        )
    ffi, _ = native()
    numbers, scales = _parts(number, n, k, out)
    origin = ffi.from_buffer("uint8_t *", np.ascontiguousarray(rows).reshape(-1)) - row * stride
    _leaf("repack_rhs", number, isa)(origin, stride, n, k, row // NR, -(-end // NR), numbers, scales)


def unpack_rhs(number: Number, packed: Bytes, n: int, k: int) -> Floats:
    """Weights [n][k] as f32 from their packed form."""
    integers, scales = _unpacked(number, packed, n, k)
    if number is Number.Q4_0:
        integers = (integers ^ Q4_ZERO) - Q4_ZERO
    return _values(number, integers, scales.view(np.float16).astype(np.float32))[:, :k]


def _unpacked(number: Number, packed: Bytes, n: int, k: int) -> tuple[Bytes, npt.NDArray[np.uint16]]:
    """The bytes or nibbles [n][block][32] of packed weights, and the bits of their scales [n][block][1 or 2]."""
    blocks, panels = -(-k // BLOCK_ELEMENTS), -(-n // NR)
    size = panels * blocks * NR * _SCALES[number] * 2
    words = packed[:-size].reshape(panels, blocks, -1, NR, WORD)
    if number is not Number.Q8_0:
        words = np.stack([words & 0xF, words >> 4], axis=3).reshape(panels, blocks, -1, NR, WORD)
    integers = words.transpose(0, 3, 1, 2, 4).reshape(panels * NR, blocks, BLOCK_ELEMENTS)
    scales = packed[-size:].view(np.uint16).reshape(panels, blocks, -1, NR).transpose(0, 3, 1, 2)
    return integers[:n], np.ascontiguousarray(scales).reshape(panels * NR, blocks, -1)[:n]


def dequantized(number: Number, rows: Bytes, n: int, k: int) -> Floats:
    """Weights [n][k] as f32 from GGUF's blocks."""
    blocks = np.ascontiguousarray(rows).reshape(n, k // BLOCK_ELEMENTS, row_bytes(number, BLOCK_ELEMENTS))
    scale_bytes = 2 * _SCALES[number]
    integers = blocks[..., scale_bytes:]
    if number is not Number.Q8_0:
        integers = np.concatenate([integers & 0xF, integers >> 4], axis=2)
    if number is Number.Q4_0:
        integers = integers - Q4_ZERO
    scales = np.ascontiguousarray(blocks[..., :scale_bytes]).view(np.float16)
    return _values(number, integers, scales.astype(np.float32))


def _values(number: Number, integers: Bytes, scales: Floats) -> Floats:
    """Rows of numbers from integers [n][block][32], where signed as two's complement, and scales [n][block][1 or 2]."""
    values = (integers if number is Number.Q4_1 else integers.view(np.int8)).astype(np.float32) * scales[..., :1]
    if number is Number.Q4_1:
        values += scales[..., 1:]
    return np.asarray(values.reshape(len(values), -1), np.float32)


def quantized(number: Number, values: Floats, isa: str | None = None) -> Bytes:
    """GGUF's blocks [n][bytes of a row] of weights [n][k], rounded as llama.cpp rounds them."""
    n, k = values.shape
    row_bytes(number, k)
    integers, scales = _unpacked(number, packed_floats(number, values, isa), n, k)
    if number is not Number.Q8_0:
        integers = integers ^ Q4_ZERO if number is Number.Q4_0 else integers
        integers = integers[..., :HALF] | integers[..., HALF:] << np.uint8(4)
    return np.concatenate([scales.view(np.uint8), integers], axis=2).reshape(n, -1)


def packed_floats(number: Number, values: Floats, isa: str | None = None) -> Bytes:
    """Weights [n][k] quantised and packed."""
    n, k = values.shape
    out = np.empty(format_of_number(number).rhs_bytes(n, k), np.uint8)
    pack_floats(number, np.ascontiguousarray(values, np.float32), out, isa)
    return out


_SCALES = {Number.Q8_0: 1, Number.Q4_0: 1, Number.Q4_1: 2}
"""f16 numbers of a block, beside its integers."""
_LEAVES = {Number.Q8_0: "q8", Number.Q4_0: "q4", Number.Q4_1: "q4_1"}
_C_TYPES = {Number.Q8_0: "int8_t *", Number.Q4_0: "uint8_t *", Number.Q4_1: "uint8_t *"}


def _leaf(name: str, number: Number, isa: str | None) -> Any:
    _, lib = native()
    table = lib.sms_blocks_best() if isa is None else lib.sms_blocks_find(blocks_beside(isa).isa.encode())
    return getattr(table, f"{name}_{_LEAVES[number]}")


def _parts(number: Number, n: int, k: int, packed: Bytes) -> tuple[Any, Any]:
    """C pointers to the numbers and the scales of packed weights."""
    ffi, lib = native()
    size = (lib.sms_rhs_q8_size if number is Number.Q8_0 else lib.sms_rhs_q4_size)(n, k)
    start = ffi.from_buffer("uint8_t *", packed, require_writable=True)
    return ffi.cast(_C_TYPES[number], start), ffi.cast("uint16_t *", start + size)


def pack_floats(
    number: Number, values: Floats, out: Bytes, isa: str | None, whole: tuple[int, int] | None = None, row: int = 0
) -> None:
    """Quantise rows of weights into packed ones: into a whole matrix [n][k], from one of its rows on that begins a
    panel; by default they are the whole."""
    ffi, _ = native()
    n, k = values.shape if whole is None else whole
    numbers, scales = _parts(number, n, k, out)
    panel0, origin = row // NR, ffi.from_buffer("float *", values) - row * k
    _leaf("pack_rhs", number, isa)(origin, k, n, k, panel0, panel0 - (-len(values) // NR), numbers, scales)


def fill_jobs(
    number: Number, array: Bytes, n: int, k: int, *, packed: bool, isa: str, seed: int, scale: float
) -> Iterator[Callable[[], int]]:
    """Calls that fill weights [n][k] from a seed, each its own rows; they return the bytes that they filled."""
    rows = max(1, PIECE_BYTES // (4 * k * NR)) * NR

    def job(begin: int) -> int:
        piece = drawn(isa, begin, min(begin + rows, n), k, seed, scale)
        if packed:
            pack_floats(number, piece, array, isa, (n, k), begin)
            return format_of_number(number).rhs_bytes(len(piece), k)
        part = array[begin * row_bytes(number, k) :][: len(piece) * row_bytes(number, k)]
        part[:] = quantized(number, piece, isa).ravel()
        return part.size

    return (partial(job, begin) for begin in range(0, n, rows))
