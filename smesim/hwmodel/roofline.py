"""The roofline: how fast a set of agents can be at best, given how much they compute per byte.

For one agent with peak rate P and bandwidth B, the attainable rate at arithmetic intensity I (FLOP per byte)
is min(P, I x B): Williams, Waterman, Patterson, "Roofline" (CACM 2009). Several agents that draw from one
link of bandwidth L reach together

    min(I x L, sum over the agents a of min(P_a, I x B_a))

since work can be divided as one likes, but each agent stays below its own cap and all together below the
link's. The **ridge point** is peak / bandwidth of the whole set. These are bounds: no kernel efficiency, no
overhead, no losses from many busy cores. dtypes go by name ("f32", "s8"), operators as plain numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import Literal

from smesim.errors import ChipError
from smesim.hwmodel.chip import DRAM, Chip, CoreSpec, MatrixUnit
from smesim.hwmodel.links import Agent, LinkNetwork


@dataclass(frozen=True)
class Demand:
    """What an operator asks for: `flop` in `dtype`, and `n_bytes` to or from the level in question."""

    name: str
    dtype: str
    flop: float
    n_bytes: float


@dataclass(frozen=True)
class OperatorPoint:
    """Where an operator lies under the roof: intensity, attainable rate, the time at that rate, the bound."""

    name: str
    intensity_flop_per_byte: float
    attainable_flop_per_s: float
    time_s: float
    bound: Literal["compute", "bandwidth"]


@dataclass(frozen=True)
class _Engine:
    """What computes as one: a core, or a matrix unit with all its drivers."""

    peak_flop_per_s: float
    bandwidth_bytes_per_s: float
    level_link: str | None


class Roofline:
    """The roof of a set of agents on a chip, for data at one level.

    >>> roof = Roofline(chip, matrix_unit_agents(chip, clusters=["P"]))
    >>> roof.ridge_flop_per_byte("f32")       # apple-m4: 2005 GFLOP/s over 75 GB/s
    26.73...

    Raises ChipError for an empty set.
    """

    def __init__(self, chip: Chip, agents: Iterable[Agent], level: str = DRAM) -> None:
        self._chip = chip
        self._level = level
        self._network = LinkNetwork.of(chip)
        self._agents = tuple(dict.fromkeys(agents))
        if not self._agents:
            raise ChipError(f"roofline of {chip.name}: no agents given; accepted: at least one core or unit")

    @property
    def dtypes(self) -> frozenset[str]:
        """What at least one of the agents computes in."""
        units = {unit.name: unit.unit for unit in self._chip.unit_instances}
        engines = [
            self._chip.instance_of(agent.core).cluster.core if agent.unit is None else units[agent.unit]
            for agent in self._agents
        ]
        return frozenset(str(name) for engine in engines for name in engine.flop_per_s)

    def peak_flop_per_s(self, dtype: str) -> float:
        """Sum of the peak rates; ChipError when none of the agents computes in `dtype`."""
        return sum(engine.peak_flop_per_s for engine in self._engines(dtype))

    def bandwidth_bytes_per_s(self, dtype: str) -> float:
        """What those agents that compute in `dtype` can draw together."""
        return self._limited(self._engines(dtype), intensity=None)

    def ridge_flop_per_byte(self, dtype: str) -> float:
        """Peak over bandwidth: above this intensity the set is bound by compute."""
        return self.peak_flop_per_s(dtype) / self.bandwidth_bytes_per_s(dtype)

    def attainable_flop_per_s(self, dtype: str, intensity_flop_per_byte: float) -> float:
        """Best rate at an intensity; an intensity of `inf` (no bytes at all) gives the peak."""
        if intensity_flop_per_byte == inf:
            return self.peak_flop_per_s(dtype)
        return self._limited(self._engines(dtype), intensity_flop_per_byte)

    def points(self, demands: Iterable[Demand]) -> tuple[OperatorPoint, ...]:
        """One point per demand. Without FLOP (a copy), the time is that of its bytes."""
        return tuple(self._point(demand) for demand in demands)

    def _point(self, demand: Demand) -> OperatorPoint:
        bandwidth_bytes_per_s = self.bandwidth_bytes_per_s(demand.dtype)
        if demand.flop == 0.0:
            return OperatorPoint(demand.name, 0.0, 0.0, demand.n_bytes / bandwidth_bytes_per_s, "bandwidth")
        intensity = demand.flop / demand.n_bytes if demand.n_bytes else inf
        rate = self.attainable_flop_per_s(demand.dtype, intensity)
        bound: Literal["compute", "bandwidth"] = (
            "bandwidth" if intensity < self.ridge_flop_per_byte(demand.dtype) else "compute"
        )
        return OperatorPoint(demand.name, intensity, rate, demand.flop / rate, bound)

    def _limited(self, engines: Sequence[_Engine], intensity: float | None) -> float:
        """Sum under caps and links: of FLOP/s at `intensity`, or of bytes/s where it is None."""
        scale = 1.0 if intensity is None else intensity
        by_link: dict[str | None, float] = {}
        for engine in engines:
            alone = scale * engine.bandwidth_bytes_per_s
            if intensity is not None:
                alone = min(alone, engine.peak_flop_per_s)
            by_link[engine.level_link] = by_link.get(engine.level_link, 0.0) + alone
        return sum(
            total if link is None else min(total, scale * self._network.bandwidth_bytes_per_s(link))
            for link, total in by_link.items()
        )

    def _engines(self, dtype: str) -> tuple[_Engine, ...]:
        drivers: dict[str, list[Agent]] = {}
        engines: list[_Engine] = []
        for agent in self._agents:
            if agent.unit is not None:
                drivers.setdefault(agent.unit, []).append(agent)
                continue
            core = self._chip.instance_of(agent.core).cluster.core
            engines.append(self._engine(_rate(core, dtype), [agent]))
        units = {unit.name: unit.unit for unit in self._chip.unit_instances}
        for name, threads in drivers.items():
            saturation = min(1.0, len(threads) / units[name].useful_drivers.value)
            engines.append(self._engine(_rate(units[name], dtype) * saturation, threads))
        able = tuple(engine for engine in engines if engine.peak_flop_per_s > 0.0)
        if not able:
            known = sorted({name for cluster in self._chip.clusters for name in cluster.core.flop_per_s}
                           | {name for unit in units.values() for name in unit.flop_per_s})  # fmt: skip
            raise ChipError(
                f"roofline of {self._chip.name}: dtype {dtype!r} given, which none of the agents computes in;"
                f" accepted on this chip: {', '.join(known)}"
            )
        return able

    def _engine(self, peak_flop_per_s: float, threads: Sequence[Agent]) -> _Engine:
        """Threads of one core or unit: their caps add up to what the unit's own port lets through."""
        routes = [self._network.route(agent, self._level) for agent in threads]
        own_prefix = f"{threads[0].unit}."
        own = [link for link in routes[0].links if link.startswith(own_prefix)]
        shared = [link for link in routes[0].links if not link.startswith(own_prefix)]
        widths = [self._network.bandwidth_bytes_per_s(link) for link in own]
        bandwidth_bytes_per_s = min([sum(route.cap_bytes_per_s for route in routes), *widths])
        return _Engine(peak_flop_per_s, bandwidth_bytes_per_s, shared[0] if shared else None)


