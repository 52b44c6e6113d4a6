"""Writing GGUF files: the header at once, the tensors piece by piece, so that a file may be larger than memory.

The kinds of values follow from Python's types: whole numbers are stored as 32-bit unsigned ones (arrays as signed),
floats in 32 bits, and text and flags as what they are.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from smesim.files import write_pieces_atomically
from smesim.workload.gguf_file import ALIGNMENT, MAGIC, VERSIONS
from smesim.workload.stored import StoredFormat, stored_bytes

Value = bool | int | float | str | Sequence[int] | Sequence[float] | Sequence[str]
_FLAG, _WHOLE, _FLOAT, _TEXT, _ARRAY, _SIGNED = 7, 4, 6, 8, 9, 5


@dataclass(frozen=True)
class NewTensor:
    """A tensor to be written: `pieces` are called when its turn comes, and must give all its bytes."""

    name: str
    shape: tuple[int, ...]
    format: StoredFormat
    pieces: Callable[[], Iterable[bytes]]

    @property
    def n_bytes(self) -> int:
        return stored_bytes(self.shape, self.format, self.name)


def write_gguf(path: Path, metadata: Mapping[str, Value], tensors: Sequence[NewTensor]) -> None:
    """Write a file, whole or not at all; SmesimError says why it could not be."""
    write_pieces_atomically(path, _pieces(metadata, tensors))


def _pieces(metadata: Mapping[str, Value], tensors: Sequence[NewTensor]) -> Iterator[bytes]:
    header = MAGIC + struct.pack("<IQQ", VERSIONS[-1], len(tensors), len(metadata))
    for key, value in metadata.items():
        header += _text(key) + _typed(value)
    offset = 0
    for tensor in tensors:
        axes = tensor.shape[::-1]
        header += _text(tensor.name) + struct.pack(f"<I{len(axes)}Q", len(axes), *axes)
        header += struct.pack("<IQ", tensor.format.number, offset)
        offset += tensor.n_bytes + _padding(tensor.n_bytes)
    yield header + bytes(_padding(len(header)))
    for tensor in tensors:
        written = 0
        for piece in tensor.pieces():
            written += len(piece)
            yield piece
        assert written == tensor.n_bytes, tensor.name
        yield bytes(_padding(written))


def _padding(n_bytes: int) -> int:
    return -n_bytes % ALIGNMENT


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _typed(value: Value) -> bytes:
    """A value behind the number of its type."""
    match value:
        case bool():
            return struct.pack("<I?", _FLAG, value)
        case int():
            return struct.pack("<II", _WHOLE, value)
        case float():
            return struct.pack("<If", _FLOAT, value)
        case str():
            return struct.pack("<I", _TEXT) + _text(value)
    kinds = {str: _TEXT, float: _FLOAT, int: _SIGNED}
    kind = kinds[type(value[0])]
    head = struct.pack("<IIQ", _ARRAY, kind, len(value))
    if kind == _TEXT:
        return head + b"".join(_text(str(item)) for item in value)
    return head + struct.pack(f"<{len(value)}{'f' if kind == _FLOAT else 'i'}", *value)
