"""The kernels of block-quantised weights against numpy, all of them bit for bit."""

from typing import Any

import blocks_reference as ref
import lowp_reference as lowp
import numpy as np
import pytest
from blocks_reference import BLOCK, Quantized, find, runnable, tables
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_reference import NR, Guarded, ffi, guarded_vector, isa_of, lib, part_of
from lowp_reference import Amid, at_offset, bounds_of, numbers, pointer, spread
from numpy.typing import NDArray

ISAS = runnable()
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 1e-40, 3.4e38, -3.4e38, 7e-7, 65504.0 * 8]

kinds = st.sampled_from(sorted(ref.INTEGERS))
fractions = st.tuples(*[st.floats(0, 1)] * 4)
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 70)


def leaf(isa: str, name: str, kind: str) -> Any:
    return getattr(find(isa), f"{name}_{kind}")


def packed_pointer(array: NDArray[np.uint8], kind: str) -> Any:
    return pointer(array.view(np.int8) if kind == "q8" else array)


def some_lhs(rng: np.random.Generator, m: int, k: int) -> Quantized:
    """Any integers there may be; those that pad the last block are zeros."""
    integers = lowp.grouped(rng.integers(-127, 128, (m, k), np.int8), BLOCK)
    return Quantized(integers, np.abs(numbers(rng, *integers.shape[:2])))


def some_rhs(rng: np.random.Generator, n: int, k: int, kind: str) -> Quantized:
    integers = lowp.grouped(rng.integers(*ref.INTEGERS[kind], (n, k), np.int8), BLOCK)
    scales, least = rng.standard_normal((2, *integers.shape[:2])).astype(np.float16)
    return Quantized(integers, scales, least if kind == "q4_1" else None)


def test_portable_kernels_run_everywhere_and_names_find_their_table() -> None:
    names = [isa_of(table) for table in tables()]
    assert "portable" in ISAS
    assert len(set(names)) == len(names)
    for table, name in zip(tables(), names, strict=True):
        assert find(name) == (table if lib.sms_blocks_supported(table) else ffi.NULL)
    assert find("sse9") == lib.sms_blocks_at(-1) == lib.sms_blocks_at(len(names)) == ffi.NULL


def test_best_is_the_first_of_a_core_that_runs_here_and_is_not_for_tests() -> None:
    for_use = [t for t in tables() if lib.sms_blocks_supported(t) and not t.test_only and not t.matrix]
    assert lib.sms_blocks_best() == for_use[0]


@pytest.mark.parametrize("table", tables(), ids=isa_of)
def test_tables_are_whole(table: Any) -> None:
    fields = ffi.typeof("struct sms_blocks").fields
    leaves = [name for name, fact in fields if fact.type.kind in {"function", "pointer"}]
    assert all(getattr(table, name) != ffi.NULL for name in leaves)
    assert table.nr == NR


@given(n=st.integers(1, 130), k=st.integers(1, 130), kind=kinds)
def test_sizes_are_those_of_the_packed_matrices(n: int, k: int, kind: str) -> None:
    w = some_rhs(np.random.default_rng(0), n, k, kind)
    packed, scales = ref.pack_rhs(w, kind)
    assert packed.size == (lib.sms_rhs_q8_size if kind == "q8" else lib.sms_rhs_q4_size)(n, k)
    assert scales.size == lib.sms_rhs_scales_size(n, k) * (2 if kind == "q4_1" else 1)
    assert w.numbers.size == lib.sms_lhs_q8_size(n, k)
    assert w.scales.size == n * lib.sms_depth_blocks(k)


@st.composite
def matrices(draw: st.DrawFn) -> NDArray[np.float32]:
    """Numbers of which some are special, and some blocks of one size or of nothing."""
    rng = np.random.default_rng(draw(seeds))
    x = numbers(rng, draw(sizes), draw(st.integers(1, 130)))
    x[:: draw(st.integers(1, 9))] *= np.float32(draw(st.sampled_from([0.0, 1e-42, 1e-38, 1e-7, 1.0])))
    some = x[draw(st.integers(0, 9)) :: 10]
    some[:] = np.round(np.clip(some, -8, 8) * 2)
    for row, column, value in draw(st.lists(st.tuples(sizes, sizes, st.sampled_from(SPECIAL)), max_size=4)):
        x[row % x.shape[0], column % x.shape[1]] = value
    return x


