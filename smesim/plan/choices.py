"""Which modes an operator can run in, and how long each would take: the analytic answer, in microseconds of planning.

For each mode the agents that take part share the operator so that all end together, each at its kernels' pace and at
its part of the memory's bandwidth; a barrier is paid where there are several workers. Nothing is simulated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from math import ceil
from typing import Any, NamedTuple

from smesim.hwmodel.chip import Chip
from smesim.hwmodel.links import LinkNetwork
from smesim.plan.agents import (
    Agent,
    Agents,
    merged,
    streamed_bytes_per_s,
    streaming_rates,
)
from smesim.plan.appending import Appending
from smesim.plan.cut import Cut, Ground, experts_by_columns, fetched_rows_bytes, rows_and_columns
from smesim.plan.drawn import drawn, drawn_alike
from smesim.plan.formats import cache_number, weights_format
from smesim.plan.pipeline import fitted
from smesim.plan.schema import Mode, OperatorPlan, PipelinePlan, WorkerPlan
from smesim.plan.split import Share, divide
from smesim.plan.staff import Staff
from smesim.plan.tiles import NR, experts_with_rows
from smesim.workload.graph import OperatorGraph, Role
from smesim.workload.operators import Attention, GroupedLinear, KvAppend, Linear, Operator

QUERY_BLOCK_TOKENS, UNIT_QUERY_BLOCK_TOKENS = 64, 32
"""Tokens of a task of fused attention: a core reads the keys once for so many; a unit has them in its tiles anyway, and
with fewer all end more nearly together."""
LEAST_QUERY_BLOCK_TOKENS = 8
PAST_SPLITS = (1, 2, 3, 4, 6, 8, 16)
LEAST_PART = 64
"""Keys that a part of the past has at least."""
WORTH_DIVIDING = 0.05
"""Part of the time that dividing the past, or rows as well as columns, must be predicted to save."""
WORTH_FIXING = 0.02
"""Part of the time that equal blocks of experts must be predicted to save against drawing tiles, by which whoever was
disturbed is helped out."""
TILES_PER_WORKER = 8
"""Tiles that every worker should get where they are drawn."""
PIPELINE: dict[str, Any] = {"depth": 4, "query_block": 128, "key_block": 512}
"""Blocks of attention in stages: large enough for a unit's tiles, small enough that several are in flight."""


class Choice(NamedTuple):
    """One way to run an operator: who takes part, `parts` of the work for each (panels, or shares), and seconds.

    With a `pipeline` matrix units multiply while cores do the softmax; without, each does whole tasks. The past of
    attention to one token may be divided into `past_split` parts, fused attention to a prompt into tasks of
    `query_block` tokens. A product may be `cut` into blocks.
    """

    mode: Mode
    agents: Agents
    parts: tuple[float, ...]
    seconds: float
    bound: str
    pipeline: PipelinePlan | None = None
    past_split: int = 1
    cut: Cut | None = None
    query_block: int = 0

    @classmethod
    def of_cut(cls, mode: Mode, agents: Agents, cut: Cut) -> Choice:
        """For agents that are alike."""
        return cls(mode, agents, (1.0,) * len(agents), cut.seconds, cut.bound, cut=cut)

    @property
    def is_even(self) -> bool:
        """Whether all that take part are alike."""
        return len(self.agents.kinds) == 1


