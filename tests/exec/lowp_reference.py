"""What the kernels of low precision are checked against, in numpy: the layouts, the roundings and the products again.

bf16 numbers are held as their 16 bits. Nothing here knows how a kernel rounds or in what order it sums.
"""

from typing import Any

import numpy as np
from kernel_reference import EPSILON, F32, F64, NR, ffi, isa_of, lib, listed, strip_rows
from numpy.typing import NDArray

BF16_GROUP, S8_GROUP = 2, 4

U16 = NDArray[np.uint16]
S8 = NDArray[np.int8]

POINTERS = {np.dtype(np.float32): "float *", np.dtype(np.uint16): "uint16_t *", np.dtype(np.int8): "int8_t *"}


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


def bf16(x: F32) -> U16:
    """The nearest bf16 of each number, of two equally near ones the even one; NaNs become the quiet ones they were."""
    low = (np.ascontiguousarray(x).view(np.uint32) >> 16).astype(np.uint16)
    finite = np.where(np.isfinite(x), low, 0).astype(np.uint16)
    size = np.abs(np.where(np.isfinite(x), x, 0.0).astype(np.float64))
    # From one bf16 to the next; beyond the largest too, where 2^128 counts as infinity. frexp has 1 = 0.5 * 2^1.
    step = np.exp2(np.maximum(np.frexp(size)[1] - 1, -126) - 7.0)
    to_low = size - np.abs(widen(finite).astype(np.float64))
    nearest = np.where((to_low > step / 2) | ((to_low == step / 2) & (low % 2 == 1)), low + 1, low)
    return np.where(np.isnan(x), low | 0x40, np.where(np.isinf(x), low, nearest)).astype(np.uint16)


def widen(numbers: U16) -> F32:
    return (numbers.astype(np.uint32) << 16).view(np.float32)


def quantize(x: F32) -> tuple[S8, F32]:
    """int8 numbers and the scale of each row."""
    scales = np.abs(x).max(axis=1, initial=0.0).astype(np.float32) / np.float32(127)
    finite = np.isfinite(x).all(axis=1)
    numbers = np.zeros(x.shape, np.int8)
    for row in np.flatnonzero(finite & (scales > 0)):
        numbers[row] = np.clip(np.rint(x[row] / scales[row]), -127, 127).astype(np.int8)
    return numbers, np.where(finite, scales, np.float32(np.nan)).astype(np.float32)


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


def pack_rhs(w: NDArray[Any], group: int) -> NDArray[Any]:
    n = w.shape[0]
    whole = np.zeros((-(-n // NR) * NR, w.shape[1]), w.dtype)
    whole[:n] = w
    words = grouped(whole, group)
    panels = words.reshape(len(words) // NR, NR, *words.shape[1:])
    return np.ascontiguousarray(panels.transpose(0, 2, 1, 3)).ravel()


def bf16_product(x: F32, w: F32, bias: F32 | None) -> tuple[F64, F64]:
    """x * w^T + bias of numbers that are bf16, and how far from it a kernel that sums in f32 may be."""
    exact = x.astype(np.float64) @ w.astype(np.float64).T
    size = np.abs(x).astype(np.float64) @ np.abs(w).astype(np.float64).T
    if bias is not None:
        exact += bias
        size += np.abs(bias)
    return exact, 8 * np.sqrt(x.shape[1] + 1) * EPSILON * size


def s8_product(x: S8, row_scale: F32, w: S8, column_scale: F32, bias: F32 | None) -> F32:
    """fma((float)sum, row_scale * column_scale, bias), bit for bit."""
    sums = (x.astype(np.int64) @ w.astype(np.int64).T).astype(np.float32)
    product = sums.astype(np.float64) * (row_scale[:, None] * column_scale).astype(np.float64)  # 48 bits: exact
    return product.astype(np.float32) if bias is None else rounded_once(product, bias.astype(np.float64))


def rounded_once(a: F64, b: F64) -> F32:
    """The f32 nearest to a + b: the f64 sum is made odd where it is not exact, so that rounding it again is right."""
    total = a + b
    part = total - a
    error = (a - (total - part)) + (b - part)
    even = total.view(np.int64) % 2 == 0
    total = np.where((error != 0) & even, np.nextafter(total, np.copysign(np.inf, error)), total)
    return total.astype(np.float32)
