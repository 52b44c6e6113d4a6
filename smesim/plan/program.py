"""A program is a plan made concrete: tasks, who runs them, and what each must wait for.

It says *what* and *where*, never *how long*. Both executors read the same arrays: the simulator from Python, the
native runtime from C without a copy, so the dtypes below are the C structs of `native/include/smesim/program.h`
(a test asks C for its offsets).

**Tasks** are numbered in a topological order. A task runs on a worker, except a `JOIN`, which has no duration and no
worker: it completes when its last predecessor ends. Joins turn an all-to-all dependency between two operators from
N x M edges into N + M. `tasks[t]["successor_begin":"successor_end"]` is its slice of `successors`;
`predecessor_count` is how many completions it waits for.

**Queues.** Worker w walks `entries[workers[w]["entry_begin"]:["entry_end"]]` in order and never skips ahead.
An entry is a `TASK` (wait until its predecessors ended, run it) or a visit to a `POOL`: draw the pool's next task
from a cursor that all its visitors share, until none is left. Entries and pools follow the topological order, so no
two workers can wait for each other.

**Segments** cut the program where nothing is in flight: a segment's tasks start only after every task of all
segments before has ended. Segments of equal `signature` do the same work on other buffers (the layers of a model).

Ranges. What `begin0:end0`, `begin1:end1`, `begin2:end2` count depends on the task's kind:

| kind | axis 0 | axis 1 | axis 2 |
|---|---|---|---|
| GEMM | LHS strips | RHS panels | - |
| GEMV | - | RHS panels | - |
| PACK_LHS, QUANTIZE | LHS strips | - | - |
| RMSNORM_PACKED, SWIGLU_PACKED | LHS strips of the output | - | - |
| EXPERT_PACK | rows of the experts | - | reached experts |
| ATTENTION | query tokens | KV heads | sequences of the batch |
| ATTENTION_QK, _SOFTMAX, _PV | query tokens | keys | sequence * KV heads + KV head |
| ATTENTION_PART | keys | KV heads | sequences of the batch |
| ATTENTION_COMBINE | parts of the past | KV heads | sequences of the batch |
| KV_APPEND, KV_PACK | new tokens | - | sequences of the batch |
| EXPERT_GEMM | LHS strips of the expert's rows | RHS panels | reached experts |
| all others | rows | - | - |

An operator whose `m` is below the rows of an input reads the *last* row of each sequence: row r of the operator is row
(r + 1) * (input rows / m) - 1 of the input. Where such an operator has `tokens`, only so many of a sequence's rows
count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from smesim.plan.records import Array, field_bytes

NO_BUFFER = -1
NO_LAYER = -1
ANY_WORKER = -1


class TaskKind(IntEnum):
    """What a task does; the values are those of `enum sms_task_kind` in C."""

    JOIN = 0
    EMBED = 1
    RMSNORM = 2
    PACK_LHS = 3
    GEMM = 4
    GEMV = 5
    ROPE = 6
    KV_APPEND = 7
    ATTENTION = 8
    ADD = 9
    SWIGLU = 10
    ARGMAX = 11
    ROUTER = 12
    EXPERT_GEMM = 13
    EXPERT_COMBINE = 14
    QUANTIZE = 15
    ATTENTION_QK = 16
    ATTENTION_SOFTMAX = 17
    ATTENTION_PV = 18
    ATTENTION_PART = 19
    ATTENTION_COMBINE = 20
    RMSNORM_PACKED = 21
    SWIGLU_PACKED = 22
    EXPERT_PACK = 23
    EXPERT_ROUTE = 24
    KV_PACK = 25


PACKING = (TaskKind.PACK_LHS, TaskKind.EXPERT_PACK)
"""Tasks that do nothing but bring a left operand into the layout that products read."""

APPENDING = (TaskKind.KV_APPEND, TaskKind.KV_PACK)
"""Tasks that pack keys and values into their caches: by a core's vectors, or as operands are packed on the worker,
which is by the unit where it drives one."""


class EntryKind(IntEnum):
    """What a queue entry refers to; the values are those of `enum sms_entry_kind` in C."""

    TASK = 0
    POOL = 1


class Number(IntEnum):
    """Formats of the numbers that products multiply; the values are those of `enum sms_number_format` in C.

    Q8_0, Q4_0 and Q4_1 are GGUF's, of weights; Q8 is what activations are quantised to for them: bytes with an f32
    scale for every 32.
    """

    F32 = 0
    BF16 = 1
    F16 = 2
    S8 = 3
    Q8_0 = 4
    Q4_0 = 5
    Q4_1 = 6
    Q8 = 7

    @property
    def n_bytes(self) -> float:
        """Bytes of one number, its share of its block's scales included; every one of these is a sum of powers of 2."""
        return _NUMBER_BYTES[self]

    @property
    def lhs(self) -> Number:
        """The format of the left operand that is multiplied with weights of this one."""
        return Number.Q8 if self in (Number.Q8_0, Number.Q4_0, Number.Q4_1) else self

    @property
    def packed_from(self) -> Number:
        """The format in which tasks that only pack find what they pack for weights of this one."""
        return Number.Q8 if self.lhs is Number.Q8 else Number.F32


