"""The arena: activations lie in one place only if the tasks that touch them cannot run at the same time.

Held against the program's own tasks: of what each reads and writes, and which tasks wait for which.
"""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from numpy.typing import NDArray

from smesim.exec.arena import placed_activations
from smesim.plan.lower import lower
from smesim.plan.pipeline import pipelined
from smesim.plan.program import PACKING, SLOTS, BufferRole, Program, TaskKind
from smesim.plan.schema import Plan
from smesim.workload import Phase
from tests.exec.native_models import CORES, Cut, cut_plan, little, little_moe

WRITTEN = {"output0", "output1", "packed_out", "handover"}


def staged(plan: Plan) -> Plan:
    entry = pipelined(
        plan.site("attention"), plan.workers, query_block=16, key_block=16, qk="cpu", softmax="cpu", pv="cpu",
        assignment="shared",
    )  # fmt: skip
    return plan.model_copy(update={"operators": tuple(entry if o.site == entry.site else o for o in plan.operators)})


PLANS = {
    "dense": cut_plan(little(layers=2), Phase.prefill(48), Cut(m=5, threads=CORES)),
    "operands packed by products": cut_plan(little(layers=2), Phase.prefill(48), Cut(threads=CORES, reuse="none")),
    "a step with a divided past": cut_plan(little(layers=2, kv_heads=1), Phase.decode(70), Cut(threads=CORES)),
    "attention in stages": staged(cut_plan(little(layers=2), Phase.prefill(48), Cut(threads=CORES))),
    "experts": cut_plan(little_moe(layers=2), Phase.prefill(20), Cut(threads=CORES)),
}


def orders(program: Program) -> NDArray[np.bool_]:
    """Which task (row) has ended when which (column) starts, by following every dependency."""
    n = program.n_tasks
    after = np.eye(n, dtype=bool)
    for task in reversed(range(n)):
        begin, end = program.tasks[task]["successor_begin"], program.tasks[task]["successor_end"]
        for follower in program.successors[begin:end]:
            after[task] |= after[follower]
    return after & ~np.eye(n, dtype=bool)


def spans(program: Program, buffer: int) -> list[tuple[set[int], set[int]]]:
    """Tasks that write a buffer and tasks that touch it, from each time that it is written anew to the next."""
    found: list[tuple[set[int], set[int]]] = []
    for op in range(len(program.ops)):
        slots = {slot for slot in SLOTS if program.ops[slot][op] == buffer} - {"weight"}
        tasks = set(np.flatnonzero((program.tasks["op"] == op) & (program.tasks["kind"] != TaskKind.JOIN)).tolist())
        packing = {task for task in tasks if program.tasks["kind"][task] in PACKING}
        writers = (tasks - packing if slots & WRITTEN else set()) | (packing if "packed" in slots else set())
        reads = slots & {"input0", "input1", "input2"} or ("packed" in slots and not packing)
        if writers and not reads:
            found.append((writers, set(tasks)))
        elif slots:
            assert found, "read before it was written"
            found[-1][1].update(tasks)
    return found


@pytest.mark.parametrize("name", PLANS)
def test_what_lies_in_one_place_is_never_of_use_at_the_same_time(name: str) -> None:
    program = lower(PLANS[name])
    begins, sizes = placed_activations(program), program.buffers["n_bytes"]
    assert set(begins) == set(np.flatnonzero(program.buffers["role"] == BufferRole.ACTIVATION).tolist())
    ended, shared = orders(program), 0
    activated = set(np.flatnonzero(program.ops["kind"][program.tasks["op"]] == TaskKind.SWIGLU).tolist())
    for one, other in combinations(begins, 2):
        if begins[one] >= begins[other] + sizes[other] or begins[other] >= begins[one] + sizes[one]:
            continue
        shared += 1
        # What is worked out element by element may take the place of what it is made of.
        is_same_place = begins[one] == begins[other] and sizes[one] == sizes[other]
        for mine, others in product(spans(program, one), spans(program, other)):
            (writers, touching), (others_writers, others_touching) = mine, others
            both = touching & others_touching & activated if is_same_place else set()
            before = ended[np.ix_(list(touching - both), list(others_writers))].all()
            assert before or ended[np.ix_(list(others_touching - both), list(writers))].all()
    assert shared > 3
