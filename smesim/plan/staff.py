"""Staff: the agents of a plan's workers, and who of them takes part in each mode.

That depends on the chip, the workers and the format of the weights, and not on the operator, so it is worked out once
for all operators that a planner is asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from smesim.hwmodel.chip import Chip
from smesim.hwmodel.kept import kept_with
from smesim.plan.agents import Agents, agents_of, on_cores
from smesim.plan.formats import ProductFormat
from smesim.plan.schema import Mode, WorkerPlan

Teams = Sequence[tuple[Mode, Agents]]
"""The modes that there are for an operator, and who takes part in each."""


class Staff:
    """`cores` and `units` are the agents of each role, `all` those of both; `everybody` is all workers on cores."""

    def __init__(self, chip: Chip, workers: tuple[WorkerPlan, ...], numbers: ProductFormat) -> None:
        agents = agents_of(chip, workers, numbers)
        self.cores = Agents(agent for agent in agents if agent.role == "cpu")
        self.units = Agents(agent for agent in agents if agent.role == "matrix")
        self.all = Agents((*self.units, *self.cores))
        self.everybody = on_cores(chip, workers, numbers)

    @classmethod
    def of(cls, chip: Chip, workers: tuple[WorkerPlan, ...], numbers: ProductFormat) -> Staff:
        """The staff of these workers, the same object whenever it is asked for."""
        return kept_with(chip, ("staff", workers, numbers.name), lambda: cls(chip, workers, numbers))

    @cached_property
    def for_any(self) -> Teams:
        return _teams(self.cores, self.units)

    @cached_property
    def for_matrices(self) -> Teams:
        """Who multiplies matrices with weights: units that can."""
        return _teams(self.cores, Agents(unit for unit in self.units if unit.multiplies_matrices))

    @cached_property
    def for_vectors(self) -> Teams:
        """The same of one row. Who drives a unit that cannot do it has a core that can."""
        able = Agents(unit for unit in self.units if unit.multiplies_vectors)
        if able or not self.units:
            return _teams(self.cores, able)
        by_role = [Agents(a for a in self.everybody if a.role == role) for role in ("cpu", "matrix")]
        return _teams(*by_role)


def _teams(cores: Agents, units: Agents) -> Teams:
    teams: list[tuple[Mode, Agents]] = []
    if cores:
        teams.append(("cpu", cores))
    if units:
        teams.append(("matrix", units))
    if cores and units:
        teams.append(("cooperative", Agents((*units, *cores))))
    return teams
