"""The engine in C against the one on SimPy: the same times, the same grants, the same refusals, to the last bit.

`python -m pytest -p tests.fuzz tests/sim/test_compiled.py -k bits` draws 300,000 programs.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smesim.errors import ProgramError, SmesimError
from smesim.hwmodel import library
from smesim.plan.lower import lower
from smesim.plan.planners import roofline
from smesim.plan.program import Program
from smesim.sim import ALL_EFFECTS, SimExecutor, compiled, without
from smesim.sim.clock import whole_ticks
from smesim.sim.engine import Flow, Machine, Work, run_part
from smesim.sim.part import Cutter
from smesim.sim.timeline import makespan_s, simulate
from smesim.workload import Phase, build_graph, catalog
from tests.sim.programs import T, write_program

PROGRAMS_A_DRAW = 25
LINKS = {"dram": 1e10, "l2": 4e10, "a.port": 7.7e9, "b.port": 3e9, "odd": 1e10 / 3}
ROUND_TIMES_S = (0.0, 1e-6, 2e-6, 5e-5)
"""Times that often fall together, so that much happens in one instant."""


def drawn_tasks(draw: random.Random, n_workers: int) -> list[T]:
    """Tasks, joins and pools in any order; sometimes a task has a dependency that a queue turns into a circle."""
    tasks: list[T] = []
    for index in range(draw.randint(1, 14)):
        after = tuple(sorted(draw.sample(range(index), min(index, draw.randint(0, 3)))))
        kind = draw.random()
        if kind < 0.2 and after:
            tasks.append(T(after=after))
        elif kind < 0.6:
            tasks.append(T(worker=draw.randrange(n_workers), after=after))
        else:
            tasks.append(T(pool=draw.choice("abc"), after=after))
    return tasks


def drawn_work(draw: random.Random, units: tuple[str, ...]) -> Work:
    def seconds() -> float:
        return whole_ticks(draw.choice(ROUND_TIMES_S) if draw.random() < 0.5 else draw.uniform(0, 1e-3))

    def flow() -> Flow:
        path = tuple(draw.sample(list(LINKS), draw.randint(0, 3)))
        n_bytes = draw.choice([0.0, 1e5, 1e6, draw.uniform(0, 1e7)])
        return Flow(path, n_bytes, draw.choice([5e9, 3e10, 1e10 / 7, math.inf]))

    unit = draw.choice((*units, None))
    serial_s = draw.choice([0.0, 0.0, whole_ticks(1e-6)])
    return Work(seconds(), serial_s, tuple(flow() for _ in range(draw.randint(0, 3))), unit)


def drawn_machine(draw: random.Random) -> Machine:
    units = {"a": (1.0, 1.0), "b": (1.3, 0.7), "c": (0.9, 1 / 3)}
    return Machine(
        links=LINKS,
        dispatch_s=whole_ticks(draw.choice([0.0, 2e-7])),
        barrier_s=whole_ticks(draw.choice([0.0, 3e-6])),
        contention=draw.random() < 0.8,
        units=dict(list(units.items())[: draw.randint(0, 3)]),
        shared_units=draw.random() < 0.8,
    )


def outcome(run: Callable[[], compiled.PartResult]) -> list[object]:
    """All that a run gives, floats by their bits; or what it is refused with."""
    try:
        result = run()
    except ProgramError as error:
        return [str(error)]
    values = (getattr(result, field.name) for field in dataclasses.fields(result))
    return [np.asarray(value).tobytes() for value in values]


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_both_engines_give_the_same_bits(seed: int, n_workers: int) -> None:
    draw = random.Random(seed)
    for _ in range(PROGRAMS_A_DRAW):
        tasks, machine = drawn_tasks(draw, n_workers), drawn_machine(draw)
        visitors = {pool: draw.sample(range(n_workers), draw.randint(1, n_workers)) for pool in "abc"}
        program = write_program(tasks, n_workers, visitors)
        # Queues need not be in order: then some tasks wait for ever, and both must say which.
        if draw.random() < 0.1:
            order = np.random.default_rng(draw.randrange(2**32)).permutation(len(program.entries))
            program.entries[:] = program.entries[order]
        works = [[drawn_work(draw, tuple(machine.units)) for _ in range(n_workers)] for _ in tasks]
        arrivals = draw.sample(range(n_workers), n_workers)
        part = Cutter(program).part(0, len(tasks))
        table = compiled.tabulated(part, lambda task, worker, works=works: works[task][worker])
        by_simpy = outcome(lambda: run_part(part, machine, lambda t, w: works[t][w], arrivals))  # noqa: B023
        assert outcome(lambda: compiled.run_part(part, machine, table, arrivals, grants=True)) == by_simpy  # noqa: B023


@pytest.mark.parametrize(
    ("chip", "model", "phase", "effects"),
    [
        ("apple-m4", "smollm2-135m", Phase.prefill(70), ALL_EFFECTS),
        ("apple-m4-pro", "smollm2-135m", Phase.decode(200), without(["contention"])),
        ("server-lx2", "smollm2-135m", Phase.prefill(33), without(["shared_unit", "barrier"])),
    ],
)
def test_both_engines_see_the_same_in_a_whole_model(
    chip: str, model: str, phase: Phase, effects: frozenset[str]
) -> None:
    described, graph = library.load(chip), build_graph(catalog.load(model), phase, layers=3)
    program = lower(roofline(graph, described), graph)
    by_simpy = SimExecutor(described, effects, "simpy").timeline(program)
    in_c = SimExecutor(described, effects, "compiled")
    other = in_c.timeline(program)
    for field in dataclasses.fields(by_simpy):
        one = np.asarray(getattr(by_simpy, field.name))
        assert one.tobytes() == np.asarray(getattr(other, field.name)).tobytes(), field.name
    assert in_c.seconds(program) == SimExecutor(described, effects, "simpy").seconds(program)
    assert in_c.seconds(program) == float(np.nanmax(by_simpy.end_s))


def test_an_engine_that_there_is_not_is_refused_and_one_that_was_not_built_too(monkeypatch: pytest.MonkeyPatch) -> None:
    chip = library.load("apple-m4")
    with pytest.raises(SmesimError, match="engine 'quantum' asked for; accepted: simpy, compiled"):
        SimExecutor(chip, engine="quantum")
    graph = build_graph(catalog.load("smollm2-135m"), Phase.decode(9), layers=1)
    program = lower(roofline(graph, chip), graph)
    expected = SimExecutor(chip, engine="simpy").seconds(program)
    monkeypatch.setattr(compiled, "_native", lambda: None)
    assert SimExecutor(chip).seconds(program) == expected
    with pytest.raises(SmesimError, match="the compiled engine is not there"):
        SimExecutor(chip, engine="compiled").seconds(program)


FREE = Machine(links={"dram": 2.0**30}, dispatch_s=0.0, barrier_s=0.0)


def one_after_the_other() -> Program:
    return write_program([T(0), T(1, after=(0,)), T(after=(0, 1))], 2)


def test_work_that_is_impossible_is_refused_before_it_is_begun() -> None:
    for flow, why in [
        (Flow(("dram", "dram"), 1.0), "crosses a link twice"),
        (Flow(("moon",), 1.0), "unknown link 'moon'"),
        (Flow(("dram",), -1.0), "transfer of -1.0 bytes"),
        (Flow(("dram",), 1.0, 0.0), "cap of 0.0"),
    ]:
        work = Work(0.0, flows=(flow,))
        for engine in ("simpy", "compiled"):
            with pytest.raises(ProgramError, match=why):
                simulate(one_after_the_other(), FREE, lambda task, _, work=work: work, engine=engine)  # type: ignore


def test_a_part_whose_numbers_lead_outside_is_refused() -> None:
    part = Cutter(one_after_the_other()).part(0, 3)
    table = compiled.tabulated(part, lambda task, worker: Work(1.0))
    for name in ("queue", "successors"):
        wrong = getattr(part, name).copy()
        wrong[0] = 99
        with pytest.raises(ProgramError, match="not in its segment"):
            compiled.run_part(dataclasses.replace(part, **{name: wrong}), FREE, table, [0, 1], grants=False)
    nothing = dataclasses.replace(table, work_of=np.full_like(table.work_of, compiled.NO_WORK))
    with pytest.raises(ProgramError, match="no work there"):
        compiled.run_part(part, FREE, nothing, [0, 1], grants=False)


def test_the_time_alone_is_that_of_the_timeline() -> None:
    program = write_program([T(0), T(1), T(after=(0, 1)), T(after=(2,))], 2, segments=[(0, 3, 1), (3, 4, 2)])
    work = [Work(0.25), Work(0.5)]
    for engine in ("simpy", "compiled"):
        assert makespan_s(program, FREE, lambda task, _: work[task], engine=engine) == 0.5  # type: ignore[arg-type]