@pytest.mark.parametrize("isa", ISAS)
@settings(deadline=None)
@given(x=matrices(), gap=st.integers(0, 5), part=fractions, mr=st.integers(1, 40), kind=kinds)
def test_packing_is_bit_exact(
    isa: str, x: NDArray[np.float32], gap: int, part: tuple[float, ...], mr: int, kind: str
) -> None:
    m, k = x.shape
    wide, depth = spread(x, gap), int(lib.sms_depth_blocks(k))

    quantized, bounds = ref.quantize_lhs(x), bounds_of(m, mr)
    strip0, strip1 = part_of(len(bounds) - 1, *part[:2])
    out, scale = Amid(m * depth * BLOCK, np.int8), Amid(m * depth, np.float32)
    find(isa).quantize_lhs_q8(
        pointer(wide), k + gap, m, k, mr, strip0, strip1, pointer(out.view), pointer(scale.view)
    )  # fmt: skip
    begin, end = bounds[strip0] * depth, bounds[strip1] * depth
    out.check(lowp.pack_lhs(quantized.flat, mr, 4), slice(begin * BLOCK, end * BLOCK))
    scale.check(lowp.pack_lhs(quantized.scales, mr, 1), slice(begin, end))

    weights = ref.quantize_rhs(x, kind)
    expected, scales = ref.pack_rhs(weights, kind)
    panel0, panel1 = part_of(-(-m // NR), *part[2:])
    begin, end = panel0 * NR * depth, panel1 * NR * depth
    bytes_of_block, scales_of_block = BLOCK if kind == "q8" else BLOCK // 2, 1 if weights.least is None else 2
    rows = np.concatenate([ref.gguf(weights, kind), np.zeros((m, gap), np.uint8)], axis=1)
    for name, source, stride, columns in (
        ("pack_rhs", wide, k + gap, k),
        ("repack_rhs", rows, rows.shape[1], depth * BLOCK),
    ):
        out, scale = Amid(expected.size, np.uint8), Amid(scales.size, np.uint16)
        leaf(isa, name, kind)(
            pointer(source), stride, m, columns, panel0, panel1, packed_pointer(out.view, kind), pointer(scale.view)
        )  # fmt: skip
        out.check(expected, slice(begin * bytes_of_block, end * bytes_of_block))
        scale.check(scales, slice(begin * scales_of_block, end * scales_of_block))


def gemm(
    isa: str, kind: str, x: Quantized, w: Quantized, bias: Any, out: Any, ldc: int, mr: int,
    tiles: tuple[int, int, int, int],
) -> None:  # fmt: skip
    packed, scales = (at_offset(array, 1) for array in ref.pack_rhs(w, kind))
    lhs, lhs_scale = at_offset(lowp.pack_lhs(x.flat, mr, 4), 1), at_offset(lowp.pack_lhs(x.scales, mr, 1), 1)
    m, k = x.flat.shape
    leaf(isa, "gemm", kind)(
        pointer(lhs), pointer(lhs_scale), m, k, mr, packed_pointer(packed, kind), pointer(scales), len(w.numbers),
        pointer(bias), pointer(out), ldc, *tiles,
    )  # fmt: skip


def gemv(isa: str, kind: str, x: Quantized, w: Quantized, bias: Any, out: Any, panels: tuple[int, int]) -> None:
    packed, scales = (at_offset(array, 1) for array in ref.pack_rhs(w, kind))
    lhs, lhs_scale = at_offset(x.flat, 1), at_offset(x.scales, 1)
    leaf(isa, "gemv", kind)(
        pointer(lhs), pointer(lhs_scale), packed_pointer(packed, kind), pointer(scales), len(w.numbers),
        x.flat.shape[1], pointer(bias), pointer(out), *panels,
    )  # fmt: skip


def check_products_of_a_part(
    isa: str, kind: str, shape: tuple[int, int, int], biased: bool, part: tuple[float, ...], mr: int, seed: int
) -> None:
    """One range of tiles computed and compared, everything else proved untouched; the last row by gemv too."""
    (m, n, k), gap = shape, seed % 4
    rng = np.random.default_rng(seed)
    bias = numbers(rng, n) if biased else None
    x, w = some_lhs(rng, m, k), some_rhs(rng, n, k, kind)
    expected = ref.product(x, w, bias)
    bounds = bounds_of(m, mr)
    tiles = (*part_of(len(bounds) - 1, *part[:2]), *part_of(-(-n // NR), *part[2:]))
    rows, columns = slice(bounds[tiles[0]], bounds[tiles[1]]), slice(tiles[2] * NR, tiles[3] * NR)

    out = Guarded(m, n, n + gap)
    gemm(isa, kind, x, w, bias, out.view, n + gap, mr, tiles)
    np.testing.assert_array_equal(out.view[rows, columns], expected[rows, columns])
    assert out.untouched(rows, columns)

    row = guarded_vector(n)
    gemv(isa, kind, Quantized(x.numbers[-1:], x.scales[-1:]), w, bias, row.view, tiles[2:])
    np.testing.assert_array_equal(row.view[:, columns], expected[-1:, columns])
    assert row.untouched(slice(0, 1), columns)


@pytest.mark.parametrize("isa", ISAS)
@settings(deadline=None)
@given(
    kind=kinds, shape=st.tuples(sizes, st.integers(1, 150), st.integers(0, 130)), biased=st.booleans(),
    part=fractions, mr=st.integers(1, 70), seed=seeds,
)  # fmt: skip
def test_products_of_any_shape_part_and_strip_height(
    isa: str, kind: str, shape: tuple[int, int, int], biased: bool, part: tuple[float, ...], mr: int, seed: int
) -> None:
    check_products_of_a_part(isa, kind, shape, biased, part, mr, seed)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", sorted(ref.INTEGERS))
@pytest.mark.parametrize("rows_columns_pieces", [(23, 45, 2), (75, 150, 1)], ids=str)
def test_products_across_pieces_of_the_depth_and_groups_of_panels(
    isa: str, kind: str, rows_columns_pieces: tuple[int, int, int]
) -> None:
    m, n, pieces = rows_columns_pieces
    kernels = find(isa)
    shape = m, n, pieces * kernels.kc_blocks * BLOCK + 5
    check_products_of_a_part(isa, kind, shape, True, (0.0, 1.0, 0.0, 1.0), kernels.mr, 3)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("kind", "most"), [("q4", -8), ("q8", -128), ("q4_1", 15)])
def test_the_largest_sums_are_exact(isa: str, kind: str, most: int) -> None:
    one = np.ones((17, 2), np.float16)
    w = Quantized(np.full((17, 2, BLOCK), most, np.int8), one, 0 * one if kind == "q4_1" else None)
    for sign in (-1, 1):
        x = Quantized(np.full((17, 2, BLOCK), sign * 127, np.int8), one.astype(np.float32))
        out = np.empty((18, 17), np.float32)
        gemm(isa, kind, x, w, None, out, 17, 17, (0, 1, 0, 2))
        gemv(isa, kind, Quantized(x.numbers[:1], x.scales[:1]), w, None, out[17:], (0, 2))
        assert np.all(out == sign * 127 * most * 2 * BLOCK)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", sorted(ref.INTEGERS))
def test_a_scale_that_is_no_number_stays_in_its_row_or_column(isa: str, kind: str) -> None:
    rng = np.random.default_rng(1)
    x, w = some_lhs(rng, 20, 90), some_rhs(rng, 40, 90, kind)
    x.scales[3, 1], w.scales[21, 0], w.scales[0, :3] = np.nan, np.inf, [6e-8, 6e-5, 65504.0]  # f16: least, denormal
    x.numbers[:, 0, 0], w.numbers[21, 0] = 127, 0
    w.numbers[21, 0, 0] = 1  # so that infinity is multiplied by numbers above zero alone
    if w.least is not None:
        w.least[21] = 1
    out, row = np.empty((20, 40), np.float32), np.empty((1, 40), np.float32)
    gemm(isa, kind, x, w, None, out, 40, 20, (0, 1, 0, 3))
    gemv(isa, kind, Quantized(x.numbers[3:4], x.scales[3:4]), w, None, row, (0, 3))
    assert np.all(np.isnan(out[3]))
    assert np.all(np.isnan(row))
    assert np.all(np.isposinf(np.delete(out[:, 21], 3)))
    others = np.delete(np.arange(20), 3), np.delete(np.arange(40), 21)
    expected = ref.product(
        Quantized(x.numbers[others[0]], x.scales[others[0]]), w.rows(others[1]), None
    )  # fmt: skip
    np.testing.assert_array_equal(out[np.ix_(*others)], expected)
