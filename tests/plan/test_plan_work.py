"""Invariant 2: all bytes and FLOP of the operators are in the program's tasks, nothing lost, nothing twice."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from smesim.plan.lower import lower
from smesim.plan.program import PACKING, TaskKind
from smesim.plan.schema import Plan
from smesim.plan.work import ADDED_KINDS, dependency_pairs, task_bytes, task_flop, trace_columns
from smesim.workload import DType, catalog
from smesim.workload.operators import causal_pairs
from tests.plan.plans import plans, small_plan

drawn = settings(max_examples=25, deadline=None)


@drawn
@given(plan=plans())
def test_the_tasks_of_each_operator_add_up_to_it(plan: Plan) -> None:
    graph, program = plan.graph(), lower(plan)
    flop, moved = task_flop(program), task_bytes(program)
    added = np.isin(program.tasks["kind"], ADDED_KINDS)
    assert (flop >= 0).all()
    assert (moved >= 0).all()
    for index, operator in enumerate(graph.operators):
        mine = program.tasks["op"] == index
        assert flop[mine].sum() == operator.flop
        assert moved[mine & ~added].sum() == round(graph.moved_bytes(operator))
    joins = program.tasks["kind"] == TaskKind.JOIN
    assert not flop[joins | added].any()
    assert not moved[joins].any()


@drawn
@given(plan=plans())
def test_packing_reads_and_writes_the_whole_operand_once(plan: Plan) -> None:
    program = lower(plan)
    moved = task_bytes(program)
    packing = np.isin(program.tasks["kind"], PACKING)
    width = {DType.F32: 4, DType.BF16: 2}[plan.weights_dtype]
    for op in np.unique(program.tasks["op"][packing]):
        facts = program.ops[op]
        assert moved[packing & (program.tasks["op"] == op)].sum() == (4 + width) * int(facts["m"]) * int(facts["k"])


@drawn
@given(plan=plans())
def test_the_softmax_reads_and_writes_each_score_once_and_the_combination_reads_each_part_once(plan: Plan) -> None:
    program = lower(plan)
    moved, entry = task_bytes(program), plan.site("attention")
    for op in np.flatnonzero(np.array(program.op_sites) == "attention"):
        facts = {name: int(program.ops[name][op]) for name in program.ops.dtype.names or ()}
        handed_over = moved[(program.tasks["op"] == op) & np.isin(program.tasks["kind"], ADDED_KINDS)].sum()
        pairs = facts["batch"] * causal_pairs(facts["tokens"], facts["past"])
        panels = -(-(facts["past"] + 1) // 16)
        gathered = min(entry.past_split, panels) * facts["batch"] * facts["heads"] * (facts["head_dim"] + 2)
        parts = 4 * gathered if entry.past_split > 1 else 0
        assert handed_over == (2 * 4 * facts["heads"] * pairs if entry.pipeline else parts)


def test_work_beyond_64_bits_of_intermediate_results_is_divided_exactly() -> None:
    plan = small_plan("prefill:8000", catalog.load("llama-3.1-8b"), layers=1)
    graph, program = plan.graph(), lower(plan)
    assert graph.operator("layers.0.gate_proj").flop * 8000 * 14336 > 2**63
    assert int(task_flop(program).sum()) == graph.total_flop()


def test_equal_tiles_do_equal_work() -> None:
    program = lower(small_plan("prefill:24", threads=1, layers=1))
    gemm = program.tasks[(program.tasks["kind"] == TaskKind.GEMM) & (program.tasks["op"] == 2)]
    assert program.op_sites[2] == "q_proj"
    flop = task_flop(program)[(program.tasks["kind"] == TaskKind.GEMM) & (program.tasks["op"] == 2)]
    tiles = (gemm["end0"] - gemm["begin0"]) * (gemm["end1"] - gemm["begin1"])
    assert len(set((flop / tiles).tolist())) == 1


@drawn
@given(plan=plans())
def test_a_trace_has_a_row_for_each_task_and_none_for_joins(plan: Plan) -> None:
    program = lower(plan)
    columns = trace_columns(program)
    assert columns["task"].tolist() == np.flatnonzero(program.tasks["kind"] != TaskKind.JOIN).tolist()
    ops = columns["op"].tolist()
    assert list(columns["op_name"]) == [program.op_names[op] for op in ops]
    assert list(columns["site"]) == [program.op_sites[op] for op in ops]
    kinds = [TaskKind(kind).name.lower() for kind in program.tasks["kind"][columns["task"]]]
    assert list(columns["kind"]) == kinds


@drawn
@given(plan=plans())
def test_every_task_behind_a_join_depends_on_one_of_those_before_it(plan: Plan) -> None:
    program = lower(plan)
    pairs = dependency_pairs(program)
    before, after = pairs["predecessor"].tolist(), pairs["successor"].tolist()
    is_join = program.tasks["kind"] == TaskKind.JOIN
    assert not is_join[before].any()
    assert not is_join[after].any()
    assert all(b < a for b, a in zip(before, after, strict=True))
    waiting = np.flatnonzero((program.tasks["predecessor_count"] > 0) & ~is_join)
    assert set(after) == set(waiting.tolist())