_NUMBER_BYTES = {
    Number.F32: 4, Number.BF16: 2, Number.F16: 2, Number.S8: 1,
    Number.Q8_0: 34 / 32, Number.Q4_0: 18 / 32, Number.Q4_1: 20 / 32, Number.Q8: 36 / 32,
}  # fmt: skip


class BufferRole(IntEnum):
    """What a buffer holds: it decides where its bytes are found (cache or DRAM) and how it is filled."""

    WEIGHT = 0
    ACTIVATION = 1
    KV = 2
    INDEX = 3
    TABLE = 4


class Layout(IntEnum):
    """How a buffer lies in memory; see `native/include/smesim/layout.h`."""

    ROW_MAJOR = 0
    LHS_PACKED = 1
    RHS_PACKED = 2
    K_PACKED = 3
    V_PACKED = 4


OP_DTYPE = np.dtype(
    [
        ("kind", "<i4"),  # TaskKind of the operator's main tasks
        ("layer", "<i4"),
        ("m", "<i4"),  # rows
        ("n", "<i4"),  # output columns
        ("k", "<i4"),  # reduction length
        ("tokens", "<i4"),
        ("past", "<i4"),
        ("capacity", "<i4"),  # positions a KV cache holds
        ("batch", "<i4"),
        ("heads", "<i4"),
        ("kv_heads", "<i4"),
        ("head_dim", "<i4"),
        ("experts", "<i4"),  # experts that get rows
        ("experts_per_token", "<i4"),
        ("gathers", "<i4"),  # 1: the input has a row for each token, not for each row of an expert
        ("normalised", "<i4"),  # 1: the shares of a token's experts add up to 1
        ("routed", "<i4"),  # 1: the rows of the experts are those that the router chooses, in the run
        ("lhs_mr", "<i4"),  # strip height of the packed LHS that it reads or writes
        ("rhs_dtype", "<i4"),  # Number of weights, of keys and values; of what a QUANTIZE writes
        ("query_block", "<i4"),  # query tokens and keys in a block of an attention pipeline
        ("key_block", "<i4"),
        ("eps", "<f4"),
        ("flop", "<i8"),  # arithmetic of the operator, as the graph counts it
        ("n_bytes", "<i8"),  # bytes it reads and writes, as the graph counts them
        ("input0", "<i4"),
        ("input1", "<i4"),
        ("input2", "<i4"),
        ("weight", "<i4"),
        ("bias", "<i4"),
        ("packed", "<i4"),  # packed LHS that PACK_LHS writes and GEMM reads
        ("packed_out", "<i4"),  # output of an operator that writes it as a packed LHS; then output0 is empty
        ("output0", "<i4"),
        ("output1", "<i4"),
        ("handover", "<i4"),  # what the tasks of an attention in stages or parts hand to each other
    ],
    align=True,
)

SLOTS = ("input0", "input1", "input2", "weight", "bias", "packed", "packed_out", "output0", "output1", "handover")
"""Columns of `Program.ops` that name buffers."""

TASK_DTYPE = np.dtype(
    [
        ("op", "<i4"),
        ("kind", "<i2"),
        ("worker", "<i2"),  # ANY_WORKER: drawn from a pool, or a join
        ("begin0", "<i4"),
        ("end0", "<i4"),
        ("begin1", "<i4"),
        ("end1", "<i4"),
        ("begin2", "<i4"),
        ("end2", "<i4"),
        ("slot", "<i4"),  # place in `handover` of the block's scores, or the number of the part of the past
        ("state", "<i4"),  # place in `handover` of what the rows of the block's chain gather
        ("predecessor_count", "<i4"),
        ("successor_begin", "<i4"),
        ("successor_end", "<i4"),
    ],
    align=True,
)

WORKER_DTYPE = np.dtype(
    [("entry_begin", "<i4"), ("entry_end", "<i4"), ("core", "<i4"), ("role", "<i4"), ("unit", "<i4")], align=True
)
ENTRY_DTYPE = np.dtype([("kind", "<i4"), ("index", "<i4")], align=True)
POOL_DTYPE = np.dtype([("begin", "<i4"), ("end", "<i4")], align=True)
BUFFER_DTYPE = np.dtype(
    [
        ("n_bytes", "<i8"),
        ("role", "<i4"),
        ("layout", "<i4"),
        ("rows", "<i4"),
        ("columns", "<i4"),
        ("dtype", "<i4"),  # Number; an INDEX buffer has int32 instead
    ],
    align=True,
)
BufferRow = tuple[int, int, int, int, int, int]
"""A row of buffers as Python numbers."""
SEGMENT_DTYPE = np.dtype([("task_begin", "<i4"), ("task_end", "<i4"), ("signature", "<u8")])


