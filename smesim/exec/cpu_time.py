"""How much of the machine others took while we measured."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np

OBSERVABLE_S = 0.2
"""Below this, the system's count of busy time is too coarse to say what others took."""


@dataclass(frozen=True)
class CpuTime:
    """Busy time of the machine and of this process, seconds."""

    wall_s: float
    machine_s: float | None
    own_s: float

    @classmethod
    def now(cls) -> CpuTime:
        busy: float | None = None
        try:
            with open("/proc/stat", encoding="ascii") as file:
                ticks = [int(t) for t in file.readline().split()[1:]]
            idle = ticks[3] + ticks[4]
            busy = (sum(ticks[:8]) - idle) / os.sysconf("SC_CLK_TCK")  # includes steal: time the host took
        except (OSError, ValueError, IndexError):
            busy = None
        return cls(time.monotonic(), busy, time.process_time())

    def foreign_share(self, later: CpuTime) -> float | None:
        """Share of all cores that others took between two readings, 0 .. 1.

        None where the system does not say, or in so short a time that its clock of 100 ticks a second decides.
        """
        wall = later.wall_s - self.wall_s
        if self.machine_s is None or later.machine_s is None or wall < OBSERVABLE_S:
            return None
        foreign = (later.machine_s - self.machine_s) - (later.own_s - self.own_s)
        return float(np.clip(foreign / (wall * (os.cpu_count() or 1)), 0.0, 1.0))
