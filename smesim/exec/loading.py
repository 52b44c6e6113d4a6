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

from smesim.exec.device import Device, native
from smesim.exec.lowp_tables import lowp_beside
from smesim.exec.tensors import Progress, Tensors
from smesim.plan.formats import FORMATS, NR, format_of_number
from smesim.plan.program import BufferRole, Layout, Number, Program
from smesim.units import format_bytes
from smesim.workload.checkpoint import Checkpoint, Weight
from smesim.workload.dtypes import DType
from smesim.workload.graph import OperatorGraph

PIECE_BYTES = 8 << 20
"""Of f32 numbers that a thread has in hand."""

_EXACT_IN = {"F32": DType.F32, "F16": DType.F32, "BF16": DType.BF16}
"""The smallest format with kernels in which the numbers of a stored format are exact."""


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


def computed_dtype(checkpoint: Checkpoint, graph: OperatorGraph) -> DType:
    """The format in which the weights of a file are computed if nobody says otherwise: that of most of their bytes
    where there are plans for it, else bf16 or, for numbers that bf16 would round without need, f32."""
    found: Counter[str] = Counter()
    for name, tensor in graph.tensors.items():
        if tensor.role == "weight" and len(tensor.shape) > 1:
            weight = checkpoint.weight(name, tensor.shape)
            found[weight.format] += weight.stored_bytes
    stored = found.most_common(1)[0][0]
    own = next((dtype for dtype in FORMATS if dtype.name == stored), None)
    if graph.config.is_moe and own is DType.BF16:
        return DType.F32
    return own or _EXACT_IN.get(stored, DType.F32 if graph.config.is_moe else DType.BF16)


def load_weights(
    program: Program, graph: OperatorGraph, tensors: Tensors, checkpoint: Checkpoint, device: Device,
    progress: Progress | None = None,
) -> tuple[Conversion, ...]:  # fmt: skip
    """Fill all weights of a program from a file; says what was converted, by the formats in the file.

    `progress` is called with the bytes that have just been filled. WorkloadError where the file lacks a weight.
    """
    jobs: list[Callable[[], int]] = []
    counts: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    loaded: Counter[str] = Counter()
    computed: dict[str, DType] = {}
    for index in np.flatnonzero(program.buffers["role"] == BufferRole.WEIGHT).tolist():
        name, array = program.buffer_names[index], tensors.arrays[index]
        weight = checkpoint.weight(name, graph.tensors[name].shape)
        facts = program.buffers[index]
        number = format_of_number(int(facts["dtype"]))
        if len(graph.tensors[name].shape) > 1:
            counts[weight.format] += 1
            stored[weight.format] += weight.stored_bytes
            loaded[weight.format] += len(array)
            computed[weight.format] = number.dtype
        jobs += _jobs(array, facts, weight, device)
    with ThreadPoolExecutor(len(device.cores)) as pool:
        for n_bytes in pool.map(lambda job: job(), jobs):
            if progress is not None:
                progress(n_bytes)
    return tuple(
        Conversion(form, computed[form], counts[form], stored[form], loaded[form])
        for form in sorted(counts)
        if form.lower() != computed[form]
    )


def _jobs(
    array: npt.NDArray[np.uint8], facts: np.void, weight: Weight, device: Device
) -> Iterator[Callable[[], int]]:
    """Calls that fill one buffer, each with some rows of one matrix; they return the bytes that they filled."""
    k, packed = int(facts["columns"]), facts["layout"] == Layout.RHS_PACKED
    numbers = format_of_number(int(facts["dtype"]))
    # A packed buffer of experts has a matrix for each, of `rows` rows.
    each = int(facts["rows"]) if packed else weight.n_rows
    matrix_bytes = numbers.rhs_bytes(each, k) if packed else len(array)
    step = max(1, PIECE_BYTES // (4 * k * NR)) * NR
    for first in range(0, weight.n_rows, each):
        matrix = array[first // each * matrix_bytes :][:matrix_bytes]
        row_bytes = matrix_bytes // (-(-each // NR) * NR if packed else each)
        for begin in range(0, each, step):
            rows = min(step, each - begin)
            part = matrix[begin * row_bytes :][: (-(-rows // NR) * NR if packed else rows) * row_bytes]
            yield partial(_fill, part, weight, first + begin, rows, numbers.number, packed, device.isa)


def _fill(
    out: npt.NDArray[np.uint8], weight: Weight, begin: int, rows: int, number: Number, packed: bool, isa: str
) -> int:
    """Put some rows of a weight into their place, packed or row by row."""
    ffi, lib = native()
    values = np.ascontiguousarray(weight.floats(begin, begin + rows))
    k = int(values.shape[1])
    source = ffi.from_buffer("float *", values)
    panels = -(-rows // NR)
    if number is Number.F32 and packed:
        target = ffi.from_buffer("float *", out, require_writable=True)
        lib.sms_kernels_find(isa.encode()).pack_rhs(source, k, rows, k, 0, panels, target)
    elif number is Number.F32:
        out.view(np.float32)[:] = values.ravel()
    else:
        lowp: Any = lib.sms_lowp_find(lowp_beside(isa).isa.encode())
        target = ffi.from_buffer("uint16_t *", out, require_writable=True)
        if packed:
            lowp.pack_rhs_bf16(source, k, rows, k, 0, panels, target)
        else:
            # Row major is how a left operand of one row lies; only its end is padded, to whole groups.
            size = rows * k
            line = np.empty(size + size % 2, np.uint16)
            lowp.pack_lhs_bf16(source, size, 1, size, 1, 0, 1, ffi.from_buffer("uint16_t *", line))
            out.view(np.uint16)[:] = line[:size]
    return len(out)
