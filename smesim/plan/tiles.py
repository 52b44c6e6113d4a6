"""Which tasks an operator falls into: its macro-tiles, in the order in which they are handed out.

One function a kind of operator, all of the same form: (operator, its entry in the plan) -> tiles. A tile is a task
kind and three ranges; `program.py` says what each range counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from smesim.errors import PlanError
from smesim.plan.program import TaskKind
from smesim.plan.schema import OperatorPlan
from smesim.workload.operators import (
    Add,
    Attention,
    Embed,
    ExpertCombine,
    GroupedLinear,
    KvAppend,
    Linear,
    Operator,
    Quantize,
    RmsNorm,
    Rope,
    Router,
    Sample,
    SwiGlu,
)

NR = 16
"""Columns of a packed RHS panel; every kernel of every ISA reads panels of this width."""


@dataclass(frozen=True)
class Tile:
    """One task to be: ranges are begin0, end0, begin1, end1, begin2, end2."""

    kind: TaskKind
    ranges: tuple[int, int, int, int, int, int]


def lhs_mr(entry: OperatorPlan) -> int:
    """Strip height of the entry's packed LHS layout, from its name "lhs_f32_m<height>"."""
    name, _, height = entry.lhs_layout.rpartition("_m")
    if name != "lhs_f32" or not height.isdigit() or int(height) < 1:
        raise PlanError(
            f"operators[{entry.site}].lhs_layout is {entry.lhs_layout!r};"
            f" accepted: 'row_major' or 'lhs_f32_m<strip height>', e.g. 'lhs_f32_m6'"
        )
    return int(height)


def rows_of_expert(rows: int, experts: int, expert: int) -> int:
    """Rows that the expert-th of the reached experts gets when `rows` are spread as evenly as they can be."""
    return rows // experts + (expert < rows % experts)


def first_row_of_expert(rows: int, experts: int, expert: int) -> int:
    """Rows that the experts before it get."""
    return rows // experts * expert + min(expert, rows % experts)


def experts_with_rows(operator: GroupedLinear) -> int:
    """Experts that get rows: as many as are reached, in whole numbers."""
    return max(1, round(operator.experts_reached))


def _ranges(total: int, step: int) -> Iterator[tuple[int, int]]:
    for begin in range(0, total, step):
        yield begin, min(begin + step, total)


