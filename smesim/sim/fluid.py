"""Shared bandwidth as a fluid: whenever a flow starts or ends, the rates of all flows are solved anew.

SimPy's resources hand out whole units to one user at a time; a memory link instead serves everybody at once.
Here a **flow** moves a number of bytes over a **path** of links at a rate that changes with the company it
has. Rates are **max-min fair** (`hwmodel.sharing`): no flow can get more without taking from one that has no more.

Between two changes the rates are constant, so the next end is known: the network keeps one pending wake-up.
What starts or ends in one instant is rated once, after all other events of that instant, so the order in
which processes ask does not matter and equal flows end together. A flow ends when its own predicted end,
rounded to the clock's tick, comes; not when a residue of bytes falls below a threshold. So rounding can
neither lose bytes nor cause a chain of ever smaller steps.

    >>> env = simpy.Environment()
    >>> network = FluidNetwork(env, {"dram": 120e9})
    >>> done = network.transfer(("dram",), n_bytes=12e9)
    >>> env.run(done)
    >>> round(env.now, 9)
    0.1
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import simpy

from smesim.errors import ChipError, ProgramError
from smesim.hwmodel.sharing import Path, max_min_rates
from smesim.sim.clock import SHARE_BANDWIDTH, PhaseEvent, whole_ticks

# Rate solutions are remembered per set of concurrent flows; the bound keeps a long run's memory flat.
REMEMBERED_SOLUTIONS = 65536

RateObserver = Callable[[float, tuple[float, ...]], None]


def check_links(links: Mapping[str, float]) -> None:
    """ChipError for a link without a positive bandwidth."""
    for name, bandwidth in links.items():
        if not bandwidth > 0:
            raise ChipError(f"link {name!r} has {bandwidth!r} bytes/s; accepted: a number above 0")


def check_path(links: Mapping[str, float], path: Path, cap: float) -> None:
    """ProgramError for an unknown link, a link named twice, or a cap that is not positive."""
    for link in path:
        if link not in links:
            raise ProgramError(f"transfer over unknown link {link!r}; there are {', '.join(links)}")
    if len(set(path)) != len(path):
        raise ProgramError(f"transfer crosses a link twice: {' -> '.join(path)}; accepted: each link once")
    if not cap > 0:
        raise ProgramError(f"transfer with a cap of {cap!r} bytes/s; accepted: a number above 0")


def check_amount(n_bytes: float) -> None:
    """ProgramError for bytes that are not finite and non-negative."""
    if not 0.0 <= n_bytes < math.inf:
        raise ProgramError(f"transfer of {n_bytes!r} bytes; accepted: a finite number, 0 or more")


@dataclass(frozen=True, slots=True)
class _Kind:
    """Flows of one kind take the same path with the same cap, so they always have the same rate."""

    path: Path
    cap: float
    alone: float  # bytes per second with no other flow about


@dataclass(frozen=True, slots=True)
class _Solution:
    """Rates for one set of concurrent flows: bytes per second by kind, and the sum granted on every link."""

    rates: dict[int, float]
    granted: tuple[float, ...]


class _Flow:
    """One transfer under way: `remaining` bytes were left at `since`, and shrink at `rate` until `end`."""

    __slots__ = ("done", "end", "kind", "rate", "remaining", "since")

    def __init__(self, kind: int, n_bytes: float, now: float, done: simpy.Event) -> None:
        self.kind = kind
        self.remaining = n_bytes
        self.since = now
        self.rate = 0.0
        self.end = math.inf
        self.done = done


class FluidNetwork:
    """Links that concurrent transfers share.

    links: bytes per second by name. With `contention` off every flow gets what it would get alone: its cap or
    its narrowest link. `observer(now, granted)` is told, once an instant and only when it changed, the bytes
    per second granted on every link, in the order of `links`; the grant holds until the next call. Raises
    ChipError for a link without a positive bandwidth.
    """

    def __init__(
        self,
        env: simpy.Environment,
        links: Mapping[str, float],
        *,
        contention: bool = True,
        observer: RateObserver | None = None,
    ) -> None:
        check_links(links)
        self._env = env
        self._links = dict(links)
        self._contention = contention
        self._observer = observer
        self._kinds: list[_Kind] = []
        self._kind_index: dict[tuple[Path, float], int] = {}
        self._solutions: dict[tuple[int, ...], _Solution] = {}
        self._flows: list[_Flow] = []
        self._granted = (0.0,) * len(self._links)
        self._wake_up: PhaseEvent | None = None
        self._wake_at = math.inf

    @property
    def links(self) -> Mapping[str, float]:
        """Bytes per second by link, in the order the observer sees."""
        return self._links

    @property
    def granted_bytes_per_s(self) -> dict[str, float]:
        """What each link carries now (up to the last instant that was rated)."""
        return dict(zip(self._links, self._granted, strict=True))

    @property
    def flows(self) -> int:
        """Transfers under way."""
        return len(self._flows)

    def transfer(self, path: Path, n_bytes: float, cap_bytes_per_s: float = math.inf) -> simpy.Event:
        """Start to move bytes over a path; the event fires when the last byte has moved.

        Nothing to move, or no limit on the way, ends in this instant. Raises ProgramError for an unknown
        link, a link named twice, bytes that are not finite and non-negative, or a cap that is not positive.
        """
        done = simpy.Event(self._env)
        index = self._kind_index.get((path, cap_bytes_per_s))
        if index is None:
            index = self._add_kind(path, cap_bytes_per_s)
        check_amount(n_bytes)
        if n_bytes == 0 or self._kinds[index].alone == math.inf:
            return done.succeed()
        now = self._env.now
        self._flows.append(_Flow(index, n_bytes, now, done))
        if self._wake_at != now:
            self._wake_after(0.0, now)
        return done

    def _add_kind(self, path: Path, cap: float) -> int:
        check_path(self._links, path, cap)
        self._kinds.append(_Kind(path, cap, min([cap, *(self._links[link] for link in path)])))
        self._kind_index[path, cap] = len(self._kinds) - 1
        return len(self._kinds) - 1

    def _wake_after(self, delay: float, at: float) -> None:
        if self._wake_up is not None:
            self._wake_up.callbacks = []  # SimPy cannot unschedule; an event without callbacks does nothing
        self._wake_up = PhaseEvent(self._env, SHARE_BANDWIDTH, delay, self._settle)
        self._wake_at = at

    def _settle(self, _: simpy.Event) -> None:
        """End what ends now; once nothing more does, rate the rest and wake up at the next end."""
        now = self._env.now
        due = self._wake_at
        self._wake_up = None
        ended = [flow for flow in self._flows if flow.end <= due]
        if ended:
            self._flows = [flow for flow in self._flows if flow.end > due]
            for flow in ended:
                flow.done.succeed()
            # Who waited for these may start the next flow in this same instant: rate when they have.
            self._wake_after(0.0, now)
            return
        self._wake_at = math.inf
        solution = self._solve()
        next_end = math.inf
        for flow in self._flows:
            rate = solution.rates[flow.kind]
            if rate != flow.rate:
                # Only a flow whose rate changes is brought up to date, so an undisturbed flow gathers no
                # rounding.
                flow.remaining = max(0.0, flow.remaining - flow.rate * (now - flow.since))
                flow.since = now
                flow.rate = rate
                flow.end = now + whole_ticks(flow.remaining / rate)
            next_end = min(next_end, flow.end)
        if next_end < math.inf:
            self._wake_after(max(0.0, next_end - now), next_end)
        if self._observer is not None and solution.granted != self._granted:
            self._observer(now, solution.granted)
        self._granted = solution.granted

    def _solve(self) -> _Solution:
        key = tuple(sorted([flow.kind for flow in self._flows]))
        solution = self._solutions.get(key)
        if solution is None:
            if len(self._solutions) >= REMEMBERED_SOLUTIONS:
                self._solutions.clear()
            solution = self._solutions[key] = self._solve_anew(key)
        return solution

    def _solve_anew(self, key: tuple[int, ...]) -> _Solution:
        # Kinds are numbered by first use; solving in an order of their own makes the rounding independent of
        # history.
        order = sorted(key, key=lambda index: (self._kinds[index].path, self._kinds[index].cap))
        kinds = [self._kinds[index] for index in order]
        if self._contention:
            rates = max_min_rates([kind.path for kind in kinds], [kind.cap for kind in kinds], self._links)
        else:
            rates = [kind.alone for kind in kinds]
        granted = dict.fromkeys(self._links, 0.0)
        for kind, rate in zip(kinds, rates, strict=True):
            for link in kind.path:
                granted[link] += rate
        return _Solution(dict(zip(order, rates, strict=True)), tuple(granted.values()))
