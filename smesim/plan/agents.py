"""Agents: what computes as one. A core with its worker is one; a matrix unit with all workers that drive it is one.

An agent knows how long it would take for an operator, or a part of one, if nobody else were about: the same costs that
the simulator gives its tasks. Planners compare agents and divide operators among them; who disturbs whom, and what is
handed out when, the simulator tells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import NamedTuple

from smesim.hwmodel.attention_blocks import BlockShape
from smesim.hwmodel.chip import DRAM, Chip
from smesim.hwmodel.cost import COST_EFFECTS, AttentionShape, CoreCosts
from smesim.hwmodel.kept import kept_with
from smesim.hwmodel.known_costs import core_costs, unit_costs
from smesim.hwmodel.links import LinkNetwork
from smesim.hwmodel.sharing import Path, max_min_rates
from smesim.hwmodel.stand_in import computing_core
from smesim.hwmodel.unit_cost import UnitCosts, UnitWork, unit_rates
from smesim.plan.formats import ProductFormat
from smesim.plan.program import TaskKind
from smesim.plan.reuse import F32_BYTES, ROW_KERNELS, appended
from smesim.plan.schema import PipelinePlan, Role, WorkerPlan
from smesim.plan.tiles import NR, experts_with_rows, ranges, rows_of_expert
from smesim.workload.operators import Attention, GroupedLinear

SAMPLED_BLOCKS = 2
"""Of a prompt's blocks of tokens, whose times grow evenly with their place."""


