import math

import pytest
from workload_models import tiny

from smesim.workload import catalog
from smesim.workload.config import Llama3RopeScaling
from smesim.workload.rope import inverse_frequencies, llama3_divisors

LLAMA_3_2 = Llama3RopeScaling(
    factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=8192
)


def test_plain_frequencies_fall_from_one_by_a_constant_ratio():
    frequencies = inverse_frequencies(tiny(head_dim=8, rope_theta=10000.0))
    assert frequencies == pytest.approx((1, 0.1, 0.01, 0.001))


def test_llama3_leaves_fast_pairs_slows_slow_ones_and_blends_between():
    divisors = llama3_divisors(128, 500000.0, LLAMA_3_2)
    wavelengths = [2 * math.pi * 500000.0 ** (2 * i / 128) for i in range(64)]
    assert all(d == 1 for d, w in zip(divisors, wavelengths, strict=True) if w < 8192 / 4)
    assert all(d == 32 for d, w in zip(divisors, wavelengths, strict=True) if w > 8192 / 1)
    between = [d for d, w in zip(divisors, wavelengths, strict=True) if 8192 / 4 < w < 8192]
    assert between
    assert between == sorted(between)
    assert all(1 < d < 32 for d in between)


def test_a_pair_half_way_is_blended_half_and_half():
    # The pair that turns 2.5 times in the original length lies half way between 1 and 4 turns.
    theta = (8192 / (2 * math.pi * 2.5)) ** 2
    assert llama3_divisors(4, theta, LLAMA_3_2)[1] == pytest.approx(1 / (0.5 / 32 + 0.5))


def test_scaled_models_turn_slower_and_never_faster():
    config = catalog.load("llama-3.2-3b")
    scaled = inverse_frequencies(config)
    plain = inverse_frequencies(config.model_copy(update={"rope_scaling": None}))
    assert len(scaled) == 64
    assert scaled[0] == plain[0] == 1
    assert scaled[-1] == pytest.approx(plain[-1] / 32)
    assert all(s <= p for s, p in zip(scaled, plain, strict=True))
