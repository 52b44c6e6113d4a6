"""Who waits for whom: exact schedules of tiny programs, and invariants 1, 3, 4 and 5 on drawn ones."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smesim.errors import ProgramError
from smesim.plan.program import Program
from smesim.sim.clock import whole_ticks
from smesim.sim.engine import Flow, Machine, Work
from smesim.sim.timeline import Timeline, simulate
from tests.sim.programs import T, write_program

# Powers of two, so that all times below are exact.
US = 2.0**-20
FREE = Machine(links={"dram": 2.0**30}, dispatch_s=0.0, barrier_s=0.0)


def schedule(program: Program, works: list[Work], machine: Machine = FREE) -> list[tuple[int, int, float, float]]:
    """(task, worker, start, end) of every task, in units of US."""
    timeline = simulate(program, machine, lambda task, worker: works[task])
    rows = zip(timeline.worker, timeline.start_s / US, timeline.end_s / US, strict=True)
    return [
        (task, int(worker), float(start), float(end)) for task, (worker, start, end) in enumerate(rows) if worker >= 0
    ]


def test_a_worker_does_its_tasks_one_after_the_other() -> None:
    program = write_program([T(0), T(0), T(1)], 2)
    works = [Work(3 * US), Work(2 * US), Work(4 * US)]
    assert schedule(program, works) == [(0, 0, 0, 3), (1, 0, 3, 5), (2, 1, 0, 4)]


def test_a_task_waits_for_all_it_depends_on_and_never_lets_another_pass() -> None:
    program = write_program([T(0), T(1, after=(0,)), T(1)], 2)
    works = [Work(3 * US), Work(2 * US), Work(1 * US)]
    assert schedule(program, works) == [(0, 0, 0, 3), (1, 1, 3, 5), (2, 1, 5, 6)]


def test_a_join_costs_a_barrier_only_where_it_joins_several_workers() -> None:
    machine = dataclasses.replace(FREE, barrier_s=8 * US)
    two_workers = write_program([T(0), T(1), T(after=(0, 1)), T(0, after=(2,))], 2)
    one_worker = write_program([T(0), T(0), T(after=(0, 1)), T(1, after=(2,))], 2)
    works = [Work(3 * US), Work(2 * US), Work(math.nan), Work(1 * US)]
    assert schedule(two_workers, works, machine) == [(0, 0, 0, 3), (1, 1, 0, 2), (3, 0, 11, 12)]
    assert schedule(one_worker, works, machine) == [(0, 0, 0, 3), (1, 0, 3, 5), (3, 1, 5, 6)]


def test_a_join_of_joins_costs_one_barrier() -> None:
    machine = dataclasses.replace(FREE, barrier_s=8 * US)
    tasks = [T(0), T(1), T(after=(0, 1)), T(after=(2,)), T(0, after=(3,))]
    works = [Work(US), Work(US), Work(0.0), Work(0.0), Work(US)]
    assert schedule(write_program(tasks, 2), works, machine)[-1] == (4, 0, 9, 10)


def test_a_pool_is_drawn_in_order_by_whoever_is_free() -> None:
    program = write_program([T(pool="a")] * 5, 2)
    works = [Work(5 * US), Work(1 * US), Work(1 * US), Work(1 * US), Work(4 * US)]
    assert schedule(program, works) == [(0, 0, 0, 5), (1, 1, 0, 1), (2, 1, 1, 2), (3, 1, 2, 3), (4, 1, 3, 7)]


def test_workers_free_in_the_same_instant_draw_in_the_order_of_their_numbers() -> None:
    program = write_program([T(1), T(0), T(0), T(pool="a"), T(pool="a")], 2)
    works = [Work(4 * US), Work(1 * US), Work(3 * US), Work(US), Work(US)]
    assert schedule(program, works)[3:] == [(3, 0, 4, 5), (4, 1, 4, 5)]


def test_a_free_worker_draws_before_one_whose_task_it_has_just_released() -> None:
    program = write_program([T(1), T(0, after=(0,)), T(pool="a"), T(pool="a")], 2)
    works = [Work(US), Work(0.0), Work(US), Work(US)]
    assert schedule(program, works)[2:] == [(2, 1, 1, 2), (3, 0, 1, 2)]


def test_a_drawn_task_waits_for_its_predecessors() -> None:
    program = write_program([T(0), T(pool="a", after=(0,)), T(pool="a")], 2)
    assert schedule(program, [Work(3 * US)] * 3) == [(0, 0, 0, 3), (1, 1, 3, 6), (2, 0, 3, 6)]


def test_dispatch_is_paid_before_a_task_and_overhead_inside_it() -> None:
    machine = dataclasses.replace(FREE, dispatch_s=2 * US)
    program = write_program([T(0), T(0)], 1)
    works = [Work(3 * US, serial_s=4 * US), Work(1 * US)]
    assert schedule(program, works, machine) == [(0, 0, 2, 9), (1, 0, 11, 12)]


def test_compute_and_transfers_overlap_and_the_longer_decides() -> None:
    program = write_program([T(0), T(0)], 1)
    flow = Flow(("dram",), 3 * US * 2.0**30)
    timeline = simulate(program, FREE, lambda task, _: Work((task + 1) * 2 * US, flows=(flow,)))
    assert (timeline.end_s / US).tolist() == [3, 7]
    assert (timeline.compute_s / US).tolist() == [2, 4]
    assert (timeline.transfer_s / US).tolist() == [3, 3]


def test_two_workers_share_a_link_and_one_alone_has_it_all() -> None:
    program = write_program([T(0), T(1)], 2)
    works = [Work(0.0, flows=(Flow(("dram",), n * US * 2.0**30),)) for n in (2, 4)]
    assert schedule(program, works) == [(0, 0, 0, 4), (1, 1, 0, 6)]
    alone = dataclasses.replace(FREE, contention=False)
    assert schedule(program, works, alone) == [(0, 0, 0, 2), (1, 1, 0, 4)]


def test_grants_hold_until_the_next_change() -> None:
    program = write_program([T(0), T(0)], 1)
    works = [Work(4 * US, flows=(Flow(("dram",), 2 * US * 2.0**30),))] * 2
    timeline = simulate(program, FREE, lambda task, _: works[task])
    assert (timeline.granted_at_s / US).tolist() == [0, 2, 4, 6]
    assert timeline.granted_bytes_per_s[:, 0].tolist() == [2.0**30, 0, 2.0**30, 0]


def test_two_workers_that_wait_for_each_other_are_refused() -> None:
    program = write_program([T(0), T(1, after=(0,)), T(1)], 2)
    program.entries["index"] = [1, 0, 2]  # worker 0 has task 1; worker 1 has tasks 0 and 2
    program.workers["entry_begin"], program.workers["entry_end"] = [0, 1], [1, 3]
    simulate(program, FREE, lambda task, _: Work(US))
    program = dataclasses.replace(program)  # of a program itself what was worked out is kept
    program.entries["index"] = [0, 2, 1]
    program.tasks["successor_begin"], program.tasks["successor_end"] = [0, 0, 1], [0, 1, 2]
    program.successors.resize(2, refcheck=False)
    program.successors[:] = [2, 2]
    with pytest.raises(ProgramError, match="waits for task 2"):
        simulate(program, FREE, lambda task, _: Work(US))


def test_a_task_in_no_queue_is_refused() -> None:
    program = write_program([T(0), T(0)], 1)
    program.workers["entry_end"] = 1
    with pytest.raises(ProgramError, match="task 1 never runs: no worker gets to it"):
        simulate(program, FREE, lambda task, _: Work(US))


def test_a_queue_out_of_order_is_refused() -> None:
    program = write_program([T(0), T(0, after=(0,))], 1)
    program.entries["index"] = [1, 0]
    with pytest.raises(ProgramError, match="task 0 never runs"):
        simulate(program, FREE, lambda task, _: Work(US))


@pytest.mark.parametrize("segments", [[(0, 1, 1)], [(0, 1, 1), (2, 2, 1)], [(1, 2, 1)]])
def test_segments_with_gaps_are_refused(segments: list[tuple[int, int, int]]) -> None:
    program = write_program([T(0), T(0)], 1, segments=segments)
    with pytest.raises(ProgramError, match="accepted"):
        simulate(program, FREE, lambda task, _: Work(US))


@dataclass(frozen=True)
class Case:
    """A drawn program of several equal layers, and what its tasks cost."""

    program: Program
    machine: Machine
    works: list[list[Work]]  # by task and worker
    tasks: list[T]

    def work(self, task: int, worker: int) -> Work:
        return self.works[task][worker]

    def simulate(self, *, by_segment: bool = True, repeat_equal: bool = True) -> Timeline:
        return simulate(self.program, self.machine, self.work, by_segment=by_segment, repeat_equal=repeat_equal)


def draw_work(draw: st.DrawFn, links: list[str]) -> Work:
    def flow() -> Flow:
        path = tuple(draw(st.lists(st.sampled_from(links), unique=True, min_size=1, max_size=2)))
        return Flow(path, draw(st.floats(0, 1e7)), draw(st.sampled_from([5e9, 3e10, math.inf])))

    return Work(
        compute_s=whole_ticks(draw(st.one_of(st.just(0.0), st.just(5e-5), st.floats(0, 1e-3)))),
        serial_s=whole_ticks(draw(st.sampled_from([0.0, 1e-6]))),
        flows=tuple(flow() for _ in range(draw(st.integers(0, 2)))),
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Layers of one or two kinds in a drawn order; every layer ends in a join that all of it leads to."""
    links = {"dram": 1e10, "l2": 4e10}
    n_workers = draw(st.integers(1, 4))
    kinds = draw(st.integers(1, 2))
    shapes = [draw(layers(n_workers)) for _ in range(kinds)]
    costs = [[[draw_work(draw, list(links)) for _ in range(n_workers)] for _ in shape] for shape in shapes]
    tasks: list[T] = []
    works: list[list[Work]] = []
    segments: list[tuple[int, int, int]] = []
    for number, kind in enumerate(draw(st.lists(st.integers(0, kinds - 1), min_size=1, max_size=5))):
        first = len(tasks)
        before = (first - 1,) if first else ()
        for task in shapes[kind]:
            after = tuple(first + other for other in task.after) or before
            pool = None if task.pool is None else f"{number}{task.pool}"
            tasks.append(T(task.worker, pool, after))
        works += costs[kind]
        segments.append((first, len(tasks), kind))
    machine = Machine(
        links=links,
        dispatch_s=whole_ticks(draw(st.sampled_from([0.0, 2e-7]))),
        barrier_s=whole_ticks(draw(st.sampled_from([0.0, 3e-6]))),
    )
    return Case(write_program(tasks, n_workers, segments=segments), machine, works, tasks)


