"""The terms of the prediction that can be switched off by name, so that an ablation is one command.

Some belong to the sharing and synchronising that is simulated here, the others to the cost of a task
(`hwmodel.cost`); a user does not have to know which.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from smesim.errors import SmesimError
from smesim.hwmodel.cost import COST_EFFECTS

SYSTEM_EFFECTS: dict[str, str] = {
    "contention": "transfers under way at the same time share the bandwidth of the links they cross",
    "agent_cap": "one core or unit cannot draw more from a level than it was seen to draw alone",
    "shared_unit": "threads that drive one matrix unit share its rate",
    "oversubscription": "a matrix unit slows down (or speeds up) with the number of threads that drive it",
    "dispatch": "handing a task to its worker takes time",
    "barrier": "waiting workers learn of the end of a stage that ran on several workers a little later",
}

EFFECTS: dict[str, str] = SYSTEM_EFFECTS | COST_EFFECTS
"""Every effect, with what it means in one sentence."""

ALL_EFFECTS: frozenset[str] = frozenset(EFFECTS)


def check_effects(names: Iterable[str]) -> frozenset[str]:
    """The names as a set; SmesimError names the effects there are if one of them is not an effect."""
    chosen = frozenset(names)
    unknown = sorted(chosen - ALL_EFFECTS)
    if unknown:
        raise SmesimError(f"unknown effect {unknown[0]!r}; accepted: {', '.join(EFFECTS)}")
    return chosen


def without(names: Collection[str]) -> frozenset[str]:
    """All effects but the named ones."""
    return ALL_EFFECTS - check_effects(names)
