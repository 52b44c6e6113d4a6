"""What each task of a program has to do: its FLOP and bytes, and its row in a trace.

The operators' FLOP and bytes are divided among their tasks exactly: shares are counted in whole output elements (or
query-key pairs, or rows), and rounding is done on running sums, so that nothing is lost and nothing counted twice.
Some tasks add what the graph does not know of, and compute nothing that it counts: pack tasks read and write the rows
that they pack, and what tasks of attention hand to each other is counted once each way, where the softmax or the
combination reads it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from smesim.plan.program import APPENDING, PACKING, Number, Program, TaskKind
from smesim.plan.tiles import NR, STRIP_KINDS

Int64s = npt.NDArray[np.int64]

ADDED_KINDS = (*PACKING, TaskKind.EXPERT_ROUTE, TaskKind.ATTENTION_SOFTMAX, TaskKind.ATTENTION_COMBINE)
"""Tasks whose bytes come on top of those of the operators."""


def strip_row(strip: Int64s, rows: Int64s, mr: Int64s) -> Int64s:
    """First row of a strip of a packed LHS of so many rows (see `native/include/smesim/layout.h`)."""
    strips = -(-rows // np.maximum(mr, 1))
    return np.asarray(strip * rows // np.maximum(strips, 1), np.int64)


def _shares(program: Program) -> Int64s:
    """How much of its operator each task does, in units that add up over the operator's tasks; 0 for those that only
    prepare or collect."""
    tasks, ops = program.tasks, program.ops[program.tasks["op"]]
    column = {name: tasks[name].astype(np.int64) for name in ("begin0", "end0", "begin1", "end1", "begin2", "end2")}
    kind = tasks["kind"]
    share = column["end0"] - column["begin0"]
    m, n, mr = (ops[name].astype(np.int64) for name in ("m", "n", "lhs_mr"))

    columns = np.minimum(column["end1"] * NR, n) - np.minimum(column["begin1"] * NR, n)
    strips = strip_row(column["end0"], m, mr) - strip_row(column["begin0"], m, mr)
    share = np.where(kind == TaskKind.GEMM, strips * columns, share)
    share = np.where(np.isin(kind, STRIP_KINDS), strips, share)
    share = np.where(kind == TaskKind.GEMV, columns, share)

    experts = np.maximum(ops["experts"].astype(np.int64), 1)
    expert_rows = m // experts + (column["begin2"] < m % experts)
    strips = strip_row(column["end0"], expert_rows, mr) - strip_row(column["begin0"], expert_rows, mr)
    share = np.where(kind == TaskKind.EXPERT_GEMM, strips * columns, share)

    past = ops["past"].astype(np.int64)
    tokens = column["end0"] - column["begin0"]
    pairs = _pairs_until(column["end0"], past) - _pairs_until(column["begin0"], past)
    units = (column["end1"] - column["begin1"]) * (column["end2"] - column["begin2"])
    share = np.where(kind == TaskKind.ATTENTION, pairs * units, share)
    product = (kind == TaskKind.ATTENTION_QK) | (kind == TaskKind.ATTENTION_PV)
    share = np.where(product, block_pairs(program.tasks, past), share)
    share = np.where(kind == TaskKind.ATTENTION_PART, tokens * units, share)  # of one token, which sees every key
    share = np.where(np.isin(kind, APPENDING), tokens * (column["end2"] - column["begin2"]), share)
    return np.where(np.isin(kind, [TaskKind.JOIN, *ADDED_KINDS]), 0, share)


def block_pairs(tasks: npt.NDArray[np.void], past: Int64s) -> Int64s:
    """(query, key) pairs that the mask lets through between a task's tokens, axis 0, and its keys, axis 1."""

    def seen(tokens: str, keys: str) -> Int64s:
        """Pairs of the tokens before `tokens` and the keys before `keys`: those few tokens that do not see them all,
        and the others."""
        token, key = tasks[tokens].astype(np.int64), tasks[keys].astype(np.int64)
        partly = np.clip(key - past, 0, token)
        return np.asarray(_pairs_until(partly, past) + (token - partly) * key, np.int64)

    return seen("end0", "end1") - seen("begin0", "end1") - seen("end0", "begin1") + seen("begin0", "begin1")


def _pairs_until(token: Int64s, past: Int64s) -> Int64s:
    """`causal_pairs` of the tokens before `token`, for arrays."""
    return token * past + token * (token + 1) // 2


