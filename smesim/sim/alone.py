"""One operator by itself in simulated time: the quick way for whoever asks about a great many of them.

It is `SimExecutor.seconds` of the program that its plan is lowered to, bit for bit, without that program: the same
tasks as a sketch, the same costs, and the engine in C. What all operators on the same workers have in common, links and
routes, is laid out for C once: a `Ground`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, chain
from struct import Struct
from typing import Any

from smesim.errors import ProgramError
from smesim.hwmodel.chip import Chip
from smesim.hwmodel.cost import TaskCost
from smesim.hwmodel.kept import kept_with
from smesim.hwmodel.links import LinkNetwork
from smesim.hwmodel.sharing import Path
from smesim.plan.program import EntryKind, TaskKind
from smesim.plan.sketch import Sketch
from smesim.plan.tiles import NR
from smesim.sim import compiled
from smesim.sim.classes import IN_STRIPS, LENGTH_COUNTS
from smesim.sim.clock import whole_ticks
from smesim.sim.compiled import NO_WORK
from smesim.sim.costing import Costing
from smesim.sim.crew import Places, column_of, crew_of
from smesim.sim.facts import facts_of_sketch
from smesim.sim.fluid import check_amount

POOL = int(EntryKind.POOL)
WORK, FLOW = Struct("ddiii0d").pack, Struct("di0d").pack
"""A work and a flow as C has them; `0d` fills them up to where the next one may begin."""
Kind = tuple[Path, float]
"""Flows of one kind take the same path with the same cap."""


def seconds_alone(sketch: Sketch, chip: Chip, effects: frozenset[str]) -> float:
    """When the last task of the operator ends; `effects` are those that are on.

    Raises ProgramError where `SimExecutor` would, SmesimError if the compiled engine was not built.
    """
    ground = kept_with(chip, ("ground", sketch.workers, effects), lambda: Ground(chip, sketch.workers, effects))
    costing = Costing(chip, facts_of_sketch(sketch), ground.crew, effects)
    drawn, table, teams = Drawn(ground, sketch), _Table(ground), ground.crew.teams
    work_of = [
        table.add(team[0], costing.cost_once(task, team[0])) if is_reached else NO_WORK
        for task, reached in drawn.classes()
        for team, is_reached in zip(teams, reached, strict=True)
    ]
    return drawn.last_end_s(table, work_of)


class Ground:
    """What the operators on a crew move over, as C reads it: kinds of flows between its agents and the levels.

    `kinds` are, of each worker's core and of what it drives, the kinds of flows by the level that they come from;
    `units` the kinds of their work, -1 for who drives none.
    """

    def __init__(self, chip: Chip, workers: Places, effects: frozenset[str]) -> None:
        native = compiled.native()
        self.ffi, self.lib = native.ffi, native.lib
        self.crew = crew = crew_of(chip, workers, effects)
        self._kept: list[Any] = []
        self.column_of = self._array("int32_t[]", column_of(crew).tolist())
        self.task_kinds = self._task_kinds()
        self._lay_out(chip, "agent_cap" in effects)

    def _lay_out(self, chip: Chip, capped: bool) -> None:
        network, machine, crew = LinkNetwork.of(chip), self.crew.machine, self.crew
        found: list[dict[str, Kind]] = []
        for agent in (*crew.cores, *crew.units):
            levels = chip.levels(chip.instance_of(agent.core).cluster.name)
            routes = ((level, network.route(agent, level)) for level in levels)
            found.append({level: (r.links, r.cap_bytes_per_s if capped else math.inf) for level, r in routes})
        kinds = sorted({kind for of_agent in found for kind in of_agent.values()})
        places = [{level: kinds.index(kind) for level, kind in of_agent.items()} for of_agent in found]
        self.kinds = (places[: len(crew.cores)], places[len(crew.cores) :])
        unit_kinds: list[Kind] = sorted(((name,), alone) for name, (_, alone) in machine.units.items())
        unit_of: dict[str | None, int] = {path[0]: i for i, (path, _) in enumerate(unit_kinds)}
        self.units = ([-1] * len(crew.cores), [unit_of.get(agent.unit, -1) for agent in crew.units])
        together = {name: rate for name, (rate, _) in machine.units.items()}
        self.machine = self._array("struct sms_sim_machine[]", [{
            "dispatch_s": machine.dispatch_s, "barrier_s": machine.barrier_s,
            "links": self._network(dict(machine.links), kinds, machine.contention),
            "units": self._network(together, unit_kinds, machine.shared_units),
            "columns": len(crew.teams), "column_of": self.column_of,
        }])  # fmt: skip

    def _task_kinds(self) -> Any:
        """How the classes of tasks follow from their kinds and ranges."""
        content = {
            "n_kinds": len(IN_STRIPS), "join": int(TaskKind.JOIN), "panel": NR,
            "in_strips": self._array("uint8_t[]", IN_STRIPS.tolist()),
            "by_length": self._array("uint8_t[]", LENGTH_COUNTS.ravel().tolist()),
        }  # fmt: skip
        return self.ffi.new("struct sms_sim_kinds *", content)

    def _network(self, capacities: dict[str, float], kinds: Sequence[Kind], contention: bool) -> dict[str, Any]:
        links = compiled.links_of(capacities, kinds)
        return {
            "n_links": len(capacities), "n_kinds": len(kinds), "contention": contention,
            "capacity": self._array("double[]", links.capacities),
            "kinds": self._array("struct sms_sim_kind[]", links.kinds),
            "paths": self._array("int32_t[]", links.paths or [0]),
        }  # fmt: skip

    def _array(self, ctype: str, values: Sequence[Any]) -> Any:
        """An array of C's, in whose memory it stays as long as the ground."""
        self._kept.append(self.ffi.new(ctype, values))
        return self._kept[-1]


