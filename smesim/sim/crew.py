"""The workers of a program on a chip: what each computes with, who draws over which links, and who are alike.

All of that is the same for every program with such workers, so it is worked out once a chip.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from smesim.errors import ProgramError
from smesim.hwmodel.chip import Chip, ClusterInstance
from smesim.hwmodel.cost import CoreCosts
from smesim.hwmodel.kept import kept_with
from smesim.hwmodel.known_costs import core_costs, unit_costs
from smesim.hwmodel.links import Agent, LinkNetwork
from smesim.hwmodel.stand_in import computing_core
from smesim.hwmodel.unit_cost import UnitCosts, unit_rates
from smesim.plan.assemble import CPU_ROLE, NO_UNIT
from smesim.plan.program import Program
from smesim.sim.clock import whole_ticks
from smesim.sim.engine import Machine

Places = tuple[tuple[int, int, int], ...]
"""Of each worker its core, its role and its unit, or NO_UNIT."""


@dataclass(frozen=True)
class Crew:
    """The workers by their numbers.

    `clusters` they are on, of which `busy` says how many are in each by its name; `core_names` of what they compute
    with, and the `costs` of each of these; `unit_costs` of the matrix unit that one drives, no stand-in. `alike` is
    the core and the unit, or NO_UNIT, that decide what a task costs on a worker; `teams` are the workers for whom it
    costs the same and takes links that are alike. `cores` and `units` are the agents that draw from memory for them.
    """

    clusters: tuple[ClusterInstance, ...]
    busy: Counter[str]
    core_names: tuple[str, ...]
    costs: dict[str, CoreCosts]
    unit_costs: tuple[UnitCosts | None, ...]
    alike: tuple[tuple[str, int], ...]
    teams: tuple[tuple[int, ...], ...]
    cores: tuple[Agent, ...]
    units: tuple[Agent, ...]
    machine: Machine


def crew_of(chip: Chip, places: Places, effects: frozenset[str]) -> Crew:
    """The crew of workers with such places; ProgramError for one that the chip has no place for."""
    return kept_with(chip, ("crew", places, effects), lambda: _crew(chip, places, effects))


def places_in(program: Program) -> Places:
    """The places of a program's workers."""
    # A row of workers: where its queue begins and ends, and then its core, role and unit.
    return tuple((core, role, unit) for _, _, core, role, unit in program.workers.tolist())


def _crew(chip: Chip, places: Places, effects: frozenset[str]) -> Crew:
    network = LinkNetwork.of(chip)
    units = tuple(_agent(network, i, core, unit) for i, (core, _, unit) in enumerate(places))
    cores = tuple(network.agent(core) for core, _, _ in places)
    clusters = tuple(chip.instance_of(core) for core, _, _ in places)
    busy = Counter(cluster.name for cluster in clusters)
    computing = [computing_core(chip, core, None if role == CPU_ROLE else unit) for core, role, unit in places]
    costs = {
        name: core_costs(chip, name, core, effects, busy[cluster.name])
        for (name, core), cluster in zip(computing, clusters, strict=True)
    }
    on_units = [
        None if role == CPU_ROLE else _unit_costs(chip, core, unit, costs, effects) for core, role, unit in places
    ]
    core_names = tuple(name for name, _ in computing)
    alike = tuple(
        (name, NO_UNIT if on_unit is None else unit)
        for name, on_unit, (_, _, unit) in zip(core_names, on_units, places, strict=True)
    )
    teams: dict[tuple[object, ...], list[int]] = {}
    for worker, (core, unit) in enumerate(zip(cores, units, strict=True)):
        teams.setdefault((alike[worker], core.cluster, unit.cluster, unit.unit), []).append(worker)
    return Crew(
        clusters=clusters,
        busy=busy,
        core_names=core_names,
        costs=costs,
        unit_costs=tuple(on_units),
        alike=alike,
        teams=tuple(map(tuple, teams.values())),
        cores=cores,
        units=units,
        machine=_machine(chip, Counter(unit for _, _, unit in places if unit != NO_UNIT), effects),
    )


def _machine(chip: Chip, drivers: Counter[int], effects: frozenset[str]) -> Machine:
    sync = chip.sync
    return Machine(
        links={link.name: link.bandwidth_bytes_per_s for link in LinkNetwork.of(chip).links},
        dispatch_s=whole_ticks(sync.dispatch_s.value) if "dispatch" in effects else 0.0,
        barrier_s=whole_ticks(sync.barrier_s.value) if "barrier" in effects else 0.0,
        contention="contention" in effects,
        units=unit_rates(chip, drivers, "oversubscription" in effects),
        shared_units="shared_unit" in effects,
    )


def _agent(network: LinkNetwork, worker: int, core: int, unit: int) -> Agent:
    try:
        return network.agent(core, None if unit == NO_UNIT else unit)
    except (IndexError, ValueError) as error:
        raise ProgramError(f"worker {worker} of the program: {error.args[0]}") from None


def _unit_costs(
    chip: Chip, core: int, unit: int, costs: dict[str, CoreCosts], effects: frozenset[str]
) -> UnitCosts | None:  # fmt: skip
    """Of a matrix unit, no stand-in; every unit has its own entry, so equal units are costed alike."""
    driven = chip.unit_instances[unit]
    if driven.unit.is_stand_in:
        return None
    if "f32" not in driven.unit.flop_per_s:
        raise ProgramError(f"a worker drives {driven.name}, which has no rate for f32; accepted: a unit that has one")
    return unit_costs(chip, driven, costs[chip.instance_of(core).name], effects)


def column_of(crew: Crew) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """For each worker the number of its team."""
    columns = np.zeros(len(crew.clusters), np.int32)
    for column, team in enumerate(crew.teams):
        columns[list(team)] = column
    return columns
