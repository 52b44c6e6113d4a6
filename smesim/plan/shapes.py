"""What a program says of an operator besides its tasks: the columns of its row that its shape decides."""

from __future__ import annotations

from smesim.errors import PlanError
from smesim.plan.formats import format_of_kernel
from smesim.plan.layout import ROW_MAJOR, lhs_layout
from smesim.plan.program import Number, TaskKind
from smesim.plan.schema import OperatorPlan
from smesim.plan.tiles import PACKED_KINDS, experts_with_rows, kv_capacity
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


def operator_facts(operator: Operator, entry: OperatorPlan) -> dict[str, float]:
    """The columns of the operator's row in `Program.ops` that its shape decides."""
    facts = _shape_facts(operator, entry)
    if entry.out_layout != ROW_MAJOR:
        kind = TaskKind(int(facts["kind"]))
        facts.update(kind=PACKED_KINDS.get(kind, kind), lhs_mr=lhs_layout(entry.out_layout).mr)
    return facts


def _shape_facts(operator: Operator, entry: OperatorPlan) -> dict[str, float]:
    match operator:
        case Linear():
            numbers = format_of_kernel(entry.kernel)
            facts: dict[str, float] = {"kind": TaskKind.GEMM, "m": operator.m, "n": operator.n, "k": operator.k}
            facts["rhs_dtype"] = numbers.number
            if entry.kernel == numbers.gemv:
                facts["kind"] = TaskKind.GEMV
            else:
                facts["lhs_mr"] = lhs_layout(entry.lhs_layout).mr
            return facts
        case GroupedLinear():
            return {
                "kind": TaskKind.EXPERT_GEMM, "m": operator.m, "n": operator.n, "k": operator.k,
                "experts": experts_with_rows(operator), "lhs_mr": lhs_layout(entry.lhs_layout).mr,
                "gathers": operator.gathers, "routed": operator.routed,
                "rhs_dtype": format_of_kernel(entry.kernel).number,
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
                "routed": operator.routed,
            }  # fmt: skip
        case ExpertCombine():
            return {
                "kind": TaskKind.EXPERT_COMBINE, "m": operator.rows, "n": operator.dim,
                "experts_per_token": operator.experts_per_token,
            }  # fmt: skip
        case Sample():
            return {"kind": TaskKind.ARGMAX, "m": operator.rows, "n": operator.vocab}
        case Embed():
            number = format_of_kernel(entry.kernel).number
            return {"kind": TaskKind.EMBED, "m": operator.rows, "n": operator.dim, "rhs_dtype": number}
        case Add():
            return {"kind": TaskKind.ADD, "m": operator.rows, "n": operator.dim}
        case SwiGlu():
            return {"kind": TaskKind.SWIGLU, "m": operator.rows, "n": operator.dim}
        case Quantize():
            return {"kind": TaskKind.QUANTIZE, "m": operator.rows, "n": operator.dim, "rhs_dtype": Number.Q8}
    raise PlanError(f"no lowering for operator {operator.name!r} of kind {operator.kind!r}")
