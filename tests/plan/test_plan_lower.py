"""Programs: every task once, in an order that can be walked, with the layers recognised as equal."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smesim.errors import PlanError
from smesim.plan.layout import LayoutReuse
from smesim.plan.lower import lower
from smesim.plan.program import ANY_WORKER, NO_BUFFER, EntryKind, Layout, Program, TaskKind
from smesim.plan.schema import Plan, TileShape
from smesim.plan.tiles import first_row_of_expert, rows_of_expert
from tests.plan.plans import plans, small_plan, with_entry
from tests.workload.workload_models import tiny, tiny_moe

drawn = settings(max_examples=25, deadline=None)


def edges(program: Program) -> list[tuple[int, int]]:
    tasks = program.tasks
    return [
        (task, int(successor))
        for task in range(program.n_tasks)
        for successor in program.successors[tasks["successor_begin"][task] : tasks["successor_end"][task]]
    ]


@drawn
@given(plan=plans())
def test_tasks_are_in_topological_order_and_wait_for_as_many_as_point_at_them(plan: Plan) -> None:
    program = lower(plan)
    pairs = edges(program)
    assert all(before < after for before, after in pairs)
    assert len(set(pairs)) == len(pairs)
    counts = np.bincount([after for _, after in pairs], minlength=program.n_tasks)
    np.testing.assert_array_equal(counts, program.tasks["predecessor_count"])


def reachable_tasks(program: Program) -> list[int]:
    """Tasks in queues and pools, each as often as it is there."""
    found = [int(e["index"]) for e in program.entries if e["kind"] == EntryKind.TASK]
    return found + program.pool_tasks.tolist()


@drawn
@given(plan=plans())
def test_every_task_is_in_one_queue_or_one_pool_and_joins_in_none(plan: Plan) -> None:
    program = lower(plan)
    is_join = program.tasks["kind"] == TaskKind.JOIN
    assert sorted(reachable_tasks(program)) == np.flatnonzero(~is_join).tolist()
    for worker in range(program.n_workers):
        for entry in program.queue(worker):
            if entry["kind"] == EntryKind.TASK:
                assert program.tasks["worker"][entry["index"]] == worker
    assert (program.tasks["worker"][program.pool_tasks] == ANY_WORKER).all()
    assert (program.tasks["worker"][is_join] == ANY_WORKER).all()
    pools = [e["index"] for e in program.entries if e["kind"] == EntryKind.POOL]
    assert set(pools) == set(range(len(program.pools)))
    assert all(begin < end for begin, end in program.pools.tolist())
    assert program.pools["end"][-1:].tolist() in ([], [len(program.pool_tasks)])


@drawn
@given(plan=plans())
def test_only_the_workers_of_an_operator_come_to_its_tasks(plan: Plan) -> None:
    program = lower(plan)
    entries = {e.site: e for e in plan.operators}
    packers = {site: e.packers for site, e in entries.items() if e.kind == "kv_append"}  # of products none are drawn
    allowed = [set(packers.get(site) or entries[site].workers) for site in program.op_sites]
    for worker in range(program.n_workers):
        for entry in program.queue(worker):
            assert worker in allowed[program.tasks["op"][program.first_task_of(entry)]]


def walk(program: Program, order: list[int]) -> tuple[list[int], int]:
    """Walk the queues as the workers do, in the order in which `order` lets them go; tasks as they ran, joins ended.

    A worker goes on only when its task is ready; nobody skips ahead. It ends when nobody can go on.
    """
    pending = program.tasks["predecessor_count"].tolist()
    position, drawn, holding = [0] * program.n_workers, [0] * len(program.pools), [ANY_WORKER] * program.n_workers
    queues = [[(int(e["kind"]), int(e["index"])) for e in program.queue(w)] for w in range(program.n_workers)]
    ran: list[int] = []
    joins = 0

    def end(task: int) -> None:
        nonlocal joins
        row = program.tasks[task]
        for successor in program.successors[row["successor_begin"] : row["successor_end"]].tolist():
            pending[successor] -= 1
            if not pending[successor] and program.tasks["kind"][successor] == TaskKind.JOIN:
                joins += 1
                end(successor)

    def take(worker: int) -> int | None:
        """The task in hand, drawn now if need be; None at the end of the queue."""
        while holding[worker] == ANY_WORKER and position[worker] < len(queues[worker]):
            kind, index = queues[worker][position[worker]]
            if kind == EntryKind.POOL:
                begin, past_last = program.pools[index].item()
                if begin + drawn[index] == past_last:
                    position[worker] += 1
                    continue
                holding[worker] = int(program.pool_tasks[begin + drawn[index]])
                drawn[index] += 1
            else:
                holding[worker] = index
                position[worker] += 1
        return None if holding[worker] == ANY_WORKER else holding[worker]

    turn = 0
    while True:
        candidates = [w for w in range(program.n_workers) if (task := take(w)) is not None and not pending[task]]
        if not candidates:
            return ran, joins
        worker = candidates[order[turn % len(order)] % len(candidates)]
        turn += 1
        task, holding[worker] = holding[worker], ANY_WORKER
        ran.append(task)
        end(task)


@drawn
@given(plan=plans(), order=st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_no_order_of_the_workers_ends_in_a_deadlock(plan: Plan, order: list[int]) -> None:
    program = lower(plan)
    ran, joins = walk(program, order)
    assert sorted(ran) == np.flatnonzero(program.tasks["kind"] != TaskKind.JOIN).tolist()
    assert joins == int((program.tasks["kind"] == TaskKind.JOIN).sum())


def reads_and_writes(program: Program, task: int) -> tuple[set[int], set[int]]:
    row = program.tasks[task]
    op = program.ops[row["op"]]
    present = {name: int(op[name]) for name in (op.dtype.names or ()) if int(op[name]) != NO_BUFFER}
    if row["kind"] == TaskKind.PACK_LHS:
        return {present["input0"]}, {present["packed"]}
    if row["kind"] == TaskKind.EXPERT_PACK:
        return {present[name] for name in ("input0", "input1", "input2")}, {present["packed"]}
    first = "packed" if "packed" in present else "input0"
    inputs = {present[name] for name in (first, "input1", "input2") if name in present}
    return inputs, {present[name] for name in ("output0", "output1", "packed_out") if name in present}


@drawn
@given(plan=plans())
def test_who_shares_a_buffer_with_its_writer_is_ordered_with_it(plan: Plan) -> None:
    """Of two tasks of different stages, one of which writes what the other touches, one must follow the other."""
    program = lower(plan)
    n = program.n_tasks
    follows = np.zeros((n, n), bool)
    for before, after in edges(program):
        follows[after] |= follows[before]
        follows[after, before] = True
    # The stages of a pipeline work on many blocks at once; tests/plan/test_plan_pipeline.py looks into them.
    pipeline = {TaskKind.ATTENTION_QK, TaskKind.ATTENTION_SOFTMAX, TaskKind.ATTENTION_PV}
    stage = [(int(t["op"]), -1 if t["kind"] in pipeline else int(t["kind"])) for t in program.tasks]
    tasks = np.flatnonzero(program.tasks["kind"] != TaskKind.JOIN).tolist()
    touched = {task: reads_and_writes(program, task) for task in tasks}
    for i, later in enumerate(tasks):
        for earlier in tasks[:i]:
            (reads, writes), (old_reads, old_writes) = touched[later], touched[earlier]
            hazard = (reads | writes) & old_writes or writes & old_reads
            if stage[later] != stage[earlier] and hazard:
                assert follows[later, earlier]


@drawn
@given(plan=plans())
def test_a_segment_starts_when_everything_before_it_has_ended(plan: Plan) -> None:
    program = lower(plan)
    segment_of = np.zeros(program.n_tasks, int)
    bounds = [(int(begin), int(end)) for begin, end, _ in program.segments.tolist()]
    assert [0, *(end for _, end in bounds)] == [*(begin for begin, _ in bounds), program.n_tasks]
    for i, (begin, end) in enumerate(bounds):
        segment_of[begin:end] = i
    inside: list[set[int]] = [set() for _ in bounds]
    across: list[set[int]] = [set() for _ in bounds]
    for before, after in edges(program):
        if segment_of[before] == segment_of[after]:
            inside[segment_of[before]].add(before)
        else:
            assert segment_of[after] == segment_of[before] + 1
            across[segment_of[before]].add(before)
    for i, (begin, end) in enumerate(bounds):
        last = set(range(begin, end)) - inside[i]
        assert len(last) == 1
        assert across[i] == (last if i + 1 < len(bounds) else set())
    pairs = set(edges(program))
    waiting = {after for before, after in pairs if segment_of[before] == segment_of[after]}
    for earlier, later in pairwise(bounds):
        firsts = set(range(*later)) - waiting
        assert firsts
        assert all((earlier[1] - 1, first) in pairs for first in firsts)


@drawn
@given(plan=plans())
def test_the_same_plan_gives_the_same_program(plan: Plan) -> None:
    assert lower(plan).fingerprint() == lower(Plan.model_validate_json(plan.to_json())).fingerprint()


def test_different_plans_give_different_programs() -> None:
    plan = small_plan()
    others = [
        small_plan(threads=3),
        with_entry(plan, "q_proj", tile=TileShape(m=6, n=16)),
        with_entry(plan, "q_proj", assignment="shared"),
        with_entry(plan, "attention", workers=(1,)),
        with_entry(plan, "down_proj", assignment="static", shares=(3.0, 1.0)),
    ]
    assert len({lower(p).fingerprint() for p in [plan, *others]}) == len(others) + 1


# -- segments


@pytest.mark.parametrize("phase", ["prefill:20", "prefill:20,past=4,batch=2", "decode:9"])
@pytest.mark.parametrize("model", [tiny(layers=5), tiny_moe(layers=5)], ids=["dense", "experts"])
def test_equal_layers_have_equal_signatures_and_nothing_else_has(phase: str, model) -> None:
    signatures = lower(small_plan(phase, model, layers=5)).segments["signature"].tolist()
    embed, first, *layers, head = signatures
    assert layers == [first] * 4
    assert len({embed, first, head}) == 3


@pytest.mark.parametrize("phase", ["prefill:20,past=4", "decode:9"])
@pytest.mark.parametrize("model", [tiny(layers=5), tiny_moe(layers=5)], ids=["dense", "experts"])
def test_a_layer_that_comes_again_is_what_it_would_be_if_it_were_lowered(phase: str, model) -> None:
    plan = small_plan(phase, model, layers=5)
    graph, each = plan.graph(), plan.graph()
    assert [block.is_again for block in graph.blocks] == [False] * 3 + [True] * 3 + [False]
    each.__dict__["blocks"] = tuple(dataclasses.replace(block, is_again=False) for block in graph.blocks)
    assert lower(plan, graph).fingerprint() == lower(plan, each).fingerprint()


def layer_signature(plan: Plan) -> int:
    return int(lower(plan).segments["signature"][1])


def test_layers_of_different_work_have_different_signatures() -> None:
    plan = small_plan()
    changed = [
        plan,
        small_plan("prefill:21"),
        small_plan("prefill:20,past=1"),
        small_plan(model=tiny(d_ff=128)),
        small_plan(model=tiny(kv_heads=4)),
        small_plan(model=tiny(rms_eps=1e-6)),
        with_entry(plan, "q_proj", tile=TileShape(m=6, n=16)),
        with_entry(plan, "q_proj", lhs_layout="lhs_f32_m5"),
        with_entry(plan, "q_proj", workers=(1, 0), assignment="static"),
        with_entry(plan, "q_proj", workers=(0,), assignment="static"),
        with_entry(plan, "q_proj", tile=TileShape(m=6, n=16), assignment="shared"),
        with_entry(plan, "q_proj", tile=TileShape(m=6, n=16), assignment="shared", workers=(1,)),
    ]
    assert len({layer_signature(p) for p in changed}) == len(changed)


def test_who_may_draw_from_a_pool_is_part_of_the_signature() -> None:
    base = with_entry(small_plan(threads=3), "q_proj", tile=TileShape(m=6, n=16), assignment="shared")
    two, three = with_entry(base, "q_proj", workers=(0, 1)), with_entry(base, "q_proj", workers=(0, 2))
    assert layer_signature(two) != layer_signature(three)


# -- packing


def packs(program: Program) -> dict[str, int]:
    """Pack tasks by the site for which they are made."""
    ops = program.tasks["op"][program.tasks["kind"] == TaskKind.PACK_LHS]
    sites = [program.op_sites[op] for op in ops]
    return {site: sites.count(site) for site in dict.fromkeys(sites)}


SHARED = ["q_proj", "o_proj", "gate_proj", "down_proj"]
EACH = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.mark.parametrize(("reuse", "sites"), [("full", ["o_proj"]), ("shared_packs", SHARED), ("none", EACH)])
def test_an_activation_is_packed_as_often_as_the_plan_says(reuse: LayoutReuse, sites: list[str]) -> None:
    program = lower(small_plan("prefill:20", threads=1, layers=1, reuse=reuse))
    assert packs(program) == dict.fromkeys(sites, 1)
    by_site = dict(zip(program.op_sites, program.ops["packed"].tolist(), strict=True))
    assert by_site["q_proj"] == by_site["k_proj"] == by_site["v_proj"]
    assert by_site["gate_proj"] == by_site["up_proj"]
    assert len({by_site[site] for site in ("q_proj", "o_proj", "gate_proj", "down_proj")}) == 4
    twin = program.buffers[by_site["q_proj"]]
    assert Layout(twin["layout"]) is Layout.LHS_PACKED
    assert twin["n_bytes"] == 20 * 64 * 4
    row_major = {name.partition("[")[0] for name in program.buffer_names if name.endswith("]")}
    assert {"attn_norm.out", "ffn_norm.out", "swiglu.out"} & row_major == (
        set() if reuse == "full" else {"attn_norm.out", "ffn_norm.out", "swiglu.out"}
    )


def test_what_is_rewritten_is_packed_again() -> None:
    program = lower(small_plan("prefill:20", tiny(layers=3), threads=1, layers=3, reuse="shared_packs"))
    assert packs(program) == dict.fromkeys(SHARED, 3)


def test_a_reader_of_another_strip_height_gets_its_own_packing() -> None:
    plan = with_entry(small_plan("prefill:20", threads=1, layers=1), "k_proj", lhs_layout="lhs_f32_m4")
    assert packs(lower(plan)) == dict.fromkeys(["q_proj", "k_proj", "o_proj"], 1)
    assert plan.site("attn_norm").out_layout == "row_major"
    assert plan.site("ffn_norm").out_layout == "lhs_f32_m6"


def test_an_output_that_is_packed_otherwise_than_it_is_read_is_refused() -> None:
    plan = with_entry(small_plan("prefill:20"), "ffn_norm", out_layout="lhs_f32_m4")
    with pytest.raises(PlanError, match=r"\[gate_proj\] reads layers.0.ffn_norm.out as 'lhs_f32_m6', which is written"):
        lower(plan)
    plan = with_entry(small_plan("decode:20"), "attn_norm", out_layout="lhs_f32_m4")
    with pytest.raises(PlanError, match=r"\[q_proj\] reads layers.0.attn_norm.out as 'row_major'"):
        lower(plan)


def test_experts_read_row_major_so_their_norm_writes_it() -> None:
    plan = small_plan("prefill:20", tiny_moe())
    assert plan.site("ffn_norm").out_layout == "row_major"
    assert plan.site("attn_norm").out_layout == "lhs_f32_m6"


def test_one_row_is_not_packed() -> None:
    assert not packs(lower(small_plan("decode:20")))


# -- experts


@drawn
@given(
    experts=st.integers(1, 12), tile=st.integers(1, 90), assignment=st.sampled_from(["static", "shared"]),
    rows=st.integers(1, 40),
)  # fmt: skip
def test_every_panel_of_every_reached_expert_is_multiplied_with_once_and_all_its_rows(
    experts: int, tile: int, assignment: str, rows: int
) -> None:
    model = tiny_moe(experts=experts, experts_per_token=min(2, experts), d_expert=90)
    plan = small_plan(f"prefill:{rows}", model, layers=1)
    plan = with_entry(plan, "up_experts", tile=TileShape(m=1, n=tile), assignment=assignment, workers=(0, 1))
    program = lower(plan)
    op = program.op_sites.index("up_experts")
    reached, m = int(program.ops["experts"][op]), int(program.ops["m"][op])
    tasks = program.tasks[(program.tasks["op"] == op) & (program.tasks["kind"] == TaskKind.EXPERT_GEMM)]
    seen = [
        (int(expert), panel)
        for begin, end, expert in zip(tasks["begin1"], tasks["end1"], tasks["begin2"], strict=True)
        for panel in range(begin, end)
    ]
    assert seen == [(expert, panel) for expert in range(reached) for panel in range(6)]
    assert (tasks["end2"] == tasks["begin2"] + 1).all()
    own = [rows_of_expert(m, reached, int(expert)) for expert in tasks["begin2"]]
    mr = int(program.ops["lhs_mr"][op])
    assert list(zip(tasks["begin0"], tasks["end0"], strict=True)) == [(0, -(-n // mr)) for n in own]
    gate = program.op_sites.index("gate_experts")
    packs = program.tasks[(program.tasks["op"] == gate) & (program.tasks["kind"] == TaskKind.EXPERT_PACK)]
    assert [packs["begin0"][0], *packs["end0"]] == [first_row_of_expert(m, reached, e) for e in [0, *packs["end2"]]]
    assert (packs["end0"][-1], packs["end2"][-1]) == (m, reached)


def test_tiles_that_are_drawn_get_small_only_at_the_end_of_the_last_experts() -> None:
    plan = small_plan("prefill:40", tiny_moe(d_expert=320), layers=1)
    plan = with_entry(plan, "up_experts", tile=TileShape(m=1, n=320), assignment="shared", workers=(0, 1))
    program = lower(plan)
    tasks = program.tasks[program.tasks["op"] == program.op_sites.index("up_experts")]
    tasks = tasks[tasks["kind"] == TaskKind.EXPERT_GEMM]
    widths = (tasks["end1"] - tasks["begin1"]).tolist()
    assert widths[:5] == [20] * 5  # whole experts, of 20 panels
    assert widths[-1] == 1
    assert len(widths) < 30


# -- buffers


def test_weights_have_one_packed_copy_each_and_layers_share_their_activations() -> None:
    program = lower(small_plan("prefill:20", layers=2))
    names = program.buffer_names
    assert len(set(names)) == len(names)
    assert sum("q_proj.weight" in name for name in names) == 2
    assert sum(name.startswith("q_proj.out[") for name in names) == 1
    weight = program.buffers[program.buffer_index("layers.1.q_proj.weight")]
    assert (Layout(weight["layout"]), weight["n_bytes"]) == (Layout.RHS_PACKED, 128 * 64 * 4)


def test_a_tied_embedding_is_one_buffer_that_both_ends_read() -> None:
    tied, untied = (lower(small_plan(model=tiny(tied_embeddings=t, vocab=163))) for t in (True, False))
    ends = [dict(zip(p.op_sites, p.ops["weight"].tolist(), strict=True)) for p in (tied, untied)]
    assert ends[0]["embed"] == ends[0]["lm_head"]
    assert ends[1]["embed"] != ends[1]["lm_head"]
    assert tied.buffers["n_bytes"][ends[0]["embed"]] == 176 * 64 * 4  # whole panels of 16
    assert untied.buffers["n_bytes"][ends[1]["embed"]] == 163 * 64 * 4
