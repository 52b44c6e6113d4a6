"""The bf16, f16 and int8 kernels against numpy: packing and integers bit for bit, sums of floats within their bound."""

from typing import Any

import lowp_reference as ref
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_reference import NR, Guarded, ffi, guarded_vector, lib, part_of, strip_rows
from lowp_reference import (
    BF16,
    F16,
    FLOATS,
    NUMBERS,
    S8_NUMBER,
    Amid,
    Float,
    Number,
    Product,
    bounds_of,
    find,
    isa_of,
    numbers,
    pointer,
    spread,
)
from numpy.typing import NDArray

ISAS = ref.runnable()
FLUSHES_DENORMALS = {("avx512bf16", BF16), ("neonmm", BF16), ("sme", BF16), ("sme2", BF16)}

# Rows, columns, and blocks of the table's depth of which the last has but a few k, for all ways through the loops.
BLOCKED = {
    "one deep row": (1, 45, 3),
    "several strips": (61, 50, 2),
    "groups of panels": (19, 150, 2),
    "more rows than the cache holds": (700, 17, 2),
}

each_isa = pytest.mark.parametrize("isa", ISAS)
each_float = pytest.mark.parametrize("number", FLOATS, ids=str)
each_number = pytest.mark.parametrize("number", NUMBERS, ids=str)
fractions = st.tuples(*[st.floats(0, 1)] * 4)
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 130)

SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-45, -1e-40, 3.4e38, 3.39e38, 1.00390625, 1.01171875]
SPECIAL += [1.00048828125, 1.00146484375, 65504.0, 65519.996, -65520.0, 2.0**-24, 2.0**-25, -3 * 2.0**-25, 6.1020e-5]
"""Ties of both kinds, denormals, what rounds to the largest, to infinity and to zero, and what is not finite."""


def test_portable_kernels_run_everywhere_and_names_find_their_table() -> None:
    names = [isa_of(table) for table in ref.tables()]
    assert "portable" in ISAS
    assert len(set(names)) == len(names)
    for table, name in zip(ref.tables(), names, strict=True):
        assert find(name) == (table if lib.sms_lowp_supported(table) else ffi.NULL)
    assert find("sse9") == lib.sms_lowp_at(-1) == lib.sms_lowp_at(len(names)) == ffi.NULL


def test_best_is_the_first_that_runs_here_on_a_core_and_is_not_for_tests() -> None:
    of_cores = [table for table in ref.tables() if not table.test_only and not table.matrix]
    assert lib.sms_lowp_best() == next(table for table in of_cores if lib.sms_lowp_supported(table))


@pytest.mark.parametrize("table", ref.tables(), ids=isa_of)
def test_tables_are_whole(table: Any) -> None:
    leaves = [name for name, fact in ffi.typeof("struct sms_lowp").fields if fact.type.kind in {"function", "pointer"}]
    assert all(getattr(table, name) != ffi.NULL for name in leaves)
    assert table.nr == NR


@given(rows=sizes, k=sizes, mr=st.integers(1, 40), group=st.sampled_from([2, 4]))
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


def test_groups_are_those_of_the_layouts() -> None:
    assert [number.group for number in NUMBERS] == [lib.SMS_BF16_GROUP, lib.SMS_F16_GROUP, lib.SMS_S8_GROUP]


@st.composite
def matrix_and_range(draw: st.DrawFn) -> tuple[NDArray[np.float32], int, float, float]:
    """A matrix with some special numbers, the gap between its rows, and a range as two fractions."""
    rng = np.random.default_rng(draw(seeds))
    x = numbers(rng, draw(sizes), draw(sizes))
    for row, column, value in draw(st.lists(st.tuples(sizes, sizes, st.sampled_from(SPECIAL)), max_size=6)):
        x[row % x.shape[0], column % x.shape[1]] = value
    return x, draw(st.integers(0, 5)), draw(st.floats(0, 1)), draw(st.floats(0, 1))