@dataclass(frozen=True, eq=False)
class Agent:
    """`workers` by their numbers in the plan; agents of one `kind` are equally fast; `rate` is what a unit's drivers
    together get of its time; `numbers` is the format of the weights that it multiplies with.

    Of a stand-in for a matrix unit `core` has the costs, and there is no `unit`. Operands of a unit come from the cache
    that is nearest to it at `operand_bytes_per_s`, when all units fetch theirs.
    """

    name: str
    kind: str
    role: Role
    workers: tuple[int, ...]
    core: CoreCosts
    unit: UnitCosts | None
    rate: float
    path: Path
    cap_bytes_per_s: float
    numbers: ProductFormat
    cache_bytes: float
    operand_bytes_per_s: float = float("inf")

    @cached_property
    def product_unit(self) -> UnitCosts | None:
        """What multiplies with weights if not the core: a unit that has instructions for their format."""
        return self.unit if self.unit is not None and self.unit.multiplies(self.numbers.name) else None

    @cached_property
    def multiplies_matrices(self) -> bool:
        """Whether it multiplies with weights itself, and does not leave that to the core that drives it."""
        return self.unit is None or self.product_unit is not None

    @cached_property
    def multiplies_vectors(self) -> bool:
        """The same of one row."""
        return self.unit is None or self.unit.multiplies_vectors(self.numbers.name)

    @cached_property
    def strip_height(self) -> int:
        """Rows of packed strips that suit it."""
        unit, numbers = self.product_unit, self.numbers.name
        return self.core.products(numbers).mr if unit is None else unit.rows_together(numbers)

    @cached_property
    def strength(self) -> float:
        """Panels of a middling product a second; to tell fast agents from slow ones."""
        return 1 / self.columns_s(64, 2 * NR, 4, 1024)

    def granule(self, rows: int) -> int:
        """Panels that are best given together: those that a kernel takes at once, or what a unit's tiles in flight
        cover side by side, which cost no more than one."""
        unit, numbers = self.product_unit, self.numbers.name
        if unit is not None:
            return max(1, unit.columns_together(rows, numbers) // NR)
        return 1 if rows == 1 else self.core.products(numbers).panels_together

    def panel_s(self, rows: int, mr: int, k: int) -> float:
        """All rows of a packed left operand times one of many panels."""
        granule = self.granule(rows)
        return self.columns_s(rows, mr, granule, k) / granule

    def columns_s(self, rows: int, mr: int, panels: int, k: int) -> float:
        """All rows of a packed left operand times some panels of weights; one row is a matrix times a vector."""
        if rows == 1:
            return self.vector_s(panels, k)
        strips, unit, numbers = -(-rows // mr), self.product_unit, self.numbers.name
        if unit is None:
            return self.core.gemm_s(rows, mr, (0, strips), panels, k, numbers)
        return self._on_unit_s(unit.gemm(rows, mr, (0, strips), panels * NR, k, numbers))

    def from_memory_bytes(self, rows: int, mr: int, panels: int, k: int) -> float:
        """What it draws from memory for that: the weights; a unit with no way to a cache, every step's operands."""
        weights, unit = float(self.numbers.rhs_bytes(panels * NR, k)), self.product_unit
        if rows == 1 or unit is None or unit.nearest != DRAM:
            return weights
        return max(weights, unit.gemm(rows, mr, (0, -(-rows // mr)), panels * NR, k, self.numbers.name).operand_bytes)

    def _on_unit_s(self, work: UnitWork) -> float:
        """Work of a unit, if it is not held up by what comes through its port; the drivers' own part is theirs."""
        through_port_s = work.operand_bytes / self.operand_bytes_per_s
        return max(work.unit_s / self.rate, through_port_s) + work.core_s / len(self.workers)

    def vector_s(self, panels: int, k: int) -> float:
        """One row times some panels, by the kernels for one row."""
        if self.unit is None or not self.multiplies_vectors:
            return self.core.gemv_s(panels, k, self.numbers.name)
        return self.unit.gemv(panels * NR, k, self.numbers.name).unit_s / self.rate

    def pack_s(self, elements: int) -> float:
        """Packing so much of a left operand: a core by its vectors, a unit by turning its tiles over."""
        if self.unit is None or not self.unit.packs(self.numbers.name):
            return self.core.pack_s(elements, self.numbers.name) / len(self.workers)
        return self.unit.pack(elements).unit_s / self.rate

    def append_s(self, first: int, last: int, sequences: int, width: int, number_bytes: float) -> float:
        """Packing the keys and values of positions first .. last of some sequences, as numbers of so many bytes."""
        if self.unit is not None:
            return self._on_unit_s(self.unit.append(first, last, sequences, width))
        operands = appended(first, last, sequences, width, number_bytes)
        elements = sum(operand.n_bytes for operand in operands) / len(operands) / F32_BYTES
        return self.core.elementwise_s(ROW_KERNELS[TaskKind.KV_APPEND], last - first, elements)

    def attention_s(self, operator: Attention, tokens: int) -> float:
        """A whole attention, in tasks of so many query tokens."""
        seconds = 0.0
        for begin, end, count in sampled(operator.tokens, tokens):
            shape = AttentionShape(begin, end, operator.past, operator.heads // operator.kv_heads, operator.head_dim)
            if self.unit is None:
                seconds += count * self.core.attention_s(shape)
            else:
                seconds += count * self._on_unit_s(self.unit.attention(shape))
        return seconds * operator.kv_heads * operator.batch

    def stages_s(self, operator: Attention, pipeline: PipelinePlan) -> tuple[float, float]:
        """Both products, and the softmax between them, of a whole attention in the blocks of a pipeline."""
        products_s = softmax_s = 0.0
        group, d, key_block = operator.heads // operator.kv_heads, operator.head_dim, pipeline.key_block
        for begin, end, count in sampled(operator.tokens, pipeline.query_block):
            seen = operator.past + end
            for index, (key_begin, key_end) in enumerate(ranges(seen, key_block)):
                # Between the first block and those that the mask cuts all are alike: the second stands for them.
                alike = max(0, (operator.past + begin) // key_block - 2) if index == 1 else 0
                if 1 < index < (operator.past + begin) // key_block:
                    continue
                block = BlockShape(begin, end, operator.past, group, d, key_begin, key_end)
                times = count * (1 + alike)
                softmax_s += times * self.core.softmax_s(block)
                products_s += times * self._products_s(block)
        units = operator.kv_heads * operator.batch
        return products_s * units, softmax_s * units

    def _products_s(self, block: BlockShape) -> float:
        if self.unit is None:
            return self.core.qk_s(block) + self.core.pv_s(block)
        return sum(self._on_unit_s(self.unit.stage(block, is_qk)) for is_qk in (True, False))

    def experts_s(self, operator: GroupedLinear, mr: int) -> float:
        """All experts of a grouped product."""
        experts, panels = experts_with_rows(operator), -(-operator.n // NR)
        rows = Counter(rows_of_expert(operator.m, experts, expert) for expert in range(experts))
        return sum(count * self.columns_s(m, mr, panels, operator.k) for m, count in rows.items() if m)


class Group(NamedTuple):
    """Agents of one kind and role on one path: one of them, and the places of all in the `Agents` that they are of."""

    agent: Agent
    places: tuple[int, ...]


class Agents(tuple[Agent, ...]):
    """Agents that take part in something together.

    There may be hundreds of them, of few kinds: what is the same for all of a kind is asked of one, and what is the
    same for all of a group, as bandwidth is, of one of the group.
    """

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        places: dict[tuple[object, ...], list[int]] = {}
        for place, agent in enumerate(self):
            key = agent.kind, agent.role, agent.path, agent.cap_bytes_per_s
            places.setdefault(key, []).append(place)
        return tuple(Group(self[group[0]], tuple(group)) for group in places.values())

    @cached_property
    def kinds(self) -> dict[str, tuple[int, ...]]:
        """The places of those of each kind."""
        found: dict[str, list[tuple[int, ...]]] = {}
        for group in self.groups:
            found.setdefault(group.agent.kind, []).append(group.places)
        return {kind: merged(places) for kind, places in found.items()}

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many there are of each kind."""
        return {kind: len(places) for kind, places in self.kinds.items()}

    @cached_property
    def of_kinds(self) -> tuple[Agent, ...]:
        """One of each kind."""
        return tuple(self[places[0]] for places in self.kinds.values())

    @cached_property
    def roles(self) -> frozenset[Role]:
        return frozenset(group.agent.role for group in self.groups)

    @cached_property
    def workers(self) -> tuple[int, ...]:
        return tuple(chain.from_iterable([agent.workers for agent in self]))

    @cached_property
    def fastest(self) -> Agents:
        """Those of the kind that draws and computes most."""
        return self.of_kind(max(self.of_kinds, key=lambda agent: agent.strength).kind)

    def of_kind(self, kind: str) -> Agents:
        return self.at(self.kinds[kind])

    @cached_property
    def _group_at(self) -> list[int]:
        """Which group the agent at each place is of."""
        found = [0] * len(self)
        for index, (_, places) in enumerate(self.groups):
            for place in places:
                found[place] = index
        return found

    def at(self, places: Sequence[int]) -> Agents:
        """Those at some places, given in order."""
        if len(places) == len(self):
            return self
        chosen = Agents([self[place] for place in places])
        groups: dict[int, list[int]] = {}
        for rank, place in enumerate(places):
            groups.setdefault(self._group_at[place], []).append(rank)
        chosen.__dict__["groups"] = tuple(Group(chosen[ranks[0]], tuple(ranks)) for ranks in groups.values())
        return chosen


def merged(places: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """All places of some lists, in order."""
    return places[0] if len(places) == 1 else tuple(sorted(chain.from_iterable(places)))


def sampled(tokens: int, block: int) -> list[tuple[int, int, float]]:
    """Blocks of query tokens: (begin, end, how many of the whole it stands for). Of many a few do, as far from the
    first as from the last: what a block takes grows evenly with its place, so that these have the mean of all."""
    blocks = list(ranges(tokens, block))
    if len(blocks) <= SAMPLED_BLOCKS:
        return [(begin, end, 1.0) for begin, end in blocks]
    early = [(2 * i + 1) * len(blocks) // (2 * SAMPLED_BLOCKS) for i in range(SAMPLED_BLOCKS // 2)]
    chosen = [blocks[i] for i in early] + [blocks[-1 - i] for i in early]
    weight = tokens / sum(end - begin for begin, end in chosen)
    return [(begin, end, weight) for begin, end in chosen]


def agents_of(chip: Chip, workers: tuple[WorkerPlan, ...], numbers: ProductFormat) -> Agents:
    """The agents of a plan's workers: units first, each with its drivers, then cores in the workers' order."""
    return kept_with(chip, ("agents", workers, numbers.name), lambda: _agents_of(chip, workers, numbers))


def on_cores(chip: Chip, workers: tuple[WorkerPlan, ...], numbers: ProductFormat) -> Agents:
    """All workers, each on its own core, also those who drive a unit: for what the units cannot do."""
    return kept_with(chip, ("on cores", workers, numbers.name), lambda: _on_cores(chip, workers, numbers))


def _on_cores(chip: Chip, workers: tuple[WorkerPlan, ...], numbers: ProductFormat) -> Agents:
    network, costs = LinkNetwork.of(chip), _costs_of_cores(chip, workers)
    found = (_core_agent(chip, network, i, workers[i], costs[i], numbers) for i in range(len(workers)))
    return Agents(_with_own_links_as_caps(tuple(found), network))


def _core_agent(
    chip: Chip, network: LinkNetwork, index: int, worker: WorkerPlan, core: CoreCosts, numbers: ProductFormat
) -> Agent:
    route = network.route(network.agent(worker.core), DRAM)
    kind = chip.instance_of(worker.core).cluster.name
    return Agent(
        f"core{worker.core}", kind, worker.role, (index,), core, None, 1.0, route.links, route.cap_bytes_per_s, numbers,
        _largest_cache_bytes(chip, kind),
    )  # fmt: skip


def _largest_cache_bytes(chip: Chip, cluster: str) -> float:
    """Of those of a cluster, as described; 0 where it has none."""
    caches = (chip.cache(level, cluster) for level in chip.levels(cluster) if level != DRAM)
    return max((cache.size_bytes.value for cache in caches), default=0.0)


def _costs_of_cores(chip: Chip, workers: tuple[WorkerPlan, ...]) -> list[CoreCosts]:
    """The costs of each worker's core."""
    clusters = [chip.instance_of(worker.core).name for worker in workers]
    busy = Counter(clusters)
    return [
        core_costs(chip, *computing_core(chip, worker.core, worker.unit), COST_EFFECTS, busy[cluster])
        for worker, cluster in zip(workers, clusters, strict=True)
    ]


def _agents_of(chip: Chip, workers: tuple[WorkerPlan, ...], numbers: ProductFormat) -> Agents:
    network, costs = LinkNetwork.of(chip), _costs_of_cores(chip, workers)
    drivers: dict[int, list[int]] = {}
    for i, worker in enumerate(workers):
        if worker.unit is not None:
            drivers.setdefault(worker.unit, []).append(i)
    rates = unit_rates(chip, {unit: len(who) for unit, who in drivers.items()})
    found = []
    for index, who in drivers.items():
        instance = chip.unit_instances[index]
        is_stand_in = instance.unit.is_stand_in
        first = workers[who[0]].core
        core = costs[who[0]]
        route = network.route(network.agent(first, unit=None if is_stand_in else index), DRAM)
        together, alone = rates[instance.name]
        found.append(
            Agent(
                name=instance.name,
                kind=f"{instance.cluster.cluster.name}.{instance.unit.name} x {len(who)}",
                role="matrix",
                workers=tuple(who),
                core=core,
                unit=None if is_stand_in else unit_costs(chip, instance, core, COST_EFFECTS),
                rate=min(together, alone * len(who)),
                path=route.links,
                cap_bytes_per_s=route.cap_bytes_per_s * len(who),
                numbers=numbers,
                cache_bytes=_largest_cache_bytes(chip, instance.cluster.cluster.name),
            )
        )
    found = _with_ports(found, network, chip, list(drivers))
    for i, worker in enumerate(workers):
        if worker.unit is None:
            found.append(_core_agent(chip, network, i, worker, costs[i], numbers))
    return Agents(_with_own_links_as_caps(found, network))


def _with_own_links_as_caps(agents: Sequence[Agent], network: LinkNetwork) -> Iterator[Agent]:
    """A link that no other agent crosses is a cap like any other; without it in their paths, agents that are alike
    have the same one."""
    users = Counter(link for agent in agents for link in agent.path)
    for agent in agents:
        own = [network.bandwidth_bytes_per_s(link) for link in agent.path if users[link] == 1]
        shared = tuple(link for link in agent.path if users[link] > 1)
        yield replace(agent, path=shared, cap_bytes_per_s=min([agent.cap_bytes_per_s, *own]))


def _with_ports(units: list[Agent], network: LinkNetwork, chip: Chip, indices: Sequence[int]) -> list[Agent]:
    """The units with what each gets from its nearest cache when all fetch operands; `indices` are those of the chip."""
    routes = []
    for agent, index in zip(units, indices, strict=True):
        if agent.unit is not None:
            core = chip.unit_instances[index].cores[0]
            routes.append(network.route(network.agent(core, unit=index), agent.unit.nearest))
    capacities = {link: network.bandwidth_bytes_per_s(link) for route in routes for link in route.links}
    rates = iter(max_min_rates([r.links for r in routes], [r.cap_bytes_per_s for r in routes], capacities))
    return [agent if agent.unit is None else replace(agent, operand_bytes_per_s=next(rates)) for agent in units]


def streaming_rates(
    network: LinkNetwork, agents: Agents, wanted: Mapping[str, float] | None = None
) -> list[float]:  # fmt: skip
    """Bytes per second that an agent of each group draws from memory when all of them do; none more than those of its
    kind want."""
    groups = agents.groups
    paths, caps = [group.agent.path for group in groups], [group.agent.cap_bytes_per_s for group in groups]
    if wanted is not None:
        caps = [min(cap, wanted[group.agent.kind]) for cap, group in zip(caps, groups, strict=True)]
    capacities = {link: network.bandwidth_bytes_per_s(link) for path in paths for link in path}
    if len(groups) == 1:
        return [min([caps[0], *(bandwidth / len(agents) for bandwidth in capacities.values())])]
    return max_min_rates(paths, caps, capacities, [len(group.places) for group in groups])


def streamed_bytes_per_s(network: LinkNetwork, agents: Agents) -> float:
    """Bytes per second that all of them together draw from memory."""
    rates = kept_with(agents, "streaming rates", lambda: streaming_rates(network, agents))
    return sum(rate * len(group.places) for rate, group in zip(rates, agents.groups, strict=True))
