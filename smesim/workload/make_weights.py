"""Made-up weights of a real model's shapes, as a GGUF file that any engine loads.

So that engines can be raced on the same file without a download: the numbers are noise, of a size that keeps
activations of order one, but shapes, formats and bytes are those of the model. Numbers in blocks are drawn as the
blocks lie in the file, so a file of gigabytes takes seconds. The vocabulary is made up as well: bytes, and words
without meaning.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from smesim.errors import WorkloadError
from smesim.workload.checkpoint import gguf_name
from smesim.workload.config import ModelConfig
from smesim.workload.gguf_metadata import KEYS
from smesim.workload.gguf_write import NewTensor, Value, write_gguf
from smesim.workload.graph import OperatorGraph, Role, build_graph
from smesim.workload.phase import Phase
from smesim.workload.rope import llama3_divisors
from smesim.workload.stored import FORMATS, StoredFormat

PIECE_BYTES = 4 << 20
_FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "BF16": 32}
"""Formats that can be drawn, with the numbers of llama.cpp's `llama_ftype` (include/llama.h)."""
_QUANTIZATION_VERSION = 2
_BYTES = 256
_UNKNOWN, _CONTROL, _NORMAL, _BYTE = 2, 3, 1, 6

_VALUES = {"Q4_0": 16, "Q4_1": 16, "Q8_0": 255}
"""How many values a number in a block has; all are drawn equally often."""


def make_weights(model: ModelConfig, stored: str, path: Path, *, layers: int | None = None, seed: int = 0) -> None:
    """Write a GGUF file of a model's first `layers` layers with its matrices in that format; vectors and routers are
    f32. WorkloadError where there is no such format, or rows are no whole blocks of it."""
    name = stored.upper()
    if name not in _FILE_TYPES:
        raise WorkloadError(f"format {stored!r} asked for; accepted: {', '.join(_FILE_TYPES).lower()}")
    graph = build_graph(model, Phase.decode(1), layers=layers)
    model = model.model_copy(update={"layers": graph.layers})
    tensors = [_tensor(graph, tensor, FORMATS[name], seed) for tensor in graph.tensors if _is_weight(graph, tensor)]
    if model.rope_scaling is not None:
        divisors = np.array(llama3_divisors(model.head_dim, model.rope_theta, model.rope_scaling), "<f4")
        tensors.append(NewTensor("rope_freqs.weight", divisors.shape, FORMATS["F32"], lambda: [divisors.tobytes()]))
    for tensor in tensors:
        tensor.n_bytes  # noqa: B018 - says what is no whole blocks before anything is written
    write_gguf(path, _metadata(model, name), tensors)


def _is_weight(graph: OperatorGraph, name: str) -> bool:
    return graph.tensors[name].role is Role.WEIGHT


def _tensor(graph: OperatorGraph, name: str, stored: StoredFormat, seed: int) -> NewTensor:
    shape = graph.tensors[name].shape
    own = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little")
    if len(shape) == 1:
        centre = 0.0 if name.endswith(".bias") else 1.0
        return NewTensor(gguf_name(name), shape, FORMATS["F32"], partial(_vector, shape[0], centre, own))
    form = FORMATS["F32"] if ".router." in name else stored
    return NewTensor(gguf_name(name), shape, form, partial(_matrix, math.prod(shape[:-1]), shape[-1], form, own))


def _vector(width: int, centre: float, seed: int) -> list[bytes]:
    noise = np.random.default_rng(seed).uniform(-0.1, 0.1, width)
    return [(centre + noise).astype("<f4").tobytes()]


def _matrix(n: int, k: int, stored: StoredFormat, seed: int) -> Iterator[bytes]:
    """Rows, some at a time, of numbers whose squares add up to about one in each."""
    random = np.random.Generator(np.random.SFC64(seed))
    draw = _DRAWS[stored.name]
    row_bytes = k // stored.elements * stored.n_bytes
    step = max(1, PIECE_BYTES // row_bytes)
    for begin in range(0, n, step):
        yield draw(random, min(step, n - begin) * (k // stored.elements), 1.0 / math.sqrt(k))


def _floats(random: np.random.Generator, n: int, deviation: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return ((random.random(n, np.float32) - np.float32(0.5)) * np.float32(deviation * math.sqrt(12))).astype("<f4")


def _f32(random: np.random.Generator, n: int, deviation: float) -> bytes:
    return _floats(random, n, deviation).tobytes()


def _f16(random: np.random.Generator, n: int, deviation: float) -> bytes:
    return _floats(random, n, deviation).astype("<f2").tobytes()


def _bf16(random: np.random.Generator, n: int, deviation: float) -> bytes:
    return (_floats(random, n, deviation).view("<u4") >> 16).astype("<u2").tobytes()


def _blocks(name: str, random: np.random.Generator, n: int, deviation: float) -> bytes:
    """Blocks with one scale all over, and with numbers of every value."""
    step = deviation / math.sqrt((_VALUES[name] ** 2 - 1) / 12)
    scales = np.array([step, -7.5 * step] if name == "Q4_1" else [step], "<f2").view(np.uint8)
    blocks = np.empty((n, FORMATS[name].n_bytes), np.uint8)
    blocks[:, : len(scales)] = scales
    drawn = np.frombuffer(random.bytes(blocks[:, len(scales) :].size), np.uint8).reshape(n, -1)
    # Of bytes as signed numbers -128 is left out, as quantising to Q8_0 does.
    blocks[:, len(scales) :] = np.where(drawn == 128, 0, drawn) if name == "Q8_0" else drawn
    return blocks.tobytes()


_DRAWS: dict[str, Callable[[np.random.Generator, int, float], bytes]] = {
    "F32": _f32, "F16": _f16, "BF16": _bf16, **{name: partial(_blocks, name) for name in _VALUES},
}  # fmt: skip


def _metadata(model: ModelConfig, stored: str) -> dict[str, Value]:
    arch = model.architecture
    keys: dict[str, Value] = {
        "general.architecture": arch,
        "general.name": model.name,
        "general.file_type": _FILE_TYPES[stored],
        "general.quantization_version": _QUANTIZATION_VERSION,
    }
    for field, key in KEYS.items():
        if value := getattr(model, field):
            keys[f"{arch}.{key}"] = value
    keys |= {
        f"{arch}.attention.value_length": model.head_dim,
        f"{arch}.rope.dimension_count": model.head_dim,
        f"{arch}.vocab_size": model.vocab,
    }
    specials = ["<unk>", "<s>", "</s>"]
    tokens = [*specials, *(f"<0x{byte:02X}>" for byte in range(_BYTES))]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * _BYTES]
    tokens += [f"▁word{i}" for i in range(len(tokens), model.vocab)]
    kinds += [_NORMAL] * (model.vocab - len(kinds))
    return keys | {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens[: model.vocab],
        "tokenizer.ggml.scores": [-float(i) for i in range(model.vocab)],
        "tokenizer.ggml.token_type": kinds[: model.vocab],
        "tokenizer.ggml.bos_token_id": specials.index("<s>"),
        "tokenizer.ggml.eos_token_id": specials.index("</s>"),
        "tokenizer.ggml.unknown_token_id": specials.index("<unk>"),
    }
