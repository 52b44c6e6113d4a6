"""Attention in stages and in parts: what the tasks are, which of them wait for which, and who runs them.

**Pipeline.** Attention of a prompt is chains of blocks: a chain is a block of query tokens of one sequence's KV head,
its blocks are the blocks of keys that those tokens see. Each block passes three stages: QK (scores), SOFTMAX (mask,
exponential, running peak and sum) and PV (weights times values). A stage waits for the one before it and for its own
of the block before; so while the cores work on the softmax of a block, a matrix unit can multiply for the next.

Scores wait in a ring of `depth` places: QK of a block overwrites what PV of the block `depth` earlier has used. A ring
and the chains that are dealt to it are a *lane*. Lanes share nothing; they keep several workers of a stage busy and
bound the memory. What the rows of a chain gather (scaled queries, output so far, peak, sum) lies in the ring as well,
in the place whose number is the chain's: a new chain may begin while the one before it is not finished.

Tasks are listed so that every worker can walk its own in that order and no two wait for each other: QK runs `depth`
blocks ahead of PV, in the list as in the ring.

**Parts.** Attention of one token has a long past and few rows. Ranges of keys are then attended to side by side, each
giving what its keys contribute, and a last task per head combines them, always in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from smesim.plan.program import TaskKind
from smesim.plan.schema import Assignment, Mode, OperatorPlan, PipelinePlan, Role, TileShape, WorkerPlan
from smesim.plan.tiles import NR, Tile, kv_capacity, ranges
from smesim.workload.operators import Attention


@dataclass(frozen=True)
class StageTask:
    """A task of a pipeline: `after` are the tasks it waits for, by their places in the list; `role` is its stage's, and
    `turn` says which of the workers of that role it falls to, counted round and round."""

    tile: Tile
    after: tuple[int, ...]
    role: Role
    turn: int


@dataclass(frozen=True)
class _Block:
    """One block of keys of a chain, in its lane: `number` counts the lane's blocks, `chain` its chains."""

    tokens: tuple[int, int]
    keys: tuple[int, int]
    unit: int
    number: int
    chain: int
    is_first: bool
    is_last: bool


@dataclass
class _Lane:
    """What of a lane has been listed: tasks of each stage by block, and the last task of each chain."""

    index: int
    blocks: list[_Block] = field(default_factory=list)
    qk: list[int] = field(default_factory=list)
    softmax: list[int] = field(default_factory=list)
    pv: list[int] = field(default_factory=list)
    chain_end: list[int] = field(default_factory=list)
    chains: int = 0

    def add_chain(self, tokens: tuple[int, int], keys: list[tuple[int, int]], unit: int) -> None:
        for i, block in enumerate(keys):
            is_last = i + 1 == len(keys)
            self.blocks.append(_Block(tokens, block, unit, len(self.blocks), self.chains, i == 0, is_last))
        self.chains += 1


@dataclass(frozen=True)
class _Shape:
    """All that the tasks of a pipeline depend on of its operator; `units` are the KV heads of all sequences."""

    tokens: int
    past: int
    units: int