def _guided_ranges(total: int, step: int, workers: int, behind: int) -> Iterator[tuple[int, int]]:
    """Ranges of `step`, and towards the end ever smaller ones: a worker's share of half of what is left.

    That includes what comes `behind` these ranges in the same queue.

    Whoever draws the last tile keeps the others waiting for at most a small one (guided self-scheduling,
    Polychronopoulos and Kuck, IEEE Transactions on Computers, 1987).
    """
    begin = 0
    while begin < total:
        end = min(total, begin + max(1, min(step, (total - begin + behind) // (2 * workers))))
        yield begin, end
        begin = end


def _column_ranges(
    operator: Linear | GroupedLinear, entry: OperatorPlan, matrices_behind: int = 0
) -> list[tuple[int, int]]:
    """Ranges of panels: even ones, or guided where the workers draw them."""
    panels, step = -(-operator.n // NR), max(1, entry.tile.n // NR)
    if entry.assignment == "static" or len(entry.workers) == 1:
        return list(_ranges(panels, step))
    return list(_guided_ranges(panels, step, len(entry.workers), matrices_behind * panels))


def _linear(operator: Linear, entry: OperatorPlan) -> list[Tile]:
    if entry.kernel == "gemv_f32":
        if operator.m != 1:
            raise PlanError(f"operators[{entry.site}].kernel is 'gemv_f32' for {operator.m} rows; accepted: 'gemm_f32'")
        return [Tile(TaskKind.GEMV, (0, 1, b, e, 0, 0)) for b, e in _column_ranges(operator, entry)]
    if entry.kernel != "gemm_f32":
        raise PlanError(f"operators[{entry.site}].kernel is {entry.kernel!r}; accepted: gemm_f32, gemv_f32")
    mr = lhs_mr(entry)
    strips = -(-operator.m // mr)
    strip_step = max(1, -(-entry.tile.m // mr))
    # Columns outside: the tiles that share a weight panel follow one another, so that it is still in a cache.
    return [
        Tile(TaskKind.GEMM, (*rows, *columns, 0, 0))
        for columns in _column_ranges(operator, entry)
        for rows in _ranges(strips, strip_step)
    ]


def _grouped_linear(operator: GroupedLinear, entry: OperatorPlan) -> list[Tile]:
    """All rows of an expert by some of its columns: every weight is read once."""
    experts, mr = experts_with_rows(operator), lhs_mr(entry)
    return [
        Tile(TaskKind.EXPERT_GEMM, (0, -(-rows_of_expert(operator.m, experts, i) // mr), *columns, i, i + 1))
        for i in range(experts)
        for columns in _column_ranges(operator, entry, experts - 1 - i)
    ]


def _attention(operator: Attention, entry: OperatorPlan) -> list[Tile]:
    blocks = list(_ranges(operator.tokens, entry.tile.m))
    # Later tokens see more keys: longest first leaves the short ones to even out the end.
    return [
        Tile(TaskKind.ATTENTION, (*tokens, *heads, sequence, sequence + 1))
        for tokens in reversed(blocks)
        for sequence in range(operator.batch)
        for heads in _ranges(operator.kv_heads, entry.tile.n)
    ]


def _kv_append(operator: KvAppend, entry: OperatorPlan) -> list[Tile]:
    return [
        Tile(TaskKind.KV_APPEND, (*tokens, 0, 0, sequence, sequence + 1))
        for sequence in range(operator.batch)
        for tokens in _ranges(operator.tokens, entry.tile.m)
    ]


def _by_rows(kind: TaskKind) -> Callable[[Any, OperatorPlan], list[Tile]]:
    def tiles(operator: Any, entry: OperatorPlan) -> list[Tile]:
        return [Tile(kind, (*rows, 0, 0, 0, 0)) for rows in _ranges(operator.rows, entry.tile.m)]

    return tiles


_TILES: dict[type[Operator], Callable[[Any, OperatorPlan], list[Tile]]] = {
    Embed: _by_rows(TaskKind.EMBED),
    RmsNorm: _by_rows(TaskKind.RMSNORM),
    Linear: _linear,
    Rope: _by_rows(TaskKind.ROPE),
    KvAppend: _kv_append,
    Attention: _attention,
    Add: _by_rows(TaskKind.ADD),
    SwiGlu: _by_rows(TaskKind.SWIGLU),
    Sample: _by_rows(TaskKind.ARGMAX),
    Router: _by_rows(TaskKind.ROUTER),
    GroupedLinear: _grouped_linear,
    ExpertCombine: _by_rows(TaskKind.EXPERT_COMBINE),
    Quantize: _by_rows(TaskKind.QUANTIZE),
}


def operator_tiles(operator: Operator, entry: OperatorPlan) -> list[Tile]:
    """The tasks of an operator, in the order in which they are handed out."""
    return _TILES[type(operator)](operator, entry)


def pack_tiles(operator: Operator, entry: OperatorPlan) -> list[Tile]:
    """The tasks that pack the left operand of a GEMM, cut by rows, or by experts, over the operator's workers."""
    if isinstance(operator, GroupedLinear):
        experts = experts_with_rows(operator)
        step = -(-experts // len(entry.workers))
        first = [first_row_of_expert(operator.m, experts, i) for i in range(experts + 1)]
        return [Tile(TaskKind.EXPERT_PACK, (first[b], first[e], 0, 0, b, e)) for b, e in _ranges(experts, step)]
    strips = -(-operator.activation_rows // lhs_mr(entry))
    step = -(-strips // len(entry.workers))
    return [Tile(TaskKind.PACK_LHS, (*rows, 0, 0, 0, 0)) for rows in _ranges(strips, step)]


def operator_facts(operator: Operator, entry: OperatorPlan) -> dict[str, float]:
    """The columns of the operator's row in `Program.ops` that its shape decides."""
    match operator:
        case Linear():
            facts: dict[str, float] = {"kind": TaskKind.GEMM, "m": operator.m, "n": operator.n, "k": operator.k}
            if entry.kernel == "gemv_f32":
                facts["kind"] = TaskKind.GEMV
            else:
                facts["lhs_mr"] = lhs_mr(entry)
            return facts
        case GroupedLinear():
            return {
                "kind": TaskKind.EXPERT_GEMM, "m": operator.m, "n": operator.n, "k": operator.k,
                "experts": experts_with_rows(operator), "lhs_mr": lhs_mr(entry), "gathers": operator.gathers,
            }  # fmt: skip
        case Attention() | KvAppend():
            facts = {
                "kind": TaskKind.KV_APPEND, "m": operator.batch * operator.tokens, "tokens": operator.tokens,
                "past": operator.past, "capacity": kv_capacity(operator.past + operator.tokens),
                "batch": operator.batch, "kv_heads": operator.kv_heads, "head_dim": operator.head_dim,
            }  # fmt: skip
            if isinstance(operator, Attention):
                facts.update(kind=TaskKind.ATTENTION, heads=operator.heads)
            return facts
        case RmsNorm():
            return {"kind": TaskKind.RMSNORM, "m": operator.rows, "n": operator.dim, "eps": operator.eps}
        case Rope():
            return {
                "kind": TaskKind.ROPE, "m": operator.rows, "heads": operator.heads, "head_dim": operator.head_dim,
                "n": operator.heads * operator.head_dim, "tokens": operator.tokens, "past": operator.past,
            }  # fmt: skip
        case Router():
            return {
                "kind": TaskKind.ROUTER, "m": operator.rows, "n": operator.experts, "k": operator.dim,
                "experts_per_token": operator.experts_per_token, "normalised": operator.normalised,
            }  # fmt: skip
        case ExpertCombine():
            return {
                "kind": TaskKind.EXPERT_COMBINE, "m": operator.rows, "n": operator.dim,
                "experts_per_token": operator.experts_per_token,
            }  # fmt: skip
        case Sample():
            return {"kind": TaskKind.ARGMAX, "m": operator.rows, "n": operator.vocab}
        case Embed():
            return {"kind": TaskKind.EMBED, "m": operator.rows, "n": operator.dim}
        case Add():
            return {"kind": TaskKind.ADD, "m": operator.rows, "n": operator.dim}
        case SwiGlu():
            return {"kind": TaskKind.SWIGLU, "m": operator.rows, "n": operator.dim}
        case Quantize():
            return {"kind": TaskKind.QUANTIZE, "m": operator.rows, "n": operator.dim}
    raise PlanError(f"no lowering for operator {operator.name!r} of kind {operator.kind!r}")


def kv_capacity(positions: int) -> int:
    """Positions that a KV cache is laid out for: whole panels."""
    return -(-positions // NR) * NR
