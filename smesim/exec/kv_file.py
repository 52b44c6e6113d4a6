"""A session's KV cache on disk, so that a prefix that was read once need not be read again.

The file is safetensors: keys and values of each layer as f16, [sequence x KV head][position][element], or of a session
that keeps them in Q8_0 as GGUF's blocks, [sequence x KV head][position][byte]; and in its metadata what it is of: the
form's version, the hash of the model's numbers and weights, the formats that they were computed in, the tokens, and the
hashes of all caches. A file of another model, or one that is damaged, is refused before anything is restored.

What restoring takes is predicted from one cache of made-up numbers, hashed and packed as one from a file: that is work
of this machine's cores, and of numpy's, about which a chip's file says nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smesim.errors import WorkloadError
from smesim.exec.blocks import dequantized, quantized
from smesim.exec.kv_cache import packed_first
from smesim.exec.session import Session
from smesim.files import write_pieces_atomically
from smesim.plan.formats import cache_number
from smesim.plan.program import Layout, Number
from smesim.plan.tiles import kv_capacity
from smesim.workload.dtypes import DType
from smesim.workload.safetensors_file import read_with_metadata
from smesim.workload.stored import BYTES, FORMATS, StoredFormat, StoredTensor

FORM, VERSION = "smesim KV cache", 3
_KINDS = ("k_cache", "v_cache")


def save_kv(session: Session, path: Path) -> None:
    """Write the cache of all tokens that the session has read; SmesimError where it cannot be written."""
    names = [f"layers.{layer}.{kind}" for layer in range(session.checkpoint.model.layers) for kind in _KINDS]
    hashes: dict[str, str] = {}
    header: dict[str, object] = {}
    end = 0
    for name in names:
        cache = _stored(session, name)
        hashes[name] = _hash(cache)
        offsets = [end, end + cache.nbytes]
        header[name] = {"dtype": _form(session).name, "shape": list(cache.shape), "data_offsets": offsets}
        end += cache.nbytes
    header["__metadata__"] = {
        "form": FORM, "version": str(VERSION), "model": _model_of(session), "sha256": json.dumps(hashes),
        "tokens": json.dumps(session.history.tolist()),
    }  # fmt: skip
    text = json.dumps(header).encode()

    def pieces() -> Iterator[bytes]:
        yield len(text).to_bytes(8, "little") + text
        for name in names:
            yield _stored(session, name).tobytes()

    write_pieces_atomically(path, pieces())


def restore_kv(session: Session, path: Path) -> int:
    """Fill the session's cache from a file; returns the tokens of each sequence that are in it.

    WorkloadError if the file is damaged, of another version or model, or longer than the session's context.
    """
    begin = time.perf_counter()
    tensors, about = read_with_metadata(path, {stored.name: stored for stored in (FORMATS["F16"], BYTES)})
    if about.get("form") != FORM or about.get("version") != str(VERSION):
        given = f"form {about.get('form')!r}, version {about.get('version')!r}"
        raise WorkloadError(f"{path}: has {given}; accepted: {FORM!r}, version {VERSION}")
    if about.get("model") != _model_of(session):
        raise WorkloadError(f"{path}: was saved from another model, or with it in other formats; accepted: the same")
    history = _history(about.get("tokens"), session, path)
    positions, form = int(history.shape[1]), _form(session)
    shape = _shape(session, positions)
    caches: dict[str, StoredTensor] = {}
    for layer in range(session.checkpoint.model.layers):
        for kind in _KINDS:
            name = f"layers.{layer}.{kind}"
            stored = tensors.get(name)
            if stored is None or stored.shape != shape or stored.format != form:
                given = "nothing" if stored is None else f"{stored.format.name} {stored.shape}"
                raise WorkloadError(f"{path}: {name} is {given}; accepted: {form.name} {shape}")
            caches[name] = stored
    with ThreadPoolExecutor(_threads(session)) as pool:
        hashes = dict(zip(caches, pool.map(lambda stored: _hash(stored.raw), caches.values()), strict=True))
        if about.get("sha256") != json.dumps(hashes):
            raise WorkloadError(
                f"{path}: its bytes are not those that were saved; accepted: the file as it was written"
            )
        list(pool.map(lambda name: session.kv.write(name, _values(session, caches[name])), caches))
    session.past, session.history = positions, history
    session.timings.restoring_s += time.perf_counter() - begin
    return positions


def predicted_restoring_s(session: Session, positions: int) -> float:
    """What taking so many tokens from a file that is in memory would take this machine."""
    shape, form = _shape(session, positions), _form(session)
    raw = np.zeros(math.prod(shape) * form.n_bytes, np.uint8)
    stored, number = StoredTensor("a made-up cache", form, shape, raw), cache_number(session.dtypes.kv)
    capacity = kv_capacity(session.positions)
    begin = time.perf_counter()
    _hash(raw)
    for layout in (Layout.K_PACKED, Layout.V_PACKED):
        packed_first(_values(session, stored), number, layout, capacity).copy()
    _hash(raw)
    return (time.perf_counter() - begin) * session.checkpoint.model.layers / _threads(session)


def _threads(session: Session) -> int:
    return len(session.executor.device.cores)


def _shape(session: Session, positions: int) -> tuple[int, int, int]:
    """Of a cache in a file."""
    model, kv = session.checkpoint.model, session.dtypes.kv
    width = kv.bytes_for(model.head_dim) if kv is DType.Q8_0 else model.head_dim
    return session.batch * model.kv_heads, positions, int(width)


def _values(session: Session, stored: StoredTensor) -> npt.NDArray[np.float32]:
    """The numbers of a cache from a file, (heads, positions, elements)."""
    head_dim = session.checkpoint.model.head_dim
    if session.dtypes.kv is DType.Q8_0:
        values = dequantized(Number.Q8_0, stored.rows, stored.n_rows, head_dim)
    else:
        values = stored.floats()
    return values.reshape(*stored.shape[:2], head_dim)


def _hash(cache: npt.NDArray[Any]) -> str:
    return hashlib.sha256(cache.reshape(-1).data).hexdigest()


def _form(session: Session) -> StoredFormat:
    return BYTES if session.dtypes.kv is DType.Q8_0 else FORMATS["F16"]


def _stored(session: Session, name: str) -> npt.NDArray[np.float16 | np.uint8]:
    """One cache as far as it is filled. Numbers that were in blocks give the same blocks again."""
    values = np.ascontiguousarray(session.kv.read(name)[:, : session.past])
    if session.dtypes.kv is not DType.Q8_0:
        return values.astype(np.float16)
    heads, positions, head_dim = values.shape
    return quantized(Number.Q8_0, values.reshape(-1, head_dim)).reshape(heads, positions, -1)


def _model_of(session: Session) -> str:
    dtypes = session.dtypes
    return f"{session.checkpoint.fingerprint} {dtypes.weights} {dtypes.last_product} {_form(session).name}"


def _history(text: object, session: Session, path: Path) -> npt.NDArray[np.int32]:
    """The tokens in the metadata, shape (sequences, tokens)."""
    try:
        tokens = np.array(json.loads(str(text)), np.int32)
    except (ValueError, OverflowError, RecursionError):
        tokens = np.empty(0, np.int32)
    if tokens.ndim != 2 or len(tokens) != session.batch or not 1 <= tokens.shape[1] <= session.context:
        raise WorkloadError(
            f"{path}: has tokens of shape {tokens.shape}; accepted: ({session.batch}, 1..{session.context})"
        )
    return tokens
