"""How fast one instruction issues: what a loop of nothing else reaches, on a core or on a matrix unit.

An instruction does `flop` arithmetic, can be issued every `cycles` cycles (a core with four pipes: every 0.25), and the
next one on the *same* accumulator has to wait `latency_cycles`. So a loop over `chains` independent accumulators issues
every max(cycles, latency_cycles / chains) cycles: with too few chains an engine idles, and with enough it runs at its
peak. The names say operation and operands: `fma_f32`, `dot_s8`, `mmla_bf16`, `outer_f16_f32`.

A matrix unit takes instructions from several threads. Each of them then keeps only `sharing.kept` of the issue rate
that its own chains would allow, because it comes to a unit that is busy with the others; and since the threads are not
in step the sum stays below demand and below peak near the knee, the more so the lower `sharing.order` is (a perfect
queue has an infinite order). One thread alone has the unit to itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated

from pydantic import Field

from smesim.errors import ChipError
from smesim.hwmodel.quantity import Cycles, Factor, Quantity, Record

MANY_CHAINS = 10**6
"""More independent accumulators than any latency needs."""


class Instruction(Record):
    """One instruction, as a loop without loads sees it."""

    flop: Annotated[int, Field(ge=1)]
    cycles: Cycles
    latency_cycles: Cycles | None = None

    def flop_per_s(self, clock_hz: float, chains: int = MANY_CHAINS) -> float:
        """Rate of one thread that keeps so many independent accumulators going."""
        latency = 0.0 if self.latency_cycles is None else self.latency_cycles.value
        return self.flop * clock_hz / max(self.cycles.value, latency / chains)


class Sharing(Record):
    """How threads get in each other's way when they issue to one matrix unit."""

    kept: Factor
    order: Quantity

    def together(self, alone: float, peak: float, threads: int) -> float:
        """Rate of `threads` threads that would each reach `alone` on a unit that does at most `peak`."""
        if threads <= 1:
            return min(threads * alone, peak)
        demand, order = threads * alone * self.kept.value, self.order.value
        return float((demand**-order + peak**-order) ** (-1.0 / order))


Instructions = Mapping[str, Instruction]


def instruction(known: Instructions, name: str, owner: str) -> Instruction:
    """The instruction of that name; ChipError lists those that the owner has."""
    if name not in known:
        raise ChipError(f"{owner} has no instruction {name!r}; accepted: {', '.join(known) or 'none is known'}")
    return known[name]


def unit_flop_per_s(
    operation: Instruction, clock_hz: float, sharing: Sharing | None, threads: int, chains: int,
    effects: Collection[str],
) -> float:  # fmt: skip
    """Rate of a matrix unit that `threads` threads drive, each with `chains` independent accumulators.

    Effects: without `accumulators` a loop never waits for a sum, without `shared_unit` every thread has a unit of its
    own, without `oversubscription` threads do not disturb each other.
    """
    chains = chains if "accumulators" in effects else MANY_CHAINS
    alone, peak = operation.flop_per_s(clock_hz, chains), operation.flop_per_s(clock_hz)
    if "shared_unit" not in effects:
        return threads * alone
    if sharing is None or "oversubscription" not in effects:
        return min(threads * alone, peak)
    return sharing.together(alone, peak, threads)
