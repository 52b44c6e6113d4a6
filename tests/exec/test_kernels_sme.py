"""What matrix units make of f32 products: sizes on both sides of every tile's edge, at any alignment, in parts.

Nothing here is special to an instruction set, so all that run here are held to it; but the sizes are those at which
kernels for vectors of 4 to 64 numbers change their way, and the depths reach their unrolled loops.
"""

from typing import Any

import kernel_reference as ref
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_reference import NR, Guarded, find, guarded_vector, isa_of, lib, pointer, tables

ISAS = ref.runnable()
SIZES = (1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 130)
F32_BITS = 32

sizes = st.sampled_from(SIZES)
offsets = st.integers(0, 15)
fractions = st.tuples(*[st.floats(0, 1)] * 4)
seeds = st.integers(0, 2**32 - 1)


def shifted(array: ref.F32, offset: int) -> ref.F32:
    """A copy that begins `offset` numbers behind a cache line, and ends where its memory ends."""
    memory = np.empty(array.size + NR + offset, np.float32)
    first = -memory.ctypes.data // memory.itemsize % NR + offset
    copy = memory[first : first + array.size].reshape(array.shape)
    copy[...] = array
    return copy


def part_of(count: int, begin: float, end: float) -> tuple[int, int]:
    first, last = sorted((begin, end))
    return round(first * count), round(last * count)


def gemm(isa: str, x: ref.F32, w: ref.F32, bias: ref.F32 | None, mr: int, part: tuple[float, ...], offset: int) -> None:
    """Packs, multiplies and compares one range of tiles; every buffer begins `offset` numbers behind a cache line."""
    kernels = find(isa)
    (m, k), n = x.shape, w.shape[0]
    bounds = [first for first, _ in ref.strip_rows(m, mr)] + [m]
    panels = -(-n // NR)
    lhs, rhs = (shifted(np.full(size, np.nan, np.float32), offset) for size in (m * k, panels * NR * k))
    kernels.pack_lhs(pointer(x), k, m, k, mr, 0, len(bounds) - 1, pointer(lhs))
    kernels.pack_rhs(pointer(w), k, n, k, 0, panels, pointer(rhs))
    np.testing.assert_array_equal(lhs, ref.pack_lhs(x, mr))
    np.testing.assert_array_equal(rhs, ref.pack_rhs(w))

    strip0, strip1 = part_of(len(bounds) - 1, *part[:2])
    panel0, panel1 = part_of(panels, *part[2:])
    out = Guarded(m, n, n + offset)
    kernels.gemm(
        pointer(lhs), m, k, mr, pointer(rhs), n, pointer(bias), pointer(out.view), n + offset, strip0, strip1, panel0,
        panel1,
    )  # fmt: skip
    rows, columns = slice(bounds[strip0], bounds[strip1]), slice(panel0 * NR, panel1 * NR)
    exact, bound = ref.product(x, w, bias)
    assert np.all(np.abs(out.view - exact)[rows, columns] <= bound[rows, columns])
    assert out.untouched(rows, columns)


@pytest.mark.parametrize("isa", ISAS)
@given(
    m=sizes, n=sizes, k=sizes, mr=st.none() | st.integers(1, 140), biased=st.booleans(), part=fractions, offset=offsets,
    seed=seeds,
)  # fmt: skip
def test_gemm_at_every_edge_and_alignment(
    isa: str, m: int, n: int, k: int, mr: int | None, biased: bool, part: tuple[float, ...], offset: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x, w = shifted(ref.normal(rng, m, k), offset), shifted(ref.normal(rng, n, k), offset)
    bias = shifted(ref.normal(rng, n), offset) if biased else None
    gemm(isa, x, w, bias, mr or find(isa).mr, part, offset)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rows", [8, 16, 32, 64, 128])
@pytest.mark.parametrize("depth", [64, 2049])
def test_gemm_of_whole_tiles(isa: str, rows: int, depth: int) -> None:
    """Strips of the height that some length of vectors makes a tile of, in depths with and without a rest."""
    rng = np.random.default_rng(rows + depth)
    x, w = ref.normal(rng, 2 * rows, depth), ref.normal(rng, 5 * NR, depth)
    gemm(isa, x, w, ref.normal(rng, 5 * NR), rows, (0.0, 1.0, 0.0, 1.0), 1)


@pytest.mark.parametrize("isa", ISAS)
@given(n=sizes, k=sizes, biased=st.booleans(), part=fractions, offset=offsets, seed=seeds)
def test_gemv_at_every_edge_and_alignment(
    isa: str, n: int, k: int, biased: bool, part: tuple[float, ...], offset: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x, w = shifted(ref.normal(rng, 1, k), offset), ref.normal(rng, n, k)
    bias = shifted(ref.normal(rng, n), offset) if biased else None
    rhs = shifted(ref.pack_rhs(w), offset)
    panel0, panel1 = part_of(-(-n // NR), *part[:2])
    out = guarded_vector(n)
    find(isa).gemv(pointer(x), pointer(rhs), n, k, pointer(bias), pointer(out.view), panel0, panel1)
    columns = slice(panel0 * NR, panel1 * NR)
    exact, bound = ref.product(x, w, bias)
    assert np.all(np.abs(out.view - exact)[:, columns] <= bound[:, columns])
    assert out.untouched(slice(0, 1), columns)


def multiplied(isa: str, x: ref.F32, w: ref.F32) -> ref.F32:
    """x * w^T of packed operands, by gemm or, where x is one row, by gemv."""
    kernels = find(isa)
    (m, k), n, mr = x.shape, w.shape[0], kernels.mr
    lhs, rhs, out, none = ref.pack_lhs(x, mr), ref.pack_rhs(w), np.empty((m, n), np.float32), pointer(None)
    panels = -(-n // NR)
    if m == 1:
        kernels.gemv(pointer(x), pointer(rhs), n, k, none, pointer(out), 0, panels)
    else:
        strips = len(ref.strip_rows(m, mr))
        kernels.gemm(pointer(lhs), m, k, mr, pointer(rhs), n, none, pointer(out), n, 0, strips, 0, panels)
    return out


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("m", [1, 64])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@given(row=st.integers(0, 63), column=st.integers(0, 69), at=st.integers(0, 66))
def test_what_is_not_finite_keeps_to_its_row_or_column(
    isa: str, poison: float, m: int, row: int, column: int, at: int
) -> None:
    rng = np.random.default_rng(row)
    row %= m
    x, w = ref.normal(rng, m, 67), ref.normal(rng, 70, 67)
    x[row, at] = poison
    finite = np.isfinite(multiplied(isa, x, w))
    assert not finite[row].any()
    assert np.delete(finite, row, axis=0).all()

    x[row, at] = 1.0
    w[column, at] = poison
    finite = np.isfinite(multiplied(isa, x, w))
    assert not finite[:, column].any()
    assert np.delete(finite, column, axis=1).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("m", [1, 64])
def test_denormals_add_up_exactly(isa: str, m: int) -> None:
    x, w = np.full((m, 67), np.float32(2.0**-149), np.float32), np.ones((70, 67), np.float32)
    np.testing.assert_array_equal(multiplied(isa, x, w), np.full((m, 70), 67 * 2.0**-149, np.float32))


@pytest.mark.parametrize("table", tables(), ids=isa_of)
def test_a_table_drives_a_matrix_unit_exactly_if_its_strips_are_two_streaming_vectors(table: Any) -> None:
    assert table.matrix == isa_of(table).startswith("sme")
    if table.matrix:
        assert table.mr == 2 * table.lanes
        assert lib.sms_cpu_svl_bits() in {0, table.lanes * F32_BITS}
