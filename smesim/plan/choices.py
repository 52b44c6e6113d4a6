"""Which modes an operator can run in, and how long each would take: the analytic answer, in microseconds of planning.

For each mode the agents that take part share the operator so that all end together, each at its kernels' pace and at
its part of the memory's bandwidth; a barrier is paid where there are several workers. Nothing is simulated.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from smesim.hwmodel.chip import Chip
from smesim.hwmodel.links import LinkNetwork
from smesim.plan.agents import Agent
from smesim.plan.appending import Appending
from smesim.plan.formats import cache_number, weights_format
from smesim.plan.party import Staff
from smesim.plan.pipeline import fitted
from smesim.plan.schema import Mode, OperatorPlan, PipelinePlan, WorkerPlan
from smesim.plan.split import Share, divide
from smesim.plan.tiles import NR, experts_with_rows
from smesim.workload.graph import OperatorGraph, Role
from smesim.workload.operators import Attention, GroupedLinear, KvAppend, Linear, Operator

QUERY_BLOCK_TOKENS, UNIT_QUERY_BLOCK_TOKENS = 64, 32
"""Tokens of a task of fused attention: a core reads the keys once for so many; a unit has them in its tiles anyway, and
with fewer all end more nearly together."""
PAST_SPLITS = (1, 2, 3, 4, 6, 8, 16)
LEAST_PART = 64
"""Keys that a part of the past has at least."""
WORTH_DIVIDING = 0.05
"""Part of the time that dividing the past, or rows as well as columns, must be predicted to save."""
MOST_WAVES = 8
"""Blocks for each agent up to which a product is cut finer by rows."""
PIPELINE: dict[str, Any] = {"depth": 4, "query_block": 128, "key_block": 512}
"""Blocks of attention in stages: large enough for a unit's tiles, small enough that several are in flight."""


class Choice(NamedTuple):
    """One way to run an operator: who takes part, `parts` of the work for each (panels, or shares), and seconds.

    With a `pipeline` matrix units multiply while cores do the softmax; without, each does whole tasks. The past of
    attention to one token may be divided into `past_split` parts, a product into `row_parts` blocks of rows as well.
    """

    mode: Mode
    agents: tuple[Agent, ...]
    parts: tuple[float, ...]
    seconds: float
    bound: str
    pipeline: PipelinePlan | None = None
    past_split: int = 1
    row_parts: int = 1

    @property
    def is_even(self) -> bool:
        """Whether all that take part are alike."""
        return len({agent.kind for agent in self.agents}) == 1


