"""Tensors as the graph knows them: name, shape, format and what they hold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from smesim.errors import WorkloadError
from smesim.workload.dtypes import DType


class Role(StrEnum):
    """What a tensor holds; formats and places in memory go by it."""

    WEIGHT = "weight"
    ACTIVATION = "activation"
    KV = "kv"
    INDEX = "index"


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape (last axis contiguous), format and role of a tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: DType
    role: Role

    def __post_init__(self) -> None:
        try:
            self.dtype.row_bytes(self.shape[-1])
        except WorkloadError as error:
            raise WorkloadError(f"tensor {self.name}: {error}") from None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def rows(self) -> int:
        """Rows of the tensor seen as a matrix: all axes but the last."""
        return math.prod(self.shape[:-1])

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, scales included."""
        return self.dtype.row_bytes(self.shape[-1])

    @property
    def bytes(self) -> int:
        """Bytes of the whole tensor, scales included."""
        return self.rows * self.row_bytes


@dataclass(frozen=True)
class DTypes:
    """The format of each role.

    Whatever the weights' format, vectors (norms, biases) and the router are f32, as GGUF files store them;
    indices are i32. Accepted are any format but i32 for weights and KV, and floats for activations.
    """

    weights: DType = DType.F32
    activations: DType = DType.F32
    kv: DType = DType.F32
    head: DType | None = None
    """Of the weights of the last product, and so of the embedding table where they are one; None: as the others."""

    def __post_init__(self) -> None:
        floats = (DType.F32, DType.F16, DType.BF16)
        stored = tuple(dtype for dtype in DType if dtype is not DType.I32)
        for role, value, accepted in (
            ("weights", self.weights, stored), ("activations", self.activations, floats), ("kv", self.kv, stored),
            ("head", self.last_product, stored),
        ):  # fmt: skip
            if value not in accepted:
                raise WorkloadError(f"dtype of {role} is {value!s}; accepted: {', '.join(accepted)}")

    @property
    def last_product(self) -> DType:
        """Format of the weights of the last product."""
        return self.head or self.weights


def quantized_activations(weights: DType) -> DType | None:
    """Format that activations are quantised to before a product with weights of that format, or None."""
    if not weights.is_quantized:
        return None
    return DType.S8 if weights is DType.S8 else DType.Q8_0
