"""What the kernels of low precision are checked against, in numpy: the layouts, the roundings and the products again.

bf16 and f16 numbers are held as their 16 bits. Nothing here knows how a kernel rounds or in what order it sums.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from kernel_reference import EPSILON, F32, F64, NR, ffi, isa_of, lib, listed, shifted, strip_rows
from numpy.random import Generator
from numpy.typing import NDArray

U16 = NDArray[np.uint16]
S8 = NDArray[np.int8]

GUARD = 64

POINTERS = {
    np.dtype(np.float32): "float *",
    np.dtype(np.uint16): "uint16_t *",
    np.dtype(np.int8): "int8_t *",
    np.dtype(np.uint8): "uint8_t *",
}


def tables() -> list[Any]:
    """All compiled-in tables of low precision."""
    return listed(lib.sms_lowp_at)


def runnable() -> list[str]:
    """The instruction sets whose kernels this machine can run, those only for tests included."""
    return [isa_of(table) for table in tables() if lib.sms_lowp_supported(table)]


def find(isa: str) -> Any:
    return lib.sms_lowp_find(isa.encode())


def pointer(array: NDArray[Any] | None) -> Any:
    """A C pointer to the first element; the caller keeps the array alive."""
    return ffi.NULL if array is None else ffi.cast(POINTERS[array.dtype], array.ctypes.data)


def round_to_bf16(x: F32) -> U16:
    """The nearest bf16 of each number, of two equally near ones the even one; NaNs become the quiet ones they were."""
    low = (np.ascontiguousarray(x).view(np.uint32) >> 16).astype(np.uint16)
    finite = np.where(np.isfinite(x), low, 0).astype(np.uint16)
    size = np.abs(np.where(np.isfinite(x), x, 0.0).astype(np.float64))
    # From one bf16 to the next; beyond the largest too, where 2^128 counts as infinity. frexp has 1 = 0.5 * 2^1.
    step = np.exp2(np.maximum(np.frexp(size)[1] - 1, -126) - 7.0)
    to_low = size - np.abs(widen_bf16(finite).astype(np.float64))
    nearest = np.where((to_low > step / 2) | ((to_low == step / 2) & (low % 2 == 1)), low + 1, low)
    return np.where(np.isnan(x), low | 0x40, np.where(np.isinf(x), low, nearest)).astype(np.uint16)


def round_to_f16(x: F32) -> U16:
    """As numpy rounds to float16; NaNs keep their sign and upper bits and become quiet."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    quiet = (bits >> 16 & 0x8000) | 0x7E00 | (bits >> 13 & 0x3FF)
    with np.errstate(over="ignore"):
        nearest = np.where(np.isnan(x), 0, x).astype(np.float16).view(np.uint16)
    return np.where(np.isnan(x), quiet, nearest).astype(np.uint16)


def widen_bf16(numbers: U16) -> F32:
    return (numbers.astype(np.uint32) << 16).view(np.float32)


def widen_f16(numbers: U16) -> F32:
    return numbers.view(np.float16).astype(np.float32)


def draw_bf16(rng: Generator, *shape: int) -> U16:
    """Of sizes from 2^-12 to 2^12."""
    bits = rng.integers(0, 2**16, shape, np.uint16)
    return (bits & 0x807F) | ((bits >> 7 & 0xFF) % 25 + 115) << 7


def draw_f16(rng: Generator, *shape: int) -> U16:
    """Of all sizes, denormals too, that are finite."""
    bits = rng.integers(0, 2**16, shape, np.uint16)
    return np.where(np.isfinite(bits.view(np.float16)), bits, bits & 0x8FFF)


def draw_s8(rng: Generator, *shape: int) -> S8:
    return rng.integers(-127, 128, shape, np.int8)


