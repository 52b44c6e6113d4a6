"""The bf16 and int8 kernels against numpy: packing and integers bit for bit, bf16 products within their bound."""

from typing import Any

import lowp_reference as ref
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_reference import NR, Guarded, ffi, guarded_vector, lib, strip_rows
from lowp_reference import BF16_GROUP, S8_GROUP, find, isa_of, pointer, runnable, tables
from numpy.typing import NDArray

ISAS = runnable()
FLUSHES_DENORMALS = {"avx512bf16"}
GUARD = 64

# Deep and tall enough for several blocks of the depth and of rows on every ISA, with a ragged end on each side.
BLOCKED_SHAPES = [(1, 45, 2203), (23, 33, 3401), (61, 50, 4102), (131, 20, 2061), (700, 17, 1060)]

fractions = st.tuples(*[st.floats(0, 1)] * 4)
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 130)
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-45, -1e-40, 3.4e38, 3.39e38, 1.00390625, 1.01171875]
"""Ties of both kinds, denormals, what rounds to infinity, and what is not finite."""


def cut(number: int, begin: float, end: float) -> tuple[int, int]:
    first, last = sorted((begin, end))
    return round(first * number), round(last * number)


def numbers(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    """Numbers of many sizes."""
    return (rng.standard_normal(shape) * np.exp(rng.normal(0, 4, shape))).astype(np.float32)


def spread(matrix: NDArray[np.float32], gap: int) -> NDArray[np.float32]:
    """The same matrix in rows that lie further apart, with NaN between."""
    wide = np.full((matrix.shape[0], matrix.shape[1] + gap), np.nan, np.float32)
    wide[:, : matrix.shape[1]] = matrix
    return wide


class Amid:
    """A packed operand to be written, with known bytes before and behind it."""

    def __init__(self, size: int, dtype: type[np.generic]) -> None:
        self.memory = np.full(size + 2 * GUARD, 77, dtype)
        self.view = self.memory[GUARD : GUARD + size]

    def untouched(self, written: slice) -> bool:
        kept = np.ones(self.memory.shape, bool)
        kept[GUARD : GUARD + self.view.size][written] = False
        return bool(np.all(self.memory[kept] == 77))


def bounds_of(m: int, mr: int) -> list[int]:
    """First rows of the strips, and behind the last one."""
    return [first for first, _ in strip_rows(m, mr)] + [m]


def test_portable_kernels_run_everywhere_and_names_find_their_table() -> None:
    names = [isa_of(table) for table in tables()]
    assert "portable" in ISAS
    assert len(set(names)) == len(names)
    for table, name in zip(tables(), names, strict=True):
        assert find(name) == (table if lib.sms_lowp_supported(table) else ffi.NULL)
    assert find("sse9") == lib.sms_lowp_at(-1) == lib.sms_lowp_at(len(names)) == ffi.NULL


def test_best_is_the_first_that_runs_here_and_is_not_for_tests() -> None:
    assert lib.sms_lowp_best() == next(t for t in tables() if lib.sms_lowp_supported(t) and not t.test_only)


@pytest.mark.parametrize("table", tables(), ids=isa_of)
def test_tables_are_whole(table: Any) -> None:
    leaves = [name for name, fact in ffi.typeof("struct sms_lowp").fields if fact.type.kind in {"function", "pointer"}]
    assert all(getattr(table, name) != ffi.NULL for name in leaves)
    assert table.nr == NR


@given(rows=sizes, k=sizes, mr=st.integers(1, 40), group=st.sampled_from([BF16_GROUP, S8_GROUP]))
def test_offsets_are_those_of_the_packed_matrices(rows: int, k: int, mr: int, group: int) -> None:
    x = np.arange(1, rows * k + 1, dtype=np.float64).reshape(rows, k)
    lhs, rhs = ref.pack_lhs(x, mr, group), ref.pack_rhs(x, group)
    assert lhs.size == lib.sms_lhs_grouped_size(rows, k, group)
    assert rhs.size == lib.sms_rhs_grouped_size(rows, k, group)
    for begin, end in strip_rows(rows, mr):
        for row, depth in ((begin, 0), (end - 1, k - 1), (end - 1, k // 2)):
            assert lhs[lib.sms_lhs_grouped_offset(row, depth, begin, end - begin, k, group)] == x[row, depth]
    for row, depth in ((0, 0), (rows - 1, k - 1), (rows // 2, k // 2)):
        assert rhs[lib.sms_rhs_grouped_offset(row, depth, k, group)] == x[row, depth]


@st.composite
def matrix_and_range(draw: st.DrawFn) -> tuple[NDArray[np.float32], int, float, float]:
    """A matrix with some special numbers, the gap between its rows, and a range as two fractions."""
    rng = np.random.default_rng(draw(seeds))
    x = numbers(rng, draw(sizes), draw(sizes))
    for row, column, value in draw(st.lists(st.tuples(sizes, sizes, st.sampled_from(SPECIAL)), max_size=6)):
        x[row % x.shape[0], column % x.shape[1]] = value
    begin, end = sorted((draw(st.floats(0, 1)), draw(st.floats(0, 1))))
    return x, draw(st.integers(0, 5)), begin, end


@pytest.mark.parametrize("isa", ISAS)
@given(case=matrix_and_range(), mr=st.integers(1, 40))
def test_packing_bf16_is_bit_exact(isa: str, case: tuple[Any, int, float, float], mr: int) -> None:
    x, gap, begin, end = case
    kernels, wide, (m, k) = find(isa), spread(x, gap), x.shape
    bounds, expected = bounds_of(m, mr), ref.pack_lhs(ref.bf16(x), mr, BF16_GROUP)
    strip0, strip1 = cut(len(bounds) - 1, begin, end)
    out = Amid(expected.size, np.uint16)
    kernels.pack_lhs_bf16(pointer(wide), k + gap, m, k, mr, strip0, strip1, pointer(out.view))
    depth = int(lib.sms_grouped_depth(k, BF16_GROUP))
    written = slice(bounds[strip0] * depth, bounds[strip1] * depth)
    np.testing.assert_array_equal(out.view[written], expected[written])
    assert out.untouched(written)

    expected = ref.pack_rhs(ref.bf16(x), BF16_GROUP)
    panel0, panel1 = cut(-(-m // NR), begin, end)
    out = Amid(expected.size, np.uint16)
    kernels.pack_rhs_bf16(pointer(wide), k + gap, m, k, panel0, panel1, pointer(out.view))
    written = slice(panel0 * NR * depth, panel1 * NR * depth)
    np.testing.assert_array_equal(out.view[written], expected[written])
    assert out.untouched(written)


@pytest.mark.parametrize("isa", ISAS)
@given(case=matrix_and_range(), mr=st.integers(1, 40), shrink=st.sampled_from([1.0, 1e-38, 1e-42, 1e-44, 0.0]))
def test_quantising_is_bit_exact(isa: str, case: tuple[Any, int, float, float], mr: int, shrink: float) -> None:
    x, gap, begin, end = case
    x[: len(x) // 2] = np.where(np.isfinite(x[: len(x) // 2]), x[: len(x) // 2], 1.0) * np.float32(shrink)
    kernels, wide, (m, k) = find(isa), spread(x, gap), x.shape
    quantized, scales = ref.quantize(x)
    bounds, expected = bounds_of(m, mr), ref.pack_lhs(quantized, mr, S8_GROUP)
    strip0, strip1 = cut(len(bounds) - 1, begin, end)
    out, scale = Amid(expected.size, np.int8), Amid(m, np.float32)
    kernels.quantize_lhs_s8(
        pointer(wide), k + gap, m, k, mr, strip0, strip1, pointer(out.view), pointer(scale.view)
    )  # fmt: skip
    depth = int(lib.sms_grouped_depth(k, S8_GROUP))
    rows = slice(bounds[strip0], bounds[strip1])
    written = slice(rows.start * depth, rows.stop * depth)
    np.testing.assert_array_equal(scale.view[rows], scales[rows])
    np.testing.assert_array_equal(out.view[written], expected[written])
    assert out.untouched(written)
    assert scale.untouched(rows)

    expected = ref.pack_rhs(quantized, S8_GROUP)
    panel0, panel1 = cut(-(-m // NR), begin, end)
    out, scale = Amid(expected.size, np.int8), Amid(m, np.float32)
    kernels.pack_rhs_s8(pointer(wide), k + gap, m, k, panel0, panel1, pointer(out.view), pointer(scale.view))
    rows, written = slice(panel0 * NR, panel1 * NR), slice(panel0 * NR * depth, panel1 * NR * depth)
    np.testing.assert_array_equal(scale.view[rows], scales[rows])
    np.testing.assert_array_equal(out.view[written], expected[written])
    assert out.untouched(written)
    assert scale.untouched(rows)


def rounded(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return ref.widen(ref.bf16(x))


def gemm_bf16(
    isa: str, x: Any, w: Any, bias: Any, out: Any, ldc: int, mr: int, tiles: tuple[int, int, int, int]
) -> None:
    """x and w are f32 that are bf16."""
    lhs, rhs = ref.pack_lhs(ref.bf16(x), mr, BF16_GROUP), ref.pack_rhs(ref.bf16(w), BF16_GROUP)
    find(isa).gemm_bf16(
        pointer(lhs), *x.shape, mr, pointer(rhs), w.shape[0], pointer(bias), pointer(out), ldc, *tiles
    )  # fmt: skip


def gemm_s8(
    isa: str, x: Any, row_scale: Any, w: Any, column_scale: Any, bias: Any, out: Any, ldc: int, mr: int,
    tiles: tuple[int, int, int, int],
) -> None:  # fmt: skip
    lhs, rhs = ref.pack_lhs(x, mr, S8_GROUP), ref.pack_rhs(w, S8_GROUP)
    find(isa).gemm_s8(
        pointer(lhs), pointer(row_scale), *x.shape, mr, pointer(rhs), pointer(column_scale), w.shape[0],
        pointer(bias), pointer(out), ldc, *tiles,
    )  # fmt: skip


def integers(rng: np.random.Generator, *shape: int) -> NDArray[np.int8]:
    return rng.integers(-127, 128, shape, np.int8)


def check_gemms_of_a_part(
    isa: str, shape: tuple[int, int, int], biased: bool, gap: int, part: tuple[float, ...], mr: int, seed: int
) -> None:
    """One range of tiles computed and compared, everything else proved untouched."""
    m, n, k = shape
    rng = np.random.default_rng(seed)
    bias = numbers(rng, n) if biased else None
    bounds = bounds_of(m, mr)
    tiles = (*cut(len(bounds) - 1, *part[:2]), *cut(-(-n // NR), *part[2:]))
    rows, columns = slice(bounds[tiles[0]], bounds[tiles[1]]), slice(tiles[2] * NR, tiles[3] * NR)

    x, w = rounded(numbers(rng, m, k)), rounded(numbers(rng, n, k))
    out = Guarded(m, n, n + gap)
    gemm_bf16(isa, x, w, bias, out.view, n + gap, mr, tiles)
    exact, bound = ref.bf16_product(x, w, bias)
    assert np.all(np.abs(out.view - exact)[rows, columns] <= bound[rows, columns])
    assert out.untouched(rows, columns)

    row_scale, column_scale = np.abs(numbers(rng, m)), np.abs(numbers(rng, n))
    x8, w8 = integers(rng, m, k), integers(rng, n, k)
    out = Guarded(m, n, n + gap)
    gemm_s8(isa, x8, row_scale, w8, column_scale, bias, out.view, n + gap, mr, tiles)
    expected = ref.s8_product(x8, row_scale, w8, column_scale, bias)
    np.testing.assert_array_equal(out.view[rows, columns], expected[rows, columns])
    assert out.untouched(rows, columns)


@pytest.mark.parametrize("isa", ISAS)
@settings(deadline=None)
@given(
    shape=st.tuples(sizes, sizes, st.integers(0, 130)), biased=st.booleans(), gap=st.integers(0, 9), part=fractions,
    mr=st.integers(1, 40), seed=seeds,
)  # fmt: skip
def test_gemm_of_any_shape_part_and_strip_height(
    isa: str, shape: tuple[int, int, int], biased: bool, gap: int, part: tuple[float, ...], mr: int, seed: int
) -> None:
    check_gemms_of_a_part(isa, shape, biased, gap, part, mr, seed)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", BLOCKED_SHAPES, ids=str)
@pytest.mark.parametrize("part", [(0.0, 1.0, 0.0, 1.0), (0.3, 0.9, 0.4, 1.0)], ids=["whole", "part"])
@pytest.mark.parametrize("mr", [None, 32])
def test_gemm_across_blocks(isa: str, shape: tuple[int, int, int], part: tuple[float, ...], mr: int | None) -> None:
    check_gemms_of_a_part(isa, shape, True, 3, part, mr or find(isa).mr, 1)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("part", [(0.5, 0.5, 0.0, 1.0), (0.0, 1.0, 0.5, 0.5)])
def test_empty_ranges_write_nothing(isa: str, part: tuple[float, ...]) -> None:
    check_gemms_of_a_part(isa, (9, 40, 5), False, 2, part, 4, 4)


@pytest.mark.parametrize("isa", ISAS)
def test_parts_add_up_to_the_whole(isa: str) -> None:
    rng = np.random.default_rng(2)
    m, n, k, mr = 37, 200, 1201, find(isa).mr
    x, w = rounded(numbers(rng, m, k)), rounded(numbers(rng, n, k))
    strips, panels = len(strip_rows(m, mr)), -(-n // NR)
    whole, parts = np.empty((2, m, n), np.float32)
    gemm_bf16(isa, x, w, None, whole, n, mr, (0, strips, 0, panels))
    for strip in range(strips):
        for panel in range(panels):
            gemm_bf16(isa, x, w, None, parts, n, mr, (strip, strip + 1, panel, panel + 1))
    np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize("isa", ISAS)
@settings(deadline=None)
@given(
    n=st.integers(1, 150), k=st.integers(0, 200), biased=st.booleans(),
    begin=st.floats(0, 1), end=st.floats(0, 1), seed=seeds,
)  # fmt: skip
def test_gemv_of_any_shape_and_part(
    isa: str, n: int, k: int, biased: bool, begin: float, end: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    bias = numbers(rng, n) if biased else None
    panels = cut(-(-n // NR), begin, end)
    columns = slice(panels[0] * NR, panels[1] * NR)

    x, w = numbers(rng, 1, k), rounded(numbers(rng, n, k))
    rhs, out = ref.pack_rhs(ref.bf16(w), BF16_GROUP), guarded_vector(n)
    find(isa).gemv_bf16(pointer(x), pointer(rhs), n, k, pointer(bias), pointer(out.view), *panels)
    exact, bound = ref.bf16_product(x, w, bias)
    assert np.all(np.abs(out.view - exact)[:, columns] <= bound[:, columns])
    assert out.untouched(slice(0, 1), columns)

    x8, w8 = integers(rng, 1, k), integers(rng, n, k)
    scale, column_scale = np.abs(numbers(rng, 1)), np.abs(numbers(rng, n))
    lhs, rhs8, out = ref.pack_lhs(x8, 1, S8_GROUP), ref.pack_rhs(w8, S8_GROUP), guarded_vector(n)
    find(isa).gemv_s8(
        pointer(lhs), scale[0], pointer(rhs8), pointer(column_scale), n, k, pointer(bias), pointer(out.view), *panels
    )  # fmt: skip
    expected = ref.s8_product(x8, scale, w8, column_scale, bias)
    np.testing.assert_array_equal(out.view[:, columns], expected[:, columns])
    assert out.untouched(slice(0, 1), columns)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("sign", [1, -1])
def test_integer_sums_are_exact_to_the_depth_that_the_header_states(isa: str, sign: int) -> None:
    k = 133_000
    x, w = np.full((2, k), 127, np.int8), np.full((17, k), sign * 127, np.int8)
    x[1, 0] = 126
    one = np.ones(17, np.float32)
    out = np.empty((2, 17), np.float32)
    gemm_s8(isa, x, one[:2], w, one, None, out, 17, find(isa).mr, (0, 1, 0, 2))
    np.testing.assert_array_equal(out, ref.s8_product(x, one[:2], w, one, None))


def multiply(isa: str, x: NDArray[np.float32], w: NDArray[np.float32]) -> NDArray[np.float32]:
    """x * w^T of bf16, through gemm; through gemv where x is one row, which must agree on what is not finite."""
    kernels, (m, k), n = find(isa), x.shape, w.shape[0]
    out, through_gemv = np.empty((m, n), np.float32), np.empty((1, n), np.float32)
    strips, panels = len(strip_rows(m, kernels.mr)), -(-n // NR)
    gemm_bf16(isa, x, w, None, out, n, kernels.mr, (0, strips, 0, panels))
    if m == 1:
        rhs = ref.pack_rhs(ref.bf16(w), BF16_GROUP)
        kernels.gemv_bf16(pointer(x), pointer(rhs), n, k, ffi.NULL, pointer(through_gemv), 0, panels)
        np.testing.assert_array_equal(np.isfinite(through_gemv), np.isfinite(out))
    return out


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("m", [1, 13])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@given(row=st.integers(0, 12), column=st.integers(0, 36), depth=st.integers(0, 18))
def test_what_is_not_finite_spreads_as_far_as_it_must_and_no_further(
    isa: str, m: int, poison: float, row: int, column: int, depth: int
) -> None:
    rng = np.random.default_rng(3)
    row %= m
    x, w = (rng.standard_normal((rows, 19), np.float32) for rows in (m, 37))
    x[row, depth] = poison
    out = multiply(isa, x, w)
    assert not np.isfinite(out[row]).any()
    assert np.isfinite(np.delete(out, row, axis=0)).all()

    x[row, depth] = 1.0
    w[column, depth] = poison
    out = multiply(isa, x, w)
    assert not np.isfinite(out[:, column]).any()
    assert np.isfinite(np.delete(out, column, axis=1)).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_int8_rows_and_columns_with_what_is_not_finite_give_nan(isa: str, poison: float) -> None:
    rng = np.random.default_rng(5)
    kernels, m, n, k = find(isa), 7, 37, 19
    x, w = (rng.standard_normal((rows, k), np.float32) for rows in (m, n))
    x[3, 18], w[20, 0] = poison, poison
    depth = int(lib.sms_grouped_depth(k, S8_GROUP))
    lhs, rhs = np.empty(m * depth, np.int8), np.empty(48 * depth, np.int8)
    row_scale, column_scale, out = np.empty(m, np.float32), np.empty(n, np.float32), np.empty((m, n), np.float32)
    strips = len(strip_rows(m, kernels.mr))
    kernels.quantize_lhs_s8(pointer(x), k, m, k, kernels.mr, 0, strips, pointer(lhs), pointer(row_scale))
    kernels.pack_rhs_s8(pointer(w), k, n, k, 0, 3, pointer(rhs), pointer(column_scale))
    kernels.gemm_s8(
        pointer(lhs), pointer(row_scale), m, k, kernels.mr, pointer(rhs), pointer(column_scale), n, ffi.NULL,
        pointer(out), n, 0, strips, 0, 3,
    )  # fmt: skip
    expected = np.zeros((m, n), bool)
    expected[3], expected[:, 20] = True, True
    np.testing.assert_array_equal(np.isnan(out), expected)


@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa not in FLUSHES_DENORMALS])
def test_denormals_are_not_flushed(isa: str) -> None:
    smallest = np.float32(2.0**-133)  # of bf16
    x, w = np.full((7, 3), smallest, np.float32), np.ones((19, 3), np.float32)
    np.testing.assert_array_equal(multiply(isa, x, w), np.full((7, 19), 3 * smallest, np.float32))
    tiny, shrink = np.full((1, 4), np.float32(2.0**-100)), np.full((5, 4), np.float32(2.0**-40))
    np.testing.assert_array_equal(multiply(isa, tiny, shrink), np.full((1, 5), np.float32(2.0**-138)))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("iterations", [0, 1, 30])
def test_peaks_do_the_work_they_are_timed_for(isa: str, iterations: int) -> None:
    kernels = find(isa)
    assert kernels.bf16_peak(iterations) == kernels.bf16_peak_flop // 2 * iterations
    assert kernels.s8_peak(iterations) == kernels.s8_peak_op // 2 * iterations
