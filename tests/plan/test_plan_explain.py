"""The explanation is of this program: its sums are those of the program's tasks and buffers."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from smesim.plan.explain import APPENDED, SAVED, TASKS, WRITTEN, by_site, layout_report, total_seconds
from smesim.plan.layout import LayoutReuse
from smesim.plan.lower import lower
from smesim.plan.program import APPENDING, PACKING, BufferRole, Layout
from smesim.plan.schema import Plan
from smesim.plan.tiles import PACKED_KINDS
from smesim.plan.work import task_bytes
from smesim.workload import catalog
from tests.plan.plans import plans, small_plan, with_entry


@settings(max_examples=25, deadline=None)
@given(plan=plans())
def test_what_is_explained_adds_up_to_the_programs_tasks_and_buffers(plan: Plan) -> None:
    program = lower(plan)
    report, moved, kinds = layout_report(plan, program), task_bytes(program), program.tasks["kind"]
    kinds_of = {TASKS: PACKING, WRITTEN: [*PACKED_KINDS.values()], APPENDED: APPENDING}
    for how, of_kind in kinds_of.items():
        chosen = np.isin(kinds, of_kind)
        found = report.of(how)
        assert sum(p.tasks for p in found) == chosen.sum()
        assert sum(p.n_bytes for p in found) == moved[chosen].sum()
        assert {p.operator for p in found} == {program.op_names[op] for op in program.tasks["op"][chosen]}
        groups = by_site(found)
        assert sum(g.n_bytes for g in groups) == moved[chosen].sum()
        assert sum(g.count for g in groups) == len(found)
    products = [o for o in plan.graph().operators if "linear" in o.kind and plan.site(o.site).kernel[:4] == "gemm"]
    assert [p.operator for p in report.packings if p.how in (TASKS, SAVED)] == [o.name for o in products]
    assert sum(report.layout_bytes.values()) == program.buffers["n_bytes"].sum()
    packed_once = {Layout[once.layout.upper()]: once.n_bytes for once in report.once}
    for layout, n_bytes in packed_once.items():
        assert n_bytes == program.buffers["n_bytes"][program.buffers["layout"] == layout].sum()
    if plan.layout_reuse == "none":
        assert not report.of(SAVED)
    if plan.layout_reuse != "full":
        assert not report.of(WRITTEN)


def words(reuse: LayoutReuse) -> dict[str, tuple[str, str]]:
    plan = small_plan("prefill:20", layers=1, reuse=reuse)
    return {p.site: (p.how, p.why) for p in layout_report(plan, lower(plan)).packings}


def test_each_packing_says_why_it_is_there_or_what_saved_it() -> None:
    full, shared, none = words("full"), words("shared_packs"), words("none")
    assert full["o_proj"] == shared["o_proj"] == (TASKS, "attention writes row_major only")
    assert full["q_proj"] == full["v_proj"] == (SAVED, "written packed by attn_norm")
    assert full["down_proj"] == (SAVED, "written packed by swiglu")
    assert full["attn_norm"][0] == WRITTEN
    assert full["kv_append"] == (APPENDED, "attention reads them so")
    assert shared["k_proj"] == (SAVED, "shared with q_proj")
    assert shared["up_proj"] == (SAVED, "shared with gate_proj")
    assert shared["q_proj"][0] == TASKS
    assert "layout_reuse shared_packs" in shared["q_proj"][1]
    assert {how for site, (how, _) in none.items() if site != "kv_append"} == {TASKS}


def test_readers_of_different_strips_are_named() -> None:
    plan = with_entry(small_plan("prefill:20", layers=1), "k_proj", lhs_layout="lhs_f32_m4")
    why = {p.site: p.why for p in layout_report(plan, lower(plan)).packings}
    assert why["q_proj"] == "attn_norm writes row_major: k_proj reads lhs_f32_m4"
    assert why["k_proj"] == "attn_norm writes row_major: q_proj reads lhs_f32_m6, v_proj reads lhs_f32_m6"
    assert why["v_proj"] == "shared with q_proj"


def test_weights_are_in_memory_once() -> None:
    plan = small_plan("prefill:20", catalog.load("llama-3.2-3b"), layers=1)
    program = lower(plan)
    report = layout_report(plan, program)
    assert report.weight_copies == 1.0
    weights = program.buffers["role"] == BufferRole.WEIGHT
    assert report.layout_bytes["rhs_packed"] > 0.999 * program.buffers["n_bytes"][weights].sum()


def test_seconds_are_those_of_the_tasks_that_pack() -> None:
    plan = small_plan("prefill:20", layers=1)
    report = layout_report(plan, lower(plan))
    assert total_seconds(report.of(TASKS)) is None
    seconds = {("layers.0.o_proj", "pack_lhs"): 2.0, ("layers.0.o_proj", "gemm"): 8.0}
    timed = report.with_seconds(seconds | {("layers.0.swiglu", "swiglu_packed"): 4.0})
    assert total_seconds(timed.of(TASKS, layer=0)) == 2.0
    assert total_seconds(timed.of(WRITTEN)) == 4.0
    assert total_seconds(timed.of(SAVED)) is None
