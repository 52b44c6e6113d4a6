"""Agents: what computes as one. A core with its worker is one; a matrix unit with all workers that drive it is one.

An agent knows how long it would take for an operator, or a part of one, if nobody else were about: the same costs that
the simulator gives its tasks. Planners compare agents and divide operators among them; who disturbs whom, and what is
handed out when, the simulator tells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from smesim.hwmodel.attention_blocks import BlockShape
from smesim.hwmodel.chip import DRAM, Chip
from smesim.hwmodel.cost import COST_EFFECTS, AttentionShape, CoreCosts
from smesim.hwmodel.links import LinkNetwork
from smesim.hwmodel.sharing import Path, max_min_rates
from smesim.hwmodel.unit_cost import UnitCosts, unit_rates
from smesim.plan.schema import PipelinePlan, Role, WorkerPlan
from smesim.plan.tiles import NR, experts_with_rows, ranges, rows_of_expert
from smesim.workload.operators import Attention, GroupedLinear

F32_BYTES = 4
SAMPLED_BLOCKS = 4


@dataclass(frozen=True)
class Agent:
    """`workers` by their numbers in the plan; agents of one `kind` are equally fast; `rate` is what a unit's drivers
    together get of its time."""

    name: str
    kind: str
    role: Role
    workers: tuple[int, ...]
    core: CoreCosts
    unit: UnitCosts | None
    rate: float
    path: Path
    cap_bytes_per_s: float

    @property
    def strength(self) -> float:
        """Panels of a middling product a second; to tell fast agents from slow ones."""
        return 1 / self.columns_s(64, 2 * NR, 4, 1024)

    def granule(self, rows: int) -> int:
        """Panels that cost no more together than one: what a unit's tiles in flight cover side by side."""
        return 1 if self.unit is None else max(1, self.unit.columns_together(rows) // NR)

    def columns_s(self, rows: int, mr: int, panels: int, k: int) -> float:
        """All rows of a packed left operand times some panels of weights; one row is a matrix times a vector."""
        if rows == 1:
            return self.vector_s(panels, k)
        strips = -(-rows // mr)
        if self.unit is None:
            return self.core.gemm_s(rows, mr, (0, strips), panels, k)
        work = self.unit.gemm(rows, mr, (0, strips), panels * NR, k)
        return work.unit_s / self.rate + work.core_s

    def vector_s(self, panels: int, k: int) -> float:
        """One row times some panels, by the kernels for one row."""
        if self.unit is None or not self.unit.multiplies_vectors("f32"):
            return self.core.gemv_s(panels, k)
        return self.unit.gemv(panels * NR, k).unit_s / self.rate

    def pack_s(self, elements: int) -> float:
        """Packing so much of a left operand: a core by its vectors, a unit by turning its tiles over."""
        return self.core.pack_s(elements) if self.unit is None else self.unit.pack(elements).unit_s / self.rate

    def attention_s(self, operator: Attention, tokens: int) -> float:
        """A whole attention, in tasks of so many query tokens."""
        seconds = 0.0
        for begin, end, count in sampled(operator.tokens, tokens):
            shape = AttentionShape(begin, end, operator.past, operator.heads // operator.kv_heads, operator.head_dim)
            if self.unit is None:
                seconds += count * self.core.attention_s(shape)
            else:
                work = self.unit.attention(shape)
                seconds += count * (work.unit_s / self.rate + work.core_s / len(self.workers))
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
        both = [self.unit.stage(block, is_qk) for is_qk in (True, False)]
        return sum(work.unit_s / self.rate + work.core_s / len(self.workers) for work in both)

    def experts_s(self, operator: GroupedLinear, mr: int) -> float:
        """All experts of a grouped product."""
        experts, panels = experts_with_rows(operator), -(-operator.n // NR)
        rows = Counter(rows_of_expert(operator.m, experts, expert) for expert in range(experts))
        return sum(count * self.columns_s(m, mr, panels, operator.k) for m, count in rows.items() if m)


def sampled(tokens: int, block: int) -> list[tuple[int, int, float]]:
    """Blocks of query tokens: (begin, end, how many of the whole it stands for). Of many a few do, evenly spread: what
    a block takes grows evenly with its place."""
    blocks = list(ranges(tokens, block))
    if len(blocks) <= SAMPLED_BLOCKS:
        return [(begin, end, 1.0) for begin, end in blocks]
    chosen = [blocks[(2 * i + 1) * len(blocks) // (2 * SAMPLED_BLOCKS)] for i in range(SAMPLED_BLOCKS)]
    weight = tokens / sum(end - begin for begin, end in chosen)
    return [(begin, end, weight) for begin, end in chosen]


def agents_of(chip: Chip, workers: Sequence[WorkerPlan]) -> tuple[Agent, ...]:
    """The agents of a plan's workers: units first, each with its drivers, then cores in the workers' order."""
    network = LinkNetwork(chip)
    clusters = [chip.instance_of(worker.core) for worker in workers]
    busy = Counter(cluster.name for cluster in clusters)
    costs = {c.name: CoreCosts(c.cluster, COST_EFFECTS, busy[c.name]) for c in clusters}
    drivers: dict[int, list[int]] = {}
    for i, worker in enumerate(workers):
        if worker.unit is not None:
            drivers.setdefault(worker.unit, []).append(i)
    rates = unit_rates(chip, {unit: len(who) for unit, who in drivers.items()})
    found = []
    for index, who in drivers.items():
        instance = chip.unit_instances[index]
        first = workers[who[0]].core
        core = costs[clusters[who[0]].name]
        route = network.route(network.agent(first, unit=index), DRAM)
        together, alone = rates[instance.name]
        found.append(
            Agent(
                name=instance.name,
                kind=f"{instance.cluster.cluster.name}.{instance.unit.name} x {len(who)}",
                role="matrix",
                workers=tuple(who),
                core=core,
                unit=UnitCosts(chip, instance, core, COST_EFFECTS),
                rate=min(together, alone * len(who)),
                path=route.links,
                cap_bytes_per_s=route.cap_bytes_per_s * len(who),
            )
        )
    for i, worker in enumerate(workers):
        if worker.unit is None:
            route = network.route(network.agent(worker.core), DRAM)
            core = costs[clusters[i].name]
            kind = clusters[i].cluster.name
            found.append(
                Agent(f"core{worker.core}", kind, "cpu", (i,), core, None, 1.0, route.links, route.cap_bytes_per_s)
            )
    return tuple(found)


def streaming_rates(chip: Chip, agents: Sequence[Agent], wanted: Sequence[float] | None = None) -> list[float]:
    """Bytes per second that each agent draws from memory when all of them do; none more than it wants."""
    network = LinkNetwork(chip)
    capacities = {link: network.bandwidth_bytes_per_s(link) for agent in agents for link in agent.path}
    caps = [agent.cap_bytes_per_s for agent in agents]
    if wanted is not None:
        caps = [min(cap, want) for cap, want in zip(caps, wanted, strict=True)]
    return max_min_rates([agent.path for agent in agents], caps, capacities)

