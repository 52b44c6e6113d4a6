"""Packing moves bits and nothing else; random weights are the same bits in every layout, range and ISA."""

import kernel_reference as ref
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_reference import NR, Guarded, find, guarded_vector, pointer

ISAS = ref.runnable()
seeds = st.integers(0, 2**64 - 1)


@st.composite
def matrix_and_range(draw: st.DrawFn) -> tuple[ref.F32, int, float, float]:
    """A matrix, the gap between its rows, and a range as two fractions."""
    rows, columns = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    begin, end = sorted((draw(st.floats(0, 1)), draw(st.floats(0, 1))))
    return ref.normal(rng, rows, columns), draw(st.integers(0, 5)), begin, end


def spread(matrix: ref.F32, gap: int) -> ref.F32:
    """The same matrix in rows that lie further apart."""
    wide = np.full((matrix.shape[0], matrix.shape[1] + gap), np.nan, np.float32)
    wide[:, : matrix.shape[1]] = matrix
    return wide


@pytest.mark.parametrize("isa", ISAS)
@given(case=matrix_and_range(), mr=st.integers(1, 40))
def test_pack_lhs_is_bit_exact(isa: str, case: tuple[ref.F32, int, float, float], mr: int) -> None:
    x, gap, begin, end = case
    kernels, wide = find(isa), spread(case[0], gap)
    m, k = x.shape
    bounds = [first for first, _ in ref.strip_rows(m, mr)] + [m]
    strip0, strip1 = round(begin * (len(bounds) - 1)), round(end * (len(bounds) - 1))
    out = guarded_vector(m * k)
    kernels.pack_lhs(pointer(wide), wide.shape[1], m, k, mr, strip0, strip1, pointer(out.view))
    written = slice(bounds[strip0] * k, bounds[strip1] * k)
    np.testing.assert_array_equal(out.view[0, written], ref.pack_lhs(x, mr)[written])
    assert out.untouched(slice(0, 1), written)


@pytest.mark.parametrize("isa", ISAS)
@given(case=matrix_and_range())
def test_pack_rhs_is_bit_exact_and_unpacks(isa: str, case: tuple[ref.F32, int, float, float]) -> None:
    w, gap, begin, end = case
    kernels, wide = find(isa), spread(case[0], gap)
    n, k = w.shape
    expected = ref.pack_rhs(w)
    panels = -(-n // NR)
    panel0, panel1 = round(begin * panels), round(end * panels)
    out = guarded_vector(expected.size)
    kernels.pack_rhs(pointer(wide), wide.shape[1], n, k, panel0, panel1, pointer(out.view))
    written = slice(panel0 * NR * k, panel1 * NR * k)
    np.testing.assert_array_equal(out.view[0, written], expected[written])
    assert out.untouched(slice(0, 1), written)

    back = Guarded(n, k, k + gap)
    kernels.unpack_rhs(pointer(expected), n, k, panel0, panel1, pointer(back.view), k + gap)
    rows = slice(panel0 * NR, panel1 * NR)
    np.testing.assert_array_equal(back.view[rows], w[rows])
    assert back.untouched(rows)


@pytest.mark.parametrize("isa", ISAS)
@given(n=st.integers(1, 60), k=st.integers(1, 60), gap=st.integers(0, 5), cut=st.floats(0, 1), seed=seeds)
def test_random_weights_depend_on_seed_row_and_column_alone(
    isa: str, n: int, k: int, gap: int, cut: float, seed: int
) -> None:
    scale = 0.0625
    whole = np.empty((n, k), np.float32)
    find("portable").fill_rows(pointer(whole), k, k, 0, n, seed, scale)
    kernels = find(isa)

    rows = Guarded(n, k, k + gap)
    row = round(cut * n)
    kernels.fill_rows(pointer(rows.view), k + gap, k, row, n, seed, scale)
    np.testing.assert_array_equal(rows.view[row:], whole[row:])
    assert rows.untouched(slice(row, n))

    panels = -(-n // NR)
    panel = round(cut * panels)
    packed = guarded_vector(panels * NR * k)
    kernels.fill_rhs(pointer(packed.view), n, k, panel, panels, seed, scale)
    written = slice(panel * NR * k, None)
    np.testing.assert_array_equal(packed.view[0, written], ref.pack_rhs(whole)[written])
    assert packed.untouched(slice(0, 1), written)


@pytest.mark.parametrize("isa", ISAS)
def test_random_weights_are_uniform_and_uncorrelated(isa: str) -> None:
    n, k, scale = 512, 1024, 3.0
    w = np.empty((n, k), np.float32)
    find(isa).fill_rows(pointer(w), k, k, 0, n, 7, scale)
    assert -scale <= w.min() < -0.999 * scale
    assert 0.999 * scale < w.max() < scale
    deviation = scale / np.sqrt(3)
    assert abs(w.mean()) < 5 * deviation / np.sqrt(n * k)
    assert w.std() == pytest.approx(deviation, rel=0.01)
    counts, _ = np.histogram(w, bins=64, range=(-scale, scale))
    chi_squared = ((counts - n * k / 64) ** 2 / (n * k / 64)).sum()
    assert 20 < chi_squared < 130  # 63 degrees of freedom: beyond either with a chance of 1e-6
    for neighbours in (w[:, 1:] * w[:, :-1], w[1:] * w[:-1]):
        assert abs(neighbours.mean()) < 5 * deviation**2 / np.sqrt(neighbours.size)


def test_other_seeds_give_other_weights() -> None:
    first, second = np.empty((2, 4, 64), np.float32)
    for seed, w in enumerate((first, second)):
        find("portable").fill_rows(pointer(w), 64, 64, 0, 4, seed, 1.0)
    assert np.mean(first == second) < 0.01
