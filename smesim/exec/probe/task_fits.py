"""Fits of a kernel's coefficients to samples of tasks, and what comes out of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smesim.errors import DeviceError
from smesim.exec.probe.fit import Fit, non_negative_fit
from smesim.exec.probe.samples import Floats, Sample

COMPUTE_BOUND_SHARE = 0.5
"""A task counts as compute-bound when its bytes alone would take less than this share of its time."""


@dataclass(frozen=True)
class FittedKernel:
    """Coefficients of one kernel by parameter name, as (value, unit), and how well they explain the samples."""

    name: str
    parameters: dict[str, tuple[float, str]]
    residual: float
    samples: int
    method: str = "non-negative least squares"


def needed(samples: list[Sample], what: str) -> list[Sample]:
    if not samples:
        raise DeviceError(f"the probe has no usable samples of {what}; run it again when the machine is quieter")
    return samples


def fit_samples(features: Floats, samples: Sequence[Sample], positive: Sequence[int] = ()) -> Fit:
    seconds, weights = np.array([s.seconds for s in samples]), np.array([s.weight for s in samples])
    return non_negative_fit(features, seconds, weights, positive)
