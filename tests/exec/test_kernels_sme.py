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
from kernel_reference import (
    NR,
    check_gemm_part,
    find,
    guarded_vector,
    isa_of,
    lib,
    part_of,
    pointer,
    shifted,
    tables,
)
from lowp_reference import S8_NUMBER, Product, numbers
from lowp_reference import find as find_lowp
from lowp_reference import runnable as runnable_lowp
from lowp_reference import tables as lowp_tables

ISAS = ref.runnable()
SIZES = (1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 130)
F32_BITS = 32

sizes = st.sampled_from(SIZES)
offsets = st.integers(0, 15)
fractions = st.tuples(*[st.floats(0, 1)] * 4)
seeds = st.integers(0, 2**32 - 1)


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
    check_gemm_part(isa, x, w, bias, offset, part, mr, offset)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("strips", [0.5, 1, 2])
@pytest.mark.parametrize("depth", [64, 1029])
def test_gemm_of_whole_tiles(isa: str, strips: float, depth: int) -> None:
    """Strips that are half a tile of the table, a whole one and two, in depths with and without a rest."""
    rows = round(strips * find(isa).mr)
    rng = np.random.default_rng(rows + depth)
    x, w = ref.normal(rng, rows, depth), ref.normal(rng, 5 * NR, depth)
    check_gemm_part(isa, x, w, ref.normal(rng, 5 * NR), 1, (0.0, 1.0, 0.0, 1.0), rows, 1)


@pytest.mark.parametrize("isa", runnable_lowp())
@pytest.mark.parametrize("words", [64, 258, 1027])
def test_int8_of_whole_tiles(isa: str, words: int) -> None:
    """Three strips that are whole tiles of the table, but for columns; in depths with a rest, and of two blocks."""
    mr, n, k = int(find_lowp(isa).mr), 5 * NR - 3, 4 * words - 1
    rng = np.random.default_rng(words)
    scales = [np.abs(numbers(rng, rows)) for rows in (3 * mr, n)]
    bias = None if words == 64 else numbers(rng, n)
    product = Product(S8_NUMBER, S8_NUMBER.draw(rng, 3 * mr, k), S8_NUMBER.draw(rng, n, k), bias, *scales)
    out = np.full((3 * mr, n + 1), np.float32(7.0))
    product.gemm(isa, mr, out, n + 1, (0, 3, 0, 3), (1, 3, 3, 5))
    expected = np.full_like(out, 7.0)
    exact, _ = product.expected()
    expected[:, : 3 * NR] = exact[:, : 3 * NR]
    expected[mr:, 3 * NR : n] = exact[mr:, 3 * NR :]
    np.testing.assert_array_equal(out, expected)


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


@pytest.mark.parametrize("table", tables(), ids=isa_of)
def test_low_precision_drives_the_same_unit_with_the_same_tiles(table: Any) -> None:
    for lowp in lowp_tables():
        if isa_of(lowp) == isa_of(table):
            assert lowp.matrix == table.matrix
            assert not table.matrix or tile_of(lowp) == tile_of(table)
            flops = (lowp.bf16_peak_flop, lowp.f16_peak_flop, lowp.s8_peak_op)
            assert not table.matrix or flops == (2 * table.fma_flop, 2 * table.fma_flop, 4 * table.fma_flop)


def tile_of(table: Any) -> tuple[int, ...]:
    return table.lanes, table.mr, table.nr, table.panels


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("iterations", [0, 1, 30])
def test_a_peak_does_the_work_it_is_timed_for(isa: str, iterations: int) -> None:
    assert find(isa).fma_peak(iterations) == find(isa).fma_flop // 2 * iterations


@pytest.mark.parametrize("table", tables(), ids=isa_of)
def test_a_table_drives_a_matrix_unit_exactly_if_its_strips_are_two_streaming_vectors(table: Any) -> None:
    assert table.matrix == isa_of(table).startswith("sme")
    if table.matrix:
        assert table.mr == 2 * table.lanes
        assert lib.sms_cpu_svl_bits() in {0, table.lanes * F32_BITS}