@dataclass(frozen=True)
class Number:
    """A format of low precision: how many k fill a word, what some numbers are, and what numbers stand for."""

    name: str
    group: int
    draw: Callable[..., NDArray[Any]]
    widen: Callable[[NDArray[Any]], F32]

    def leaf(self, isa: str, operation: str) -> Any:
        return getattr(find(isa), f"{operation}_{self.name}")

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Float(Number):
    """One that f32 are rounded to; with the smallest that is not zero."""

    round: Callable[[F32], U16]
    smallest: float


BF16 = Float("bf16", 2, draw_bf16, widen_bf16, round_to_bf16, 2.0**-133)
F16 = Float("f16", 2, draw_f16, widen_f16, round_to_f16, 2.0**-24)
S8_NUMBER = Number("s8", 4, draw_s8, lambda numbers: numbers.astype(np.float32))
FLOATS = (BF16, F16)
NUMBERS = (*FLOATS, S8_NUMBER)


def quantize(x: F32) -> tuple[S8, F32]:
    """int8 numbers and the scale of each row."""
    largest = np.abs(x).max(axis=1, initial=0.0).astype(np.float32)
    finite = np.isfinite(largest)
    scales = np.where(finite, largest, np.float32(np.nan)) / np.float32(127)
    usable = (scales > 0)[:, None]
    ratios = np.divide(x, scales[:, None], out=np.zeros(x.shape, np.float32), where=usable)
    return np.clip(np.rint(ratios), -127, 127).astype(np.int8), scales


