"""How much else a program touches before it touches a buffer again: the reuse distance, in bytes.

Data that was touched d bytes ago is still in a cache that holds more than d bytes, if the cache keeps what was used
last. So the distance says where an operator finds its operands, without knowing any cache. A program is taken to run
over and over, as it does in a measurement and, layer after layer, in a model: what is touched once a pass (a weight)
is a whole pass away.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from smesim.plan.formats import format_of_number
from smesim.plan.program import (
    APPENDING,
    NO_BUFFER,
    PACKING,
    SLOTS,
    BufferRole,
    Layout,
    Number,
    OpRow,
    Program,
    TaskKind,
    TaskRow,
)
from smesim.plan.sketch import Rows
from smesim.plan.tiles import NR, STRIP_KINDS

F32_BYTES = 4
LINE_BYTES = 64

Int64s = npt.NDArray[np.int64]

ROW_KERNELS = {
    TaskKind.PACK_LHS: "pack_lhs_f32",
    TaskKind.EMBED: "embed_f32",
    TaskKind.RMSNORM: "rms_norm_f32",
    TaskKind.ROPE: "rope_f32",
    TaskKind.KV_APPEND: "kv_append_f32",
    TaskKind.KV_PACK: "kv_append_f32",
    TaskKind.ADD: "add_f32",
    TaskKind.SWIGLU: "swiglu_f32",
    TaskKind.ARGMAX: "argmax_f32",
    TaskKind.EXPERT_PACK: "expert_pack_f32",
    TaskKind.EXPERT_COMBINE: "expert_combine_f32",
    TaskKind.QUANTIZE: "quantize_f32",
    TaskKind.RMSNORM_PACKED: "rms_norm_packed_f32",
    TaskKind.SWIGLU_PACKED: "swiglu_packed_f32",
}
"""Kernels that work row by row: the names by which the probe fits them and the simulator costs them, in f32."""


@cache
def row_kernel(kind: int, rhs_dtype: int) -> str:
    """The kernel of tasks that work row by row, in the format that they read or write weights' partners in."""
    number = Number(rhs_dtype)
    if kind in APPENDING:
        number = Number.F32  # of what is read; what is written narrower is written as often
    number = number.lhs if kind in PACKING else number
    return f"{ROW_KERNELS[TaskKind(kind)].rpartition('_')[0]}_{number.name.lower()}"


_IS_PACKING = np.array([kind in PACKING for kind in TaskKind])
KEPT_ROLES = (BufferRole.WEIGHT, BufferRole.KV)
"""What is touched once a pass of the model; what passes between operators, by its neighbours."""
_IS_KEPT = np.array([role in KEPT_ROLES for role in BufferRole])


def cache_number_bytes(op: OpRow) -> float:
    """Bytes of a number of the keys and values that an operator reads or writes, a row of `Program.ops`."""
    return Number(op.rhs_dtype).n_bytes


def reuse_distances(program: Program) -> dict[str, Int64s]:
    """For each slot, per operator: bytes that other operators touched since its buffer was touched last.

    0 where the slot is empty, and where the operator before it touched the buffer. An operator touches each of its
    buffers whole, but for the weights of experts that get no rows. Shapes (n_ops,).
    """
    n_ops = len(program.ops)
    buffers = {slot: program.ops[slot].tolist() for slot in SLOTS}
    touched = [sorted({*of_op} - {NO_BUFFER}) for of_op in zip(*buffers.values(), strict=True)]
    sizes = touched_bytes(program).tolist()
    before = [0]  # bytes touched before operator i, from the start of the pass
    for of_op in touched:
        before.append(before[-1] + sum(sizes[buffer] for buffer in of_op))
    last_end: dict[int, int] = {}
    for op in range(n_ops):
        for buffer in touched[op]:
            last_end[buffer] = before[op + 1] - before[-1]  # as seen from the next pass
    far: dict[str, list[int]] = {slot: [0] * n_ops for slot in SLOTS}
    for op in range(n_ops):
        for slot in SLOTS:
            buffer = buffers[slot][op]
            if buffer != NO_BUFFER:
                far[slot][op] = before[op] - last_end[buffer]
        for buffer in touched[op]:
            last_end[buffer] = before[op + 1]
    distances = {slot: np.array(of_slot, np.int64) for slot, of_slot in far.items()}
    packing = program.tasks["op"][_IS_PACKING[program.tasks["kind"]]]
    distances["packed"][packing] = 0  # by the operator's own tasks, a moment before
    distances["handover"][:] = 0  # likewise
    # Weights, keys and values are touched once a pass of the model; what passes between operators, by its neighbours.
    kept = _IS_KEPT[program.buffers["role"]]
    for slot in SLOTS if program.elsewhere_bytes else ():
        there = program.ops[slot] != NO_BUFFER
        distances[slot][there] += program.elsewhere_bytes * kept[program.ops[slot][there]]
    _settle(program, distances)
    return distances


def touched_bytes(program: Program) -> Int64s:
    """Bytes of each buffer that a pass touches, shape (n_buffers,): all, but for weights only those of reached
    experts."""
    sizes = program.buffers["n_bytes"].astype(np.int64)
    for op in program.op_rows:
        of_experts = touched_of_operator(op)
        if of_experts is not None:
            sizes[op.weight] = of_experts
    return sizes


