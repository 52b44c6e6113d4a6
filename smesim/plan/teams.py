"""Teams: the workers of a plan that take the same operators, and what a planner must know of them.

What the agents of a choice have in common: the strips that are packed for them, the cache that a tile should fit into.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from math import ceil

from smesim.errors import PlanError
from smesim.hwmodel.chip import DRAM, Chip, ClusterInstance, MatrixUnit
from smesim.hwmodel.cost import CoreCosts
from smesim.hwmodel.kept import kept_with
from smesim.plan.choices import Choice, strip_height
from smesim.plan.schema import Mode, WorkerPlan

SMALLEST_CACHE_BYTES = 256 * 1024.0


@dataclass(frozen=True)
class Team:
    """Workers by their numbers in the plan; `mr` is the height of a packed strip that suits them in rows, `cache_bytes`
    what one of them can keep near."""

    workers: tuple[int, ...]
    mode: Mode
    mr: int
    cache_bytes: float
    flop_per_s: float
    load_bytes_per_s: float


def row_team(chip: Chip, workers: tuple[WorkerPlan, ...]) -> Team:
    """All workers of a plan, each on its core's vectors: who drives a matrix unit has a core too."""
    return _core_team(chip, workers, tuple(range(len(workers))), "cpu")


def team_of(chip: Chip, workers: tuple[WorkerPlan, ...], choice: Choice) -> Team:
    """Those who take part in a choice. What is packed for a team with a unit suits the unit; a tile's rows fit the
    smallest of the caches."""

    def made() -> Team:
        team = _core_team(chip, workers, choice.agents.workers, choice.mode)
        return replace(team, mr=strip_height(choice.agents))

    return kept_with(choice.agents, ("team", workers, choice.mode), made)


def _core_team(chip: Chip, workers: tuple[WorkerPlan, ...], chosen: tuple[int, ...], mode: Mode) -> Team:
    return kept_with(chip, ("team", workers, chosen, mode), lambda: _made_team(chip, workers, chosen, mode))


def _made_team(chip: Chip, workers: tuple[WorkerPlan, ...], chosen: tuple[int, ...], mode: Mode) -> Team:
    first = chip.instance_of(workers[chosen[0]].core).cluster
    by_name = {instance.name: instance for instance in chip.instances}
    clusters = [(by_name[name], count) for name, count in Counter(workers[i].cluster for i in chosen).items()]
    return Team(
        workers=chosen,
        mode=mode,
        mr=CoreCosts(first, ()).mr,
        cache_bytes=min(own_cache_bytes(chip, instance) for instance, _ in clusters),
        flop_per_s=sum(count * c.cluster.core.flop_per_s["f32"].value for c, count in clusters),
        load_bytes_per_s=sum(count * c.cluster.core.load_bytes_per_s[DRAM].value for c, count in clusters),
    )


def core_workers(chip: Chip, threads: int | None) -> tuple[WorkerPlan, ...]:
    """One CPU worker on each of the first `threads` cores (all cores if None), in the chip's order.

    PlanError if the chip has fewer.
    """
    count = _checked_threads(chip, threads)

    def made() -> tuple[WorkerPlan, ...]:
        return tuple(WorkerPlan(role="cpu", cluster=chip.instance_of(core).name, core=core) for core in range(count))

    return kept_with(chip, ("core workers", count), made)


def matrix_workers(chip: Chip, threads: int | None) -> tuple[WorkerPlan, ...]:
    """Workers on the first `threads` cores, of which those that help drive the matrix units and at least one does not.

    A unit gets as many drivers as raise its rate, the chip's `useful_drivers`. PlanError if the chip has no unit for
    f32, or too few cores are asked for.
    """
    count = _checked_threads(chip, threads)
    return kept_with(chip, ("matrix workers", count), lambda: _matrix_workers(chip, count))


def _matrix_workers(chip: Chip, count: int) -> tuple[WorkerPlan, ...]:
    units = [instance for instance in chip.unit_instances if computes_f32(instance.unit)]
    if not units:
        raise PlanError(f"chip {chip.name} has no matrix unit for f32; accepted: planners for cores alone, cpu_only")
    if count < 2:
        raise PlanError(
            "1 thread asked for; a plan for a matrix unit needs one that drives it and one for what it cannot do,"
            f" accepted: 2..{chip.core_count}"
        )
    driven: dict[int, int] = {}
    for instance in units:
        free = [core for core in instance.cores if core < count and core not in driven]
        for core in free[: min(ceil(instance.unit.useful_drivers.value), count - 1 - len(driven))]:
            driven[core] = instance.index
    if not driven:
        first = 1 + min(core for instance in units for core in instance.cores)
        raise PlanError(
            f"none of the first {count} cores of {chip.name} can drive its matrix unit;"
            f" accepted: {first}..{chip.core_count} threads"
        )
    return tuple(
        WorkerPlan(
            role="matrix" if core in driven else "cpu",
            cluster=chip.instance_of(core).name,
            core=core,
            unit=driven.get(core),
        )
        for core in range(count)
    )


def both_workers(chip: Chip, threads: int | None) -> tuple[WorkerPlan, ...]:
    """Workers on the first `threads` cores, of which some drive matrix units, if there are any and more than one."""
    has_units = any(computes_f32(instance.unit) for instance in chip.unit_instances)
    return matrix_workers(chip, threads) if has_units and threads != 1 else core_workers(chip, threads)


def computes_f32(unit: MatrixUnit) -> bool:
    """Whether a unit multiplies f32, with kernels that packed f32 suits."""
    return "f32" in unit.flop_per_s and (unit.svl_bits is not None or "f32" in unit.tiles)


def own_cache_bytes(chip: Chip, cluster: ClusterInstance) -> float:
    """The cache of one core alone, or its share of the nearest one that it shares."""
    for level in chip.levels(cluster.cluster.name):
        if level == DRAM:
            break
        cache = chip.cache(level, cluster.cluster.name)
        if cache.scope == "core":
            if level != "L1":
                return cache.size_bytes.value
        else:
            return cache.size_bytes.value / cluster.cluster.core_count
    return SMALLEST_CACHE_BYTES


def _checked_threads(chip: Chip, threads: int | None) -> int:
    wanted = chip.core_count if threads is None else threads
    if not 1 <= wanted <= chip.core_count:
        raise PlanError(
            f"{wanted} threads asked for; chip {chip.name} has {chip.core_count} cores, accepted: 1..{chip.core_count}"
        )
    return wanted
