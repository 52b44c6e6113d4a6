"""The fit: coefficients that are known beforehand are found again, noise and outliers or not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from smesim.exec.probe.fit import non_negative_fit
from smesim.exec.probe.timing import Timing, repeat

SCALES = np.array([1e6, 1.0, 1e-3])  # features differ by many orders of magnitude, as counts and bytes do


def samples(seed: int, n: int = 60) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(0.1, 1.0, (n, 3)) * SCALES


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.one_of(st.just(0.0), st.floats(0.05, 20.0)), min_size=3, max_size=3).filter(any),
    seed=st.integers(0, 2**32 - 1),
)
def test_exact_samples_give_the_coefficients_back(values: list[float], seed: int) -> None:
    features, wanted = samples(seed), np.array(values) / SCALES
    fit = non_negative_fit(features, features @ wanted)
    np.testing.assert_allclose(np.array(fit.coefficients) * SCALES, values, rtol=1e-6, atol=1e-6)
    assert fit.residual < 1e-6
    assert fit.samples == 60


def closed_form(features: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Minimum of the squared relative errors by the normal equations."""
    scaled = features / seconds[:, None]
    return np.asarray(np.linalg.solve(scaled.T @ scaled, scaled.sum(axis=0)))


@pytest.mark.parametrize("seed", range(8))
def test_noisy_samples_give_the_least_squares_solution(seed: int) -> None:
    """Where that has no negative coefficient, it is the answer; noise stays below what counts as an outlier."""
    features = samples(seed, n=400)
    noise = np.random.default_rng(seed + 100).uniform(0.97, 1.03, 400)
    seconds = features @ (np.array([2.0, 3.0, 1.0]) / SCALES) * noise
    fit = non_negative_fit(features, seconds)
    np.testing.assert_allclose(fit.coefficients, closed_form(features, seconds), rtol=1e-6)
    np.testing.assert_allclose(np.array(fit.coefficients) * SCALES, [2.0, 3.0, 1.0], rtol=0.03)
    assert 0.01 < fit.residual < 0.02  # the median of |noise| is 1.5 %


def test_a_coefficient_that_would_be_negative_is_zero_and_the_rest_are_fitted_without_it() -> None:
    features = samples(1)
    seconds = features @ (np.array([5.0, 5.0, -0.05]) / SCALES)
    fit = non_negative_fit(features, seconds)
    assert fit.coefficients[2] == 0.0
    np.testing.assert_allclose(fit.coefficients[:2], closed_form(features[:, :2], seconds), rtol=1e-6)


def test_a_coefficient_that_is_known_to_be_positive_stays_so_where_others_alone_would_fit_better() -> None:
    features = samples(2)
    seconds = features @ (np.array([-0.5, 5.0, 0.0]) / SCALES) + 0.5  # faster, the more there is of the first
    assert non_negative_fit(features, seconds).coefficients[0] == 0.0
    bound = non_negative_fit(features, seconds, positive=[0])
    assert bound.coefficients[0] > 0.0
    assert (np.array(bound.coefficients) >= 0).all()


def test_a_few_disturbed_samples_change_nothing() -> None:
    features = samples(3)
    seconds = features @ (np.array([2.0, 3.0, 1.0]) / SCALES)
    seconds[::12] *= 5.0
    fit = non_negative_fit(features, seconds)
    np.testing.assert_allclose(np.array(fit.coefficients) * SCALES, [2.0, 3.0, 1.0], rtol=1e-6)


def test_a_feature_that_never_occurs_has_no_cost() -> None:
    features = samples(4)
    features[:, 1] = 0.0
    fit = non_negative_fit(features, features @ (np.array([2.0, 9.0, 1.0]) / SCALES))
    np.testing.assert_allclose(np.array(fit.coefficients) * SCALES, [2.0, 0.0, 1.0], rtol=1e-6)


def test_fewer_samples_than_coefficients_still_explain_what_there_is() -> None:
    fit = non_negative_fit(np.array([[2.0, 0.0, 5.0]]), np.array([4.0]))
    assert fit.residual < 1e-9
    assert min(fit.coefficients) >= 0


# -- timings


def test_a_timing_is_the_median_and_the_interquartile_range() -> None:
    assert Timing.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Timing(median=3.0, spread=2.0, repeats=5)


def test_a_rate_keeps_its_relative_spread() -> None:
    assert Timing(median=2.0, spread=0.5, repeats=7).rate(10.0) == Timing(median=5.0, spread=1.25, repeats=7)


def test_the_first_call_is_not_counted() -> None:
    calls: list[int] = []
    assert repeat(lambda: calls.append(1), 4).repeats == 4
    assert len(calls) == 5
