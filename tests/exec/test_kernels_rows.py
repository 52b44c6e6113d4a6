"""Norm, activation, rotation, look-up and the loops that measure, against their definitions in float64."""

import kernel_reference as ref
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_reference import EPSILON, Guarded, find, guarded_vector, pointer

ISAS = ref.runnable()
seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("isa", ISAS)
@given(rows=st.integers(1, 5), dim=st.integers(1, 200), gap=st.integers(0, 7), seed=seeds)
def test_rmsnorm(isa: str, rows: int, dim: int, gap: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, gamma = ref.normal(rng, rows, dim) * 10, ref.normal(rng, dim)
    out = Guarded(rows, dim, dim + gap)
    find(isa).rmsnorm(pointer(x), dim, pointer(gamma), pointer(out.view), dim + gap, rows, dim, 1e-5)
    wide = x.astype(np.float64)
    expected = wide / np.sqrt(np.mean(wide**2, axis=1, keepdims=True) + 1e-5) * gamma
    np.testing.assert_allclose(out.view, expected, rtol=16 * EPSILON)
    assert out.untouched(slice(None))


@pytest.mark.parametrize("isa", ISAS)
def test_rmsnorm_in_place_and_of_zeros(isa: str) -> None:
    x = np.array([[0.0] * 9, [3.0] * 9], np.float32)
    gamma = np.full(9, 2.0, np.float32)
    find(isa).rmsnorm(pointer(x), 9, pointer(gamma), pointer(x), 9, 2, 9, 0.0625)
    np.testing.assert_allclose(x, [[0.0] * 9, [6 / np.sqrt(9.0625)] * 9], rtol=4 * EPSILON)


@pytest.mark.parametrize("isa", ISAS)
@given(n=st.integers(0, 100), seed=seeds)
def test_add_copy_and_triad(isa: str, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = ref.normal(rng, n), ref.normal(rng, n)
    kernels = find(isa)
    total, copied, triad = guarded_vector(n), guarded_vector(n), guarded_vector(n)
    kernels.add(pointer(a), pointer(b), pointer(total.view), n)
    kernels.copy(pointer(a), pointer(copied.view), n)
    kernels.triad(pointer(a), pointer(b), 0.5, pointer(triad.view), n)
    np.testing.assert_array_equal(total.view[0], a + b)
    np.testing.assert_array_equal(copied.view[0], a)
    np.testing.assert_array_equal(triad.view[0], a + np.float32(0.5) * b)
    assert all(out.untouched(slice(0, 1)) for out in (total, copied, triad))
    kernels.add(pointer(a), pointer(b), pointer(b), n)
    np.testing.assert_array_equal(b, total.view[0])


@pytest.mark.parametrize("isa", ISAS)
@given(n=st.integers(1, 150), count=st.integers(0, 9), gap=st.integers(0, 7), seed=seeds)
def test_weighted_sum_of_rows(isa: str, n: int, count: int, gap: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, weights = ref.normal(rng, 12, n + gap), ref.normal(rng, count)
    rows = rng.integers(0, 12, count, dtype=np.int32)
    out = guarded_vector(n)
    find(isa).weighted_sum(pointer(x), n + gap, pointer(rows), pointer(weights), count, pointer(out.view), n)
    terms = x[rows, :n].astype(np.float64) * weights[:, None]
    bound = 8 * np.sqrt(count) * EPSILON * np.abs(terms).sum(axis=0)
    assert (np.abs(out.view[0] - terms.sum(axis=0)) <= bound).all()
    assert out.untouched(slice(0, 1))


def silu_times(gate: ref.F32, up: ref.F32) -> ref.F64:
    with np.errstate(over="ignore"):
        product: ref.F64 = gate.astype(np.float64) / (1 + np.exp(-gate.astype(np.float64))) * up
    return product


@pytest.mark.parametrize("isa", ISAS)
@given(n=st.integers(0, 100), spread=st.sampled_from([0.01, 1.0, 30.0, 120.0]), seed=seeds)
def test_swiglu(isa: str, n: int, spread: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gate, up = ref.normal(rng, n) * np.float32(spread), ref.normal(rng, n)
    out = guarded_vector(n)
    find(isa).swiglu(pointer(gate), pointer(up), pointer(out.view), n)
    np.testing.assert_allclose(out.view[0], silu_times(gate, up), rtol=8 * EPSILON, atol=1e-36)
    assert out.untouched(slice(0, 1))


@pytest.mark.parametrize("isa", ISAS)
def test_swiglu_at_the_ends_of_the_range(isa: str) -> None:
    gate = np.array([0.0, -0.0, 88.0, 200.0, 3e38, np.inf, -87.0, -104.0, -3e38, np.nan, 1e-40], np.float32)
    up = np.ones_like(gate)
    out = np.empty_like(gate)
    find(isa).swiglu(pointer(gate), pointer(up), pointer(out), gate.size)
    np.testing.assert_allclose(out, silu_times(gate, up), rtol=8 * EPSILON, atol=1e-36)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("head_dim", [2, 10, 64, 80, 96, 128])
@pytest.mark.parametrize(("rows", "heads", "position", "gap"), [(1, 1, 0, 0), (3, 2, 5, 7), (2, 5, 11, 1)])
def test_rope(isa: str, head_dim: int, rows: int, heads: int, position: int, gap: int) -> None:
    rng = np.random.default_rng(head_dim)
    angles = rng.uniform(0, 6, (position + rows, head_dim // 2))
    cosine, sine = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    x = ref.normal(rng, rows, heads, head_dim)
    out = Guarded(rows, heads * head_dim, heads * head_dim + gap)
    out.view[:] = x.reshape(rows, -1)
    find(isa).rope(pointer(out.view), out.ld, rows, heads, head_dim, pointer(cosine), pointer(sine), position)
    pairs = x[..., : head_dim // 2] + 1j * x[..., head_dim // 2 :].astype(np.float64)
    turned = pairs * np.exp(1j * angles[position:])[:, None]
    expected = np.concatenate([turned.real, turned.imag], axis=2).reshape(rows, -1)
    np.testing.assert_allclose(out.view, expected, rtol=0, atol=8 * EPSILON * np.abs(x).max())
    assert out.untouched(slice(None))


@pytest.mark.parametrize("isa", ISAS)
@given(vocab=st.integers(1, 60), dim=st.integers(1, 50), rows=st.integers(1, 9), gap=st.integers(0, 5), seed=seeds)
def test_embedding_from_either_layout(isa: str, vocab: int, dim: int, rows: int, gap: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = ref.normal(rng, vocab, dim)
    ids = rng.integers(0, vocab, rows, dtype=np.int32)
    packed = ref.pack_rhs(table)
    kernels = find(isa)
    from_rows, from_panels = Guarded(rows, dim, dim + gap), Guarded(rows, dim, dim + gap)
    kernels.embed_rows(pointer(ids), rows, pointer(table), dim, dim, pointer(from_rows.view), dim + gap)
    kernels.embed_rhs(pointer(ids), rows, pointer(packed), dim, pointer(from_panels.view), dim + gap)
    for out in (from_rows, from_panels):
        np.testing.assert_array_equal(out.view, table[ids])
        assert out.untouched(slice(None))


@pytest.mark.parametrize("isa", ISAS)
@given(n=st.integers(1, 200), levels=st.sampled_from([3, 1000]), seed=seeds)
def test_argmax_is_the_first_largest(isa: str, n: int, levels: int, seed: int) -> None:
    x = np.random.default_rng(seed).integers(-levels, levels, n).astype(np.float32)
    assert find(isa).argmax(pointer(x), n) == np.argmax(x)


@pytest.mark.parametrize("isa", ISAS)
@given(n=st.integers(0, 80), holes=st.sets(st.integers(0, 79)))
def test_argmax_passes_over_nan(isa: str, n: int, holes: set[int]) -> None:
    x = np.arange(n, dtype=np.float32)
    x[[hole for hole in holes if hole < n]] = np.nan
    numbers = [i for i in range(n) if i not in holes]
    assert find(isa).argmax(pointer(x), n) == (numbers[-1] if numbers else -1)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 1000, 200_001])
def test_measuring_loops_do_the_work_they_are_timed_for(isa: str, n: int) -> None:
    kernels = find(isa)
    x = np.random.default_rng(n).integers(-8, 9, n).astype(np.float32)
    assert kernels.read_bandwidth(pointer(x), n, 1) == x.sum(dtype=np.float64)
    assert kernels.read_bandwidth(pointer(x), n, 3) == pytest.approx(3 * x.sum(dtype=np.float64))
    out = guarded_vector(n)
    kernels.write_bandwidth(pointer(out.view), n, 2.5)
    assert np.all(out.view == 2.5)
    assert out.untouched(slice(0, 1))


@pytest.mark.parametrize("isa", ISAS)
def test_fma_peaks_do_the_work_they_are_timed_for(isa: str) -> None:
    kernels, iterations = find(isa), 1000
    assert kernels.fma_peak_f64(iterations) == kernels.fma_flop_f64 // 2 * iterations
    assert kernels.fma_peak(iterations) == kernels.fma_flop // 2 * iterations
