"""Arrays of records, as the memory that they are: rows of a program's tables, which C reads too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.void]


def words(array: Array) -> npt.NDArray[np.int32]:
    """Rows of 32-bit fields without gaps, as those of operators and tasks are, as rows of words of the same memory."""
    return array.view(np.int32).reshape(len(array), -1)


def joined(arrays: Sequence[Array]) -> Array:
    """Rows of one dtype one behind the other, field by field what they are; numpy would look into each field."""
    dtype = arrays[0].dtype
    opaque = np.dtype((np.void, dtype.itemsize))
    return np.concatenate([array.view(opaque) for array in arrays]).view(dtype)


def field_bytes(array: npt.NDArray[Any]) -> bytes:
    """The bytes of all fields, column by column. What lies between fields, where C aligns them, is left to chance."""
    return b"".join(array[name].tobytes() for name in array.dtype.names or ())
