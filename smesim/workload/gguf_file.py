"""GGUF files: the header is read and checked here, the tensors are mapped into memory and stay in the file.

A file may come from anywhere, so nothing in it is believed: every count and length is held against the bytes that are
left before anything is read or allocated, sizes are worked out in whole numbers that cannot overflow, tensors must lie
within the file, and names may be there only once. What is wrong is one WorkloadError with the file and the key or
tensor. Memory grows with the header alone, and no more than `MOST_ELEMENTS` values may stand in one array of it.

The format: ggml-org/ggml, docs/gguf.md; versions 2 and 3 (which differ in what version 3 may be of, the byte order).
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smesim.errors import WorkloadError
from smesim.workload.stored import FORMATS, StoredTensor, give_back, mapped, stored_bytes

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
"""Where tensors may begin, if `general.alignment` says nothing else."""
MOST_ELEMENTS = 1 << 24
"""Of one array in the header; the largest vocabularies have 2^18 tokens, and twice as many merges."""
MOST_AXES = 4
LONGEST_NAME = 65535
_LARGEST = 2**63 - 1

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")
"""What stands before a string."""
_BY_NUMBER = {stored.number: stored for stored in FORMATS.values()}


@dataclass(frozen=True)
class GgufFile:
    """A whole GGUF file: its keys with their values (arrays as lists), and its tensors by name."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]

    @classmethod
    def read(cls, path: Path) -> GgufFile:
        """Read and check a file. WorkloadError says what is wrong with it, and where."""
        path = Path(path)
        return _Header(str(path), mapped(path, "GGUF")).file(path)


@dataclass(frozen=True)
class _Array:
    """An array of the header that has been checked: where it begins, of what and how many it is."""

    at: int
    of: int
    n: int


