"""Formats that published engines keep weights in: bits a weight with its scales, and those of the output projection.

Files of 4 bits keep the output projection, or the tied embedding that it is, in 6 bits; "Q4_K_M" mixes blocks of 4 and
of 6 bits (llama.cpp, `llama_tensor_get_type`).
"""

from __future__ import annotations

from dataclasses import dataclass

from smesim.errors import SmesimError

_SIX_BITS = 6.5625


@dataclass(frozen=True)
class WeightFormat:
    """A format by the name that kernels go by."""

    name: str
    bits: float
    head_bits: float


FORMATS = {
    format_.name: format_
    for format_ in (
        WeightFormat("f32", 32.0, 32.0),
        WeightFormat("f16", 16.0, 16.0),
        WeightFormat("bf16", 16.0, 16.0),
        WeightFormat("fp8", 8.0, 8.0),
        WeightFormat("q8_0", 8.5, 8.5),
        WeightFormat("q6_k", _SIX_BITS, _SIX_BITS),
        WeightFormat("q5_0", 5.5, _SIX_BITS),
        WeightFormat("q4_k", 4.85, _SIX_BITS),
        WeightFormat("q4_0", 4.5, _SIX_BITS),
        WeightFormat("w4", 4.5, 4.5),
        WeightFormat("w2", 2.5, 2.5),
        WeightFormat("int8", 8.0, 8.0),
    )
}


def weight_format(name: str) -> WeightFormat:
    """The format of that name; SmesimError lists those there are."""
    if name not in FORMATS:
        raise SmesimError(f"unknown format of weights {name!r}; accepted: {', '.join(FORMATS)}")
    return FORMATS[name]
