"""How many matrix units this machine has, which is neither one for all cores nor one for each.

A core hands its streaming work to a unit that it may share. Arm's register SMIDR_EL1, which Linux shows for every core,
says with which cores: those with the same affinity share one unit, or the few that belong together. macOS shows no such
register; on Apple's chips the cores of a cluster share a unit, and a cluster is what shares an L2 cache. Elsewhere
nobody says it. What the system says can be overridden, for it may be wrong or silent.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from smesim.errors import DeviceError

COUNT_VARIABLE = "SMESIM_MATRIX_UNITS"
"""Environment variable that overrides what the system says."""

_SYSFS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class MatrixUnits:
    """How many there are, None where nobody says it; and who says it."""

    count: int | None
    source: str


def matrix_units(there_are_any: bool, sysctl: Callable[[str], int]) -> MatrixUnits:
    """The matrix units of this machine, from the first source that says something.

    `sysctl` gives a number of macOS by its name, -1 where there is none. DeviceError if the override is no count.
    """
    if (forced := os.environ.get(COUNT_VARIABLE)) is not None:
        return MatrixUnits(_count(forced), f"{COUNT_VARIABLE}={forced}")
    if not there_are_any:
        return MatrixUnits(0, "there is no matrix extension")
    if registers := _smidr_registers():
        return MatrixUnits(units_of_registers(registers), f"SMIDR_EL1 of {len(registers)} cores (Linux sysfs)")
    if levels := _units_of_clusters(sysctl):
        clusters = ", ".join(f"{units} in hw.perflevel{level}" for level, units in levels.items())
        return MatrixUnits(sum(levels.values()), f"one for each cluster (macOS sysctl): {clusters}")
    return MatrixUnits(None, f"this system does not say; {COUNT_VARIABLE}=N does")


def units_of_registers(registers: Mapping[int, int]) -> int:
    """Units behind the cores whose SMIDR_EL1 is given: those that are shared once, the others with each core.

    Its fields are those of the Arm Architecture Registers: SH (bits 14:13) is 2 for a unit of its own, 3 for a shared
    one, and 0 on older cores, where an Affinity (11:0) of 0 means one of its own. The cores with the same Affinity2
    (51:32) and Affinity share NSMC + 1 units (59:56).
    """
    own, shared = 0, {}
    for register in registers.values():
        sharing, affinity = register >> 13 & 0b11, register & 0xFFF
        if sharing == 0b10 or (sharing == 0b00 and affinity == 0):
            own += 1
        else:
            shared[register >> 32 & 0xFFFFF, affinity] = (register >> 56 & 0xF) + 1
    return own + sum(shared.values())


def _smidr_registers() -> dict[int, int]:
    """SMIDR_EL1 of each core that Linux shows it of; {} without SME, or where it may not be read."""
    found = {}
    for file in _SYSFS.glob("cpu[0-9]*/regs/identification/smidr_el1"):
        try:
            found[int(file.parts[-4].removeprefix("cpu"))] = int(file.read_text(encoding="ascii"), 16)
        except (OSError, ValueError):
            continue  # a core that was switched off meanwhile
    return found


def _units_of_clusters(sysctl: Callable[[str], int]) -> dict[int, int]:
    """Clusters of each level of performance; {} where there is no macOS to say it."""
    found = {}
    for level in range(max(sysctl("hw.nperflevels"), 0)):
        cores = sysctl(f"hw.perflevel{level}.physicalcpu")
        in_cluster = sysctl(f"hw.perflevel{level}.cpusperl2")
        if cores > 0 and in_cluster > 0:
            found[level] = -(-cores // in_cluster)
    return found


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise DeviceError(f"{COUNT_VARIABLE}={text} is no number of matrix units; accepted: 0, 1, 2 ...")
    return int(text)