class _Keys(Mapping[str, Any]):
    """Keys and values. Arrays are read again from the file whenever they are asked for: a vocabulary takes some 20 MB
    as Python's strings, and who computes with the weights asks for none."""

    def __init__(self, where: str, data: mmap.mmap, values: Mapping[str, Any]) -> None:
        self._where, self._data, self._values = where, data, values

    def __getitem__(self, key: str) -> Any:
        value = self._values[key]
        if not isinstance(value, _Array):
            return value
        return _Header(self._where, self._data, value.at).elements(key, value.of, value.n)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class _Header:
    """A place in the file that moves on with what is read."""

    def __init__(self, where: str, data: mmap.mmap, at: int = 0) -> None:
        self.where = where
        self.data = data
        self.at = at

    def file(self, path: Path) -> GgufFile:
        if self.data[:4] != MAGIC:
            raise self.wrong(f"it begins with {self.data[:4]!r}, not with {MAGIC!r}")
        self.at = 4
        version = self.number("<I", "the version")
        if version not in VERSIONS:
            swapped = " in the other byte order" if version >> 24 in VERSIONS else ""
            raise WorkloadError(f"{self.where}: GGUF version {version}{swapped}; accepted: 2 and 3, little-endian")
        n_tensors = self.count("<Q", "tensors", 24)
        n_keys = self.count("<Q", "keys", 13)
        metadata: dict[str, Any] = {}
        for _ in range(n_keys):
            key = self.name("a key")
            if key in metadata:
                raise self.wrong(f"key {key!r} is there twice")
            metadata[key] = self.value(key)
        alignment = metadata.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise WorkloadError(f"{self.where}: general.alignment is {alignment!r}; accepted: a power of two")
        facts = [self.tensor_facts() for _ in range(n_tensors)]
        start = -(-self.at // alignment) * alignment
        tensors: dict[str, StoredTensor] = {}
        for name, number, shape, offset in facts:
            if name in tensors:
                raise self.wrong(f"tensor {name!r} is there twice")
            tensors[name] = self.tensor(name, number, shape, offset, start, alignment)
        give_back(self.data, 0, self.at)
        return GgufFile(path, _Keys(self.where, self.data, metadata), tensors)

    def wrong(self, what: str) -> WorkloadError:
        return WorkloadError(f"{self.where}: not a whole GGUF file ({what}, at byte {self.at})")

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, n_bytes: int, what: str) -> bytes:
        if n_bytes > self.left:
            raise self.wrong(f"{what} takes {n_bytes} bytes, {self.left} are left")
        self.at += n_bytes
        return self.data[self.at - n_bytes : self.at]

    def number(self, form: str, what: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form), what))[0]

    def count(self, form: str, what: str, least_bytes: int) -> int:
        """How many follow; each takes some bytes at least, so there cannot be more than the file has room for."""
        count = int(self.number(form, f"the number of {what}"))
        if count * least_bytes > self.left:
            raise self.wrong(f"{count} {what} cannot be in {self.left} bytes")
        return count

    def string(self, what: str) -> str:
        text = self.take(_LENGTH.unpack(self.take(8, what))[0], what)
        try:
            return text.decode()
        except UnicodeDecodeError:
            raise self.wrong(f"{what} is not UTF-8") from None

    def name(self, what: str) -> str:
        if self.left >= 8 and struct.unpack_from("<Q", self.data, self.at)[0] > LONGEST_NAME:
            raise self.wrong(f"the name of {what} is longer than {LONGEST_NAME} bytes")
        return self.string(f"the name of {what}")

    def value(self, key: str) -> Any:
        kind = self.number("<I", key)
        if kind in _SCALARS:
            return self.number(_SCALARS[kind], key)
        if kind == _STRING:
            return self.string(key)
        if kind != _ARRAY:
            raise self.wrong(f"{key} is of type {kind}; accepted: 0 to 12")
        of = self.number("<I", key)
        if of not in _SCALARS and of != _STRING:
            raise self.wrong(f"{key} is an array of type {of}; accepted: numbers and strings")
        size = struct.calcsize(_SCALARS[of]) if of in _SCALARS else 8
        n = self.count("<Q", f"elements of {key}", size)
        if n > MOST_ELEMENTS:
            raise self.wrong(f"{key} has {n} elements; accepted: up to {MOST_ELEMENTS}")
        array = _Array(self.at, of, n)
        if of == _STRING:
            for _ in range(n):
                self.string(key)
        else:
            self.take(n * size, key)
        return array

    def elements(self, key: str, of: int, n: int) -> list[Any]:
        """An array, from its first element on."""
        if of == _STRING:
            return [self.string(key) for _ in range(n)]
        form = np.dtype(_SCALARS[of])
        return list(np.frombuffer(self.take(n * form.itemsize, key), form).tolist())

    def tensor_facts(self) -> tuple[str, int, tuple[int, ...], int]:
        """Name, format, shape and offset, as the header says them."""
        name = self.name("a tensor")
        n_axes = self.number("<I", f"tensor {name!r}")
        if not 1 <= n_axes <= MOST_AXES:
            raise self.wrong(f"tensor {name!r} has {n_axes} axes; accepted: 1 to {MOST_AXES}")
        shape = struct.unpack(f"<{n_axes}Q", self.take(8 * n_axes, f"tensor {name!r}"))[::-1]
        number = self.number("<I", f"tensor {name!r}")
        return name, number, shape, self.number("<Q", f"tensor {name!r}")

    def tensor(
        self, name: str, number: int, shape: tuple[int, ...], offset: int, start: int, alignment: int
    ) -> StoredTensor:
        where = f"{self.where}: tensor {name!r}"
        if number not in _BY_NUMBER:
            raise WorkloadError(f"{where} is of format {number}; accepted: {', '.join(FORMATS)}")
        if min(shape) < 1 or math.prod(shape) > _LARGEST:
            raise WorkloadError(f"{where} has shape {shape}; accepted: axes from 1, {_LARGEST} elements")
        n_bytes = stored_bytes(shape, _BY_NUMBER[number], where)
        if offset % alignment or start + offset + n_bytes > len(self.data):
            raise self.wrong(
                f"tensor {name!r} takes {n_bytes} bytes from byte {start + offset} on; the file has {len(self.data)},"
                f" and tensors begin at multiples of {alignment}"
            )
        raw = np.frombuffer(self.data, np.uint8, n_bytes, start + offset)
        return StoredTensor(where, _BY_NUMBER[number], shape, raw, self.data, start + offset)
