"""Norm and activation that write packed: the bits of the plain leaf and pack_lhs, in their strips and nowhere else."""

import kernel_reference as ref
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_reference import find, guarded_vector, pointer

ISAS = ref.runnable()
shares = st.floats(0, 1)


@pytest.mark.parametrize("isa", ISAS)
@given(
    m=st.integers(1, 40), n=st.integers(1, 90), mr=st.integers(1, 37), gap=st.integers(0, 5), begin=shares, end=shares,
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_packed_rows_are_the_bits_of_the_plain_leaf_packed(
    isa: str, m: int, n: int, mr: int, gap: int, begin: float, end: float, seed: int
) -> None:
    kernels, rng = find(isa), np.random.default_rng(seed)
    x, other = ref.normal(rng, m, n + gap) * 8, ref.normal(rng, m, n + gap)
    gamma = ref.normal(rng, n)
    bounds = [first for first, _ in ref.strip_rows(m, mr)] + [m]
    strips = ref.part_of(len(bounds) - 1, begin, end)
    written = slice(bounds[strips[0]] * n, bounds[strips[1]] * n)

    plain, packed = np.empty((m, n), np.float32), guarded_vector(m * n)
    kernels.rmsnorm(pointer(x), n + gap, pointer(gamma), pointer(plain), n, m, n, 1e-5)
    kernels.rmsnorm_packed(pointer(x), n + gap, pointer(gamma), m, n, 1e-5, mr, *strips, pointer(packed.view))
    np.testing.assert_array_equal(packed.view[0, written], ref.pack_lhs(plain, mr)[written])
    assert packed.untouched(slice(0, 1), written)

    packed = guarded_vector(m * n)
    for row in range(m):
        kernels.swiglu(pointer(x[row]), pointer(other[row]), pointer(plain[row]), n)
    kernels.swiglu_packed(pointer(x), n + gap, pointer(other), n + gap, m, n, mr, *strips, pointer(packed.view))
    np.testing.assert_array_equal(packed.view[0, written], ref.pack_lhs(plain, mr)[written])
    assert packed.untouched(slice(0, 1), written)
