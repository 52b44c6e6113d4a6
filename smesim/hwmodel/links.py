"""The network of shared bandwidths of a chip: its links, and which of them a flow crosses.

A **link** is a bandwidth that several agents share: DRAM, a cache level whose total is known, the port of a
matrix unit. An **agent** is a thread: on its core's vector pipes, or driving a matrix unit. A **flow** of
bytes between an agent and a level has a cap of its own (what this one agent can draw, however idle the rest)
and crosses links:

| agent | level | links |
|---|---|---|
| core | DRAM | `P.DRAM` (what the cores of one cluster can draw from there, where that is known), `DRAM` |
| core | a cache with a known total | `P.L2` (one per cluster) or `L3` (one per chip) |
| core | a cache without, or its own cache | none: only the cap |
| unit | a cache | `P.sme0.port`, then that cache's link |
| unit | DRAM | `P.sme0.DRAM` (all that this unit can draw from there), `P.sme0.port`, `DRAM` |

All threads that drive one unit share its port, so a second driver adds what the port has left (M4: 442 GB/s
from L2 with one thread, 649 with three) and never more DRAM than the unit can take. Who gets how much when a
link is full is the simulator's business.

A level for which an agent has no figure of its own is drawn from at its rate for the next level out. A level
nearer than any that a matrix unit has a load rate for (it has no L1) is served to it by the nearest that has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from smesim.hwmodel.chip import DRAM, Chip, ClusterInstance, UnitInstance
from smesim.hwmodel.kept import kept_with
from smesim.hwmodel.quantity import Quantity


@dataclass(frozen=True)
class Link:
    """A shared bandwidth."""

    name: str
    bandwidth_bytes_per_s: float


@dataclass(frozen=True)
class Agent:
    """One thread on core `core` (a chip-wide number), computing there or driving `unit` ("P.sme0")."""

    cluster: str
    core: int
    unit: str | None = None


@dataclass(frozen=True)
class Route:
    """What limits one flow: its own cap, and the names of the links it crosses, nearest the agent first."""

    cap_bytes_per_s: float
    links: tuple[str, ...]


class LinkNetwork:
    """The links of a chip and the routes over them.

    >>> network = LinkNetwork(library.load("apple-m4"))
    >>> network.route(network.agent(0, unit=0), "DRAM")
    Route(cap_bytes_per_s=75000000000.0, links=('P.sme0.DRAM', 'P.sme0.port', 'DRAM'))
    """

    def __init__(self, chip: Chip) -> None:
        self._chip = chip
        self._units = {unit.name: unit for unit in chip.unit_instances}
        self._bandwidths: dict[str, float] = {}
        for unit in chip.unit_instances:
            self._bandwidths |= _port_links(unit)
        for instance in chip.instances:
            if instance.cluster.dram_bytes_per_s is not None:
                self._bandwidths[_way_out(instance)] = instance.cluster.dram_bytes_per_s.value
            for level in chip.levels(instance.cluster.name):
                self._bandwidths |= self._level_link(instance, level)
        self._routes: dict[tuple[str, str | None, str, bool], Route] = {}

    @classmethod
    def of(cls, chip: Chip) -> LinkNetwork:
        """The links of a chip, the same object whenever it is asked for."""
        return kept_with(chip, "links", lambda: cls(chip))

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """All links, in a fixed order: ports, caches, DRAM."""
        order = sorted(self._bandwidths, key=lambda name: name == DRAM)
        return tuple(Link(name, self._bandwidths[name]) for name in order)

    def bandwidth_bytes_per_s(self, link: str) -> float:
        """Bandwidth of a link by name; KeyError when there is none."""
        return self._bandwidths[link]

    def agent(self, core: int, unit: int | None = None) -> Agent:
        """The agent of chip-wide core and unit numbers; IndexError when one of them does not exist.

        ValueError when a thread on that core cannot drive that unit.
        """
        cluster = self._chip.instance_of(core).name
        if unit is None:
            return Agent(cluster, core)
        units = self._chip.unit_instances
        if not 0 <= unit < len(units):
            raise IndexError(f"unit {unit} of {self._chip.name}: it has {len(units)} units")
        if core not in units[unit].cores:
            accepted = ", ".join(map(str, units[unit].cores))
            raise ValueError(f"core {core} cannot drive {units[unit].name}; accepted: {accepted}")
        return Agent(cluster, core, units[unit].name)

    def route(self, agent: Agent, level: str, *, store: bool = False) -> Route:
        """Cap and links of a flow between `agent` and `level` ("L2", "DRAM"); KeyError for an unknown level.

        A unit's stores have their own cap; a core's are taken at its load rate.
        """
        key = (agent.cluster, agent.unit, level, store)
        if key not in self._routes:
            self._routes[key] = self._find_route(agent, level, store)
        return self._routes[key]

    def _find_route(self, agent: Agent, level: str, store: bool) -> Route:
        if agent.unit is None:
            instance = self._chip.instance_of(agent.core)
            cap = self._cap(instance, level, instance.cluster.core.load_bytes_per_s)
            way_out = (_way_out(instance),) if level == DRAM and instance.cluster.dram_bytes_per_s is not None else ()
            return Route(cap, (*way_out, *self._level_link(instance, level)))
        unit = self._units[agent.unit]
        rates = unit.unit.store_bytes_per_s if store else unit.unit.load_bytes_per_s
        levels = self._levels(unit.cluster)
        nearest = next(name for name in levels if name in unit.unit.load_bytes_per_s)
        served = max(level, nearest, key=levels.index) if level in levels else level
        cap = self._cap(unit.cluster, served, rates)
        own = f"{unit.name}.{served}"
        ports = (own, _port(unit)) if own in self._bandwidths else (_port(unit),)
        return Route(cap, (*ports, *self._level_link(unit.cluster, served)))

    def _levels(self, instance: ClusterInstance) -> tuple[str, ...]:
        return self._chip.levels(instance.cluster.name)

    def _cap(self, instance: ClusterInstance, level: str, rates: Mapping[str, Quantity]) -> float:
        """The rate for the level, or for the next one out that has one; DRAM always has."""
        levels = self._levels(instance)
        if level not in levels:
            raise KeyError(f"level {level!r} of cluster {instance.name}: accepted {', '.join(levels)}")
        return next(rates[name].value for name in levels[levels.index(level) :] if name in rates)

    def _level_link(self, instance: ClusterInstance, level: str) -> dict[str, float]:
        """Name and bandwidth of a level's link as this cluster sees it; empty where no total is known."""
        if level == DRAM:
            return {DRAM: self._chip.memory.bandwidth_bytes_per_s.value}
        cache = self._chip.cache(level, instance.cluster.name)
        if cache.bandwidth_bytes_per_s is None or cache.scope == "core":
            return {}
        name = level if cache.scope == "chip" else f"{instance.name}.{level}"
        return {name: cache.bandwidth_bytes_per_s.value}


def _way_out(instance: ClusterInstance) -> str:
    return f"{instance.name}.{DRAM}"


def _port(unit: UnitInstance) -> str:
    return f"{unit.name}.port"


def _port_links(unit: UnitInstance) -> dict[str, float]:
    """The unit's port, as wide as its best level, and a narrower link for each level that gives less."""
    caps = {
        level: unit.unit.multi_driver_load_bytes_per_s.get(level, single).value
        for level, single in unit.unit.load_bytes_per_s.items()
    }
    widest = max(caps.values())
    narrower = {f"{unit.name}.{level}": cap for level, cap in caps.items() if cap < widest}
    return narrower | {_port(unit): widest}
