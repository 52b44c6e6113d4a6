"""GEMM and GEMV against float64 numpy, over shapes that are no multiple of any tile, and over parts of the output."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import kernel_reference as ref
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_reference import NR, check_gemm_part, find, guarded_vector, part_of, pointer

ISAS = ref.runnable()

# Deep and tall enough for several blocks of the depth and of rows on every ISA, with a ragged end on each side.
BLOCKED_SHAPES = [(1, 45, 1100), (23, 33, 1700), (61, 50, 2050), (131, 20, 1031), (300, 17, 530)]


fractions = st.tuples(*[st.floats(0, 1)] * 4)


@pytest.mark.parametrize("isa", ISAS)
@given(
    m=st.integers(1, 40), n=st.integers(1, 90), k=st.integers(0, 120), gap=st.integers(0, 9),
    biased=st.booleans(), part=fractions, mr=st.none() | st.integers(1, 40), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_gemm_of_any_shape_part_and_strip_height(
    isa: str, m: int, n: int, k: int, gap: int, biased: bool, part: tuple[float, ...], mr: int | None, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    bias = ref.normal(rng, n) if biased else None
    check_gemm_part(isa, ref.normal(rng, m, k), ref.normal(rng, n, k), bias, gap, part, mr)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", BLOCKED_SHAPES, ids=str)
@pytest.mark.parametrize("part", [(0.0, 1.0, 0.0, 1.0), (0.3, 0.9, 0.4, 1.0)], ids=["whole", "part"])
@pytest.mark.parametrize("mr", [None, 32])
def test_gemm_across_blocks(isa: str, shape: tuple[int, int, int], part: tuple[float, ...], mr: int | None) -> None:
    m, n, k = shape
    rng = np.random.default_rng(1)
    check_gemm_part(isa, ref.normal(rng, m, k), ref.normal(rng, n, k), ref.normal(rng, n), 3, part, mr)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_parts_add_up_to_the_whole_however_many_compute_them_at_once(isa: str, threads: int) -> None:
    """On a matrix unit: whether one drives it, or two or four at a time."""
    rng = np.random.default_rng(2)
    m, n, k = 37, 75, 600
    kernels = find(isa)
    lhs, rhs = ref.pack_lhs(ref.normal(rng, m, k), kernels.mr), ref.pack_rhs(ref.normal(rng, n, k))
    whole, parts = np.empty((2, m, n), np.float32)
    strips, panels = len(ref.strip_rows(m, kernels.mr)), -(-n // NR)
    none = pointer(None)
    kernels.gemm(pointer(lhs), m, k, kernels.mr, pointer(rhs), n, none, pointer(whole), n, 0, strips, 0, panels)

    def compute(strip: int, panel: int) -> None:
        kernels.gemm(
            pointer(lhs), m, k, kernels.mr, pointer(rhs), n, none, pointer(parts), n, strip, strip + 1, panel,
            panel + 1,
        )  # fmt: skip

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(compute, *zip(*itertools.product(range(strips), range(panels)), strict=True)))
    np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize("isa", ISAS)
@given(
    n=st.integers(1, 150), k=st.integers(0, 200), biased=st.booleans(),
    begin=st.floats(0, 1), end=st.floats(0, 1), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_gemv_of_any_shape_and_part(
    isa: str, n: int, k: int, biased: bool, begin: float, end: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x, w = ref.normal(rng, 1, k), ref.normal(rng, n, k)
    bias = ref.normal(rng, n) if biased else None
    rhs = ref.pack_rhs(w)
    panel0, panel1 = part_of(-(-n // NR), begin, end)
    out = guarded_vector(n)
    find(isa).gemv(pointer(x), pointer(rhs), n, k, pointer(bias), pointer(out.view), panel0, panel1)
    columns = slice(panel0 * NR, panel1 * NR)
    exact, bound = ref.product(x, w, bias)
    assert np.all(np.abs(out.view - exact)[:, columns] <= bound[:, columns])
    assert out.untouched(slice(0, 1), columns)


def multiply(isa: str, x: ref.F32, w: ref.F32) -> ref.F32:
    """x * w^T through gemm, and through gemv where x is one row; the two must agree on what is not finite."""
    kernels = find(isa)
    m, k = x.shape
    n = w.shape[0]
    lhs, rhs = ref.pack_lhs(x, kernels.mr), ref.pack_rhs(w)
    out = np.empty((m, n), np.float32)
    strips, panels = len(ref.strip_rows(m, kernels.mr)), -(-n // NR)
    none = pointer(None)
    kernels.gemm(pointer(lhs), m, k, kernels.mr, pointer(rhs), n, none, pointer(out), n, 0, strips, 0, panels)
    if m == 1:
        through_gemv = np.empty((m, n), np.float32)
        kernels.gemv(pointer(x), pointer(rhs), n, k, none, pointer(through_gemv), 0, panels)
        np.testing.assert_array_equal(np.isfinite(through_gemv), np.isfinite(out))
    return out


@pytest.mark.parametrize("isa", ISAS)
@given(
    m=st.sampled_from([1, 13, 64]), poison=st.sampled_from([np.nan, np.inf, -np.inf]), row=st.integers(0, 63),
    column=st.integers(0, 69), depth=st.integers(0, 66),
)  # fmt: skip
def test_what_is_not_finite_spreads_as_far_as_it_must_and_no_further(
    isa: str, m: int, poison: float, row: int, column: int, depth: int
) -> None:
    rng = np.random.default_rng(3)
    row %= m
    x, w = ref.normal(rng, m, 67), ref.normal(rng, 70, 67)
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
@pytest.mark.parametrize("m", [1, 7, 64])
@pytest.mark.parametrize("k", [3, 67])
def test_denormals_are_not_flushed(isa: str, m: int, k: int) -> None:
    smallest = np.float32(2.0**-149)
    x = np.full((m, k), smallest, np.float32)
    w = np.ones((70, k), np.float32)
    np.testing.assert_array_equal(multiply(isa, x, w), np.full((m, 70), k * 2.0**-149, np.float32))
    tiny = np.full((1, 4), np.float32(2.0**-100), np.float32)
    shrink = np.full((5, 4), np.float32(2.0**-40), np.float32)
    np.testing.assert_array_equal(multiply(isa, tiny, shrink), np.full((1, 5), np.float32(2.0**-138)))


@pytest.mark.parametrize("isa", ISAS)
def test_empty_ranges_write_nothing(isa: str) -> None:
    rng = np.random.default_rng(4)
    check_gemm_part(isa, ref.normal(rng, 9, 5), ref.normal(rng, 40, 5), None, 2, (0.5, 0.5, 0.0, 1.0))
    check_gemm_part(isa, ref.normal(rng, 9, 5), ref.normal(rng, 40, 5), None, 2, (0.0, 1.0, 0.5, 0.5))
