"""Program + chip -> trace, in simulated time.

    trace = SimExecutor(chip).run(program, plan)
    ideal = SimExecutor(chip, without(["contention", "barrier"])).run(program, plan)

The pieces: `costing` says what a task costs on a core, `fluid` how links are shared, `engine` who waits for
whom, `timeline` puts the segments of a program one after the other. This module brings the chip's numbers to
them and makes the trace.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smesim import __version__
from smesim.errors import ProgramError, SmesimError
from smesim.hwmodel.chip import Chip
from smesim.hwmodel.cost import TaskCost
from smesim.hwmodel.kept import kept_with
from smesim.hwmodel.library import fingerprint
from smesim.hwmodel.links import Agent, LinkNetwork
from smesim.plan.program import Program
from smesim.plan.schema import Plan
from smesim.plan.work import dependency_pairs, trace_columns
from smesim.sim import compiled
from smesim.sim.clock import whole_ticks
from smesim.sim.costing import Costing
from smesim.sim.crew import column_of, crew_of
from smesim.sim.effects import ALL_EFFECTS, check_effects
from smesim.sim.engine import Flow, Work
from smesim.sim.part import Part
from smesim.sim.timeline import ENGINES, EngineName, Timeline, makespan_s, simulate
from smesim.trace.schema import Trace, TraceMeta

if TYPE_CHECKING:
    import pandas as pd


class SimExecutor:
    """Runs programs on a described chip, with the given effects on (all by default).

    Traces and timelines come from SimPy, `seconds` from the same engine in C where that was built; `engine` forces one
    of them for both. Raises SmesimError for an unknown effect.
    """

    def __init__(
        self, chip: Chip, effects: Collection[str] = ALL_EFFECTS, engine: str | None = None
    ) -> None:
        self._chip = chip
        self._effects = check_effects(effects)
        self._network = LinkNetwork.of(chip)
        if engine not in (None, *ENGINES):
            raise SmesimError(f"engine {engine!r} asked for; accepted: {', '.join(ENGINES)}")
        self._engine: EngineName | None = engine

    def timeline(self, program: Program, *, by_segment: bool = True, repeat_equal: bool = True) -> Timeline:
        """When every task runs, and what every link carries.

        `repeat_equal` simulates equal segments once; `by_segment` simulates segments one by one. Both only
        save time: the result is the same. Raises ProgramError for a program that cannot run, or not on this
        chip.
        """
        works = _Works(self._chip, program, self._effects)
        return simulate(
            program, works.crew.machine, works.of, table=works.table, by_segment=by_segment,
            repeat_equal=repeat_equal, engine=self._engine or "simpy",
        )  # fmt: skip

    def seconds(self, program: Program) -> float:
        """When the last task of a program ends: what most questions are about, and all that this works out."""
        works = _Works(self._chip, program, self._effects)
        engine = self._engine or ("compiled" if compiled.is_there() else "simpy")
        return makespan_s(program, works.crew.machine, works.of, table=works.table, engine=engine)

    def run(self, program: Program, plan: Plan) -> Trace:
        """The trace of a program; `plan` is what it was lowered from, perhaps for another chip.

        Raises ProgramError for a program that cannot run, not on this chip, or is not of this plan.
        """
        if program.plan_fingerprint != plan.fingerprint():
            raise ProgramError(
                f"the program was lowered from plan {program.plan_fingerprint},"
                f" the plan given is {plan.fingerprint()}; accepted: a program and its own plan"
            )
        timeline = self.timeline(program)
        meta = TraceMeta(
            source="simulated",
            version=__version__,
            machine=self._chip.description,
            chip=self._chip.name,
            chip_fingerprint=fingerprint(self._chip),
            model=plan.model.name,
            phase=plan.phase,
            layers=plan.layers,
            plan_fingerprint=program.plan_fingerprint,
            program_fingerprint=program.fingerprint(),
            planner=plan.planner,
            workers=tuple(f"{worker.role}{i}" for i, worker in enumerate(plan.workers)),
            stand_in=plan.stand_in or self._chip.has_stand_in,
            notes=tuple(f"without {name}" for name in sorted(ALL_EFFECTS - self._effects)),
        )
        columns = trace_columns(program)
        columns.update(_task_times(timeline, columns["task"]))
        return Trace.build(meta, columns, self._link_rows(timeline), dependency_pairs(program))

    def _link_rows(self, timeline: Timeline) -> dict[str, Any]:
        """One row whenever the bandwidth granted on a link changes, link by link."""
        granted = timeline.granted_bytes_per_s
        changed = np.diff(granted, axis=0, prepend=0.0) != 0
        link, row = np.nonzero(changed.T)
        links = self._network.links
        capacities = np.array([link.bandwidth_bytes_per_s for link in links])
        if "contention" not in self._effects:
            # Without contention a link has no limit of its own: it grants whatever its users can draw.
            capacities = np.maximum(capacities, granted.max(axis=0, initial=0.0))
        return {
            "link": _categorical(link, [each.name for each in links]),
            "start_s": timeline.granted_at_s[row],
            "granted_bytes_per_s": granted[row, link],
            "capacity_bytes_per_s": capacities[link],
        }


def _categorical(codes: npt.NDArray[np.intp], names: list[str]) -> pd.Categorical:
    import pandas as pd

    return pd.Categorical.from_codes(codes, categories=pd.Index(names, dtype="str"))


def _task_times(timeline: Timeline, rows: npt.NDArray[np.int32]) -> dict[str, Any]:
    serial_s = timeline.serial_s[rows]
    compute_s = timeline.compute_s[rows] + serial_s
    transfer_s = timeline.transfer_s[rows]
    return {
        "worker": timeline.worker[rows],
        "ready_s": timeline.ready_s[rows],
        "start_s": timeline.start_s[rows],
        "end_s": timeline.end_s[rows],
        "compute_s": compute_s,
        "transfer_s": transfer_s,
        "overhead_s": np.zeros(len(rows)),  # hand-over is the gap before a task, not a part of it
        "bound": _categorical((transfer_s > compute_s - serial_s).astype(np.intp), ["compute", "bandwidth"]),
    }


class _Works:
    """What each task costs on each worker of a program, with its transfers laid over the chip's links."""

    def __init__(self, chip: Chip, program: Program, effects: frozenset[str]) -> None:
        self._program = program
        self.crew = crew_of(chip, program, effects)
        self._network = LinkNetwork.of(chip)
        self._capped = "agent_cap" in effects
        self._costing = Costing(chip, program, effects)
        self._known: dict[tuple[str, str | None, TaskCost], Work] = {}

    def of(self, task: int, worker: int) -> Work:
        cost = self._costing.cost(task, worker)
        agent = (self.crew.units if cost.on_unit else self.crew.cores)[worker]
        key = (agent.cluster, agent.unit, cost)
        if key not in self._known:
            self._known[key] = self._work(agent, cost)
        return self._known[key]

    def table(self, part: Part) -> compiled.WorkTable:
        """All works of a part: equal tasks of an operator, and workers that are alike, are asked for once."""
        first, end = part.first_task, part.first_task + part.n_tasks
        classes = kept_with(self._program, ("classes", first, end), lambda: self._classes(first, end))
        works: list[Work] = []
        work_of = np.full((part.n_tasks, len(self.crew.teams)), compiled.NO_WORK, np.int32)
        reached = part.reached()
        for column, team in enumerate(self.crew.teams):
            tasks = np.flatnonzero(reached[list(team)].any(axis=0))
            _, firsts, place = np.unique(classes[tasks], return_index=True, return_inverse=True)
            work_of[tasks, column] = len(works) + place
            works += [self.of(first + task, team[0]) for task in tasks[firsts].tolist()]
        return compiled.WorkTable(works, column_of(self.crew), work_of)

    def _classes(self, first: int, end: int) -> npt.NDArray[np.int64]:
        """A number for the class of each task."""
        numbers: dict[tuple[int, ...], int] = {}
        return np.array([numbers.setdefault(key, len(numbers)) for key in self._costing.classes(first, end)])

    def _work(self, agent: Agent, cost: TaskCost) -> Work:
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