@st.composite
def layers(draw: st.DrawFn, n_workers: int) -> list[T]:
    tasks: list[T] = []
    pools = 0
    for index in range(draw(st.integers(1, 10))):
        after = tuple(sorted(draw(st.sets(st.integers(0, index - 1), max_size=3)))) if index else ()
        place = draw(st.sampled_from(["worker", "same pool", "new pool"] + ["join"] * bool(after)))
        if place == "join":
            tasks.append(T(after=after))
        elif place == "worker":
            tasks.append(T(worker=draw(st.integers(0, n_workers - 1)), after=after))
        elif place == "same pool" and tasks and tasks[-1].pool:
            tasks.append(T(pool=tasks[-1].pool, after=after))
        else:
            pools += 1
            tasks.append(T(pool=f"pool{pools}", after=after))
    followed = {other for task in tasks for other in task.after}
    tasks.append(T(after=tuple(i for i in range(len(tasks)) if i not in followed)))
    return tasks


def assert_equal(one: Timeline, other: Timeline) -> None:
    for field in dataclasses.fields(Timeline):
        if field.name != "simulated":
            assert np.array_equal(
                getattr(one, field.name), getattr(other, field.name), equal_nan=field.name != "worker"
            ), field.name


@given(cases())
def test_equal_layers_simulated_once_are_the_full_run_bit_for_bit(case: Case) -> None:
    once = case.simulate()
    assert_equal(once, case.simulate(repeat_equal=False))
    assert_equal(once, case.simulate(by_segment=False))


