"""What a thread computes with: its core, also where it drives a matrix unit; or a stand-in for one.

A unit of kind "stand-in" is the core itself with wider kernels, so tasks cost on it what they would cost on a core with
the unit's rates and kernels. Whoever drives a real unit has its core for what the unit does badly.
"""

from __future__ import annotations

from smesim.hwmodel.chip import Chip, Cluster, MatrixUnit


def computing_core(chip: Chip, core: int, unit: int | None = None) -> tuple[str, Cluster]:
    """The core of a thread, as a cluster of such cores, and a name for it: equal ones have equal names.

    `core` and `unit`, which the thread drives, are numbers counted over the chip.
    """
    instance = chip.instance_of(core)
    if unit is not None and (driven := chip.unit_instances[unit].unit).is_stand_in:
        return f"{instance.name}.{driven.name}", _as_cluster(instance.cluster, driven)
    return instance.name, instance.cluster


def _as_cluster(cluster: Cluster, unit: MatrixUnit) -> Cluster:
    """The cluster as it would be if its cores had the unit's rates and kernels."""
    core = cluster.core.model_copy(
        update={
            "isa": unit.isa, "clock_hz": unit.clock_hz, "flop_per_s": unit.flop_per_s,
            "load_bytes_per_s": unit.load_bytes_per_s, "kernels": unit.kernels,
        }
    )  # fmt: skip
    return cluster.model_copy(update={"core": core, "multi_core_factors": unit.multi_unit_factors})
