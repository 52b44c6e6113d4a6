"""Tensors as model files hold them: a name, a shape, a format, and bytes that are not copied until they are asked for.

The formats are those of GGUF, under its names; safetensors has three of them. A format keeps `elements` neighbouring
elements of a row in a block of `n_bytes`: one element in plain formats, 32 or 256 with their scales in others.
"""

from __future__ import annotations

import math
import mmap
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from smesim.errors import WorkloadError

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def mapped(path: Path, kind: str) -> mmap.mmap:
    """A file of some kind as memory, read only; WorkloadError for one that is empty or cannot be read."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise WorkloadError(f"{path}: not a whole {kind} file (it is empty)") from None
    except OSError as error:
        raise WorkloadError(f"{path}: {error.strerror or error}; expected a {kind} file") from None


def give_back(file: mmap.mmap, begin: int, end: int) -> None:
    """Give back the memory that the whole pages between two places of a mapped file take; what is read again comes from
    the file."""
    begin = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
    length = end // mmap.PAGESIZE * mmap.PAGESIZE - begin
    if length > 0 and hasattr(mmap, "MADV_DONTNEED"):
        with suppress(OSError):  # an emulator may know no advice
            file.madvise(mmap.MADV_DONTNEED, begin, length)


@dataclass(frozen=True)
class StoredFormat:
    """One format: its name, its number in GGUF, and its block."""

    name: str
    number: int
    elements: int
    n_bytes: int


FORMATS = {
    stored.name: stored
    for stored in (
        StoredFormat("F32", 0, 1, 4),
        StoredFormat("F16", 1, 1, 2),
        StoredFormat("Q4_0", 2, 32, 18),
        StoredFormat("Q4_1", 3, 32, 20),
        StoredFormat("Q5_0", 6, 32, 22),
        StoredFormat("Q5_1", 7, 32, 24),
        StoredFormat("Q8_0", 8, 32, 34),
        StoredFormat("Q2_K", 10, 256, 84),
        StoredFormat("Q3_K", 11, 256, 110),
        StoredFormat("Q4_K", 12, 256, 144),
        StoredFormat("Q5_K", 13, 256, 176),
        StoredFormat("Q6_K", 14, 256, 210),
        StoredFormat("IQ4_NL", 20, 32, 18),
        StoredFormat("IQ4_XS", 23, 256, 136),
        StoredFormat("BF16", 30, 1, 2),
    )
}
"""Numbers and blocks: ggml-org/llama.cpp, ggml/include/ggml.h (`ggml_type`) and ggml/src/ggml-common.h."""

BYTES = StoredFormat("U8", 0, 1, 1)
"""Bytes that only their owner understands; no weights are in it."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file; `shape` has the last axis contiguous, `raw` are its bytes in the file, flat."""

    where: str
    """File and name, for messages."""
    format: StoredFormat
    shape: tuple[int, ...]
    raw: Bytes = field(repr=False)
    file: mmap.mmap | None = field(default=None, repr=False)
    """The mapped file that `raw` lies in."""
    begin: int = 0
    """Where in the file."""

    @property
    def columns(self) -> int:
        return self.shape[-1]

    @property
    def n_rows(self) -> int:
        return math.prod(self.shape[:-1])

    @property
    def rows(self) -> Bytes:
        """The bytes, a row of the tensor in each row."""
        return self.raw.reshape(self.n_rows, -1)

    def release(self, first: int = 0, last: int | None = None) -> None:
        """Give back the memory that the pages of some rows take, or of all; what is read again comes from the file."""
        if self.file is not None:
            row_bytes = len(self.raw) // self.n_rows
            end = self.begin + (self.n_rows if last is None else last) * row_bytes
            give_back(self.file, self.begin + first * row_bytes, end)

    def floats(self, rows: Bytes | None = None) -> Floats:
        """Some of `rows` (all, if none are given) as f32."""
        rows = self.rows if rows is None else rows
        return as_floats(rows, self.format, self.where).reshape(len(rows), self.columns)


def stored_bytes(shape: tuple[int, ...], stored: StoredFormat, where: str) -> int:
    """Bytes that a tensor takes; WorkloadError where its rows are no whole blocks."""
    if shape[-1] % stored.elements:
        raise WorkloadError(
            f"{where}: rows of {shape[-1]} elements in {stored.name}; accepted: multiples of {stored.elements}"
        )
    return math.prod(shape) // stored.elements * stored.n_bytes


def as_floats(rows: Bytes, stored: StoredFormat, where: str) -> Floats:
    """Bytes of whole rows as f32; the formats of blocks by the package `gguf` (extra `llm`)."""
    match stored.name:
        case "F32":
            return np.ascontiguousarray(rows).view("<f4").astype(np.float32, copy=False)
        case "F16":
            return np.ascontiguousarray(rows).view("<f2").astype(np.float32)
        case "BF16":
            return (np.ascontiguousarray(rows).view("<u2").astype(np.uint32) << 16).view(np.float32)
    try:
        import gguf
    except ImportError:
        raise WorkloadError(
            f"{where}: reading {stored.name} needs the package gguf; install it with: pip install 'smesim[llm]'"
        ) from None
    blocks: Floats = gguf.quants.dequantize(np.ascontiguousarray(rows), gguf.GGMLQuantizationType(stored.number))
    return blocks
