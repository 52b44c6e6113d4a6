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
from smesim.hwmodel.library import fingerprint
from smesim.hwmodel.links import LinkNetwork
from smesim.plan.program import Program
from smesim.plan.schema import Plan
from smesim.plan.work import dependency_pairs, trace_columns
from smesim.sim import compiled
from smesim.sim.effects import ALL_EFFECTS, check_effects
from smesim.sim.timeline import ENGINES, EngineName, Timeline, makespan_s, simulate
from smesim.sim.works import ProgramWorks

if TYPE_CHECKING:  # imported where traces are made: whoever asks for seconds alone need not wait for it
    import pandas as pd

    from smesim.trace.schema import Trace


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
        works = ProgramWorks(self._chip, program, self._effects)
        return simulate(
            program, works.crew.machine, works.work, table=works.table, by_segment=by_segment,
            repeat_equal=repeat_equal, engine=self._engine or "simpy",
        )  # fmt: skip

    def seconds(self, program: Program) -> float:
        """When the last task of a program ends: what most questions are about, and all that this works out."""
        works = ProgramWorks(self._chip, program, self._effects)
        engine = self._engine or ("compiled" if compiled.is_there() else "simpy")
        return makespan_s(program, works.crew.machine, works.work, table=works.table, engine=engine)

    def run(self, program: Program, plan: Plan) -> Trace:
        """The trace of a program; `plan` is what it was lowered from, perhaps for another chip.

        Raises ProgramError for a program that cannot run, not on this chip, or is not of this plan.
        """
        from smesim.trace.schema import Trace, TraceMeta

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
