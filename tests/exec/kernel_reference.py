"""What the kernels are checked against: the layouts and operators again, in numpy, each as its definition says.

Nothing here knows blocks, strips of a micro-kernel or vectors. Results are computed in float64 and compared within a
bound that grows with what was summed: ``8 * sqrt(terms) * epsilon * sum(|a| * |b|)``, the usual growth of independent
rounding errors with room to spare.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count, takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from smesim.exec._native import ffi, lib

__all__ = [
    "NR",
    "Guarded",
    "ffi",
    "find",
    "guarded_vector",
    "isa_of",
    "lib",
    "pointer",
    "runnable",
    "strip_rows",
    "tables",
]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

NR = 16
EPSILON = float(np.finfo(np.float32).eps)
SENTINEL = np.float32(-7654.25)
GUARD = 64


def listed(at: Callable[[int], Any]) -> list[Any]:
    """All that a list of C's has, by the function that gives its element of an index, NULL past the last."""
    return list(takewhile(lambda table: table != ffi.NULL, (at(index) for index in count())))


def tables() -> list[Any]:
    """All compiled-in kernel tables."""
    return listed(lib.sms_kernels_at)


def isa_of(table: Any) -> str:
    return str(ffi.string(table.isa).decode())


def runnable() -> list[str]:
    """The instruction sets whose kernels this machine can run, those only for tests included."""
    return [isa_of(table) for table in tables() if lib.sms_kernels_supported(table)]


def find(isa: str) -> Any:
    return lib.sms_kernels_find(isa.encode())


def pointer(array: NDArray[Any] | None) -> Any:
    """A C pointer to the first element; the caller keeps the array alive."""
    if array is None:
        return ffi.NULL
    kind = "float *" if array.dtype == np.float32 else "int32_t *"
    return ffi.cast(kind, array.ctypes.data)


@dataclass
class Guarded:
    """A matrix to be written, amid sentinels: between its rows, before it and behind it."""

    rows: int
    columns: int
    ld: int
    memory: F32 = field(init=False)
    view: F32 = field(init=False)

    def __post_init__(self) -> None:
        self.memory = np.full(2 * GUARD + self.rows * self.ld, SENTINEL, np.float32)
        self.view = self.memory[GUARD : GUARD + self.rows * self.ld].reshape(self.rows, self.ld)[:, : self.columns]

    def untouched(self, rows: slice = slice(0, 0), columns: slice = slice(None)) -> bool:
        """Whether all is as it was, but for the part of the matrix that was to be written."""
        written = np.zeros(self.memory.shape, bool)
        inner = written[GUARD : GUARD + self.rows * self.ld].reshape(self.rows, self.ld)[:, : self.columns]
        inner[rows, columns] = True
        return bool(np.all(self.memory[~written] == SENTINEL))


def guarded_vector(size: int) -> Guarded:
    return Guarded(1, size, size)


def strip_rows(m: int, mr: int) -> list[tuple[int, int]]:
    """First and last row (exclusive) of every strip of the packed lhs."""
    strips = -(-m // mr)
    return [(s * m // strips, (s + 1) * m // strips) for s in range(strips)]


def pack_lhs(x: F32, mr: int) -> F32:
    parts = [x[begin:end].T.ravel() for begin, end in strip_rows(x.shape[0], mr)]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def pack_rhs(w: F32) -> F32:
    n, k = w.shape
    padded = np.zeros((-(-n // NR) * NR, k), np.float32)
    padded[:n] = w
    return np.ascontiguousarray(padded.reshape(padded.shape[0] // NR, NR, k).transpose(0, 2, 1)).ravel()


def product(x: F32, w: F32, bias: F32 | None) -> tuple[F64, F64]:
    """x * w^T + bias, and how far from it an f32 kernel may be."""
    exact = x.astype(np.float64) @ w.astype(np.float64).T
    size = np.abs(x).astype(np.float64) @ np.abs(w).astype(np.float64).T
    if bias is not None:
        exact += bias
        size += np.abs(bias)
    return exact, 8 * np.sqrt(x.shape[1] + 1) * EPSILON * size


def attention(q: F32, k: F32, v: F32, past: int) -> F64:
    """Causal softmax attention of q[tokens][heads][d] over k, v[past + tokens][kv_heads][d], one row at a time."""
    tokens, heads, head_dim = q.shape
    group = heads // k.shape[1]
    out = np.empty(q.shape, np.float64)
    for token in range(tokens):
        seen = past + token + 1
        for head in range(heads):
            keys, values = k[:seen, head // group].astype(np.float64), v[:seen, head // group].astype(np.float64)
            scores = keys @ q[token, head].astype(np.float64) / np.sqrt(head_dim)
            weights = np.exp(scores - scores.max())
            out[token, head] = weights @ values / weights.sum()
    return out


def normal(rng: np.random.Generator, *shape: int) -> F32:
    return rng.standard_normal(shape, dtype=np.float32)


def shifted(array: F32, offset: int) -> F32:
    """A copy that begins `offset` numbers behind a cache line, and ends where its memory ends."""
    memory = np.empty(array.size + NR + offset, np.float32)
    first = -memory.ctypes.data // memory.itemsize % NR + offset
    copy = memory[first : first + array.size].reshape(array.shape)
    copy[...] = array
    return copy


def part_of(count: int, begin: float, end: float) -> tuple[int, int]:
    """The range of `count` tiles that two fractions cut out."""
    first, last = sorted((begin, end))
    return round(first * count), round(last * count)


def check_gemm_part(
    isa: str, x: F32, w: F32, bias: F32 | None, gap: int, part: tuple[float, ...], mr: int | None = None,
    offset: int = 0,
) -> None:  # fmt: skip
    """One range of tiles packed, computed and compared, everything else proved untouched.

    `mr` is the table's own if None; packed operands begin `offset` numbers behind a cache line.
    """
    kernels = find(isa)
    (m, k), n = x.shape, w.shape[0]
    mr = mr or int(kernels.mr)
    bounds = [first for first, _ in strip_rows(m, mr)] + [m]
    panels = -(-n // NR)
    lhs, rhs = (shifted(np.full(size, np.nan, np.float32), offset) for size in (m * k, panels * NR * k))
    kernels.pack_lhs(pointer(x), k, m, k, mr, 0, len(bounds) - 1, pointer(lhs))
    kernels.pack_rhs(pointer(w), k, n, k, 0, panels, pointer(rhs))
    np.testing.assert_array_equal(lhs, pack_lhs(x, mr))
    np.testing.assert_array_equal(rhs, pack_rhs(w))

    strip0, strip1 = part_of(len(bounds) - 1, *part[:2])
    panel0, panel1 = part_of(panels, *part[2:])
    out = Guarded(m, n, n + gap)
    kernels.gemm(
        pointer(lhs), m, k, mr, pointer(rhs), n, pointer(bias), pointer(out.view), n + gap, strip0, strip1, panel0,
        panel1,
    )  # fmt: skip
    rows, columns = slice(bounds[strip0], bounds[strip1]), slice(panel0 * NR, panel1 * NR)
    exact, bound = product(x, w, bias)
    assert np.all(np.abs(out.view - exact)[rows, columns] <= bound[rows, columns])
    assert out.untouched(rows, columns)
