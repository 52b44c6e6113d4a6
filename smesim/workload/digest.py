"""What the weights of a model are, in one hash, and how that is known again without reading them.

The hash is of the model's numbers and of every byte of every tensor, so files of another name, or of another date, with
the same weights have the same one. Reading a file whole takes about as long as loading it; so the hash is kept in a
small file of its own, beside what the system says of the model's files: sizes, times of their last change, and where
they lie on the disk. As long as it says the same, the kept hash stands. A change within `SETTLED_S` of the one before
might get the same time, so of files as young as that nothing is kept.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from smesim.errors import SmesimError
from smesim.files import write_atomically
from smesim.workload.checkpoint import Checkpoint
from smesim.workload.stored import StoredTensor

PIECE_BYTES = 16 << 20
"""That a thread hashes at a time."""
SETTLED_S = 2.0
"""The coarsest times of file systems in use (FAT's)."""


def weights_digest(checkpoint: Checkpoint, threads: int) -> str:
    """The hash of the model's numbers and all its weights. The pages that were read are given back."""
    names = sorted(checkpoint.tensors)
    pieces = [(name, piece) for name in names for piece in _pieces(checkpoint.tensors[name])]
    whole = hashlib.sha256(checkpoint.numbers().encode())
    with ThreadPoolExecutor(threads) as pool:
        for name, piece in zip((name for name, _ in pieces), pool.map(lambda job: job[1](), pieces), strict=True):
            tensor = checkpoint.tensors[name]
            whole.update(f"{name} {tensor.format.name} {tensor.shape} ".encode() + piece)
    return whole.hexdigest()


def known_digest(checkpoint: Checkpoint, folder: Path, threads: int) -> str:
    """The same, from a file in `folder` where the model's files are as they were when it was written."""
    begin_s = time.time()
    files = [[str(path), *_state(path)] for path in checkpoint.files]
    where = hashlib.sha256(str(checkpoint.path.resolve()).encode()).hexdigest()[:32]
    note = folder / f"{where}.json"
    with suppress(OSError, ValueError, LookupError, TypeError):  # where there is none, or it is no use
        kept = json.loads(note.read_text(encoding="utf-8"))
        if kept["files"] == files and isinstance(kept["digest"], str):
            return str(kept["digest"])
    digest = weights_digest(checkpoint, threads)
    changed_s = max(path.stat().st_ctime for path in checkpoint.files)
    if files == [[str(path), *_state(path)] for path in checkpoint.files] and changed_s + SETTLED_S < begin_s:
        with suppress(SmesimError):  # it is found again the next time
            write_atomically(note, json.dumps({"files": files, "digest": digest}))
    return digest


def _state(path: Path) -> list[int]:
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino, facts.st_dev]


def _pieces(tensor: StoredTensor) -> Iterator[partial[bytes]]:
    step = max(1, PIECE_BYTES * tensor.n_rows // max(1, tensor.raw.nbytes))
    for begin in range(0, tensor.n_rows, step):
        yield partial(_hashed, tensor, begin, min(begin + step, tensor.n_rows))


def _hashed(tensor: StoredTensor, begin: int, end: int) -> bytes:
    digest = hashlib.sha256(tensor.rows[begin:end].reshape(-1).data).digest()
    tensor.release(begin, end)
    return digest
