"""Caches of keys and values as ordinary arrays, and back: the layouts of `layout.h` and `layout_kv.h`.

Of each head, keys lie as a right operand whose columns are positions, values as one whose columns are the elements of a
head, in panels of 16; in Q8_0 values lie position after position. What is converted to f16 or Q8_0 here is converted
as the kernels do it that append.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from smesim.exec import blocks
from smesim.plan.formats import NR
from smesim.plan.program import Layout, Number
from smesim.workload.dtypes import BLOCK_ELEMENTS

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

LAYOUTS = (Layout.K_PACKED, Layout.V_PACKED)
_FLOATS: dict[Number, type[np.float32 | np.float16]] = {Number.F32: np.float32, Number.F16: np.float16}


def unpacked(cache: Bytes, number: Number, layout: Layout, capacity: int, head_dim: int) -> Floats:
    """The numbers (heads, capacity, head_dim) of a cache."""
    if number is Number.Q8_0:
        heads = cache.reshape(-1, _head_bytes(capacity, head_dim))
        of_head = _unpacked_keys if layout is Layout.K_PACKED else _unpacked_values
        return np.stack([of_head(head, capacity, head_dim) for head in heads])
    flat = cache.view(_FLOATS[number])
    if layout is Layout.K_PACKED:
        keys = flat.reshape(-1, capacity // NR, head_dim, NR).transpose(0, 1, 3, 2)
        return keys.reshape(-1, capacity, head_dim).astype(np.float32)
    values = flat.reshape(-1, -(-head_dim // NR), capacity, NR).transpose(0, 2, 1, 3)
    return values.reshape(len(values), capacity, -1)[:, :, :head_dim].astype(np.float32)


def packed(values: Floats, number: Number, layout: Layout) -> Bytes:
    """The bytes of a cache with these numbers (heads, capacity, head_dim), capacity whole panels."""
    heads, capacity, head_dim = values.shape
    if number is Number.Q8_0:
        of_head = _packed_keys if layout is Layout.K_PACKED else _packed_values
        return np.concatenate([of_head(head) for head in values])
    with np.errstate(over="ignore"):  # what is too large for f16 becomes an infinity, as in the kernels
        numbers = values.astype(_FLOATS[number])
    if layout is Layout.K_PACKED:
        numbers = numbers.reshape(heads, capacity // NR, NR, head_dim).transpose(0, 1, 3, 2)
    else:
        numbers = np.pad(numbers, ((0, 0), (0, 0), (0, -head_dim % NR)))
        numbers = numbers.reshape(heads, capacity, -1, NR).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(numbers).reshape(-1).view(np.uint8)


def packed_first(values: Floats, number: Number, layout: Layout, capacity: int) -> Bytes:
    """The bytes of a cache whose first positions have these numbers (heads, positions, head_dim); zeros behind them."""
    heads, positions, head_dim = values.shape
    full = np.zeros((heads, capacity, head_dim), np.float32)
    full[:, :positions] = values
    return packed(full, number, layout)


def scales(cache: Bytes, capacity: int, head_dim: int) -> npt.NDArray[np.float16]:
    """The scales of a cache in Q8_0: finite as far as its numbers are."""
    heads = cache.reshape(-1, _head_bytes(capacity, head_dim))
    return np.ascontiguousarray(heads[:, capacity * head_dim :]).view(np.float16)


def _head_bytes(capacity: int, head_dim: int) -> int:
    return blocks.row_bytes(Number.Q8_0, head_dim) * capacity


def _unpacked_keys(head: Bytes, capacity: int, head_dim: int) -> Floats:
    return blocks.unpack_rhs(Number.Q8_0, head, capacity, head_dim)


def _packed_keys(head: Floats) -> Bytes:
    return blocks.packed_floats(Number.Q8_0, head)


def _unpacked_values(head: Bytes, capacity: int, head_dim: int) -> Floats:
    numbers = head[: capacity * head_dim].view(np.int8).reshape(capacity, -1, BLOCK_ELEMENTS)
    factors = head[capacity * head_dim :].view(np.float16).reshape(capacity, -1, 1)
    return (numbers.astype(np.float32) * factors.astype(np.float32)).reshape(capacity, head_dim)


def _packed_values(head: Floats) -> Bytes:
    capacity, head_dim = head.shape
    rows = blocks.quantized(Number.Q8_0, head).reshape(capacity, head_dim // BLOCK_ELEMENTS, -1)
    scale_bytes = rows.shape[2] - BLOCK_ELEMENTS
    return np.concatenate([rows[..., scale_bytes:].ravel(), rows[..., :scale_bytes].ravel()])
