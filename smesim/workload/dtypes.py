"""Number formats: how many bytes a tensor's elements take, scales included.

Plain formats store each element alone. Block formats (GGUF's Q4_0, Q4_1, Q8_0) store 32 consecutive
elements of a row with one or two 16-bit constants, so a row's length must be a multiple of 32. `s8` is a
row of signed bytes with one 32-bit scale, the format of per-channel and per-token quantisation. Sizes of
the blocks: ggml-org/llama.cpp, ggml/src/ggml-common.h (`block_q4_0`, `block_q4_1`, `block_q8_0`).
"""

from __future__ import annotations

from enum import StrEnum

from smesim.errors import WorkloadError

BLOCK_ELEMENTS = 32
_ROW_SCALE_BYTES = 4


class DType(StrEnum):
    """A number format of weights, activations, KV cache or indices."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    S8 = "s8"
    Q8_0 = "q8_0"
    Q4_0 = "q4_0"
    Q4_1 = "q4_1"
    I32 = "i32"

    @classmethod
    def parse(cls, name: str) -> DType:
        """The format of this name; WorkloadError lists the names there are."""
        try:
            return cls(name.lower())
        except ValueError:
            known = ", ".join(dtype.value for dtype in cls)
            raise WorkloadError(f"unknown dtype {name!r}; accepted: {known}") from None

    @property
    def is_quantized(self) -> bool:
        """Whether elements are integers that share a scale."""
        return self in (DType.S8, DType.Q8_0, DType.Q4_0, DType.Q4_1)

    @property
    def bits_per_element(self) -> float:
        """Bits an element takes, the share of its block's constants included (q4_0: 4.5)."""
        if self in _BLOCK_BYTES:
            return 8 * _BLOCK_BYTES[self] / BLOCK_ELEMENTS
        return 8.0 * _ELEMENT_BYTES[self]

    def bytes_for(self, elements: int) -> int:
        """Bytes of that many consecutive elements.

        Block formats take multiples of 32 elements; anything else is a WorkloadError.
        """
        if elements < 0:
            raise WorkloadError(f"{self}: {elements} elements; accepted: 0 or more")
        if self not in _BLOCK_BYTES:
            return elements * _ELEMENT_BYTES[self]
        blocks, rest = divmod(elements, BLOCK_ELEMENTS)
        if rest:
            raise WorkloadError(
                f"{self} stores blocks of {BLOCK_ELEMENTS} elements; {elements} is not a multiple"
            )
        return blocks * _BLOCK_BYTES[self]

    def row_bytes(self, elements: int) -> int:
        """Bytes of one row of a matrix; `s8` adds the row's scale."""
        return self.bytes_for(elements) + (_ROW_SCALE_BYTES if self is DType.S8 else 0)


_ELEMENT_BYTES = {DType.F32: 4, DType.F16: 2, DType.BF16: 2, DType.S8: 1, DType.I32: 4}
_BLOCK_BYTES = {DType.Q8_0: 34, DType.Q4_0: 18, DType.Q4_1: 20}
