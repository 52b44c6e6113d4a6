"""One operator by itself in simulated time: the quick way for whoever asks about a great many of them.

It is `SimExecutor.seconds` of the program that its plan is lowered to, bit for bit, without that program: the same
tasks as a sketch, the same costs, and the engine in C. What all operators on the same workers have in common, links and
routes, is laid out for C once: a `Ground`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from smesim.errors import ProgramError
from smesim.hwmodel.chip import Chip
from smesim.hwmodel.cost import TaskCost
from smesim.hwmodel.kept import kept_with
from smesim.hwmodel.links import Agent, LinkNetwork
from smesim.hwmodel.sharing import Path
from smesim.plan.program import EntryKind, TaskKind
from smesim.plan.sketch import Sketch
from smesim.sim import compiled
from smesim.sim.classes import class_of
from smesim.sim.clock import whole_ticks
from smesim.sim.costing import Costing
from smesim.sim.crew import Crew, column_of, crew_of
from smesim.sim.facts import facts_of_sketch
from smesim.sim.fluid import check_amount

JOIN, POOL = int(TaskKind.JOIN), int(EntryKind.POOL)
Kind = tuple[Path, float]
"""Flows of one kind take the same path with the same cap."""


def seconds_alone(sketch: Sketch, chip: Chip, effects: frozenset[str]) -> float:
    """When the last task of the operator ends; `effects` are those that are on.

    Raises ProgramError where `SimExecutor` would, SmesimError if the compiled engine was not built.
    """
    crew = crew_of(chip, sketch.workers, effects)
    ground = kept_with(chip, ("ground", sketch.workers, effects), lambda: Ground(chip, crew, "agent_cap" in effects))
    costing = Costing(chip, facts_of_sketch(sketch), crew, effects)
    table = _Table(ground)
    op = sketch.op
    classes = [class_of(task, op) for task in sketch.tasks]
    columns = []
    for team in crew.teams:
        column = [compiled.NO_WORK] * len(classes)
        known: dict[tuple[int, ...], int] = {}
        worker = team[0]
        for task in sketch.reached(team):
            of_class = classes[task]
            place = known.get(of_class)
            if place is None:
                place = known[of_class] = table.add(worker, costing.cost_once(task, worker))
            column[task] = place
        columns.append(column)
    return table.last_end_s(sketch, columns)


class Ground:
    """What the operators on a crew move over, as C reads it: kinds of flows between its agents and the levels."""

    def __init__(self, chip: Chip, crew: Crew, capped: bool) -> None:
        native = compiled.native()
        self.ffi, self.lib = native.ffi, native.lib
        self.crew, self.column_of = crew, column_of(crew).tolist()
        network = LinkNetwork.of(chip)
        kind_of: dict[tuple[Agent, str], Kind] = {}
        for agent in {*crew.cores, *crew.units}:
            for level in chip.levels(chip.instance_of(agent.core).cluster.name):
                route = network.route(agent, level)
                kind_of[agent, level] = (route.links, route.cap_bytes_per_s if capped else math.inf)
        machine = crew.machine
        kinds = sorted(set(kind_of.values()))
        unit_kinds: list[Kind] = sorted(((name,), alone) for name, (_, alone) in machine.units.items())
        self.kind_of = {key: kinds.index(kind) for key, kind in kind_of.items()}
        self.unit_of: dict[str | None, int] = {path[0]: i for i, (path, _) in enumerate(unit_kinds)}
        together = {name: rate for name, (rate, _) in machine.units.items()}
        self._kept: list[Any] = []
        self.links = self._network(dict(machine.links), kinds, machine.contention)
        self.units = self._network(together, unit_kinds, machine.shared_units)

    def _network(self, capacities: dict[str, float], kinds: Sequence[Kind], contention: bool) -> dict[str, Any]:
        """A network of C's, in whose memory everything stays as long as the ground."""
        links = compiled.links_of(capacities, kinds)
        arrays = {
            "capacity": self.ffi.new("double[]", links.capacities),
            "kinds": self.ffi.new("struct sms_sim_kind[]", links.kinds),
            "paths": self.ffi.new("int32_t[]", links.paths or [0]),
        }
        self._kept += arrays.values()
        return {"n_links": len(capacities), "n_kinds": len(kinds), "contention": contention, **arrays}


