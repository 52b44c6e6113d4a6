"""Weights from a model file into the layouts that a program's kernels read.

A weight is taken in pieces of some rows: read from the mapped file, made f32, rounded and packed. So no weight is ever
whole in memory twice, pieces are packed side by side by several threads, and what a load needs beside the weights
themselves stays small. Whatever the file's format, there is one function that puts rows into a buffer (`_job`), and a
format that has kernels of its own takes its rows as they are there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from smesim.exec import bf16, blocks
from smesim.exec.device import Device, native
from smesim.exec.lowp_tables import lowp_beside
from smesim.exec.tensors import Progress, Tensors
from smesim.plan.formats import FORMATS, NR, format_of_number
from smesim.plan.program import BufferRole, Layout, Number, Program
from smesim.units import format_bytes
from smesim.workload.checkpoint import Checkpoint, Weight
from smesim.workload.dtypes import DType
from smesim.workload.graph import DTypes, OperatorGraph, Role, build_graph
from smesim.workload.phase import Phase

PIECE_BYTES = 8 << 20
"""Of f32 numbers that a thread has in hand."""

_EXACT_IN = {"F16": DType.F32}
"""The smallest format with kernels in which the numbers of a stored format are exact, where it has none of its own."""
_NEAREST = DType.Q8_0
"""What numbers in other blocks are converted to: with 8 bits for what had 2 to 6 little is lost, and in half of bf16's
bytes."""


@dataclass(frozen=True)
class Conversion:
    """What became of the weights of one stored format: how many there are, and their bytes before and after."""

    stored: str
    computed: DType
    tensors: int
    stored_bytes: int
    loaded_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.tensors} weights in {self.stored} ({format_bytes(self.stored_bytes)}) are computed in"
            f" {self.computed} ({format_bytes(self.loaded_bytes)})"
        )


def computed_dtypes(checkpoint: Checkpoint) -> DTypes:
    """The formats in which the weights of a file are computed if nobody says otherwise.

    There is one for the last product, and one for all others: that of most of their bytes, where there are plans for
    it. F16 becomes f32, and other blocks Q8_0.
    """
    graph = build_graph(checkpoint.model, Phase.decode(1))
    last = graph.operator("lm_head").weights[0]
    found: Counter[str] = Counter()
    for name, tensor in graph.tensors.items():
        if tensor.role is Role.WEIGHT and len(tensor.shape) > 1 and name != last:
            weight = checkpoint.weight(name, tensor.shape)
            found[weight.format] += weight.stored_bytes
    of_last = checkpoint.weight(last, graph.tensors[last].shape).format
    weights, head = _computed_in(found.most_common(1)[0][0]), _computed_in(of_last)
    return DTypes(weights=weights, head=None if head is weights else head)


def _computed_in(stored: str) -> DType:
    own = next((dtype for dtype in FORMATS if dtype.name == stored), None)
    return own or _EXACT_IN.get(stored, _NEAREST)


def load_weights(
    program: Program, graph: OperatorGraph, tensors: Tensors, checkpoint: Checkpoint, device: Device,
    progress: Progress | None = None,
) -> None:  # fmt: skip
    """Fill all weights of a program from a file.

    `progress` is called with the bytes that have just been filled. WorkloadError where the file lacks a weight.
    """
    jobs: list[Callable[[], int]] = []
    ends: dict[int, Weight] = {}  # weights by the number of jobs up to their last
    for index, weight in _weights(program, graph, checkpoint):
        jobs += fill_jobs(tensors.arrays[index], program.buffers[index], weight, device)
        ends[len(jobs)] = weight
    with ThreadPoolExecutor(len(device.cores)) as pool:
        for done, n_bytes in enumerate(pool.map(lambda job: job(), jobs), 1):
            for tensor in ends[done].tensors if done in ends else ():
                tensor.release()
            if progress is not None:
                progress(n_bytes)


def conversions(program: Program, graph: OperatorGraph, checkpoint: Checkpoint) -> tuple[Conversion, ...]:
    """What is converted when a program's weights come from a file, by the formats in the file."""
    counts: Counter[tuple[str, DType]] = Counter()
    stored: Counter[tuple[str, DType]] = Counter()
    loaded: Counter[tuple[str, DType]] = Counter()
    for index, weight in _weights(program, graph, checkpoint):
        if len(graph.tensors[program.buffer_names[index]].shape) > 1:
            key = (weight.format, format_of_number(int(program.buffers[index]["dtype"])).dtype)
            counts[key] += 1
            stored[key] += weight.stored_bytes
            loaded[key] += int(program.buffers[index]["n_bytes"])
    return tuple(
        Conversion(*key, counts[key], stored[key], loaded[key]) for key in sorted(counts) if key[0].lower() != key[1]
    )