def grouped(x: NDArray[Any], group: int) -> NDArray[Any]:
    """Padded with zeros to whole groups of k: [rows][groups][group]."""
    rows, k = x.shape
    padded = np.zeros((rows, -(-k // group) * group), x.dtype)
    padded[:, :k] = x
    return padded.reshape(rows, -1, group)


def pack_lhs(x: NDArray[Any], mr: int, group: int) -> NDArray[Any]:
    words = grouped(x, group)
    parts = [words[begin:end].transpose(1, 0, 2).ravel() for begin, end in strip_rows(x.shape[0], mr)]
    return np.concatenate(parts) if parts else np.empty(0, x.dtype)


def unpack_lhs(packed: NDArray[Any], m: int, k: int, mr: int, group: int) -> NDArray[Any]:
    """[m][k] of what `pack_lhs` packs."""
    out = np.empty(m * k, packed.dtype)
    out[pack_lhs(np.arange(m * k).reshape(m, k), mr, group)] = packed
    return out.reshape(m, k)


def pack_rhs(w: NDArray[Any], group: int) -> NDArray[Any]:
    n = w.shape[0]
    whole = np.zeros((-(-n // NR) * NR, w.shape[1]), w.dtype)
    whole[:n] = w
    words = grouped(whole, group)
    panels = words.reshape(len(words) // NR, NR, *words.shape[1:])
    return np.ascontiguousarray(panels.transpose(0, 2, 1, 3)).ravel()


def numbers(rng: np.random.Generator, *shape: int) -> F32:
    """Numbers of many sizes."""
    return (rng.standard_normal(shape) * np.exp(rng.normal(0, 4, shape))).astype(np.float32)


def spread(matrix: F32, gap: int) -> F32:
    """The same matrix in rows that lie further apart, with NaN between."""
    wide = np.full((matrix.shape[0], matrix.shape[1] + gap), np.nan, np.float32)
    wide[:, : matrix.shape[1]] = matrix
    return wide


class Amid:
    """A packed operand to be written, with known bytes before and behind it."""

    def __init__(self, size: int, dtype: type[np.generic]) -> None:
        self.memory = np.full(size + 2 * GUARD, 77, dtype)
        self.view = self.memory[GUARD : GUARD + size]

    def check(self, expected: NDArray[Any], written: slice) -> None:
        """What was written is right, and nothing else was."""
        np.testing.assert_array_equal(self.view[written], expected[written])
        kept = np.ones(self.memory.shape, bool)
        kept[GUARD : GUARD + self.view.size][written] = False
        assert np.all(self.memory[kept] == 77)


def bounds_of(m: int, mr: int) -> list[int]:
    """First rows of the strips, and behind the last one."""
    return [first for first, _ in strip_rows(m, mr)] + [m]


def at_offset(packed: NDArray[Any], words: int) -> NDArray[Any]:
    """A copy that begins so many words behind a cache line, and ends where its memory ends."""
    return shifted(packed.view(np.float32), words).view(packed.dtype)


@dataclass
class Product:
    """x * w^T + bias of numbers of low precision, those of int8 with the scales of their rows.

    For GEMV x may be f32. Packed operands begin `offset` words behind a cache line.
    """

    number: Number
    x: NDArray[Any]
    w: NDArray[Any]
    bias: F32 | None = None
    x_scale: F32 | None = None
    w_scale: F32 | None = None
    offset: int = 0

    def packed_lhs(self, mr: int) -> NDArray[Any]:
        return at_offset(pack_lhs(self.x, mr, self.number.group), self.offset)

    def packed_rhs(self) -> NDArray[Any]:
        return at_offset(pack_rhs(self.w, self.number.group), self.offset)

    def gemm(self, isa: str, mr: int, out: F32, ldc: int, *tiles: tuple[int, int, int, int]) -> None:
        """The tiles of each range of strips and of panels, into out."""
        lhs, rhs, leaf = self.packed_lhs(mr), self.packed_rhs(), self.number.leaf(isa, "gemm")
        left, right = [pointer(lhs)], [pointer(rhs)]
        if self.x_scale is not None:
            left, right = [*left, pointer(self.x_scale)], [*right, pointer(self.w_scale)]
        for ranges in tiles:
            leaf(*left, *self.x.shape, mr, *right, len(self.w), pointer(self.bias), pointer(out), ldc, *ranges)

    def gemv(self, isa: str, out: F32, panel0: int, panel1: int) -> None:
        """The product with the one row of x."""
        x, rhs, leaf = self.x.ravel(), self.packed_rhs(), self.number.leaf(isa, "gemv")
        left, right = [pointer(x)], [pointer(rhs)]
        if self.x_scale is not None:
            x = self.packed_lhs(1)
            left, right = [pointer(x), self.x_scale[0]], [*right, pointer(self.w_scale)]
        leaf(*left, *right, *self.w.shape, pointer(self.bias), pointer(out), panel0, panel1)

    def expected(self) -> tuple[F64, F64]:
        """The product, and how far from it a kernel may be: as far as sums in f32 go, of int8 not at all."""
        x = self.x if self.x.dtype == np.float32 else self.number.widen(self.x)
        x, w = x.astype(np.float64), self.number.widen(self.w).astype(np.float64)
        exact = x @ w.T
        if self.x_scale is not None:
            exact = scaled(exact, self.x_scale, self.w_scale, self.bias).astype(np.float64)
            return exact, np.zeros(exact.shape)
        size = np.abs(x) @ np.abs(w).T
        if self.bias is not None:
            exact += self.bias
            size += np.abs(self.bias)
        return exact, 8 * np.sqrt(x.shape[1] + 1) * EPSILON * size


def scaled(sums: F64, row_scale: F32, column_scale: F32, bias: F32 | None) -> F32:
    """fma((float)sum, row_scale * column_scale, bias), bit for bit; the sums are whole numbers."""
    scale = (row_scale[:, None] * column_scale).astype(np.float64)
    product = sums.astype(np.float32).astype(np.float64) * scale  # 48 bits: exact
    return product.astype(np.float32) if bias is None else rounded_once(product, bias.astype(np.float64))


def rounded_once(a: F64, b: F64) -> F32:
    """The f32 nearest to a + b: the f64 sum is made odd where it is not exact, so that rounding it again is right."""
    total = a + b
    part = total - a
    error = (a - (total - part)) + (b - part)
    even = total.view(np.int64) % 2 == 0
    total = np.where((error != 0) & even, np.nextafter(total, np.copysign(np.inf, error)), total)
    return total.astype(np.float32)