def _divide(total_by_op: Int64s, shares: Int64s, op: Int64s) -> Int64s:
    """Split each operator's total over its tasks by shares; the parts add up to the total exactly."""
    order = np.argsort(op, kind="stable")
    running = np.cumsum(shares[order])
    first = np.searchsorted(op[order], np.arange(len(total_by_op)))
    base = np.concatenate([[0], running])[first][op[order]]
    whole = np.bincount(op, weights=shares, minlength=len(total_by_op)).astype(np.int64)[op[order]]
    total, part, whole = total_by_op[op[order]], running - base, np.maximum(whole, 1)
    if float(total.max(initial=0)) * float(part.max(initial=0)) < 2.0**62:
        upto = total * part // whole
    else:  # too large for 64 bits: exact in Python's integers
        upto = np.array([int(t) * int(p) // int(w) for t, p, w in zip(total, part, whole, strict=True)], np.int64)
    before = np.where(np.arange(len(op)) == first[op[order]], 0, np.roll(upto, 1))
    parts = np.zeros(len(op), np.int64)
    parts[order] = upto - before
    return parts


def task_flop(program: Program) -> Int64s:
    """FLOP of every task, shape (n_tasks,); adds up to the operators' FLOP."""
    return _divide(program.ops["flop"], _shares(program), program.tasks["op"].astype(np.int64))


def task_bytes(program: Program) -> Int64s:
    """Bytes of every task, shape (n_tasks,): the operators' bytes, and those that `ADDED_KINDS` read and write."""
    op = program.tasks["op"].astype(np.int64)
    parts = _divide(program.ops["n_bytes"], _shares(program), op)
    kind, facts = program.tasks["kind"], program.ops[program.tasks["op"]]
    begin, end = (program.tasks[name].astype(np.int64) for name in ("begin0", "end0"))
    m, mr = facts["m"].astype(np.int64), facts["lhs_mr"].astype(np.int64)
    rows = np.where(kind == TaskKind.PACK_LHS, strip_row(end, m, mr) - strip_row(begin, m, mr), end - begin)
    number_bytes = np.array([number.packed_from.n_bytes + number.lhs.n_bytes for number in Number])[facts["rhs_dtype"]]
    packed = (number_bytes * rows * facts["k"]).astype(np.int64)
    parts = np.where(np.isin(kind, PACKING), packed, parts)
    heads, kv_heads, d = (np.maximum(facts[name], 1).astype(np.int64) for name in ("heads", "kv_heads", "head_dim"))
    scores = block_pairs(program.tasks, facts["past"].astype(np.int64)) * (heads // kv_heads)
    parts = np.where(kind == TaskKind.ATTENTION_SOFTMAX, 2 * 4 * scores, parts)
    units = (program.tasks["end1"] - program.tasks["begin1"]).astype(np.int64)
    units *= program.tasks["end2"] - program.tasks["begin2"]
    gathered = end * units * (heads // kv_heads) * (d + 2)
    return np.where(kind == TaskKind.ATTENTION_COMBINE, 4 * gathered, parts)


def trace_columns(program: Program) -> dict[str, Any]:
    """The columns of a trace that both executors share, one row a task without the joins, in task order."""
    import pandas as pd

    rows = np.flatnonzero(program.tasks["kind"] != TaskKind.JOIN)
    tasks = program.tasks[rows]
    op = tasks["op"]

    kinds = [""] * (max(TaskKind) + 1)
    for kind in TaskKind:
        kinds[kind] = kind.name.lower()

    def named(codes: npt.NDArray[Any], names: tuple[str, ...]) -> Any:
        unique, inverse = np.unique(np.array(names, dtype=object), return_inverse=True)
        return pd.Categorical.from_codes(inverse[codes], categories=pd.Index(unique.tolist(), dtype="str"))

    return {
        "task": rows.astype(np.int32),
        "op": op,
        "op_name": named(op, program.op_names),
        "site": named(op, program.op_sites),
        "layer": program.ops["layer"][op],
        "op_kind": named(op, program.op_kinds),
        "kind": named(tasks["kind"], tuple(kinds)),
        "flop": task_flop(program)[rows],
        "bytes": task_bytes(program)[rows],
    }


def dependency_pairs(program: Program) -> dict[str, npt.NDArray[np.int32]]:
    """Dependencies between tasks for a trace: direct ones, and across a join those on the join's last predecessor."""
    counts = program.tasks["successor_end"] - program.tasks["successor_begin"]
    sources = np.repeat(np.arange(program.n_tasks, dtype=np.int32), counts)
    targets = program.successors
    is_join = program.tasks["kind"] == TaskKind.JOIN
    representative = np.arange(program.n_tasks, dtype=np.int32)
    for source, target in zip(sources[is_join[targets]].tolist(), targets[is_join[targets]].tolist(), strict=True):
        representative[target] = representative[source]  # edges are sorted by source: the last one stays
    keep = ~is_join[targets]
    return {"predecessor": representative[sources[keep]], "successor": targets[keep]}
