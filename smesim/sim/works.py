"""Works: what a task costs on a worker as an engine reads it, with its transfers laid over the chip's links."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from smesim.hwmodel.chip import Chip
from smesim.hwmodel.cost import TaskCost
from smesim.hwmodel.kept import kept_with
from smesim.hwmodel.links import Agent, LinkNetwork
from smesim.plan.program import Program
from smesim.plan.sketch import Sketch
from smesim.sim.classes import class_of, classes_of
from smesim.sim.clock import whole_ticks
from smesim.sim.compiled import NO_WORK, WorkTable
from smesim.sim.costing import Costing
from smesim.sim.crew import Crew, column_of, crew_of, places_in
from smesim.sim.engine import Flow, Work
from smesim.sim.facts import Facts, facts_of, facts_of_sketch
from smesim.sim.part import Part


class Works:
    """The works of the tasks of a program or a sketch on the workers of a crew."""

    def __init__(self, chip: Chip, facts: Facts, crew: Crew, effects: frozenset[str]) -> None:
        self.crew = crew
        self._facts = facts
        self._network = LinkNetwork.of(chip)
        self._capped = "agent_cap" in effects
        self._costing = Costing(chip, facts, crew, effects)
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


class ProgramWorks(Works):
    """The works of a program, part by part."""

    def __init__(self, chip: Chip, program: Program, effects: frozenset[str]) -> None:
        super().__init__(chip, facts_of(program), crew_of(chip, places_in(program), effects), effects)
        self._program = program

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


class SketchWorks(Works):
    """The works of a sketch."""

    def __init__(self, chip: Chip, sketch: Sketch, effects: frozenset[str]) -> None:
        super().__init__(chip, facts_of_sketch(sketch), crew_of(chip, sketch.workers, effects), effects)
        self._sketch = sketch

    def table(self) -> WorkTable:
        """All its works."""
        sketch, teams = self._sketch, self.crew.teams
        classes = [class_of(task, sketch.op) for task in sketch.tasks]
        works: list[Work] = []
        columns: list[list[int]] = []
        for team in teams:
            column = [NO_WORK] * len(classes)
            known: dict[tuple[int, ...], int] = {}
            for task in sketch.reached(team):
                place = known.get(classes[task])
                if place is None:
                    place = known[classes[task]] = len(works)
                    works.append(self.work(task, team[0]))
                column[task] = place
            columns.append(column)
        return WorkTable(works, column_of(self.crew), np.array(columns, np.int32).T)