@each_isa
@each_float
@given(case=matrix_and_range(), mr=st.integers(1, 40))
def test_packing_floats_is_bit_exact(
    isa: str, number: Float, case: tuple[NDArray[np.float32], int, float, float], mr: int
) -> None:
    x, gap, begin, end = case
    wide, (m, k), depth = spread(x, gap), x.shape, int(lib.sms_grouped_depth(x.shape[1], number.group))
    bounds, expected = bounds_of(m, mr), ref.pack_lhs(number.round(x), mr, number.group)
    strip0, strip1 = part_of(len(bounds) - 1, begin, end)
    out = Amid(expected.size, np.uint16)
    number.leaf(isa, "pack_lhs")(pointer(wide), k + gap, m, k, mr, strip0, strip1, pointer(out.view))
    out.check(expected, slice(bounds[strip0] * depth, bounds[strip1] * depth))

    expected = ref.pack_rhs(number.round(x), number.group)
    panel0, panel1 = part_of(-(-m // NR), begin, end)
    out = Amid(expected.size, np.uint16)
    number.leaf(isa, "pack_rhs")(pointer(wide), k + gap, m, k, panel0, panel1, pointer(out.view))
    out.check(expected, slice(panel0 * NR * depth, panel1 * NR * depth))


@each_isa
def test_every_f16_is_packed_as_itself_and_every_midpoint_as_its_even_neighbour(isa: str) -> None:
    bits = np.arange(0x7C00, dtype=np.uint16)
    exact = F16.widen(bits)
    following = np.append(exact[1:], np.float32(65536.0))
    middle = (exact + following) / 2  # exact: f32 has more bits
    x = np.stack([exact, middle, np.nextafter(middle, exact), np.nextafter(middle, following)])
    expected = np.stack([bits, bits + bits % 2, bits, bits + 1]).astype(np.uint16)
    out = np.empty(x.size, np.uint16)
    for sign, sign_bit in ((1, 0), (-1, 0x8000)):
        rows = np.ascontiguousarray(x * np.float32(sign)).reshape(1, -1)
        find(isa).pack_lhs_f16(pointer(rows), rows.size, 1, rows.size, 1, 0, 1, pointer(out))
        np.testing.assert_array_equal(out, expected.ravel() | sign_bit)


@each_isa
@given(case=matrix_and_range(), mr=st.integers(1, 40), shrink=st.sampled_from([1.0, 1e-38, 1e-42, 1e-44, 0.0]))
def test_quantising_is_bit_exact(
    isa: str, case: tuple[NDArray[np.float32], int, float, float], mr: int, shrink: float
) -> None:
    x, gap, begin, end = case
    x[: len(x) // 2] = np.where(np.isfinite(x[: len(x) // 2]), x[: len(x) // 2], 1.0) * np.float32(shrink)
    kernels, wide, (m, k), depth = find(isa), spread(x, gap), x.shape, int(lib.sms_grouped_depth(x.shape[1], 4))
    quantized, scales = ref.quantize(x)
    bounds, expected = bounds_of(m, mr), ref.pack_lhs(quantized, mr, 4)
    strip0, strip1 = part_of(len(bounds) - 1, begin, end)
    out, scale = Amid(expected.size, np.int8), Amid(m, np.float32)
    kernels.quantize_lhs_s8(
        pointer(wide), k + gap, m, k, mr, strip0, strip1, pointer(out.view), pointer(scale.view)
    )  # fmt: skip
    scale.check(scales, slice(bounds[strip0], bounds[strip1]))
    out.check(expected, slice(bounds[strip0] * depth, bounds[strip1] * depth))

    expected = ref.pack_rhs(quantized, 4)
    panel0, panel1 = part_of(-(-m // NR), begin, end)
    out, scale = Amid(expected.size, np.int8), Amid(m, np.float32)
    kernels.pack_rhs_s8(pointer(wide), k + gap, m, k, panel0, panel1, pointer(out.view), pointer(scale.view))
    scale.check(scales, slice(panel0 * NR, panel1 * NR))
    out.check(expected, slice(panel0 * NR * depth, panel1 * NR * depth))


def some_product(
    number: Number, m: int, n: int, k: int, biased: bool = False, seed: int = 1, offset: int = 0
) -> Product:
    rng = np.random.default_rng(seed)
    scales = [np.abs(numbers(rng, rows)) if number is S8_NUMBER else None for rows in (m, n)]
    bias = numbers(rng, n) if biased else None
    return Product(number, number.draw(rng, m, k), number.draw(rng, n, k), bias, *scales, offset=offset)


def check_gemm(isa: str, product: Product, gap: int, *parts: tuple[int, tuple[float, ...]]) -> None:
    """For each strip height and range of tiles: that range computed and compared, everything else proved untouched."""
    m, n = len(product.x), len(product.w)
    exact, bound = product.expected()
    for mr, part in parts:
        bounds = bounds_of(m, mr)
        tiles = (*part_of(len(bounds) - 1, *part[:2]), *part_of(-(-n // NR), *part[2:]))
        rows, columns = slice(bounds[tiles[0]], bounds[tiles[1]]), slice(tiles[2] * NR, tiles[3] * NR)
        out = Guarded(m, n, n + gap)
        product.gemm(isa, mr, out.view, n + gap, tiles)
        assert np.all(np.abs(out.view - exact)[rows, columns] <= bound[rows, columns])
        assert out.untouched(rows, columns)


@each_isa
@each_number
@settings(deadline=None)
@given(
    m=sizes, n=sizes, k=st.integers(0, 130), biased=st.booleans(), gap=st.integers(0, 9), part=fractions,
    mr=st.integers(1, 140), seed=seeds, offset=st.integers(0, 15),
)  # fmt: skip
def test_gemm_of_any_shape_part_and_strip_height(
    isa: str, number: Number, m: int, n: int, k: int, biased: bool, gap: int, part: tuple[float, ...], mr: int,
    seed: int, offset: int,
) -> None:  # fmt: skip
    check_gemm(isa, some_product(number, m, n, k, biased, seed, offset), gap, (mr, part))


@each_isa
@each_number
@pytest.mark.parametrize(("m", "n", "blocks"), BLOCKED.values(), ids=BLOCKED)
def test_gemm_across_blocks(isa: str, number: Number, m: int, n: int, blocks: int) -> None:
    table = find(isa)
    k = number.group * ((blocks - 1) * int(table.kc_groups) + 3) - 1
    product = some_product(number, m, n, k, biased=True)
    check_gemm(isa, product, 3, (int(table.mr), (0.0, 1.0, 0.0, 1.0)), (32, (0.3, 0.9, 0.4, 1.0)))


@each_isa
@each_number
def test_empty_ranges_write_nothing(isa: str, number: Number) -> None:
    check_gemm(isa, some_product(number, 9, 40, 5), 2, (4, (0.5, 0.5, 0.0, 1.0)), (4, (0.0, 1.0, 0.5, 0.5)))


@each_isa
@each_number
def test_parts_add_up_to_the_whole(isa: str, number: Number) -> None:
    m, n, k, mr = 37, 200, 601, int(find(isa).mr)
    product = some_product(number, m, n, k)
    strips, panels = len(strip_rows(m, mr)), -(-n // NR)
    whole, parts = np.empty((2, m, n), np.float32)
    product.gemm(isa, mr, whole, n, (0, strips, 0, panels))
    tiles = [(strip, strip + 1, panel, panel + 1) for strip in range(strips) for panel in range(panels)]
    product.gemm(isa, mr, parts, n, *tiles)
    np.testing.assert_array_equal(parts, whole)


@each_isa
@each_number
@settings(deadline=None)
@given(
    n=st.integers(1, 150), k=st.integers(0, 200), biased=st.booleans(), begin=st.floats(0, 1), end=st.floats(0, 1),
    seed=seeds, offset=st.integers(0, 15),
)  # fmt: skip
def test_gemv_of_any_shape_and_part(
    isa: str, number: Number, n: int, k: int, biased: bool, begin: float, end: float, seed: int, offset: int
) -> None:
    product = some_product(number, 1, n, k, biased, seed, offset)
    if number is not S8_NUMBER:
        product.x = spread(numbers(np.random.default_rng(seed), 1, k), 1)[:, :k]  # a NaN follows it
    panels = part_of(-(-n // NR), begin, end)
    columns = slice(panels[0] * NR, panels[1] * NR)
    out = guarded_vector(n)
    product.gemv(isa, out.view, *panels)
    exact, bound = product.expected()
    assert np.all(np.abs(out.view - exact)[:, columns] <= bound[:, columns])
    assert out.untouched(slice(0, 1), columns)


@each_isa
def test_integer_sums_are_exact_to_the_depth_that_the_header_states(isa: str) -> None:
    k = 133_000
    x, w = np.full((2, k), 127, np.int8), np.full((17, k), 127, np.int8)
    x[1, 0] = 126
    w[3:] = -127
    one = np.ones(17, np.float32)
    product = Product(S8_NUMBER, x, w, None, one[:2], one)
    out = np.empty((2, 17), np.float32)
    product.gemm(isa, int(find(isa).mr), out, 17, (0, 1, 0, 2))
    np.testing.assert_array_equal(out, product.expected()[0])


def multiply(isa: str, product: Product) -> NDArray[np.float32]:
    """Through gemm; through gemv where x is one row, which must agree on what is not finite."""
    (m, n), mr = (len(product.x), len(product.w)), int(find(isa).mr)
    out, through_gemv = np.empty((m, n), np.float32), np.empty((1, n), np.float32)
    strips, panels = len(strip_rows(m, mr)), -(-n // NR)
    product.gemm(isa, mr, out, n, (0, strips, 0, panels))
    if m == 1:
        Product(product.number, product.number.widen(product.x), product.w).gemv(isa, through_gemv, 0, panels)
        for kind in (np.isfinite, np.isnan):
            np.testing.assert_array_equal(kind(through_gemv), kind(out))
    return out


@each_isa
@each_float
@pytest.mark.parametrize("m", [1, 13])
@given(
    poison=st.sampled_from([np.nan, np.inf, -np.inf]), row=st.integers(0, 12), column=st.integers(0, 36),
    depth=st.integers(0, 18),
)  # fmt: skip
def test_what_is_not_finite_spreads_as_far_as_it_must_and_no_further(
    isa: str, number: Float, m: int, poison: float, row: int, column: int, depth: int
) -> None:
    row, bits = row % m, number.round(np.array([poison, 1.0], np.float32))
    product = some_product(number, m, 37, 19)
    product.x[row, depth] = bits[0]
    out = multiply(isa, product)
    assert not np.isfinite(out[row]).any()
    assert np.isfinite(np.delete(out, row, axis=0)).all()

    product.x[row, depth], product.w[column, depth] = bits[1], bits[0]
    out = multiply(isa, product)
    assert not np.isfinite(out[:, column]).any()
    assert np.isfinite(np.delete(out, column, axis=1)).all()


@each_isa
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_int8_rows_and_columns_with_what_is_not_finite_give_nan(isa: str, poison: float) -> None:
    rng = np.random.default_rng(5)
    kernels, m, n, k = find(isa), 7, 37, 19
    x, w = (rng.standard_normal((rows, k), np.float32) for rows in (m, n))
    x[3, 18], w[20, 0] = poison, poison
    depth = int(lib.sms_grouped_depth(k, 4))
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


@each_isa
def test_every_f16_is_multiplied_as_the_number_that_it_is(isa: str) -> None:
    bits = np.arange(0x7C00, dtype=np.uint16)
    every = np.concatenate([bits, bits | 0x8000]).reshape(-1, 16)
    one_each = F16.round(np.eye(16, dtype=np.float32))
    np.testing.assert_array_equal(multiply(isa, Product(F16, every, one_each)), F16.widen(every))
    np.testing.assert_array_equal(multiply(isa, Product(F16, one_each, every)), F16.widen(every).T)
    np.testing.assert_array_equal(multiply(isa, Product(F16, one_each[3:4], every))[0], F16.widen(every)[:, 3])


NOT_FLUSHED = [(isa, number) for isa in ISAS for number in FLOATS if (isa, number) not in FLUSHES_DENORMALS]


@pytest.mark.parametrize(("isa", "number"), NOT_FLUSHED, ids=str)
def test_denormals_are_not_flushed(isa: str, number: Float) -> None:
    factors = {BF16: (2.0**-100, 2.0**-40), F16: (2.0**-24, 2.0**-24)}
    for left, right in ((number.smallest, 1.0), factors[number]):
        x, w = (number.round(np.full((rows, 3), size, np.float32)) for rows, size in ((7, left), (19, right)))
        np.testing.assert_array_equal(multiply(isa, Product(number, x, w)), np.float32(3 * left * right))


@each_isa
@pytest.mark.parametrize("iterations", [0, 1, 30])
def test_peaks_do_the_work_they_are_timed_for(isa: str, iterations: int) -> None:
    kernels = find(isa)
    assert kernels.bf16_peak(iterations) == kernels.bf16_peak_flop // 2 * iterations
    assert kernels.f16_peak(iterations) == kernels.f16_peak_flop // 2 * iterations
    assert kernels.s8_peak(iterations) == kernels.s8_peak_op // 2 * iterations
