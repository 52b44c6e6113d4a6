"""Who packs keys and values: all cores by their vectors, or those who drive matrix units by turning tiles over.

Caches are read packed, so whoever appends to them packs. It is work row by row, which all cores share; but a unit
turns rows into columns with nothing else than loads and stores. Both are worked out with the costs that the simulator
gives to these tasks, and the plan says what is predicted to end first: `packers` of the entry, or none where it is the
cores of its own workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from smesim.hwmodel.chip import Chip
from smesim.hwmodel.links import LinkNetwork
from smesim.plan.agents import Agent, Agents, streaming_rates
from smesim.plan.program import Number
from smesim.plan.schema import Mode, OperatorPlan, Reason, RunnerUp
from smesim.plan.tiles import Hands, appended_tokens, packing_hands, share_bounds
from smesim.workload.operators import KvAppend

WRITE_FACTOR = 2.0
"""Bytes that a written one moves: its line is read first, from where the pass before left it."""


@dataclass(frozen=True)
class _Way:
    """An entry, whose tasks cores or units do, and the seconds that takes."""

    mode: Mode
    entry: OperatorPlan
    seconds: float


class Appending:
    """What appending the keys and values of an operator takes, with `number` as their format.

    `entry` is that of its own workers; `cores` are these, each on its own core, and `units` the matrix units with
    their drivers.
    """

    def __init__(
        self, chip: Chip, network: LinkNetwork, operator: KvAppend, number: Number, entry: OperatorPlan,
        cores: Agents, units: Agents,
    ) -> None:  # fmt: skip
        self._chip = chip
        self._network = network
        self._operator = operator
        self._number = number
        self._entry = entry
        self._cores = cores
        self._units = units
        able = (u.unit is not None and u.unit.appends(number.name.lower()) for u in units.of_kinds)
        if not all(able):
            self._units = Agents(u for u in units if u.unit is not None and u.unit.appends(number.name.lower()))

    def with_packers(self) -> OperatorPlan:
        """The entry, with drivers as packers if units are predicted to be faster than its own workers."""
        if not self._units:
            return self._entry
        fastest = min(self._units.of_kinds, key=lambda unit: self._task_s(unit, 0, self._operator.tokens)).kind
        teams = [self._units, Agents(self._units[:1])]
        if len(self._units.kinds) > 1:
            teams.insert(1, self._units.of_kind(fastest))
        on_cores = self._way("cpu", self._cores)
        on_units = min((self._way("matrix", team) for team in teams), key=lambda way: way.seconds)
        taken, other = sorted((on_cores, on_units), key=lambda way: way.seconds)
        bound = self._entry.reason.bound if self._entry.reason is not None else "bandwidth"
        runner_up = RunnerUp(mode=other.mode, predicted_s=other.seconds)
        reason = Reason(bound=bound, predicted_s=taken.seconds, runners_up=(runner_up,))
        return taken.entry.model_copy(update={"reason": reason})

    def _way(self, mode: Mode, agents: Agents) -> _Way:
        drivers = agents.workers if mode == "matrix" else ()
        entry = self._entry.model_copy(update={"packers": drivers})
        return _Way(mode, entry, self._seconds(entry, packing_hands(entry), agents))

    def _task_s(self, agent: Agent, begin: int, end: int) -> float:
        operator = self._operator
        return agent.append_s(operator.past + begin, operator.past + end, 1, operator.width, self._number.n_bytes)

    def _seconds(self, entry: OperatorPlan, hands: Hands, agents: Agents) -> float:
        """Until all tasks have ended, if the longest stands for all: computing, or writing to memory at what each has
        of its bandwidth."""
        parts = appended_tokens(self._operator, entry)
        tiles = len(parts) * self._operator.batch
        begin, end = max(parts, key=lambda tokens: tokens[1] - tokens[0])
        counts = self._counts(hands, agents, tiles)
        places = [place for place, count in enumerate(counts) if count]
        busy, counts = agents.at(places), [counts[place] for place in places]
        written_bytes = WRITE_FACTOR * 2 * self._number.n_bytes * (end - begin) * self._operator.width
        kinds_s = {agent.kind: self._task_s(agent, begin, end) for agent in busy.of_kinds}
        rates = streaming_rates(self._network, busy)
        groups = [
            (max(kinds_s[agent.kind], written_bytes / rate), places)
            for (agent, places), rate in zip(busy.groups, rates, strict=True)
        ]
        if hands.assignment == "shared" and len(hands.workers) > 1:
            speed = sum(len(places) / task_s for task_s, places in groups)
            seconds = max(tiles / speed, min(task_s for task_s, _ in groups))
        else:
            seconds = max(max(counts[place] for place in places) * task_s for task_s, places in groups)
        sync, rounds = self._chip.sync, -(-tiles // len(hands.workers))
        return seconds + rounds * sync.dispatch_s.value + (sync.barrier_s.value if tiles > 1 else 0.0)

    @staticmethod
    def _counts(hands: Hands, agents: Agents, tiles: int) -> list[int]:
        """How many of the tiles are each agent's, if they are divided as static ones are."""
        bounds = [0, *share_bounds(len(hands.workers), hands.shares, tiles)]
        counts = [end - begin for begin, end in pairwise(bounds)]
        if hands.workers == agents.workers and len(agents) == len(counts):
            return counts  # one worker an agent, in their order
        of_worker = dict(zip(hands.workers, counts, strict=True))
        return [sum(of_worker[worker] for worker in agent.workers) for agent in agents]
