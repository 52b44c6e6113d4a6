"""Parties: agents that take an operator together, and what each of them gets of the memory's bandwidth.

Agents of one kind that draw over the same links are a group, and fare alike. Which groups there are depends on the
chip and on who takes part, and not on the operator; so that is worked out once, and a planner that asks about one
operator after another computes with groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import inf

from smesim.hwmodel.chip import Chip
from smesim.hwmodel.kept import kept_with
from smesim.hwmodel.links import LinkNetwork
from smesim.hwmodel.sharing import Path, max_min_rates
from smesim.plan.agents import Agent, agents_of, on_cores
from smesim.plan.formats import ProductFormat
from smesim.plan.schema import WorkerPlan


class Party:
    """`agents` that take part; `workers` says how many workers they are, `group_of` which group each is in, by number,
    and `one_of` has an agent of each kind."""

    def __init__(self, network: LinkNetwork, agents: tuple[Agent, ...]) -> None:
        groups: dict[tuple[str, Path, float], int] = {}
        self.agents = agents
        self.group_of = [groups.setdefault((a.kind, a.path, a.cap_bytes_per_s), len(groups)) for a in agents]
        self.workers = sum(len(agent.workers) for agent in agents)
        self.one_of = {agent.kind: agent for agent in reversed(agents)}
        self.kinds = [kind for kind, _, _ in groups]
        self._counts = [self.group_of.count(group) for group in range(len(groups))]
        self._paths = [path for _, path, _ in groups]
        self._caps = [cap for _, _, cap in groups]
        self._capacities = {link: network.bandwidth_bytes_per_s(link) for path in self._paths for link in path}
        self._shares = [bandwidth / len(agents) for bandwidth in self._capacities.values()] or [inf]

    def rates(self, wanted: Mapping[str, float] | None = None) -> list[float]:
        """Bytes per second that an agent of each group draws from memory when all do; none more than its kind wants."""
        caps = self._caps
        if wanted is not None:
            caps = [min(cap, wanted[kind]) for cap, kind in zip(caps, self.kinds, strict=True)]
        if len(caps) == 1:
            return [min(caps[0], *self._shares)]
        flows = list(zip(self._paths, caps, strict=True))
        alike = dict.fromkeys(flows, 0)
        for flow, count in zip(flows, self._counts, strict=True):
            alike[flow] += count
        paths, caps = [path for path, _ in alike], [cap for _, cap in alike]
        found = max_min_rates(paths, caps, self._capacities, list(alike.values()))
        rates = dict(zip(alike, found, strict=True))
        return [rates[flow] for flow in flows]

    @cached_property
    def bytes_per_s(self) -> float:
        """What all of them together draw from memory."""
        rates = self.rates()
        return sum(rates[group] for group in self.group_of)


class Staff:
    """The agents of a plan's workers, in the parties in which they take operators.

    `cores` and `units` are the agents of each role; `everybody` is all workers on their cores, also those who drive a
    unit.
    """

    def __init__(self, chip: Chip, workers: tuple[WorkerPlan, ...], numbers: ProductFormat) -> None:
        self._network = LinkNetwork.of(chip)
        self._parties: dict[tuple[Agent, ...], Party] = {}
        agents = agents_of(chip, workers, numbers)
        self.cores = tuple(agent for agent in agents if agent.role == "cpu")
        self.units = tuple(agent for agent in agents if agent.role == "matrix")
        self.everybody = on_cores(chip, workers, numbers)

    @classmethod
    def of(cls, chip: Chip, workers: tuple[WorkerPlan, ...], numbers: ProductFormat) -> Staff:
        """The staff of these workers, the same object whenever it is asked for."""
        return kept_with(chip, ("staff", workers, numbers.name), lambda: cls(chip, workers, numbers))

    def party(self, agents: tuple[Agent, ...]) -> Party:
        """These agents as a party; of a staff's agents few are ever taken together."""
        found = self._parties.get(agents)
        if found is None:
            found = self._parties[agents] = Party(self._network, agents)
        return found

    def able(self, one_row: bool) -> tuple[tuple[Agent, ...], tuple[Agent, ...]]:
        """Who multiplies with weights on cores, and who by matrix units; of one row others may be able to."""
        units = tuple(u for u in self.units if (u.multiplies_vectors if one_row else u.multiplies_matrices))
        if one_row and self.units and not units:  # who drives a unit that cannot do it has a core that can
            driving = tuple(agent for agent in self.everybody if agent.role == "matrix")
            return tuple(agent for agent in self.everybody if agent.role == "cpu"), driving
        return self.cores, units
