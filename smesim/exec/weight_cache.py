"""Packed weights on disk, so that a model that was loaded once is mapped into memory instead of packed again.

An entry is a safetensors file of bytes: the weights of a program as its kernels read them, each on a page of its own.
It is named by what it was made of: the hash of the model's numbers and weights (`smesim.workload.digest`), how
each buffer lies, and what the packing kernels make of a small matrix of each stored format, so that kernels that pack
otherwise have entries of their own. An entry is written whole or not at all, and the entries that were used
longest ago go when all take more than a limit.

Before an entry is used its header is held against the program: form, name, hash of the model, names and sizes of all
buffers, and the size of the file. What is in the buffers is hashed when it is written, and held against that
where `verify` asks for it, since that takes as long as reading it all; then the model's own files are read whole as
well. What is damaged, or not what it says, is not used: the weights are packed again, and there is a notice.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from smesim import __version__
from smesim.errors import SmesimError, WorkloadError
from smesim.exec.device import Device
from smesim.exec.loading import fill_jobs
from smesim.files import write_pieces_atomically
from smesim.plan.formats import format_of_number
from smesim.plan.program import BufferRole, Layout, Program
from smesim.units import format_bytes
from smesim.workload.checkpoint import Checkpoint, Weight
from smesim.workload.digest import known_digest, weights_digest
from smesim.workload.graph import OperatorGraph
from smesim.workload.safetensors_file import read_with_metadata
from smesim.workload.stored import BYTES, FORMATS, StoredTensor, stored_bytes

FORM, VERSION = "smesim packed weights", "1"
"""The version goes up when entries differ by something that their names do not tell."""
SUFFIX = ".safetensors"
PAGE_BYTES = 4096
"""What each buffer begins at a multiple of."""
LARGEST_SHARE_OF_FREE = 0.5
"""The disk is not filled: an entry takes at most so much of what is free on it."""
ABANDONED_S = 24 * 3600.0
"""A half-written file as old as that belongs to a run that was killed."""
_POPULATE_READ = 22
"""`MADV_POPULATE_READ` (Linux, include/uapi/asm-generic/mman-common.h), which Python has no name for."""
_POPULATED_BYTES = 64 << 20
_PROBE_ROWS, _PROBE_COLUMNS = 37, 256
"""Of the small matrix: no whole number of panels, and one block of the largest kind."""

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class WeightCache:
    """A folder of packed weights that takes at most `limit_bytes`."""

    folder: Path
    limit_bytes: int
    verify: bool = False
    """Whether everything is hashed before it is used, the model's files as well."""

    def entry(self, checkpoint: Checkpoint, program: Program, graph: OperatorGraph, device: Device) -> Entry:
        """Where the weights of a program are kept, whether they are there or not."""
        threads = len(device.cores)
        if self.verify:
            model = weights_digest(checkpoint, threads)
        else:
            model = known_digest(checkpoint, self.folder / "models", threads)
        weights = np.flatnonzero(program.buffers["role"] == BufferRole.WEIGHT).tolist()
        sizes = {program.buffer_names[i]: int(program.buffers[i]["n_bytes"]) for i in weights}
        layouts = [[program.buffer_names[i], *(int(value) for value in program.buffers[i])] for i in weights]
        packing = _packing(program, graph, checkpoint, device)
        facts = json.dumps([FORM, VERSION, __version__, model, layouts, packing])
        return Entry(self, hashlib.sha256(facts.encode()).hexdigest()[:40], model, sizes, threads)

    def make_room(self, kept: Path) -> None:
        """Remove the entries that were used longest ago until all take no more than the limit, but not this one."""
        entries = []
        for path in self.folder.iterdir():
            with suppress(OSError):  # another process may be doing the same
                facts = path.stat()
                if path.name.startswith(".") and time.time() - facts.st_mtime > ABANDONED_S:
                    path.unlink()
                elif path.suffix == SUFFIX and not path.name.startswith("."):
                    entries.append((facts.st_mtime, facts.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total > self.limit_bytes and path != kept:
                with suppress(OSError):
                    path.unlink()
                    total -= size


@dataclass
class Entry:
    """The packed weights of one model for one way to lay them out."""

    cache: WeightCache
    key: str
    model: str
    sizes: Mapping[str, int]
    threads: int
    notices: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.cache.folder / f"{self.key}{SUFFIX}"

    def mapped(self) -> dict[str, Bytes] | None:
        """The weights by the names of their buffers, read only; None where they are not there or not usable."""
        if not self.path.exists():
            return None
        try:
            weights = self._checked()
        except WorkloadError as error:
            self.notices.append(f"packed weights are not used, and made again: {error}")
            return None
        with suppress(OSError):  # for make_room: used now
            os.utime(self.path)
        return weights

    def _checked(self) -> dict[str, Bytes]:
        tensors, about = read_with_metadata(self.path, {BYTES.name: BYTES})
        expected = {"form": FORM, "version": VERSION, "key": self.key, "model": self.model}
        for name, value in expected.items():
            if about.get(name) != value:
                raise WorkloadError(f"{self.path}: {name} is {about.get(name)!r}; accepted: {value!r}")
        found = {name: tensor.raw.nbytes for name, tensor in tensors.items()}
        if found != {name: _padded(n_bytes) for name, n_bytes in self.sizes.items()}:
            raise WorkloadError(f"{self.path}: its buffers are not those of the program; accepted: the same")
        first = next(iter(tensors.values()))
        assert first.file is not None
        begins = sorted((tensor.begin, tensor.raw.nbytes) for tensor in tensors.values())
        ends = [begins[0][0], *(begin + n_bytes for begin, n_bytes in begins)]
        if [begin for begin, _ in begins] != ends[:-1] or ends[0] % PAGE_BYTES or ends[-1] != len(first.file):
            raise WorkloadError(f"{self.path}: its buffers overlap or leave gaps; accepted: one behind another")
        _bring_in(first.file, self.threads)
        if self.cache.verify:
            hashes = about.get("sha256")
            if hashes != json.dumps(self._hashes({name: tensor.raw for name, tensor in tensors.items()})):
                raise WorkloadError(f"{self.path}: its bytes are not those that were written; accepted: the same")
        return {name: tensors[name].raw[:n_bytes] for name, n_bytes in self.sizes.items()}

    def _hashes(self, weights: Mapping[str, Bytes]) -> dict[str, str]:
        """Of each buffer, without what fills its last page."""

        def hashed(name: str) -> str:
            return hashlib.sha256(weights[name][: self.sizes[name]].data).hexdigest()

        with ThreadPoolExecutor(self.threads) as pool:
            return dict(zip(self.sizes, pool.map(hashed, self.sizes), strict=True))

    def keep(self, weights: Mapping[str, Bytes]) -> None:
        """Write the entry, if there is room for it; what goes wrong is a notice."""
        folder, needed = self.cache.folder, sum(map(_padded, self.sizes.values()))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            most = min(self.cache.limit_bytes, int(LARGEST_SHARE_OF_FREE * shutil.disk_usage(folder).free))
            if needed > most:
                self.notices.append(
                    f"packed weights of {format_bytes(needed)} are not kept; at most {format_bytes(most)} are, by the"
                    f" limit or by what is free in {folder}"
                )
                return
            write_pieces_atomically(self.path, self._pieces(weights))
            self.cache.make_room(self.path)
        except (OSError, SmesimError) as error:
            self.notices.append(f"packed weights are not kept: {error}")

    def _pieces(self, weights: Mapping[str, Bytes]) -> Iterator[bytes | memoryview]:
        header: dict[str, object] = {}
        end = 0
        for name, n_bytes in self.sizes.items():
            begin, end = end, end + _padded(n_bytes)
            header[name] = {"dtype": BYTES.name, "shape": [end - begin], "data_offsets": [begin, end]}
        header["__metadata__"] = {
            "form": FORM, "version": VERSION, "key": self.key, "model": self.model,
            "sha256": json.dumps(self._hashes(weights)),
        }  # fmt: skip
        text = json.dumps(header).encode()
        text += b" " * (-(8 + len(text)) % PAGE_BYTES)
        yield len(text).to_bytes(8, "little") + text
        for name, n_bytes in self.sizes.items():
            yield weights[name].data
            yield bytes(_padded(n_bytes) - n_bytes)


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // PAGE_BYTES) * PAGE_BYTES


def _bring_in(file: mmap.mmap, threads: int) -> None:
    """Map all pages of a file now, by several threads and in large ones where the system can, so that the first run
    does not pay for it. On other systems than Linux they come when they are touched."""
    if sys.platform != "linux":
        return
    with suppress(OSError):  # a system without huge pages refuses the advice, an emulator any
        file.madvise(mmap.MADV_HUGEPAGE)

    def populate(begin: int) -> None:
        with suppress(OSError):  # before Linux 5.14 they come when they are touched as well
            file.madvise(_POPULATE_READ, begin, min(_POPULATED_BYTES, len(file) - begin))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(populate, range(0, len(file), _POPULATED_BYTES)))


def _packing(program: Program, graph: OperatorGraph, checkpoint: Checkpoint, device: Device) -> str:
    """Hash of what is made of a small matrix of each stored format that the program's weights come from."""
    ways = set()
    for index in np.flatnonzero(program.buffers["role"] == BufferRole.WEIGHT).tolist():
        facts, name = program.buffers[index], program.buffer_names[index]
        stored = checkpoint.weight(name, graph.tensors[name].shape).format
        ways.add((stored, int(facts["dtype"]), int(facts["layout"])))
    digest = hashlib.sha256()
    for stored, number, layout in sorted(ways):
        digest.update(f"{stored} {number} {layout}".encode() + _packed_probe(program, stored, number, layout, device))
    return digest.hexdigest()


def _packed_probe(program: Program, stored: str, number: int, layout: int, device: Device) -> bytes:
    """A small matrix as the kernels that fill weights pack it. Its numbers are positive and finite in every format."""
    shape = _PROBE_ROWS, _PROBE_COLUMNS
    size = stored_bytes(shape, FORMATS[stored], "a small matrix")
    raw = (np.arange(size, dtype=np.uint64) * 37 % 60).astype(np.uint8)
    weight = Weight((StoredTensor("a small matrix", FORMATS[stored], shape, raw),))
    facts, numbers = np.zeros(1, program.buffers.dtype)[0], format_of_number(number)
    facts["rows"], facts["columns"] = shape
    facts["dtype"], facts["layout"] = number, layout
    packed = numbers.rhs_bytes(*shape)
    rows = int(_PROBE_ROWS * _PROBE_COLUMNS * numbers.number.n_bytes)
    out = np.zeros(packed if layout == Layout.RHS_PACKED else rows, np.uint8)
    for fill in fill_jobs(out, facts, weight, device):
        fill()
    return out.tobytes()