class Choices:
    """The choices for the operators of one graph on one chip, with given workers."""

    def __init__(self, chip: Chip, graph: OperatorGraph, workers: tuple[WorkerPlan, ...]) -> None:
        self._chip = chip
        self._graph = graph
        self._numbers = weights_format(graph)
        self._network = LinkNetwork.of(chip)
        self._known_s: dict[tuple[str, int], float] = {}
        self._staff = Staff.of(chip, workers, self._numbers)
        self._cores, self._units = self._staff.cores, self._staff.units

    def of(self, operator: Operator) -> tuple[Choice, ...]:
        """The modes that there are for an operator, fastest first; none for work that is done row by row."""
        if not isinstance(operator, Linear | GroupedLinear | Attention):
            return ()
        self._known_s.clear()
        cores, units = self._cores, self._units
        if isinstance(operator, Linear):
            cores, units = self._staff.able(operator.m == 1)
        teams: list[tuple[Mode, tuple[Agent, ...]]] = [("cpu", cores), ("matrix", units)]
        if cores and units:
            teams.append(("cooperative", (*units, *cores)))
        found = [self._choice(mode, team, operator) for mode, team in teams if team]
        if isinstance(operator, Attention) and operator.tokens > 1 and self._units and self._cores:
            found.append(self._staged(operator))
        # Where only one kind is fast enough to take part there is no cooperation, and its own mode says so.
        real = [c for c in found if c.mode != "cooperative" or len({agent.role for agent in c.agents}) == 2]
        return tuple(sorted(real, key=lambda choice: choice.seconds))

    def packers(self, operator: Linear) -> tuple[int, ...]:
        """Who packs a left operand fastest where units take part: the cores, or those who drive the units."""
        teams = [team for team in (self._cores, self._units) if team]
        elements = operator.m * operator.k

        def rate(team: tuple[Agent, ...]) -> float:
            alike = {agent.kind: agent for agent in team}
            count = Counter(agent.kind for agent in team)
            return sum(count[kind] / agent.pack_s(elements) for kind, agent in alike.items())

        return tuple(worker for agent in max(teams, key=rate) for worker in agent.workers)

    def of_append(self, operator: KvAppend, entry: OperatorPlan) -> OperatorPlan:
        """The entry, with who packs keys and values where units take part."""
        if not self._units:
            return entry
        number = cache_number(self._graph.dtypes.kv)
        cores = tuple(self._staff.everybody[worker] for worker in entry.workers)
        ways = Appending(self._chip, self._network, operator, number, entry, cores, self._units)
        return ways.with_packers()

    def _choice(self, mode: Mode, agents: tuple[Agent, ...], operator: Operator) -> Choice:
        if isinstance(operator, Attention) and operator.tokens == 1:
            return self._one_token(mode, agents, operator)
        match operator:
            case Linear():
                in_rows = self._rows_and_columns(mode, agents, operator)
                agents, parts, seconds, bound = self._columns(agents, operator)
                if in_rows is not None and in_rows.seconds < seconds * (1 - WORTH_DIVIDING):
                    return in_rows
            case Attention():
                tokens = query_block(operator, agents)
                tasks = -(-operator.tokens // tokens) * operator.kv_heads * operator.batch
                alone = self._alone_s(agents, lambda agent: agent.attention_s(operator, tokens))
                # The last tokens of a prompt see all keys, the first none: the longest task against the mean.
                seen = operator.past + operator.tokens
                longest = 1.0 if operator.tokens <= tokens else seen / (seen - operator.tokens / 2)
                agents, parts, seconds, bound = self._drawn(operator, agents, alone, tasks / longest)
            case GroupedLinear():
                mr, experts = strip_height(agents), experts_with_rows(operator)
                alone = self._alone_s(agents, lambda agent: agent.experts_s(operator, mr), mr)
                agents, parts, seconds, bound = self._drawn(operator, agents, alone, experts)
            case _:
                raise TypeError(f"{operator.kind} has no choices")
        if self._staff.party(agents).workers > 1:
            seconds += self._chip.sync.barrier_s.value
        return Choice(mode, agents, tuple(parts), seconds + self._chip.sync.dispatch_s.value, bound)

    def _alone_s(self, agents: Sequence[Agent], seconds: Callable[[Agent], float], form: int = 0) -> list[float]:
        """Seconds of each agent for the operator in hand, worked out once for all teams and for those that are alike;
        `form` tells apart ways to do the operator."""
        for agent in agents:
            if (agent.kind, form) not in self._known_s:
                self._known_s[agent.kind, form] = seconds(agent)
        return [self._known_s[agent.kind, form] for agent in agents]

    def _one_token(self, mode: Mode, agents: tuple[Agent, ...], operator: Attention) -> Choice:
        """Attention of one token, a task a head; its past divided where there are fewer heads than would keep all busy.

        Each part costs a task more, and all together another round in which a task for each head adds them up.
        """
        sync, heads, best = self._chip.sync, operator.kv_heads * operator.batch, None
        for parts in PAST_SPLITS:
            if parts == 2:  # parts of the past are work for cores, also for those who drive a unit
                roles = {agent.role for agent in agents}
                agents = tuple(agent for agent in self._staff.everybody if agent.role in roles)
            if parts > 1 and operator.past // parts < LEAST_PART:
                break
            alone = self._alone_s(agents, lambda agent: agent.attention_s(operator, 1))
            taken, shares, seconds, bound = self._drawn_alike(operator, agents, alone, heads * parts)
            workers = sum(len(agent.workers) for agent in taken)
            rounds = -(-heads * parts // workers)
            seconds += rounds * sync.dispatch_s.value + (sync.barrier_s.value if workers > 1 else 0.0)
            if parts > 1:
                elements = (parts + 1) * heads * operator.heads // operator.kv_heads * operator.head_dim
                added_s = agents[-1].core.combine_s(parts * heads, elements) / min(workers, heads)
                seconds += added_s + -(-heads // workers) * sync.dispatch_s.value + sync.barrier_s.value
            if best is None or seconds < best.seconds * (1 - WORTH_DIVIDING):
                best = Choice(mode, taken, tuple(shares), seconds, bound, past_split=parts)
        assert best is not None
        return best

    def _staged(self, operator: Attention) -> Choice:
        """Attention as a pipeline: the slower of both stages sets the pace. The units wait for the softmax of their
        last block if no other's products are left by then; the cores for the first scores, and at the end the products
        for them.

        A chain waits for each of its blocks, so a slow unit or core would hold up the fast ones: the fastest kind of
        each takes part.
        """
        units, cores = _fastest(self._units), _fastest(self._cores)
        lanes = max(len(cores), sum(len(unit.workers) for unit in units))
        pipeline = fitted(operator, PipelinePlan(**PIPELINE, lanes=lanes, qk="matrix", softmax="cpu", pv="matrix"))
        products_one_s, _ = units[0].stages_s(operator, pipeline)
        _, softmax_one_s = cores[0].stages_s(operator, pipeline)
        products_s, softmax_s = products_one_s / len(units), softmax_one_s / len(cores)
        chains = -(-operator.tokens // pipeline.query_block) * operator.kv_heads * operator.batch
        blocks = chains * -(-(operator.past + operator.tokens) // pipeline.key_block)
        products_block_s, softmax_block_s = products_one_s / blocks, softmax_one_s / blocks
        others_s = products_block_s / 2 * (min(chains / len(units), pipeline.lanes) - 1)
        products_s += max(0.0, softmax_block_s - others_s)
        softmax_s += products_block_s
        sync = self._chip.sync
        hand_over_s = blocks / pipeline.lanes * (sync.dispatch_s.value + sync.barrier_s.value)
        seconds = max(products_s, softmax_s) + hand_over_s
        parts = (1.0,) * (len(units) + len(cores))
        return Choice("cooperative", (*units, *cores), parts, seconds, "compute", pipeline)

    def _rows_and_columns(self, mode: Mode, agents: tuple[Agent, ...], operator: Linear) -> Choice | None:
        """A product cut by rows as well, where there are more agents than parts of its columns: blocks of rows times
        steps of columns, as many for each as for the others. None of one row, or for agents that are not alike."""
        if operator.m == 1 or len(agents) == 1 or len(self._staff.party(agents).one_of) > 1:
            return None
        one, mr, sync = agents[0], strip_height(agents), self._chip.sync
        granule = one.granule(operator.m)
        panels, strips = -(-operator.n // NR), -(-operator.m // mr)
        steps = -(-panels // granule)
        best: Choice | None = None
        for row_parts in range(2, min(strips, -(-MOST_WAVES * len(agents) // steps)) + 1):
            block_rows = min(operator.m, -(-strips // row_parts) * mr)
            waves = -(-row_parts * steps // len(agents))
            seconds = waves * (one.columns_s(block_rows, mr, granule, operator.k) + sync.dispatch_s.value)
            seconds += sync.barrier_s.value
            if best is None or seconds < best.seconds:
                best = Choice(mode, agents, (1.0,) * len(agents), seconds, "compute", row_parts=row_parts)
        streamed_s = self._graph.read_bytes(operator, Role.WEIGHT) / self._staff.party(agents).bytes_per_s
        return None if best is None or best.seconds < streamed_s else best

    def _columns(
        self, agents: tuple[Agent, ...], operator: Linear
    ) -> tuple[tuple[Agent, ...], list[float], float, str]:
        """Columns for each, so that all end together: at its own pace, or at its part of the memory's bandwidth."""
        panels, mr, party = -(-operator.n // NR), strip_height(agents), self._staff.party(agents)
        panel_bytes = float(self._numbers.rhs_bytes(NR, operator.k))
        steps: dict[str, tuple[int, float]] = {}
        for kind, agent in party.one_of.items():
            granule = agent.granule(operator.m)
            steps[kind] = (granule, agent.columns_s(operator.m, mr, granule, operator.k))
        rates = party.rates({kind: granule * panel_bytes / step_s for kind, (granule, step_s) in steps.items()})
        shares = [
            Share(max(steps[kind][1], steps[kind][0] * panel_bytes / rate), steps[kind][0])
            for kind, rate in zip(party.kinds, rates, strict=True)
        ]
        taken, seconds = divide([shares[group] for group in party.group_of], panels)
        most = dict.fromkeys(steps, 0)
        for agent, n in zip(agents, taken, strict=True):
            most[agent.kind] = max(most[agent.kind], n)
        computing = max([-(-most[kind] // granule) * step_s for kind, (granule, step_s) in steps.items()])
        bound = "compute" if computing >= 0.99 * seconds else "bandwidth"
        if not all(taken):
            agents = tuple([agent for agent, n in zip(agents, taken, strict=True) if n])
        return agents, [float(n) for n in taken if n], seconds, bound

    def _drawn_alike(
        self, operator: Attention, agents: tuple[Agent, ...], alone_s: Sequence[float], tasks: int
    ) -> tuple[tuple[Agent, ...], list[float], float, str]:
        """So many tasks of one size that whoever is free draws: by the fastest kind alone, or with the next as well
        where that is worth waiting for the slow one that draws last."""
        order = sorted(range(len(agents)), key=lambda i: alone_s[i])
        best: tuple[float, list[int]] | None = None
        for end in range(1, len(order) + 1):
            if end < len(order) and agents[order[end]].kind == agents[order[end - 1]].kind:
                continue  # all of a kind, as far as there are tasks for them
            team = order[: min(end, tasks)]
            seconds = drawn_s([alone_s[i] / tasks for i in team], tasks)
            if best is None or seconds < best[0]:
                best = seconds, team
        assert best is not None
        seconds, taken = best[0], sorted(best[1])
        chosen = tuple(agents[i] for i in taken)
        transfer_s = self._streamed_s(operator, chosen)
        bound = "compute" if seconds >= transfer_s else "bandwidth"
        return chosen, [1 / alone_s[i] for i in taken], max(seconds, transfer_s), bound

    def _streamed_s(self, operator: Operator, agents: tuple[Agent, ...]) -> float:
        """Seconds in which agents read all weights, keys and values of an operator from memory."""
        streamed = self._graph.read_bytes(operator, Role.WEIGHT) + self._graph.read_bytes(operator, Role.KV)
        return streamed / self._staff.party(agents).bytes_per_s

    def _drawn(
        self, operator: Operator, agents: tuple[Agent, ...], alone_s: Sequence[float], tasks: float
    ) -> tuple[tuple[Agent, ...], list[float], float, str]:
        """Tasks that whoever is free draws, the longest of them one of `tasks`: speeds add up, of those fast enough.

        Who needs longer for a task than the others for all that is left would be waited for, and is left out.
        """
        order = sorted(range(len(agents)), key=lambda i: alone_s[i])
        taken, speed, seconds = order[:1], 1 / alone_s[order[0]], alone_s[order[0]]
        for i in order[1:]:
            together = max(1 / (speed + 1 / alone_s[i]), alone_s[i] / tasks)
            if together >= seconds:
                break
            taken, speed, seconds = [*taken, i], speed + 1 / alone_s[i], together
        taken.sort()
        chosen = tuple(agents[i] for i in taken)
        transfer_s = self._streamed_s(operator, chosen)
        bound = "compute" if seconds >= transfer_s else "bandwidth"
        return chosen, [1 / alone_s[i] for i in taken], max(seconds, transfer_s), bound


def drawn_s(task_s: Sequence[float], tasks: int) -> float:
    """When the last of so many tasks ends that workers draw from a queue, each as soon as it is free; `task_s` is what
    each worker takes for a task. The first in line draws first."""
    if len(set(task_s)) == 1:
        return -(-tasks // len(task_s)) * task_s[0]
    free = [(0.0, i) for i in range(len(task_s))]
    last_s = 0.0
    for _ in range(tasks):
        at_s, worker = heapq.heappop(free)
        last_s = max(last_s, at_s + task_s[worker])
        heapq.heappush(free, (at_s + task_s[worker], worker))
    return last_s


def query_block(operator: Attention, agents: Sequence[Agent]) -> int:
    """Tokens of a task of fused attention, for those who take part."""
    on_units = any(agent.unit is not None for agent in agents)
    return min(operator.tokens, UNIT_QUERY_BLOCK_TOKENS if on_units else QUERY_BLOCK_TOKENS)


def strip_height(agents: Sequence[Agent]) -> int:
    """The height of packed strips that suits those who read them: a unit's, where one takes part."""
    return next((agent for agent in agents if agent.role == "matrix"), agents[0]).strip_height


def _fastest(agents: Sequence[Agent]) -> tuple[Agent, ...]:
    """Those of the kind that draws and computes most."""
    best = max({agent.kind: agent for agent in agents}.values(), key=lambda agent: agent.strength)
    return tuple(agent for agent in agents if agent.kind == best.kind)
