"""One operator by itself in simulated time: the quick way for whoever asks about a great many of them.

It is `SimExecutor.seconds` of the program that its plan is lowered to, bit for bit, without that program: the same
tasks as a sketch, the same costs, and the engine in C.
"""

from __future__ import annotations

from smesim.hwmodel.chip import Chip
from smesim.plan.sketch import Sketch
from smesim.sim.compiled import Prepared
from smesim.sim.part import part_of
from smesim.sim.works import SketchWorks


def seconds_alone(sketch: Sketch, chip: Chip, effects: frozenset[str]) -> float:
    """When the last task of the operator ends; `effects` are those that are on.

    Raises ProgramError where `SimExecutor` would, SmesimError if the compiled engine was not built.
    """
    works, part = SketchWorks(chip, sketch, effects), part_of(sketch)
    result = Prepared(part, works.crew.machine, works.table()).run(range(part.n_workers), grants=False)
    return float(result.end_of_task_s[part.is_join == 0].max())
