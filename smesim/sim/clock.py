"""Simulated time: in whole ticks, and with an order inside each instant.

**Ticks.** A float sum of seconds depends on where on the time axis it happens: the same work gives other last
bits at 3 s than at 0 s, and two ends that should coincide may fall in either order. Every duration in a
simulation is therefore a whole number of ticks of 2**-43 s (0.11 ps). Such numbers, and their sums and
differences, are exact in a float up to 2**10 s. What happens after a moment then depends only on the state at
that moment, not on the moment: a simulated layer can be shifted in time and is, bit for bit, what it would
have been there.

**Phases.** What happens at one time happens in this order, again and again until nothing is left: what SimPy
schedules itself (ends of work); then bandwidth is shared anew; then the workers that became free go on, in
the order of their numbers; then the tasks that became ready start. So the outcome does not depend on who was
scheduled first.
"""

from __future__ import annotations

from collections.abc import Callable

import simpy
from simpy.events import EventPriority

TICKS_PER_S = 2.0**43
TICK_S = 1.0 / TICKS_PER_S

# SimPy serves the lowest number first; its own are URGENT = 0 and NORMAL = 1.
SHARE_BANDWIDTH = 2
WORKER_GOES_ON = 16  # plus the worker's number
RELEASE_TASKS = 1 << 20


def whole_ticks(seconds: float) -> float:
    """The duration in seconds, rounded to the nearest whole number of ticks."""
    return round(seconds * TICKS_PER_S) * TICK_S


class PhaseEvent(simpy.Event):
    """Happens `delay` seconds from now, in the given phase of that instant; then calls back, if asked to."""

    def __init__(
        self,
        env: simpy.Environment,
        phase: int,
        delay: float = 0.0,
        callback: Callable[[simpy.Event], None] | None = None,
    ) -> None:
        super().__init__(env)
        if callback is not None:
            self.callbacks.append(callback)
        self._ok = True
        self._value = None
        env.schedule(self, EventPriority(phase), delay)
