"""Attention in stages and parts: nothing is read before it is written, nothing overwritten before it is read, and no
two workers wait for each other, whatever the depth, the lanes, the blocks, the roles and the number of workers."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smesim.exec.device import native
from smesim.plan.lower import lower
from smesim.plan.pipeline import handover_shape, past_parts, pipelined
from smesim.plan.program import ANY_WORKER, Program, TaskKind
from smesim.plan.schema import Plan, Role
from smesim.sim.engine import Machine, Work
from smesim.sim.timeline import simulate
from smesim.workload.operators import Attention
from tests.plan.plans import pipelines, small_plan, with_drivers, with_entry
from tests.plan.test_plan_lower import edges, walk
from tests.workload.workload_models import tiny

ffi, lib = native()
QK, SOFTMAX, PV = TaskKind.ATTENTION_QK, TaskKind.ATTENTION_SOFTMAX, TaskKind.ATTENTION_PV
STAGES = (QK, SOFTMAX, PV)
ROLES: tuple[tuple[Role, Role, Role], ...] = (
    ("matrix", "cpu", "matrix"), ("cpu", "cpu", "cpu"), ("matrix", "cpu", "cpu"), ("cpu", "matrix", "cpu"),
)  # fmt: skip


def replaced(plan: Plan, entry: object) -> Plan:
    return plan.model_copy(update={"operators": tuple(entry if o.site == "attention" else o for o in plan.operators)})


@st.composite
def pipelined_plans(draw: st.DrawFn) -> Plan:
    """One layer whose attention is a pipeline on 1 to 8 workers, some of which may drive a unit."""
    roles = draw(st.sampled_from(ROLES))
    drivers = draw(st.integers(1, 4)) if "matrix" in roles else 0
    workers = drivers + draw(st.integers(1, 4))
    phase = f"prefill:{draw(st.integers(1, 60))},past={draw(st.integers(0, 40))},batch={draw(st.integers(1, 2))}"
    model = tiny(layers=1, heads=4, kv_heads=draw(st.sampled_from([1, 2, 4])))
    plan = with_drivers(small_plan(phase, model, threads=workers, layers=1), drivers)
    pipeline = draw(pipelines(roles))
    entry = pipelined(plan.site("attention"), plan.workers, qk=roles[0], softmax=roles[1], pv=roles[2])
    changes = {"pipeline": pipeline, "assignment": draw(st.sampled_from(["static", "shared"]))}
    return replaced(plan, entry.model_copy(update=changes))


drawn = settings(max_examples=40, deadline=None)


@drawn
@given(plan=pipelined_plans(), order=st.lists(st.integers(0, 7), min_size=1, max_size=40))
def test_no_order_of_the_workers_ends_in_a_deadlock(plan: Plan, order: list[int]) -> None:
    program = lower(plan)
    ran, _ = walk(program, order)
    assert sorted(ran) == np.flatnonzero(program.tasks["kind"] != TaskKind.JOIN).tolist()


@drawn
@given(plan=pipelined_plans())
def test_each_stage_runs_on_workers_of_its_role(plan: Plan) -> None:
    program, pipeline = lower(plan), plan.site("attention").pipeline
    assert pipeline is not None
    visits: dict[int, set[int]] = defaultdict(set)
    for worker in range(program.n_workers):
        for entry in program.queue(worker):
            begin, end = program.pools[entry["index"]].item() if entry["kind"] else (0, 0)
            for task in program.pool_tasks[begin:end].tolist() if entry["kind"] else [int(entry["index"])]:
                visits[task].add(worker)
    for kind, role in zip(STAGES, (pipeline.qk, pipeline.softmax, pipeline.pv), strict=True):
        for task in np.flatnonzero(program.tasks["kind"] == kind).tolist():
            assert {plan.workers[worker].role for worker in visits[task]} == {role}


def ancestors(program: Program) -> np.ndarray:
    """[task, other]: whether `task` runs after `other` has ended."""
    follows = np.zeros((program.n_tasks, program.n_tasks), bool)
    for before, after in edges(program):
        follows[after] |= follows[before]
        follows[after, before] = True
    return follows


Place = tuple[str, int]


def reads_and_writes(program: Program, task: int) -> tuple[set[Place], set[Place]]:
    """Places of the ring that a stage touches."""
    row = program.tasks[task]
    op = program.ops[row["op"]]
    slot, state = int(row["slot"]), int(row["state"])
    first, last = row["begin1"] == 0, row["end1"] == op["past"] + row["end0"]
    scores, shrink = ("scores", slot), ("shrink", slot)
    scaled, acc, sums = ("scaled", state), ("acc", state), ("sums", state)
    if row["kind"] == QK:
        return (set(), {scaled, scores}) if first else ({scaled}, {scores})
    if row["kind"] == SOFTMAX:
        return {scores} if first else {scores, sums}, {scores, shrink, sums}
    reads = {scores} if first else {scores, shrink, acc}
    return reads | ({sums} if last else set()), {acc}


@drawn
@given(plan=pipelined_plans())
def test_whoever_touches_a_place_of_the_ring_is_ordered_with_who_writes_it(plan: Plan) -> None:
    program = lower(plan)
    follows = ancestors(program)
    touched: dict[Place, list[tuple[int, bool]]] = defaultdict(list)
    for task in np.flatnonzero(np.isin(program.tasks["kind"], STAGES)).tolist():
        reads, writes = reads_and_writes(program, task)
        for place in reads | writes:
            touched[place].append((task, place in writes))
    for tasks in touched.values():
        for i, (later, writes) in enumerate(tasks):
            assert all(follows[later, earlier] for earlier, wrote in tasks[:i] if writes or wrote)


@drawn
@given(plan=pipelined_plans())
def test_what_a_stage_reads_was_written_by_the_stages_of_its_own_chain(plan: Plan) -> None:
    """Run in the order of the tasks, every place holds what its reader is about to expect."""
    program = lower(plan)
    holds: dict[Place, tuple[tuple[int, ...], int]] = {}
    for task in np.flatnonzero(np.isin(program.tasks["kind"], STAGES)).tolist():
        row = program.tasks[task]
        chain = (int(row["begin0"]), int(row["end0"]), int(row["begin2"]))
        reads, writes = reads_and_writes(program, task)
        for place in reads:
            of_chain, key = holds[place]
            assert of_chain == chain
            assert key == (int(row["begin1"]) if place[0] in {"scores", "shrink"} else key)
        for place in writes:
            holds[place] = (chain, int(row["begin1"]))


@drawn
@given(plan=pipelined_plans())
def test_every_query_meets_every_key_that_it_sees_once_in_each_stage(plan: Plan) -> None:
    program = lower(plan)
    (index,) = np.flatnonzero(np.array(program.op_sites) == "attention")
    op = program.ops[index]
    keys = int(op["past"] + op["tokens"])
    seen = np.tri(int(op["tokens"]), keys, int(op["past"]), dtype=int)
    for kind in STAGES:
        met = np.zeros((int(op["batch"] * op["kv_heads"]), int(op["tokens"]), keys), int)
        for row in program.tasks[program.tasks["kind"] == kind]:
            assert row["end1"] <= op["past"] + row["end0"]  # no block beyond what the last token sees
            met[row["begin2"], row["begin0"] : row["end0"], row["begin1"] : row["end1"]] += 1
        np.testing.assert_array_equal(met * seen, np.broadcast_to(seen, met.shape))


@drawn
@given(plan=pipelined_plans())
def test_no_more_blocks_are_in_flight_than_the_ring_holds(plan: Plan) -> None:
    program, entry = lower(plan), plan.site("attention")
    operator = next(o for o in plan.graph().operators if isinstance(o, Attention))
    places, elements = handover_shape(operator, entry)
    stages = program.tasks[np.isin(program.tasks["kind"], STAGES)]
    assert stages["slot"].max() < places
    assert stages["state"].max() < places
    op = program.ops[stages["op"][0]]
    rows = int(op["query_block"]) * operator.heads // operator.kv_heads
    assert elements == lib.sms_ring_place_size(rows, operator.head_dim, int(op["key_block"]))
    assert program.buffers["n_bytes"][op["handover"]] == 4 * places * elements
    assert entry.pipeline is not None
    assert places <= entry.pipeline.lanes * entry.pipeline.depth


@pytest.mark.parametrize(("parts", "phase"), [(3, "decode:100"), (9, "decode:40,batch=2")])
def test_parts_of_the_past_lie_where_c_expects_them(parts: int, phase: str) -> None:
    plan = with_entry(small_plan(phase), "attention", past_split=parts)
    program, operator = lower(plan), next(o for o in plan.graph().operators if isinstance(o, Attention))
    places, elements = handover_shape(operator, plan.site("attention"))
    assert elements == lib.sms_attention_part_size(operator.heads // operator.kv_heads, operator.head_dim)
    cut = past_parts(operator, plan.site("attention"))
    assert len(cut) == min(parts, -(-(operator.past + 1) // 16))
    assert places == len(cut) * operator.batch * operator.kv_heads
    assert [begin for begin, _ in cut] == [0, *(end for _, end in cut[:-1])]
    assert cut[-1][1] == operator.past + 1
    assert all(begin % 16 == 0 for begin, _ in cut)
    tasks = program.tasks[program.tasks["kind"] == TaskKind.ATTENTION_PART]
    assert {(int(t["slot"]), int(t["begin0"]), int(t["end0"])) for t in tasks} == {(i, *c) for i, c in enumerate(cut)}


# -- what the stages are for: they overlap


STAGE_S = {QK: 2.0, SOFTMAX: 3.0, PV: 2.0}
FREE = Machine(links={"DRAM": 1e9}, dispatch_s=0.0, barrier_s=0.0)


def attention_times(plan: Plan) -> dict[tuple[TaskKind, int], tuple[float, float]]:
    """(start, end) of the stages by block of keys, in a simulation in which only they take time; one chain."""
    program = lower(plan)

    def work(task: int, worker: int) -> Work:
        return Work(STAGE_S.get(TaskKind(program.tasks["kind"][task]), 0.0))

    timeline = simulate(program, FREE, work)
    return {
        (TaskKind(row["kind"]), int(row["begin1"]) // 16): (float(timeline.start_s[i]), float(timeline.end_s[i]))
        for i, row in enumerate(program.tasks)
        if row["kind"] in STAGES
    }


def one_chain(depth: int, blocks: int) -> Plan:
    """A unit multiplies, a core does the softmax; all keys are old but those of the last block."""
    model = tiny(layers=1, heads=2, kv_heads=1)
    plan = with_drivers(small_plan(f"prefill:16,past={16 * (blocks - 1)}", model, threads=2, layers=1), 1)
    return replaced(plan, pipelined(plan.site("attention"), plan.workers, depth=depth, query_block=16, key_block=16))


@pytest.mark.parametrize("blocks", [1, 2, 7])
def test_the_unit_multiplies_for_the_next_block_while_the_core_does_the_softmax(blocks: int) -> None:
    times = attention_times(one_chain(2, blocks))
    begin = times[QK, 0][0]
    for block in range(blocks - 1):
        (qk_start, qk_end), (softmax_start, softmax_end) = times[QK, block + 1], times[SOFTMAX, block]
        assert max(qk_start, softmax_start) < min(qk_end, softmax_end)
    # The unit is busy but for the first softmax, which it waits for after two QKs, and the last.
    waits = STAGE_S[SOFTMAX] if blocks == 1 else 2 * (STAGE_S[SOFTMAX] - STAGE_S[QK])
    assert max(end for _, end in times.values()) - begin == blocks * (STAGE_S[QK] + STAGE_S[PV]) + waits


@pytest.mark.parametrize("blocks", [1, 2, 7])
def test_a_ring_of_one_place_lets_nothing_overlap(blocks: int) -> None:
    times = attention_times(one_chain(1, blocks))
    begin = times[QK, 0][0]
    assert max(end for _, end in times.values()) - begin == blocks * sum(STAGE_S.values())


def test_lanes_overlap_even_where_their_rings_have_one_place() -> None:
    model = tiny(layers=1, heads=4, kv_heads=2)
    plan = with_drivers(small_plan("prefill:16,past=48", model, threads=2, layers=1), 1)

    def span(lanes: int) -> float:
        entry = pipelined(plan.site("attention"), plan.workers, depth=1, query_block=16, key_block=16, lanes=lanes)
        program = lower(replaced(plan, entry))
        kinds = program.tasks["kind"]
        timeline = simulate(program, FREE, lambda task, worker: Work(STAGE_S.get(TaskKind(kinds[task]), 0.0)))
        return float(timeline.end_s[kinds == PV].max() - timeline.start_s[kinds == QK].min())

    assert span(1) == 2 * 4 * sum(STAGE_S.values())
    assert span(2) < 0.65 * span(1)


def test_workers_of_a_stage_take_lanes_in_turn_or_blocks_where_lanes_are_few() -> None:
    model = tiny(layers=1, heads=4, kv_heads=4)
    plan = with_drivers(small_plan("prefill:16,past=48", model, threads=4, layers=1), 2)
    for lanes, by_lane in ((1, False), (2, True), (4, True)):
        entry = pipelined(plan.site("attention"), plan.workers, depth=2, query_block=16, key_block=16, lanes=lanes)
        program = lower(replaced(plan, entry))
        softmax = program.tasks[program.tasks["kind"] == SOFTMAX]
        assert set(softmax["worker"].tolist()) == {2, 3}
        assert (softmax["worker"] != ANY_WORKER).all()
        workers_of_lane = [set(softmax["worker"][softmax["slot"] // 2 == lane].tolist()) for lane in range(lanes)]
        assert all(len(workers) == (1 if by_lane else 2) for workers in workers_of_lane)