class _Table:
    """The works of one operator, and their flows."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._works: list[tuple[float, float, int, int, int]] = []
        self._flows: list[tuple[float, int]] = []

    def add(self, worker: int, cost: TaskCost) -> int:
        """The place of a work, laid over the links as `Works` does it: one flow a level."""
        ground = self._ground
        agent = (ground.crew.units if cost.on_unit else ground.crew.cores)[worker]
        by_level: dict[str, float] = {}
        for transfer in cost.transfers:
            by_level[transfer.level] = by_level.get(transfer.level, 0.0) + transfer.n_bytes
        begin = len(self._flows)
        for level, n_bytes in by_level.items():
            check_amount(n_bytes)
            self._flows.append((n_bytes, ground.kind_of[agent, level]))
        compute_s, unit = whole_ticks(cost.compute_s), ground.unit_of.get(agent.unit, -1)
        if unit >= 0:
            check_amount(compute_s)
        self._works.append((compute_s, whole_ticks(cost.serial_s), unit, begin, len(self._flows)))
        return len(self._works) - 1

    def last_end_s(self, sketch: Sketch, columns: Sequence[Sequence[int]]) -> float:
        """Simulates the sketch; `columns` have the work of each task for each team."""
        ground, machine = self._ground, self._ground.crew.machine
        new = ground.ffi.new
        successors: list[list[int]] = [[] for _ in sketch.tasks]
        for task, after in enumerate(sketch.predecessors):
            for before in after:
                successors[before].append(task)
        queues = [[-1 - index if kind == POOL else index for kind, index in queue] for queue in sketch.entries]
        arrays = {
            "is_join": new("uint8_t[]", [task[1] == JOIN for task in sketch.tasks]),
            "predecessor_count": new("int32_t[]", [len(after) for after in sketch.predecessors]),
            **_grouped(new, "successor_begin", "successors", successors),
            **_grouped(new, "queue_begin", "queue", queues),
            **_grouped(new, "pool_begin", "pool_tasks", sketch.pools),
        }
        counts = {"n_tasks": len(sketch.tasks), "n_workers": len(queues), "n_pools": len(sketch.pools)}
        part = new("struct sms_sim_part *", {**counts, **arrays})
        column_of, work_of = new("int32_t[]", ground.column_of), new("int32_t[]", [*_interleaved(columns)])
        works = new("struct sms_sim_work[]", self._works)
        flows = new("struct sms_sim_flow[]", self._flows)
        whole = new(
            "struct sms_sim_machine *",
            {
                "dispatch_s": machine.dispatch_s, "barrier_s": machine.barrier_s,
                "links": ground.links, "units": ground.units,
                "n_works": len(self._works), "n_flows": len(self._flows), "works": works, "flows": flows,
                "columns": len(columns), "column_of": column_of, "work_of": work_of,
            },
        )  # fmt: skip
        found = new("double *")
        status = ground.lib.sms_sim_last_end(part, whole, found)
        if status != ground.lib.SMS_SIM_OK:
            raise ProgramError(f"the operator cannot run: {compiled.problem(status)}")
        if math.isnan(found[0]):
            raise ProgramError("a task of the operator never runs; accepted: each task in one queue or pool")
        return float(found[0])


def _interleaved(columns: Sequence[Sequence[int]]) -> Sequence[int]:
    """Row after row of what is given column by column."""
    return columns[0] if len(columns) == 1 else [place for row in zip(*columns, strict=True) for place in row]


def _grouped(new: Any, begin: str, flat: str, groups: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Numbers one group behind the other, and where each begins."""
    bounds = [0, *accumulate(map(len, groups))]
    return {begin: new("int32_t[]", bounds), flat: new("int32_t[]", [n for group in groups for n in group] or [0])}