def _weights(program: Program, graph: OperatorGraph, checkpoint: Checkpoint) -> Iterator[tuple[int, Weight]]:
    """The buffers of a program that are weights, and where they come from."""
    for index in np.flatnonzero(program.buffers["role"] == BufferRole.WEIGHT).tolist():
        name = program.buffer_names[index]
        yield index, checkpoint.weight(name, graph.tensors[name].shape)


def fill_jobs(
    array: npt.NDArray[np.uint8], facts: np.void, weight: Weight, device: Device
) -> Iterator[Callable[[], int]]:
    """Calls that fill one buffer, each with some rows of one matrix; they return the bytes that they filled."""
    k, packed = int(facts["columns"]), bool(facts["layout"] == Layout.RHS_PACKED)
    numbers = format_of_number(int(facts["dtype"]))
    number, in_blocks = numbers.number, numbers.number in blocks.IN_BLOCKS
    # A packed buffer of experts has a matrix for each, of `rows` rows.
    n = int(facts["rows"]) if packed else weight.n_rows
    fill = _fill_blocks if in_blocks else _fill
    step = max(1, PIECE_BYTES // (4 * k * NR)) * NR
    for matrix, place in enumerate(np.split(array, weight.n_rows // n)):
        for begin in range(0, n, step):
            rows = slice(begin, min(begin + step, n))
            filling = partial(fill, place, weight, matrix * n, rows, n, k, number, packed, device.isa)
            yield partial(_released, filling, weight, matrix * n + begin, matrix * n + rows.stop)


def _released(fill: Callable[[], int], weight: Weight, begin: int, end: int) -> int:
    """Fill a part of a buffer, and give back the pages of the file that it was read from."""
    n_bytes = fill()
    weight.release(begin, end)
    return n_bytes


def _fill_blocks(
    out: npt.NDArray[np.uint8], weight: Weight, first: int, rows: slice, n: int, k: int, number: Number, packed: bool,
    isa: str,
) -> int:  # fmt: skip
    """Put some rows of a matrix into their place as blocks: those of the file, or quantised ones."""
    is_stored_so = weight.format == number.name
    share = len(out) * (rows.stop - rows.start) // n
    begin, end = first + rows.start, first + rows.stop
    if packed and is_stored_so:
        blocks.pack_rhs(number, weight.rows(begin, end), n, k, out, rows.start, isa)
    elif packed:
        blocks.pack_floats(number, weight.floats(begin, end), out, isa, (n, k), rows.start)
    else:
        lines = weight.rows(begin, end) if is_stored_so else blocks.quantized(number, weight.floats(begin, end), isa)
        out.reshape(n, -1)[rows] = lines
    return int(share)


def _fill(
    out: npt.NDArray[np.uint8], weight: Weight, first: int, rows: slice, n: int, k: int, number: Number, packed: bool,
    isa: str,
) -> int:  # fmt: skip
    """Put some rows of a matrix into their place as floats, packed or row by row."""
    ffi, lib = native()
    values = np.ascontiguousarray(weight.floats(first + rows.start, first + rows.stop))
    count = len(values)
    row_bytes = len(out) // (-(-n // NR) * NR if packed else n)
    part = out[rows.start * row_bytes :][: (-(-count // NR) * NR if packed else count) * row_bytes]
    source, panels = ffi.from_buffer("float *", values), -(-count // NR)
    if number is Number.F32 and packed:
        target = ffi.from_buffer("float *", part, require_writable=True)
        lib.sms_kernels_find(isa.encode()).pack_rhs(source, k, count, k, 0, panels, target)
    elif number is Number.F32:
        part.view(np.float32)[:] = values.ravel()
    elif packed:
        lowp: Any = lib.sms_lowp_find(lowp_beside(isa).isa.encode())
        target = ffi.from_buffer("uint16_t *", part, require_writable=True)
        lowp.pack_rhs_bf16(source, k, count, k, 0, panels, target)
    else:
        part.view(np.uint16)[:] = bf16.rounded(values).ravel()
    return len(part)
