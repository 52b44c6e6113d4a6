"""Works: what a task costs on a worker as an engine reads it, with its transfers laid over the chip's links."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from smesim.hwmodel.chip import Chip
from smesim.hwmodel.cost import TaskCost
from smesim.hwmodel.kept import kept_with
from smesim.hwmodel.links import Agent, LinkNetwork
from smesim.plan.program import Program
from smesim.sim.classes import classes_of
from smesim.sim.clock import whole_ticks
from smesim.sim.compiled import NO_WORK, WorkTable
from smesim.sim.costing import Costing
from smesim.sim.crew import column_of, crew_of, places_in
from smesim.sim.engine import Flow, Work
from smesim.sim.facts import facts_of
from smesim.sim.part import Part


class ProgramWorks:
    """The works of a program's tasks, one by one or part by part."""

    def __init__(self, chip: Chip, program: Program, effects: frozenset[str]) -> None:
        self.crew = crew_of(chip, places_in(program), effects)
        self._program, self._facts = program, facts_of(program)
        self._network = LinkNetwork.of(chip)
        self._capped = "agent_cap" in effects
        self._costing = Costing(chip, self._facts, self.crew, effects)
        self._known: dict[tuple[str, str | None, TaskCost], Work] = {}

    def work(self, task: int, worker: int) -> Work:
        """What a task costs if that worker runs it."""
        cost = self._costing.cost(task, worker)
        agent = (self.crew.units if cost.on_unit else self.crew.cores)[worker]
        key = (agent.cluster, agent.unit, cost)
        if key not in self._known:
            self._known[key] = self._laid(agent, cost)
        return self._known[key]

    def _laid(self, agent: Agent, cost: TaskCost) -> Work:
        # An agent's cap is for all that it draws from a level, so a task has one flow a level.
        by_level: dict[str, float] = {}
        for transfer in cost.transfers:
            by_level[transfer.level] = by_level.get(transfer.level, 0.0) + transfer.n_bytes
        flows = []
        for level, n_bytes in by_level.items():
            route = self._network.route(agent, level)
            flow = Flow(route.links, n_bytes, route.cap_bytes_per_s)
            flows.append(flow if self._capped else Flow(route.links, n_bytes))
        return Work(whole_ticks(cost.compute_s), whole_ticks(cost.serial_s), tuple(flows), agent.unit)

    def table(self, part: Part) -> WorkTable:
        """All works of a part: equal tasks of an operator, and workers that are alike, are asked for once."""
        program, first, end = self._program, part.first_task, part.first_task + part.n_tasks
        classes = kept_with(program, ("classes", first, end), lambda: self._classes(first, end))
        works: list[Work] = []
        work_of = np.full((part.n_tasks, len(self.crew.teams)), NO_WORK, np.int32)
        reached = part.reached()
        for column, team in enumerate(self.crew.teams):
            tasks = np.flatnonzero(reached[list(team)].any(axis=0))
            _, firsts, place = np.unique(classes[tasks], return_index=True, return_inverse=True)
            work_of[tasks, column] = len(works) + place
            works += [self.work(first + task, team[0]) for task in tasks[firsts].tolist()]
        return WorkTable(works, column_of(self.crew), work_of)

    def _classes(self, first: int, end: int) -> npt.NDArray[np.int64]:
        """A number for the class of each task."""
        numbers: dict[tuple[int, ...], int] = {}
        classes = classes_of(self._program, self._facts.op_keys, first, end)
        return np.array([numbers.setdefault(key, len(numbers)) for key in classes])