class _Stages:
    def __init__(self, shape: _Shape, pipeline: PipelinePlan, workers: Mapping[Role, int]) -> None:
        self.pipeline = pipeline
        self.workers = workers
        self.tasks: list[StageTask] = []
        self.lanes = _dealt(shape, pipeline)

    def listed(self) -> list[StageTask]:
        """All tasks: the first `depth` QKs of each lane, then for block after block what the ring lets go on."""
        depth = self.pipeline.depth
        for number in range(depth):
            for lane in self.lanes:
                self.qk(lane, number)
        for number in range(max(len(lane.blocks) for lane in self.lanes)):
            for lane in self.lanes:
                self.softmax(lane, number)
            for lane in self.lanes:
                self.pv(lane, number)
                self.qk(lane, number + depth)
        return self.tasks

    def qk(self, lane: _Lane, number: int) -> None:
        if number >= len(lane.blocks):
            return
        block, depth = lane.blocks[number], self.pipeline.depth
        after = set()
        if number >= depth:
            after.add(lane.pv[number - depth])
        if not block.is_first:
            after.add(lane.qk[number - (block.keys[0] // self.pipeline.key_block)])  # it scaled the queries
        elif block.chain >= depth:
            after.add(lane.chain_end[block.chain - depth])
        lane.qk.append(self.add(TaskKind.ATTENTION_QK, lane, block, after, self.pipeline.qk))

    def softmax(self, lane: _Lane, number: int) -> None:
        if number >= len(lane.blocks):
            return
        block = lane.blocks[number]
        after = {lane.qk[number]} if block.is_first else {lane.qk[number], lane.softmax[-1]}
        lane.softmax.append(self.add(TaskKind.ATTENTION_SOFTMAX, lane, block, after, self.pipeline.softmax))

    def pv(self, lane: _Lane, number: int) -> None:
        if number >= len(lane.blocks):
            return
        block = lane.blocks[number]
        after = {lane.softmax[number]} if block.is_first else {lane.softmax[number], lane.pv[-1]}
        lane.pv.append(self.add(TaskKind.ATTENTION_PV, lane, block, after, self.pipeline.pv))
        if block.is_last:
            lane.chain_end.append(lane.pv[-1])

    def add(self, kind: TaskKind, lane: _Lane, block: _Block, after: set[int], role: Role) -> int:
        place = lane.index * self.pipeline.depth
        slot, state = (place + number % self.pipeline.depth for number in (block.number, block.chain))
        # A worker keeps its lanes, so that what their rows gather stays in its cache; where there are fewer lanes than
        # workers, they take blocks in turn.
        turn = lane.index if len(self.lanes) >= self.workers[role] else lane.index + block.number * len(self.lanes)
        tile = Tile(kind, (*block.tokens, *block.keys, block.unit, block.unit + 1), slot, state)
        self.tasks.append(StageTask(tile, tuple(sorted(after)), role, turn))
        return len(self.tasks) - 1


def _dealt(shape: _Shape, pipeline: PipelinePlan) -> list[_Lane]:
    """The chains, longest first, each to the lane with the fewest blocks."""
    lanes = [_Lane(i) for i in range(pipeline.lanes)]
    for tokens in reversed(list(ranges(shape.tokens, pipeline.query_block))):
        keys = list(ranges(shape.past + tokens[1], pipeline.key_block))
        for unit in range(shape.units):
            min(lanes, key=lambda lane: len(lane.blocks)).add_chain(tokens, keys, unit)
    return lanes


def pipeline_tasks(
    operator: Attention, pipeline: PipelinePlan, workers: Mapping[Role, int]
) -> tuple[StageTask, ...]:  # fmt: skip
    """The tasks of an attention pipeline in an order that respects `after`; `workers` are how many each role has."""
    shape = _Shape(operator.tokens, operator.past, operator.batch * operator.kv_heads)
    return _listed(shape, fitted(operator, pipeline), frozenset(workers.items()))


@lru_cache(maxsize=4)  # a long prompt has tens of thousands of tasks
def _listed(
    shape: _Shape, pipeline: PipelinePlan, workers: frozenset[tuple[Role, int]]
) -> tuple[StageTask, ...]:  # fmt: skip
    return tuple(_Stages(shape, pipeline, dict(workers)).listed())


def fitted(operator: Attention, pipeline: PipelinePlan) -> PipelinePlan:
    """The pipeline with blocks no larger than what there is, and no more lanes than chains."""
    query_block = min(pipeline.query_block, operator.tokens)
    key_block = min(pipeline.key_block, kv_capacity(operator.past + operator.tokens))
    chains = -(-operator.tokens // query_block) * operator.batch * operator.kv_heads
    lanes = min(pipeline.lanes, chains)
    return pipeline.model_copy(update={"query_block": query_block, "key_block": key_block, "lanes": lanes})


def pipelined(
    entry: OperatorPlan, workers: Sequence[WorkerPlan], *, depth: int = 3, query_block: int = 64, key_block: int = 256,
    lanes: int | None = None, qk: Role = "matrix", softmax: Role = "cpu", pv: Role = "matrix",
    assignment: Assignment = "static",
) -> OperatorPlan:  # fmt: skip
    """An attention's entry as a pipeline on all workers of the stages' roles.

    By default there are as many lanes as the stage with the most workers has.

    >>> entry = pipelined(plan.site("attention"), plan.workers, softmax="cpu", pv="cpu")
    """
    roles: set[Role] = {qk, softmax, pv}
    counts = [sum(worker.role == role for worker in workers) for role in roles]
    pipeline = PipelinePlan(
        depth=depth, query_block=query_block, key_block=key_block, lanes=lanes or max(1, *counts), qk=qk,
        softmax=softmax, pv=pv,
    )  # fmt: skip
    mode: Mode = "cooperative" if len(roles) > 1 else qk
    changes: dict[str, Any] = {
        "mode": mode,
        "assignment": assignment,
        "shares": (),
        "tile": TileShape(m=query_block, n=1),
        "workers": tuple(i for i, worker in enumerate(workers) if worker.role in roles),
        "pipeline": pipeline,
        "past_split": 1,
    }
    return entry.model_copy(update=changes)


# -- parts of the past


def past_parts(operator: Attention, entry: OperatorPlan) -> list[tuple[int, int]]:
    """Ranges of keys, whole panels of about the same number; no more parts than there are panels."""
    keys = operator.past + operator.tokens
    panels = -(-keys // NR)
    parts = min(entry.past_split, panels)
    return [(i * panels // parts * NR, min((i + 1) * panels // parts * NR, keys)) for i in range(parts)]


def part_tiles(operator: Attention, entry: OperatorPlan) -> list[Tile]:
    """The tasks that attend to one part each, of as many KV heads as the entry's tile has."""
    return [
        Tile(TaskKind.ATTENTION_PART, (*keys, *heads, sequence, sequence + 1), slot=part)
        for sequence in range(operator.batch)
        for heads in ranges(operator.kv_heads, entry.tile.n)
        for part, keys in enumerate(past_parts(operator, entry))
    ]


def combine_tiles(operator: Attention, entry: OperatorPlan) -> list[Tile]:
    """The tasks that combine the parts, cut by heads over the operator's workers."""
    parts, workers = len(past_parts(operator, entry)), len(entry.workers)
    step = -(-operator.kv_heads // max(1, workers // operator.batch))
    return [
        Tile(TaskKind.ATTENTION_COMBINE, (0, parts, *heads, sequence, sequence + 1))
        for sequence in range(operator.batch)
        for heads in ranges(operator.kv_heads, step)
    ]


# -- what they hand over


def is_staged(entry: OperatorPlan) -> bool:
    """Whether an attention has tasks that hand something to each other."""
    return entry.pipeline is not None or entry.past_split > 1


def handover_shape(operator: Attention, entry: OperatorPlan) -> tuple[int, int]:
    """Places in the buffer of a staged attention, and f32 elements of a place.

    They are `sms_ring_place_size` and `sms_attention_part_size` of `native/include/smesim/layout.h`.
    """
    group = operator.heads // operator.kv_heads
    if entry.pipeline is None:
        places = len(past_parts(operator, entry)) * operator.batch * operator.kv_heads
        elements = operator.tokens * group * (operator.head_dim + 2)
    else:
        pipeline = fitted(operator, entry.pipeline)
        places = pipeline.lanes * pipeline.depth
        elements = pipeline.query_block * group * (pipeline.key_block + 2 * operator.head_dim + 3)
    return places, -(-elements // NR) * NR


def block_facts(operator: Attention, entry: OperatorPlan) -> dict[str, float]:
    """The columns of the operator's row in `Program.ops` that say how large its blocks are; none without blocks."""
    if entry.pipeline is None:
        return {}
    pipeline = fitted(operator, entry.pipeline)
    return {"query_block": pipeline.query_block, "key_block": pipeline.key_block}
