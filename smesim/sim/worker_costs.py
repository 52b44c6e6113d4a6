"""What computes where a worker runs: its core, or the matrix unit that it drives.

A unit of kind "stand-in" is the core itself with wider kernels, so tasks cost on it what they would cost on a core with
the unit's rates and kernels.
"""

from __future__ import annotations

from smesim.errors import ProgramError
from smesim.hwmodel.chip import Chip, Cluster, MatrixUnit
from smesim.plan.lower import CPU_ROLE
from smesim.plan.program import Array

STAND_IN = "stand-in"


def engine_of(chip: Chip, worker: Array) -> tuple[str, Cluster]:
    """What a worker of a program computes with, as a cluster of such cores, and a name for it: equal workers have equal
    names. ProgramError for what has no costs."""
    instance = chip.instance_of(int(worker["core"]))
    if worker["role"] == CPU_ROLE:
        return instance.name, instance.cluster
    number = int(worker["unit"])
    if not 0 <= number < len(chip.unit_instances):
        raise ProgramError(f"a worker drives matrix unit {number}; {chip.name} has {len(chip.unit_instances)}")
    unit = chip.unit_instances[number].unit
    if unit.kind == STAND_IN:
        return f"{instance.name}.{unit.name}", _as_cluster(instance.cluster, unit)
    raise ProgramError(
        "a worker drives a matrix unit; accepted: 'cpu' workers and units of kind 'stand-in', whose kernels have costs"
    )


def _as_cluster(cluster: Cluster, unit: MatrixUnit) -> Cluster:
    """The cluster as it would be if its cores had the unit's rates and kernels."""
    core = cluster.core.model_copy(
        update={
            "isa": unit.isa, "clock_hz": unit.clock_hz, "flop_per_s": unit.flop_per_s,
            "load_bytes_per_s": unit.load_bytes_per_s, "kernels": unit.kernels,
        }
    )  # fmt: skip
    return cluster.model_copy(update={"core": core, "multi_core_factors": unit.multi_unit_factors})