class OpRow(NamedTuple):
    """One row of `Program.ops` as Python numbers: many times as fast to read, value by value."""

    kind: int
    layer: int
    m: int
    n: int
    k: int
    tokens: int
    past: int
    capacity: int
    batch: int
    heads: int
    kv_heads: int
    head_dim: int
    experts: int
    experts_per_token: int
    gathers: int
    normalised: int
    routed: int
    lhs_mr: int
    rhs_dtype: int
    query_block: int
    key_block: int
    eps: float
    flop: int
    n_bytes: int
    input0: int
    input1: int
    input2: int
    weight: int
    bias: int
    packed: int
    packed_out: int
    output0: int
    output1: int
    handover: int


class TaskRow(NamedTuple):
    """One row of `Program.tasks` as Python numbers."""

    op: int
    kind: int
    worker: int
    begin0: int
    end0: int
    begin1: int
    end1: int
    begin2: int
    end2: int
    slot: int
    state: int
    predecessor_count: int
    successor_begin: int
    successor_end: int


@dataclass(frozen=True)
class Program:
    """The arrays of one program; see the module's text for what they mean.

    ops (n_ops,), tasks (n_tasks,), successors (n_edges,) int32, workers (n_workers,), entries, pools, pool_tasks
    int32, buffers, segments: numpy arrays of the dtypes above. `op_names`, `op_sites`, `op_kinds` name the operators
    and `buffer_names` the buffers. `layers` are the model layers in it; `plan_fingerprint` is the plan it came from; of
    a program for a part of a model `elsewhere_bytes` is what the rest of it touches between two passes.
    """

    ops: Array
    tasks: Array
    successors: npt.NDArray[np.int32]
    workers: Array
    entries: Array
    pools: Array
    pool_tasks: npt.NDArray[np.int32]
    buffers: Array
    segments: Array
    op_names: tuple[str, ...]
    op_sites: tuple[str, ...]
    op_kinds: tuple[str, ...]
    buffer_names: tuple[str, ...]
    layers: int
    plan_fingerprint: str
    elsewhere_bytes: int = 0

    @property
    def n_tasks(self) -> int:
        return len(self.tasks)

    @property
    def n_workers(self) -> int:
        return len(self.workers)

    @cached_property
    def op_rows(self) -> list[OpRow]:
        return [OpRow(*row) for row in self.ops.tolist()]

    @cached_property
    def _task_rows(self) -> dict[int, TaskRow]:
        return {}

    def task_row(self, task: int) -> TaskRow:
        if task not in self._task_rows:
            self._task_rows[task] = TaskRow(*self.tasks[task].item())
        return self._task_rows[task]

    def buffer_row(self, buffer: int) -> BufferRow:
        row: BufferRow = self.buffers[buffer].item()
        return row

    def fingerprint(self) -> str:
        """Hash of everything an executor reads; equal programs have equal fingerprints."""
        digest = hashlib.sha256()
        for fields in (
            self.ops, self.tasks, self.workers, self.entries, self.pools, self.buffers, self.segments,
        ):  # fmt: skip
            digest.update(field_bytes(fields))
        for numbers in (self.successors, self.pool_tasks):
            digest.update(np.ascontiguousarray(numbers).tobytes())
        digest.update("\0".join(self.op_names + self.buffer_names).encode())
        return digest.hexdigest()[:16]

    def buffer_index(self, name: str) -> int:
        return self.buffer_names.index(name)

    def queue(self, worker: int) -> Array:
        """The entries of one worker, in the order it walks them."""
        row = self.workers[worker]
        return self.entries[row["entry_begin"] : row["entry_end"]]

    def first_task_of(self, entry: np.void) -> int:
        """The (first) task an entry leads to; entries are ordered by it."""
        if entry["kind"] == EntryKind.TASK:
            return int(entry["index"])
        return int(self.pool_tasks[self.pools[entry["index"]]["begin"]])

    def segment_queues(self) -> Iterator[list[Array]]:
        """For each segment, the slice of every worker's queue that lies in it."""
        first = [np.array([self.first_task_of(e) for e in self.queue(w)], np.int64) for w in range(self.n_workers)]
        for segment in self.segments:
            bounds = (segment["task_begin"], segment["task_end"])
            yield [
                self.queue(w)[slice(*(int(i) for i in np.searchsorted(first[w], bounds)))]
                for w in range(self.n_workers)
            ]
