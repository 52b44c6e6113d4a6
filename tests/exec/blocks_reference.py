"""What the kernels of block-quantised weights are checked against, in numpy: layouts, roundings and products again.

A quantised matrix is its integers [rows][blocks][32] and its scales [rows][blocks]; those of weights are f16. Weights
are of a kind, as the kernels' names say it: "q4", "q8" or "q4_1", which has the least numbers of its blocks as well.
"""

from dataclasses import dataclass
from typing import Any

import lowp_reference as lowp
import numpy as np
from kernel_reference import F32, NR, ffi, isa_of, lib, listed
from lowp_reference import S8, U16, rounded_once
from numpy.typing import NDArray

BLOCK, WORD = 32, 4
KINDS = {"q8_0": "q8", "q4_0": "q4", "q4_1": "q4_1"}
"""Kinds by the names of GGUF's formats."""
INTEGERS = {"q4": (-8, 8), "q8": (-128, 128), "q4_1": (0, 16)}
"""Of each kind the least integer, and one above the largest."""

F16 = NDArray[np.float16]
U8 = NDArray[np.uint8]


def tables() -> list[Any]:
    """All compiled-in tables of blocks."""
    return listed(lib.sms_blocks_at)


def runnable() -> list[str]:
    """The instruction sets whose kernels this machine can run, those only for tests included."""
    return [isa_of(table) for table in tables() if lib.sms_blocks_supported(table)]


def find(isa: str) -> Any:
    return lib.sms_blocks_find(isa.encode())


@dataclass(frozen=True)
class Quantized:
    """Integers of blocks, and one scale each."""

    numbers: S8
    scales: NDArray[Any]
    least: F16 | None = None

    def rows(self, chosen: Any) -> "Quantized":
        """Some of its rows."""
        least = None if self.least is None else self.least[chosen]
        return Quantized(self.numbers[chosen], self.scales[chosen], least)

    @property
    def flat(self) -> S8:
        return self.numbers.reshape(len(self.numbers), -1)


def blocks_of(x: F32) -> F32:
    """[rows][blocks][32], filled up with zeros."""
    return np.asarray(lowp.grouped(x, BLOCK))


def quantize_lhs(x: F32) -> Quantized:
    blocks = blocks_of(x)
    numbers, scales = lowp.quantize(blocks.reshape(-1, BLOCK))
    return Quantized(numbers.reshape(blocks.shape), scales.reshape(blocks.shape[:2]))


def quantize_rhs(w: F32, kind: str) -> Quantized:
    """As llama.cpp quantises to Q4_0, Q8_0 and Q4_1, its multiply-adds fused."""
    blocks = blocks_of(w)
    finite = np.isfinite(blocks).all(axis=2)
    blocks = np.where(finite[..., None], blocks, np.float32(0))
    if kind == "q4_1":
        return quantize_q4_1(blocks, finite)
    first_largest = np.abs(blocks).argmax(axis=2)[..., None]
    largest = np.take_along_axis(blocks, first_largest, axis=2) + np.float32(0)  # a zero has no sign
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        d = largest / np.float32(-8) if kind == "q4" else np.abs(largest) / np.float32(127)
        inverse = np.float32(1) / d
        inverse[np.isinf(inverse)] = 0
        scales = d[..., 0].astype(np.float16)
    if kind == "q4":
        product = blocks.astype(np.float64) * inverse.astype(np.float64)  # 48 bits: exact
        numbers = np.minimum(15, np.trunc(rounded_once(product, np.full_like(product, 8.5)))) - 8
    else:
        ratio = (blocks * inverse).astype(np.float64)
        numbers = np.trunc(ratio + np.copysign(0.5, ratio))  # of f32, the sum is exact
    scales[~finite] = np.nan
    return Quantized(numbers.astype(np.int8), scales)


def quantize_q4_1(blocks: F32, finite: NDArray[np.bool_]) -> Quantized:
    least = blocks.min(axis=2, keepdims=True) + np.float32(0)  # a zero has no sign
    with np.errstate(divide="ignore", over="ignore", under="ignore", invalid="ignore"):
        d = (blocks.max(axis=2, keepdims=True) - least) / np.float32(15) + np.float32(0)
        inverse = np.float32(1) / d
        inverse[np.isinf(inverse)] = 0
        product = np.where(inverse > 0, blocks - least, np.float32(0)).astype(np.float64) * inverse.astype(np.float64)
        numbers = np.minimum(15, np.trunc(rounded_once(product, np.full_like(product, 0.5)))).astype(np.int8)
        scales, leasts = d[..., 0].astype(np.float16), least[..., 0].astype(np.float16)
    scales[~finite], leasts[~finite], numbers[~finite] = np.nan, 0, 0
    return Quantized(numbers, scales, leasts)


def pack_rhs(w: Quantized, kind: str) -> tuple[U8, U16]:
    """The bytes of the integers, and the scales."""
    words = lowp.pack_rhs(w.flat, WORD).view(np.uint8).reshape(-1, BLOCK // WORD, 64)
    low, high = words[:, ::2] & 0x0F, words[:, 1::2] & 0x0F
    packed = words if kind == "q8" else low | high << 4
    scales = lowp.pack_rhs(w.scales.view(np.uint16), 1)
    if w.least is not None:
        leasts = lowp.pack_rhs(w.least.view(np.uint16), 1)
        scales = np.stack([scales.reshape(-1, NR), leasts.reshape(-1, NR)], axis=1).ravel()
    return packed.ravel(), scales


def gguf(w: Quantized, kind: str) -> U8:
    """[rows][bytes] of GGUF's blocks of Q4_0, Q8_0 or Q4_1."""
    numbers = w.numbers.view(np.uint8)
    if kind != "q8":
        offset = (w.numbers - np.int8(INTEGERS[kind][0])).view(np.uint8)
        numbers = offset[..., : BLOCK // 2] | offset[..., BLOCK // 2 :] << 4
    scales = np.stack([w.scales] if w.least is None else [w.scales, w.least], axis=2).view(np.uint8)
    return np.concatenate([scales, numbers], axis=2).reshape(len(w.numbers), -1)


def product(x: Quantized, w: Quantized, bias: F32 | None) -> F32:
    """x * w^T + bias as the header says it, bit for bit."""
    y = np.zeros((len(x.numbers), len(w.numbers)), np.float32)
    if bias is not None:
        y += bias
    for block in range(x.numbers.shape[1]):
        sums = x.numbers[:, block].astype(np.float64) @ w.numbers[:, block].astype(np.float64).T
        scale = x.scales[:, block, None] * w.scales[:, block].astype(np.float32)
        y = rounded_once(sums * scale.astype(np.float64), y.astype(np.float64))
        if w.least is not None:
            x_sums = x.numbers[:, block].astype(np.float64).sum(axis=1, keepdims=True)
            scale = x.scales[:, block, None] * w.least[:, block].astype(np.float32)
            y = rounded_once(x_sums * scale.astype(np.float64), y.astype(np.float64))
    return y


__all__ = ["BLOCK", "Quantized", "blocks_of", "ffi", "find", "gguf", "pack_rhs", "product", "quantize_lhs",
           "quantize_rhs", "runnable", "tables"]  # fmt: skip
