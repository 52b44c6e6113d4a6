"""Teams: the workers of a plan that take the same operators, and what a planner must know of them.

A team of cores computes on vector pipes, each worker at its core's rate. In a team that drives matrix units the rate is
the units', however many drive them, and what is packed for it suits the unit: two vectors of rows, so that four
accumulators are in flight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from smesim.errors import PlanError
from smesim.hwmodel.chip import DRAM, Chip, ClusterInstance, MatrixUnit
from smesim.hwmodel.cost import CoreCosts, product_rate
from smesim.plan.schema import Mode, WorkerPlan
from smesim.workload.dtypes import DType

ACCUMULATORS_DOWN = 2
"""Of the accumulators in flight, how many lie below each other."""
SMALLEST_CACHE_BYTES = 256 * 1024.0


@dataclass(frozen=True)
class Team:
    """Workers by their numbers in the plan; `mr` is the height of a packed strip that suits them in rows, `cache_bytes`
    what one of them can keep near, `flop_per_s` their f32 peak and `product_flop_per_s` that of products with weights
    of a plan's format."""

    workers: tuple[int, ...]
    mode: Mode
    mr: int
    cache_bytes: float
    flop_per_s: float
    product_flop_per_s: float
    load_bytes_per_s: float


def cpu_team(chip: Chip, workers: Sequence[WorkerPlan], weights: DType = DType.F32) -> Team:
    """The workers of a plan that compute on their cores; there must be one."""
    chosen = tuple(i for i, worker in enumerate(workers) if worker.role == "cpu")
    clusters = [chip.instance_of(workers[i].core) for i in chosen]
    return Team(
        workers=chosen,
        mode="cpu",
        mr=CoreCosts(clusters[0].cluster, ()).products(str(weights)).mr,
        cache_bytes=own_cache_bytes(chip, clusters[0]),
        flop_per_s=sum(c.cluster.core.flop_per_s["f32"].value for c in clusters),
        product_flop_per_s=sum(product_rate(c.cluster.core, str(weights)) for c in clusters),
        load_bytes_per_s=sum(c.cluster.core.load_bytes_per_s[DRAM].value for c in clusters),
    )


def matrix_team(chip: Chip, workers: Sequence[WorkerPlan], weights: DType = DType.F32) -> Team:
    """The workers of a plan that drive matrix units; there must be one."""
    chosen = tuple(i for i, worker in enumerate(workers) if worker.role == "matrix")
    numbers = [unit for i in chosen if (unit := workers[i].unit) is not None]
    units = [chip.unit_instances[number].unit for number in sorted(set(numbers))]
    return Team(
        workers=chosen,
        mode="matrix",
        mr=_strip_height(units[0]),
        cache_bytes=own_cache_bytes(chip, chip.unit_instances[numbers[0]].cluster),
        flop_per_s=sum(unit.flop_per_s["f32"].value for unit in units),
        product_flop_per_s=sum(product_rate(unit, str(weights)) for unit in units),
        load_bytes_per_s=sum(unit.load_bytes_per_s[DRAM].value for unit in units),
    )


def _strip_height(unit: MatrixUnit) -> int:
    """Rows of a strip that suit a unit: of a stand-in one micro-tile of its kernels."""
    return unit.tile("f32").rows if unit.kind == "stand-in" else ACCUMULATORS_DOWN * unit.tile("f32").rows


def core_workers(chip: Chip, threads: int | None) -> tuple[WorkerPlan, ...]:
    """One CPU worker on each of the first `threads` cores (all cores if None), in the chip's order.

    PlanError if the chip has fewer.
    """
    return tuple(
        WorkerPlan(role="cpu", cluster=chip.instance_of(core).name, core=core)
        for core in range(_checked_threads(chip, threads))
    )


def matrix_workers(chip: Chip, threads: int | None) -> tuple[WorkerPlan, ...]:
    """Workers on the first `threads` cores, of which those that help drive the matrix units and at least one does not.

    A unit gets as many drivers as raise its rate, the chip's `useful_drivers`. PlanError if the chip has no unit for
    f32, or too few cores are asked for.
    """
    count = _checked_threads(chip, threads)
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