def touched_of_operator(op: OpRow) -> int | None:
    """Bytes of its weights that an operator touches, where that is not all of them."""
    if op.kind != TaskKind.EXPERT_GEMM:
        return None
    return op.experts * format_of_number(op.rhs_dtype).rhs_bytes(op.n, op.k)


def _settle(program: Program, distances: dict[str, Int64s]) -> None:
    """Give the operators of equal segments the distances of the last one: all layers are alike, the first included."""
    segments = program.segments.tolist()
    last = {signature: (begin, end) for begin, end, signature in segments}
    op_of = program.tasks["op"]
    for begin, end, signature in segments if len(last) < len(segments) else ():
        first, first_like = op_of[begin], op_of[last[signature][0]]
        n_ops = int(op_of[begin:end].max()) - int(first) + 1
        for values in distances.values():
            values[first : first + n_ops] = values[first_like : first_like + n_ops]


class Operand(NamedTuple):
    """What a task reads or writes of one buffer of its operator."""

    slot: str
    n_bytes: float
    is_write: bool


def _strip_rows(row: TaskRow, op: OpRow) -> int:
    """Rows in the strips begin0 .. end0 of an operator's packed operand."""
    m, strips = op.m, -(-op.m // op.lhs_mr)
    return row.end0 * m // strips - row.begin0 * m // strips


def rows_of(row: TaskRow, op: OpRow) -> int:
    """Rows of its operator that a task works on; of one that only packs or multiplies, strips."""
    return _strip_rows(row, op) if row.kind in STRIP_KINDS else row.end0 - row.begin0


def row_operands(program: Rows, row: TaskRow) -> tuple[Operand, ...]:
    """Operands of a task that works row by row: its part of every activation that its operator reads or writes.

    Weights that all rows share (a norm's gains, rotary tables) are small and left out, an embedding's rows are not.
    """
    op = program.op_rows[row.op]
    if row.kind == TaskKind.PACK_LHS:
        return _packed(_strip_rows(row, op) * op.k, Number(op.rhs_dtype))
    if row.kind == TaskKind.EXPERT_PACK:
        return _packed(rows_of(row, op) * op.k, Number(op.rhs_dtype))
    kind = TaskKind(row.kind)
    number = Number(op.rhs_dtype)
    number_bytes = number.lhs.n_bytes
    rows = rows_of(row, op)
    read, written = ["input0"], ["output0"]
    width = op.n
    match kind:
        case TaskKind.ADD | TaskKind.SWIGLU:
            read = ["input0", "input1"]
        case TaskKind.RMSNORM_PACKED | TaskKind.SWIGLU_PACKED:
            read = ["input0"] if kind is TaskKind.RMSNORM_PACKED else ["input0", "input1"]
            written = ["packed_out"]
        case TaskKind.KV_APPEND | TaskKind.KV_PACK:
            sequences, width = row.end2 - row.begin2, op.kv_heads * op.head_dim
            return appended(op.past + row.begin0, op.past + row.end0, sequences, width, cache_number_bytes(op))
        case TaskKind.QUANTIZE:
            written = ["packed_out"]
        case TaskKind.EMBED:
            read, number_bytes = ["weight"], number.n_bytes
            if program.buffer_row(op.weight)[2] == Layout.RHS_PACKED:
                # A packed table is read a cache line a group of elements, as many as fill the bytes of an f32.
                number_bytes = LINE_BYTES * number_bytes / F32_BYTES
        case TaskKind.ARGMAX:
            written = []
        case TaskKind.EXPERT_COMBINE:
            rows_read = rows * op.experts_per_token
            return (
                Operand("input0", float(F32_BYTES * rows_read * width), False),
                Operand("output0", float(F32_BYTES * rows * width), True),
            )
    n_bytes = float(F32_BYTES * rows * width)
    in_place = op.input0 == op.output0  # lines that were just read need not be read again to be written
    of_number = float(number_bytes * rows * width)
    read_bytes = of_number if kind is TaskKind.EMBED else n_bytes
    written_bytes = of_number if kind is TaskKind.QUANTIZE else n_bytes
    return (
        *(Operand(slot, read_bytes, False) for slot in read),
        *(Operand(slot, written_bytes, not in_place) for slot in written),
    )


def _packed(elements: int, weights: Number) -> tuple[Operand, ...]:
    """Operands of a task that packs so much of a left operand for weights of a format."""
    return (
        Operand("input0", float(weights.packed_from.n_bytes * elements), False),
        Operand("packed", float(weights.lhs.n_bytes * elements), True),
    )


def shared_bytes(operands: tuple[Operand, ...], busy_cores: int) -> float:
    """Bytes that a task reads and another core wrote, if the cores share the work that made them evenly."""
    return sum(o.n_bytes for o in operands if not o.is_write) * (busy_cores - 1) / busy_cores


def appended(first: int, last: int, sequences: int, width: int, number_bytes: float) -> tuple[Operand, ...]:
    """Operands of a task that appends positions first .. last of some sequences, `width` elements of each to keys and
    to values. A key is a column of its panels: it touches a line an element, which the 16 keys of a panel share."""
    positions = -(-last // NR) * NR - first // NR * NR
    elements = sequences * (last - first) * width
    return (
        Operand("input0", float(F32_BYTES * elements), False),
        Operand("input1", float(F32_BYTES * elements), False),
        Operand("output0", number_bytes * sequences * positions * width, True),
        Operand("output1", number_bytes * elements, True),
    )
