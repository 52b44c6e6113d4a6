import pytest
from hypothesis import given
from hypothesis import strategies as st

from smesim.errors import WorkloadError
from smesim.workload import DType, DTypes, Role, TensorSpec


@pytest.mark.parametrize(
    ("dtype", "bytes_of_64", "bits"),
    [
        (DType.F32, 256, 32),
        (DType.F16, 128, 16),
        (DType.BF16, 128, 16),
        (DType.I32, 256, 32),
        (DType.S8, 64, 8),
        (DType.Q8_0, 68, 8.5),
        (DType.Q4_0, 36, 4.5),
        (DType.Q4_1, 40, 5),
    ],
)
def test_sizes(dtype, bytes_of_64, bits):
    assert dtype.bytes_for(64) == bytes_of_64
    assert dtype.bits_per_element == bits


@given(st.sampled_from(list(DType)), st.integers(0, 500), st.integers(0, 500))
def test_sizes_are_linear_in_blocks(dtype, one, other):
    assert dtype.bytes_for(32 * one) + dtype.bytes_for(32 * other) == dtype.bytes_for(32 * (one + other))
    assert dtype.bytes_for(32 * one) * 8 == 32 * one * dtype.bits_per_element


def test_a_row_of_signed_bytes_has_one_scale():
    assert TensorSpec("w", (10, 64), DType.S8, Role.WEIGHT).bytes == 10 * (64 + 4)
    assert TensorSpec("w", (2, 5, 64), DType.Q4_0, Role.WEIGHT).bytes == 10 * 36


def test_names():
    assert DType.parse("Q4_0") is DType.Q4_0
    with pytest.raises(
        WorkloadError, match=r"unknown dtype 'f64'; accepted: f32, f16, bf16, s8, q8_0, q4_0, q4_1"
    ):
        DType.parse("f64")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DType.Q4_0.bytes_for(33), "q4_0 stores blocks of 32 elements; 33 is not a multiple"),
        (lambda: DType.F32.bytes_for(-1), "accepted: 0 or more"),
        (lambda: TensorSpec("w", (3, 40), DType.Q8_0, Role.WEIGHT), "tensor w: q8_0"),
        (lambda: DTypes(weights=DType.I32), "dtype of weights is i32; accepted: f32"),
        (lambda: DTypes(activations=DType.Q8_0), "dtype of activations is q8_0; accepted: f32, f16, bf16"),
        (lambda: DTypes(kv="f64"), "dtype of kv is f64"),
    ],
)
def test_bad_formats_are_refused(make, message):
    with pytest.raises(WorkloadError, match=message):
        make()