@given(cases())
def test_invariant_1_and_one_task_at_a_time(case: Case) -> None:
    timeline = case.simulate()
    known_s: list[float] = []  # when the end of each task or join is known
    for index, task in enumerate(case.tasks):
        latest = max((known_s[other] for other in task.after), default=0.0)
        if task.is_join:
            known_s.append(latest)
            continue
        assert 0.0 <= latest <= timeline.ready_s[index] <= timeline.start_s[index] <= timeline.end_s[index]
        known_s.append(timeline.end_s[index])
    for worker in range(case.program.n_workers):
        mine = np.flatnonzero(timeline.worker == worker)
        order = mine[np.lexsort((timeline.end_s[mine], timeline.start_s[mine]))]
        assert (timeline.start_s[order][1:] >= timeline.end_s[order][:-1]).all()


@given(cases())
def test_invariant_3_links_carry_what_the_tasks_move_and_never_more_than_they_have(case: Case) -> None:
    timeline = case.simulate()
    held_s = np.diff(timeline.granted_at_s)
    for column, (link, bandwidth) in enumerate(case.machine.links.items()):
        granted = timeline.granted_bytes_per_s[:, column]
        assert (granted <= bandwidth * (1 + 1e-12)).all()
        flows = [
            flow
            for task, worker in enumerate(timeline.worker.tolist())
            if worker >= 0
            for flow in case.work(task, worker).flows
            if link in flow.path
        ]
        carried = float((granted[:-1] * held_s).sum())
        # A flow's end is rounded to a tick of 1.1e-13 s.
        assert carried == pytest.approx(sum(f.n_bytes for f in flows), rel=1e-9, abs=0.1 * len(flows) + 1e-9)