def core_agents(chip: Chip, clusters: Sequence[str] | None = None) -> tuple[Agent, ...]:
    """Every core on its own vector pipes; of the named cluster descriptions only, where given."""
    return tuple(
        Agent(instance.name, core)
        for instance in chip.instances
        if clusters is None or instance.cluster.name in clusters
        for core in instance.cores
    )


def matrix_unit_agents(chip: Chip, clusters: Sequence[str] | None = None) -> tuple[Agent, ...]:
    """Every matrix unit (of the named descriptions), driven by as many cores as help its FLOP rate.

    A core drives one unit; a unit is left out when other units have taken all its cores.
    """
    network = LinkNetwork.of(chip)
    agents: list[Agent] = []
    busy: set[int] = set()
    for unit in chip.unit_instances:
        if clusters is None or unit.cluster.cluster.name in clusters:
            free = [core for core in unit.cores if core not in busy]
            drivers = free[: ceil(unit.unit.useful_drivers.value)]
            busy.update(drivers)
            agents += [network.agent(core, unit.index) for core in drivers]
    return tuple(agents)


def cooperative_agents(chip: Chip, clusters: Sequence[str] | None = None) -> tuple[Agent, ...]:
    """Every matrix unit with its drivers, and all other cores on their vector pipes."""
    driving = matrix_unit_agents(chip, clusters)
    busy = {agent.core for agent in driving}
    return driving + tuple(agent for agent in core_agents(chip, clusters) if agent.core not in busy)


def _rate(engine: CoreSpec | MatrixUnit, dtype: str) -> float:
    return next((rate.value for name, rate in engine.flop_per_s.items() if name == dtype), 0.0)
