"""Classes of tasks: those of one class cost the same on the same worker, so one of them is asked for what it costs.

Of most ranges of a task only the length counts; how much is done at a begin of its own depends on where that is.
Those of an operator by itself are found in C, by the same tables (`native/sim/classes.c`), every expert by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smesim.plan.program import APPENDING, Program, TaskKind
from smesim.plan.records import words
from smesim.plan.reuse import ROW_KERNELS
from smesim.plan.tiles import NR, STRIP_KINDS
from smesim.plan.work import strip_row

STRIPS = (*STRIP_KINDS, TaskKind.PACK_LHS)
PRODUCTS = (TaskKind.GEMM, TaskKind.GEMV, TaskKind.EXPERT_GEMM)
_BY_LENGTH = (
    {*ROW_KERNELS, *STRIPS} - {*APPENDING},
    {*PRODUCTS, TaskKind.ATTENTION, TaskKind.ATTENTION_PART, TaskKind.ATTENTION_COMBINE},
    {*TaskKind} - {TaskKind.EXPERT_GEMM},
)
IN_STRIPS = np.array([kind in STRIPS for kind in TaskKind])
LENGTH_COUNTS = np.array([[kind in kinds for kinds in _BY_LENGTH] for kind in TaskKind])
"""By kind of task and axis, whether its cost depends on how long the range is, and not on where it begins."""


def classes_of(program: Program, op_keys: Sequence[int], begin: int, end: int) -> list[tuple[int, ...]]:
    """For each of the tasks begin .. end - 1 its class; `op_keys` are the same for operators that are alike."""
    tasks = program.tasks[begin:end]
    op, kind = tasks["op"], tasks["kind"]
    rows, n, mr = (program.ops[name].astype(np.int64)[op] for name in ("m", "n", "lhs_mr"))
    ranges = words(tasks)[:, 2:8].astype(np.int64)
    firsts, lasts = ranges[:, 0::2], ranges[:, 1::2]
    lengths = lasts - firsts
    # Strips are balanced: so many of them may have a row more or less.
    in_strips = IN_STRIPS[kind]
    if in_strips.any():
        in_rows = strip_row(lasts[:, 0], rows, mr) - strip_row(firsts[:, 0], rows, mr)
        lengths[:, 0] = np.where(in_strips, in_rows, lengths[:, 0])
    # The last columns of a product may be those of a panel that is not full.
    lengths[:, 1] *= np.where(lasts[:, 1] * NR > n, -1, 1)
    # Of an expert it counts how many rows it gets, and not which one it is: there may be hundreds.
    of_experts = kind == TaskKind.EXPERT_GEMM
    if of_experts.any():
        experts = np.maximum(program.ops["experts"].astype(np.int64)[op], 1)
        expert_rows = rows // experts + (firsts[:, 2] < rows % experts)
        firsts[:, 2] = np.where(of_experts, -1, firsts[:, 2])
        lasts[:, 2] = np.where(of_experts, expert_rows, lasts[:, 2])
    by_length = LENGTH_COUNTS[kind]
    keys = np.empty((end - begin, 8), np.int64)
    keys[:, 0], keys[:, 1] = np.array(op_keys)[op], kind
    keys[:, 2:5], keys[:, 5:] = np.where(by_length, -1, firsts), np.where(by_length, lengths, lasts)
    return list(map(tuple, keys.tolist()))