@given(cases())
def test_invariant_4_the_same_program_gives_the_same_times_bit_for_bit(case: Case) -> None:
    assert_equal(case.simulate(), case.simulate())


@given(cases())
def test_invariant_5_no_schedule_beats_the_critical_path_or_the_roofline(case: Case) -> None:
    timeline = case.simulate()
    makespan_s = float(np.nanmax(timeline.end_s, initial=0.0))
    alone_s = [0.0] * len(case.tasks)
    path_s: list[float] = []
    for index, task in enumerate(case.tasks):
        if not task.is_join:
            work = case.work(index, int(timeline.worker[index]))
            flows_s = [
                flow.n_bytes / min([flow.cap_bytes_per_s, *(case.machine.links[link] for link in flow.path)])
                for flow in work.flows
            ]
            alone_s[index] = work.serial_s + max([work.compute_s, *flows_s])
        path_s.append(alone_s[index] + max((path_s[other] for other in task.after), default=0.0))
    slack_s = 1e-12 * (1 + len(case.tasks))
    assert makespan_s >= max(path_s) - slack_s
    assert makespan_s >= sum(alone_s) / case.program.n_workers - slack_s
    lasts_s = np.append(np.diff(timeline.granted_at_s), 0.0)
    for column, bandwidth in enumerate(case.machine.links.values()):
        n_bytes = float((timeline.granted_bytes_per_s[:, column] * lasts_s).sum())
        assert makespan_s >= n_bytes / bandwidth * (1 - 1e-9) - slack_s


@given(cases())
@settings(max_examples=50)
def test_free_sync_and_links_of_their_own_never_slow_a_fixed_assignment(case: Case) -> None:
    fixed = [dataclasses.replace(task, pool=None, worker=0 if task.pool else task.worker) for task in case.tasks]
    program = write_program(fixed, case.program.n_workers)
    ideal = dataclasses.replace(case.machine, dispatch_s=0.0, barrier_s=0.0, contention=False)
    slow, fast = (simulate(program, machine, case.work) for machine in (case.machine, ideal))
    busy = fast.worker >= 0
    assert (fast.end_s[busy] <= slow.end_s[busy] + 1e-12 * (1 + len(fixed))).all()