class _Table:
    """The works of one operator, and their flows, as they lie in C's memory."""

    def __init__(self, ground: Ground) -> None:
        self._kinds, self._units = ground.kinds, ground.units
        self.works, self.flows = bytearray(), bytearray()
        self._n_works = self._n_flows = 0

    def add(self, worker: int, cost: TaskCost) -> int:
        """The place of a work, laid over the links as `Works` does it: one flow a level."""
        compute_s, serial_s, transfers, on_unit = cost
        by_level: dict[str, float] = {}
        for level, n_bytes in transfers:
            by_level[level] = by_level.get(level, 0.0) + n_bytes
        kinds, unit, begin = self._kinds[on_unit][worker], self._units[on_unit][worker], self._n_flows
        for level, n_bytes in by_level.items():
            if not n_bytes < math.inf:
                check_amount(n_bytes)
            self.flows += FLOW(n_bytes, kinds[level])
        self._n_flows = end = begin + len(by_level)
        if unit >= 0:
            check_amount(compute_s)
        self.works += WORK(whole_ticks(compute_s), whole_ticks(serial_s), unit, begin, end)
        self._n_works += 1
        return self._n_works - 1


_PIECES = ("tasks", "before_begin", "before", "queue_begin", "queue", "pool_begin", "pool_tasks")


class Drawn:
    """A sketch as C reads it."""

    def __init__(self, ground: Ground, sketch: Sketch) -> None:
        self._ground, self._new = ground, ground.ffi.new
        self._n_tasks, op = len(sketch.tasks), sketch.op
        queues = [[-1 - index if kind == POOL else index for kind, index in queue] for queue in sketch.entries]
        # All numbers lie in one array, one piece behind the other: C is handed where each begins.
        numbers = [*chain.from_iterable(sketch.tasks)]
        begins = [0]
        for groups in (sketch.predecessors, queues, sketch.pools):
            begins.append(len(numbers))
            numbers += accumulate(map(len, groups), initial=0)
            begins.append(len(numbers))
            numbers += chain.from_iterable(groups)
        self._numbers = self._new("int32_t[]", numbers)
        pieces = {name: self._numbers + begin for name, begin in zip(_PIECES, begins, strict=True)}
        counts = {"n_tasks": self._n_tasks, "n_workers": len(queues), "n_pools": len(sketch.pools)}
        operator = {"m": op.m, "n": op.n, "lhs_mr": op.lhs_mr}
        self._in_c = self._new("struct sms_sim_sketch *", {**counts, **operator, **pieces})
        self._class_of = self._new("int32_t[]", self._n_tasks)

    def classes(self) -> list[tuple[int, Sequence[int]]]:
        """Of each class of tasks the first one, and for each team of the crew whether it comes to one of them."""
        ground, columns = self._ground, len(self._ground.crew.teams)
        first, reached = self._new("int32_t[]", self._n_tasks), self._new("uint8_t[]", self._n_tasks * columns)
        count = ground.lib.sms_sim_classes(
            self._in_c, ground.task_kinds, columns, ground.column_of, self._class_of, first, reached
        )
        if count < 0:
            raise ProgramError(f"the operator cannot run: {compiled.problem(-count)}")
        flags = [*reached[0 : count * columns]]
        return [(task, flags[i * columns : (i + 1) * columns]) for i, task in enumerate(first[0:count])]

    def last_end_s(self, table: _Table, work_of: Sequence[int]) -> float:
        """Simulates the sketch; `work_of` has, class by class, the work of each team."""
        ground, new, read = self._ground, self._new, self._ground.ffi.from_buffer
        works, flows = read("struct sms_sim_work[]", table.works), read("struct sms_sim_flow[]", table.flows)
        classes, found = new("int32_t[]", work_of), new("double *")
        machine = new("struct sms_sim_machine *", ground.machine[0])
        machine.n_works, machine.n_flows = len(works), len(flows)
        machine.works, machine.flows, machine.work_of = works, flows, classes
        status = ground.lib.sms_sim_last_end(self._in_c, machine, self._class_of, found)
        if status != ground.lib.SMS_SIM_OK:
            raise ProgramError(f"the operator cannot run: {compiled.problem(status)}")
        if math.isnan(found[0]):
            raise ProgramError("a task of the operator never runs; accepted: each task in one queue or pool")
        return float(found[0])
