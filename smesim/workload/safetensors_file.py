"""safetensors files, one or in shards: the headers are read and checked here, the tensors stay in the files.

A file begins with the length of its header, 8 bytes, and the header, JSON: for each tensor dtype, shape, and where its
bytes begin and end behind the header. As with GGUF nothing in it is believed. A model in shards has an index,
`model.safetensors.index.json`, that names the file of each tensor; those must lie beside it. The format:
huggingface/safetensors, README.md.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from smesim.errors import WorkloadError
from smesim.files import read_text
from smesim.workload.stored import FORMATS, StoredFormat, StoredTensor, mapped, stored_bytes

LARGEST_HEADER = 100_000_000
"""Bytes; the limit of the format's own reader."""
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
WEIGHTS = {name: FORMATS[name] for name in ("F32", "F16", "BF16")}
"""Formats of weights, by the names that safetensors has for them."""


def read_folder(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of a model's folder, from its one file or its shards. WorkloadError says what is wrong and where."""
    if not (folder / INDEX).exists():
        return read_safetensors(folder / SINGLE)
    index = folder / INDEX
    places = _object(_parsed(read_text(index, WorkloadError, "an index of shards"), str(index)), str(index))
    places = _object(places.get("weight_map"), f"{index}: weight_map")
    shards: dict[str, dict[str, StoredTensor]] = {}
    found = {}
    for name, shard in places.items():
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise WorkloadError(f"{index}: weight_map.{name} is {shard!r}; accepted: the name of a file beside it")
        if shard not in shards:
            shards[shard] = read_safetensors(folder / shard)
        if name not in shards[shard]:
            raise WorkloadError(f"{folder / shard}: tensor {name!r} is missing, which {INDEX} says is in it")
        found[name] = shards[shard][name]
    return found


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one file by name."""
    return read_with_metadata(path)[0]


def read_with_metadata(
    path: Path, accepted: Mapping[str, StoredFormat] = WEIGHTS
) -> tuple[dict[str, StoredTensor], dict[str, Any]]:
    """The tensors of one file by name, in formats that are accepted, and what it says about itself."""
    data = mapped(path, "safetensors")
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(LARGEST_HEADER, len(data) - 8):
        raise WorkloadError(f"{path}: not a whole safetensors file (a header of {length} bytes in {len(data)})")
    try:
        text = data[8 : 8 + length].decode()
    except UnicodeDecodeError:
        raise WorkloadError(f"{path}: the header is not UTF-8; expected a safetensors file") from None
    header = _object(_parsed(text, str(path)), str(path))
    about = _object(header.pop("__metadata__", {}), f"{path}: __metadata__")
    tensors = {
        name: _tensor(f"{path}: tensor {name!r}", facts, data, 8 + length, accepted) for name, facts in header.items()
    }
    return tensors, about


def _tensor(
    where: str, facts: object, data: mmap.mmap, start: int, accepted: Mapping[str, StoredFormat]
) -> StoredTensor:
    keys = _object(facts, where)
    dtype, shape, offsets = (keys.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in accepted:
        raise WorkloadError(f"{where} has dtype {dtype!r}; accepted: {', '.join(accepted)}")
    stored = accepted[dtype]
    if not isinstance(shape, list) or not shape or not all(type(axis) is int and axis > 0 for axis in shape):
        raise WorkloadError(f"{where} has shape {shape!r}; accepted: a list of whole numbers from 1")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(offset) is int for offset in offsets):
        raise WorkloadError(f"{where} has data_offsets {offsets!r}; accepted: two whole numbers")
    begin, end = offsets
    n_bytes = math.prod(shape) * stored.n_bytes
    if begin < 0 or end - begin != n_bytes or start + end > len(data):
        raise WorkloadError(
            f"{where} takes {n_bytes} bytes and has data_offsets {offsets}; accepted: that many bytes, within the"
            f" {len(data) - start} behind the header"
        )
    raw = np.frombuffer(data, np.uint8, stored_bytes(tuple(shape), stored, where), start + begin)
    return StoredTensor(where, stored, tuple(shape), raw, data, start + begin)


def _parsed(text: str, where: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = dict(pairs)
        if len(keys) < len(pairs):
            raise ValueError("a key is there twice")
        return keys

    try:
        return json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise WorkloadError(f"{where}: unreadable JSON ({error})") from None


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WorkloadError(f"{where} is a {type(value).__name__}; expected an object")
    return value