class Choices:
    """The choices for the operators of one graph on one chip, with given workers."""

    def __init__(self, chip: Chip, graph: OperatorGraph, workers: tuple[WorkerPlan, ...]) -> None:
        self._chip = chip
        self._graph = graph
        self._numbers = weights_format(graph)
        self._network = LinkNetwork.of(chip)
        self._known_s: dict[tuple[str, int], float] = {}
        self._streamed_bytes: dict[str, float] = {}
        self._known_on_cores: dict[frozenset[str], Agents] = {}
        self._staff = Staff.of(chip, workers, self._numbers)
        self._cores, self._units, self._everybody = self._staff.cores, self._staff.units, self._staff.everybody

    def of(self, operator: Operator) -> tuple[Choice, ...]:
        """The modes that there are for an operator, fastest first; none for work that is done row by row."""
        if not isinstance(operator, Linear | GroupedLinear | Attention):
            return ()
        self._known_s.clear()
        teams = self._staff.for_any
        if isinstance(operator, Linear):
            teams = self._staff.for_vectors if operator.m == 1 else self._staff.for_matrices
        found = [self._choice(mode, team, operator) for mode, team in teams]
        if isinstance(operator, Attention) and operator.tokens > 1 and self._units and self._cores:
            found.append(self._staged(operator))
        # Where only one kind is fast enough to take part there is no cooperation, and its own mode says so.
        real = [c for c in found if c.mode != "cooperative" or len(c.agents.roles) == 2]
        return tuple(sorted(real, key=lambda choice: choice.seconds))

    def packers(self, operator: Linear) -> tuple[int, ...]:
        """Who packs a left operand fastest where units take part: the cores, those who drive the units, or all."""
        elements = operator.m * operator.k
        teams = [team for team in (self._cores, self._units) if team]
        if len(teams) > 1:
            teams.append(self._staff.all)

        def seconds(team: Agents) -> float:
            """Everybody's part is equal, so the slowest ends last."""
            return max(agent.pack_s(elements) * len(agent.workers) for agent in team.of_kinds) / len(team.workers)

        return min(teams, key=seconds).workers

    def of_append(self, operator: KvAppend, entry: OperatorPlan) -> OperatorPlan:
        """The entry, with who packs keys and values where units take part."""
        if not self._units:
            return entry
        number, cores = cache_number(self._graph.dtypes.kv), self._everybody
        if len(entry.workers) < len(cores):
            cores = Agents(cores[worker] for worker in entry.workers)
        ways = Appending(self._chip, self._network, operator, number, entry, cores, self._units)
        return ways.with_packers()

    def _choice(self, mode: Mode, agents: Agents, operator: Operator) -> Choice:
        if isinstance(operator, Attention) and operator.tokens == 1:
            return self._one_token(mode, agents, operator)
        match operator:
            case Linear():
                in_rows = self._rows_and_columns(mode, agents, operator)
                agents, parts, seconds, bound = self._columns(agents, operator)
                if in_rows is not None and in_rows.seconds < (seconds + self._ending_s(agents)) * (1 - WORTH_DIVIDING):
                    return in_rows
            case Attention():
                blocks = self._query_blocks(agents, operator)
                found = [self._prompt(mode, agents, operator, tokens) for tokens in blocks]
                return min(found, key=lambda choice: choice.seconds)
            case GroupedLinear():
                return self._experts(mode, agents, operator)
            case _:
                raise TypeError(f"{operator.kind} has no choices")
        return Choice(mode, agents, tuple(parts), seconds + self._ending_s(agents), bound)

    def _ending_s(self, agents: Agents) -> float:
        """Seconds to hand something out, and to wait for all of them."""
        sync = self._chip.sync
        return sync.dispatch_s.value + (sync.barrier_s.value if len(agents.workers) > 1 else 0.0)

    def _query_blocks(self, agents: Agents, operator: Attention) -> list[int]:
        """Tokens that a task of fused attention may have: smaller blocks are for agents that would have no task, or one
        of tasks of which the longest takes twice their mean."""
        blocks = [query_block(operator, agents)]
        units = operator.kv_heads * operator.batch
        while blocks[-1] > LEAST_QUERY_BLOCK_TOKENS and -(-operator.tokens // blocks[-1]) * units < 2 * len(agents):
            blocks.append(blocks[-1] // 2)
        return blocks

    def _prompt(self, mode: Mode, agents: Agents, operator: Attention, tokens: int) -> Choice:
        """Attention of several tokens, in tasks of so many of them."""
        tasks = -(-operator.tokens // tokens) * operator.kv_heads * operator.batch
        alone = self._alone_s(agents, lambda agent: agent.attention_s(operator, tokens), tokens)
        # The last tokens of a prompt see all keys, the first none: the longest task against the mean.
        seen = operator.past + operator.tokens
        longest = 1.0 if operator.tokens <= tokens else seen / (seen - operator.tokens / 2)
        team = drawn(alone, agents.counts, tasks, longest)
        agents, parts, seconds, bound = self._drawing(operator, agents, alone, team)
        return Choice(mode, agents, tuple(parts), seconds + self._ending_s(agents), bound, query_block=tokens)

    def _alone_s(self, agents: Agents, seconds: Callable[[Agent], float], form: int = 0) -> dict[str, float]:
        """Seconds of an agent of each kind for the operator in hand, fastest first, worked out once for all teams;
        `form` tells apart ways to do the operator."""
        for agent in agents.of_kinds:
            if (agent.kind, form) not in self._known_s:
                self._known_s[agent.kind, form] = seconds(agent)
        found = {kind: self._known_s[kind, form] for kind in agents.kinds}
        return dict(sorted(found.items(), key=lambda item: item[1]))

    def _one_token(self, mode: Mode, agents: Agents, operator: Attention) -> Choice:
        """Attention of one token, a task a head; its past divided where there are fewer heads than would keep all busy.

        Each part costs a task more, and all together another round in which a task for each head adds them up.
        """
        sync, heads, best = self._chip.sync, operator.kv_heads * operator.batch, None
        for parts in PAST_SPLITS:
            if parts == 2:  # parts of the past are work for cores, also for those who drive a unit
                agents = self._on_cores_of(agents.roles)
            if parts > 1 and operator.past // parts < LEAST_PART:
                break
            alone = self._alone_s(agents, lambda agent: agent.attention_s(operator, 1))
            team = drawn_alike(alone, agents.counts, heads * parts)
            taken, shares, seconds, bound = self._drawing(operator, agents, alone, team)
            workers = len(taken.workers)
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

    def _on_cores_of(self, roles: frozenset[str]) -> Agents:
        """Workers of some roles, each on its own core."""
        if roles not in self._known_on_cores:
            everybody = self._everybody
            found = everybody if roles == everybody.roles else Agents(a for a in everybody if a.role in roles)
            self._known_on_cores[roles] = found
        return self._known_on_cores[roles]

    @cached_property
    def _in_stages(self) -> Agents:
        return Agents((*self._units.fastest, *self._cores.fastest))

    def _staged(self, operator: Attention) -> Choice:
        """Attention as a pipeline: the slower of both stages sets the pace. The units wait for the softmax of their
        last block if no other's products are left by then; the cores for the first scores, and at the end the products
        for them.

        A chain waits for each of its blocks, so a slow unit or core would hold up the fast ones: the fastest kind of
        each takes part.
        """
        units, cores = self._units.fastest, self._cores.fastest
        lanes = max(len(cores), len(units.workers))
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
        return Choice("cooperative", self._in_stages, parts, seconds, "compute", pipeline)

    def _rows_and_columns(self, mode: Mode, agents: Agents, operator: Linear) -> Choice | None:
        """A product cut by rows as well, where there are more agents than parts of its columns. None of one row, or for
        agents that are not alike."""
        if operator.m == 1 or len(agents) == 1 or len(agents.kinds) > 1:
            return None
        ground = self._ground(agents)
        cut = rows_and_columns(operator, ground)
        streamed_s = self._graph.read_bytes(operator, Role.WEIGHT) / ground.streamed_bytes_per_s
        return None if cut is None or cut.seconds < streamed_s else Choice.of_cut(mode, agents, cut)

    def _experts(self, mode: Mode, agents: Agents, operator: GroupedLinear) -> Choice:
        """A product of experts: tiles of some columns are drawn, or where agents are alike and that saves something
        everybody has equal blocks."""
        mr, experts = strip_height(agents), experts_with_rows(operator)
        alone = self._alone_s(agents, lambda agent: agent.experts_s(operator, mr), mr)
        steps = -(-operator.n // (NR * max(agent.granule(operator.m) for agent in agents.of_kinds)))
        tasks = experts * steps
        # Every tile fetches its expert's rows anew. It has the columns that `rules.py` gives it.
        tiles = max(experts, min(tasks, TILES_PER_WORKER * len(agents.workers)))
        again_bytes = tiles * fetched_rows_bytes(operator, agents, self._numbers)
        team = drawn(alone, agents.counts, tasks)
        taken, parts, seconds, bound = self._drawing(operator, agents, alone, team, again_bytes)
        # All wait for whoever draws one more than others; of tiles of several steps only the last are as short as that.
        each = tasks / len(taken)
        seconds *= (ceil(each) if tiles == tasks else each + 1) / each
        seconds += self._ending_s(taken)
        choice = Choice(mode, taken, tuple(parts), seconds, bound)
        if len(taken.kinds) == 1:
            cut = experts_by_columns(operator, self._ground(taken))
            if cut.seconds < seconds * (1 - WORTH_FIXING):
                return Choice.of_cut(mode, taken, cut)
        return choice

    def _ground(self, agents: Agents) -> Ground:
        """What blocks of a product are weighed on, for agents that are alike."""
        streamed = streamed_bytes_per_s(self._network, agents)
        return Ground(agents, strip_height(agents), streamed, self._numbers, self._chip.sync)

    def _columns(self, agents: Agents, operator: Linear) -> tuple[Agents, list[float], float, str]:
        """Columns for each, so that all end together: at its own pace, or at its part of the memory's bandwidth."""
        panels, mr = -(-operator.n // NR), strip_height(agents)
        steps: dict[str, tuple[int, float, float]] = {}
        for agent in agents.of_kinds:
            step = operator.m, mr, agent.granule(operator.m), operator.k
            steps[agent.kind] = step[2], agent.columns_s(*step), agent.from_memory_bytes(*step)
        wanted = {kind: step_bytes / step_s for kind, (_, step_s, step_bytes) in steps.items()}
        rates = streaming_rates(self._network, agents, wanted)
        lots: dict[Share, list[tuple[int, ...]]] = {}
        for (agent, group), rate in zip(agents.groups, rates, strict=True):
            granule, step_s, step_bytes = steps[agent.kind]
            lots.setdefault(Share(max(step_s, step_bytes / rate), granule), []).append(group)
        of_shares = [merged(lists) for lists in lots.values()]
        divided, seconds = divide(list(lots), panels, [len(of_share) for of_share in of_shares])
        taken = [0.0] * len(agents)
        for of_share, parts in zip(of_shares, divided, strict=True):
            for place, part in zip(of_share, parts, strict=True):
                taken[place] = float(part)
        computing = 0.0
        for kind, of_kind in agents.kinds.items():
            most = max(taken[place] for place in of_kind)
            computing = max(computing, ceil(most / steps[kind][0]) * steps[kind][1])
        bound = "compute" if computing >= 0.99 * seconds else "bandwidth"
        places = [place for place, part in enumerate(taken) if part]
        team = agents.at(places)
        if len(team) < len(agents) and len(team.kinds) == 1:  # fewer draw, so each of them draws more
            granule, step_s, step_bytes = steps[team[0].kind]
            rate = min(streaming_rates(self._network, team, wanted))
            seconds = ceil(max(taken) / granule) * max(step_s, step_bytes / rate)
        return team, [taken[place] for place in places], seconds, bound

    def _drawing(
        self, operator: Operator, agents: Agents, alone_s: dict[str, float], team: tuple[dict[str, int], float],
        again_bytes: float = 0.0,
    ) -> tuple[Agents, list[float], float, str]:  # fmt: skip
        """Those that draw, the first so many of each kind, and their speeds; `team` says as well when they have
        computed. `again_bytes` come from memory besides what is read once."""
        numbers, seconds = team
        places = merged([agents.kinds[kind][:count] for kind, count in numbers.items()])
        chosen = agents.at(places)
        transfer_s = self._streamed_s(operator, chosen, again_bytes)
        bound = "compute" if seconds >= transfer_s else "bandwidth"
        return chosen, [1 / alone_s[agent.kind] for agent in chosen], max(seconds, transfer_s), bound

    def _streamed_s(self, operator: Operator, agents: Agents, again_bytes: float) -> float:
        """Seconds in which agents read all weights, keys and values of an operator from memory, and so much more."""
        if operator.name not in self._streamed_bytes:
            streamed = self._graph.read_bytes(operator, Role.WEIGHT) + self._graph.read_bytes(operator, Role.KV)
            self._streamed_bytes[operator.name] = streamed
        return (self._streamed_bytes[operator.name] + again_bytes) / streamed_bytes_per_s(self._network, agents)


def query_block(operator: Attention, agents: Agents) -> int:
    """Tokens of a task of fused attention, for those who take part."""
    on_units = any(agent.unit is not None for agent in agents.of_kinds)
    return min(operator.tokens, UNIT_QUERY_BLOCK_TOKENS if on_units else QUERY_BLOCK_TOKENS)


def strip_height(agents: Agents) -> int:
    """The height of packed strips that suits those who read them: a unit's, where one takes part."""
    return next((agent for agent in agents.of_kinds if agent.role == "matrix"), agents[0]).strip_height
