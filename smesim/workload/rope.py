"""Rotary positions: how far each pair of a head turns from one position to the next.

Pair i of a head turns by position x theta^(-2i / head_dim) radians (Su et al., RoFormer, arXiv 2104.09864).
Llama 3.1 serves longer contexts by slowing the slow pairs: a pair whose wavelength is above original /
low_freq_factor turns `factor` times slower, one below original / high_freq_factor is left alone, and in
between the two are blended (meta-llama/llama-models, models/llama3/model.py, `apply_scaling`).
"""

from __future__ import annotations

import math

from smesim.workload.config import Llama3RopeScaling, ModelConfig


def inverse_frequencies(config: ModelConfig) -> tuple[float, ...]:
    """Radians per position of each pair of a head: head_dim / 2 values, scaling applied."""
    plain = _plain(config.head_dim, config.rope_theta)
    if config.rope_scaling is None:
        return plain
    divisors = llama3_divisors(config.head_dim, config.rope_theta, config.rope_scaling)
    return tuple(frequency / divisor for frequency, divisor in zip(plain, divisors, strict=True))


def llama3_divisors(head_dim: int, rope_theta: float, scaling: Llama3RopeScaling) -> tuple[float, ...]:
    """How many times slower each pair turns: head_dim / 2 values from 1 to `factor`."""
    return tuple(_divisor(frequency, scaling) for frequency in _plain(head_dim, rope_theta))


def _plain(head_dim: int, rope_theta: float) -> tuple[float, ...]:
    return tuple(rope_theta ** (-2 * pair / head_dim) for pair in range(head_dim // 2))


def _divisor(frequency: float, scaling: Llama3RopeScaling) -> float:
    turns = scaling.original_max_position * frequency / (2 * math.pi)
    if turns < scaling.low_freq_factor:
        return scaling.factor
    if turns > scaling.high_freq_factor:
        return 1.0
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    return 1.0 / ((1.0 - kept) / scaling.factor + kept)
