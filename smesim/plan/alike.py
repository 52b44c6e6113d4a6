"""Lowering a model whose layers are alike: a few of them, and the others as copies.

Layers of one model differ by nothing but numbers: which weights and caches they use, and where their tasks stand in the
program. So a program of three layers tells that of any more: behind its middle layer come copies of it, each with its
own buffers, operators, tasks, edges, pools and places in the queues, and what follows moves up by as many. The result
is the program that `lower` makes of the whole plan, bit for bit, in a few milliseconds.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from smesim.plan.lower import lower
from smesim.plan.program import NO_BUFFER, SLOTS, EntryKind, Program
from smesim.plan.schema import Plan

SAMPLE_LAYERS = 3
"""The first, which comes behind the embedding; one that is like all others; and the last, before the head."""
_LAYER = re.compile(r"(?<=^layers\.)\d+(?=\.)")

Rows = npt.NDArray[Any]


def lower_alike(plan: Plan) -> Program:
    """The program that `lower` makes of a plan. PlanError as there."""
    if plan.layers <= SAMPLE_LAYERS or plan.last_layer_rows != "all":
        return lower(plan)
    sample = lower(plan.model_copy(update={"layers": SAMPLE_LAYERS}))
    return _Stretching(sample, plan.layers - SAMPLE_LAYERS).program(plan)


@dataclasses.dataclass(frozen=True)
class _Stretch:
    """The part of an array that is of the middle layer: rows begin..end."""

    begin: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.begin

    def of(self, rows: Rows, copies: int) -> Rows:
        """The array with copies of the part behind it."""
        return np.concatenate([rows[: self.end], *[rows[self.begin : self.end]] * copies, rows[self.end :]])

    def turns(self, rows: Rows, copies: int) -> npt.NDArray[np.int64]:
        """For each row of the longer array, how many copies it has moved up by."""
        repeated = np.repeat(np.arange(1, copies + 1), self.length)
        return np.concatenate([np.zeros(self.end, int), repeated, np.full(len(rows) - self.end, copies)])


class _Stretching:
    def __init__(self, sample: Program, copies: int) -> None:
        self.sample, self.copies = sample, copies
        layer = sample.ops["layer"]
        self.ops = _Stretch(*(int(np.argmax(layer == number)) for number in (1, 2)))
        owner = sample.tasks["op"][sample.segments["task_begin"]]
        segment = int(np.searchsorted(owner, self.ops.begin))
        self.segments = _Stretch(segment, segment + 1)
        facts = sample.segments[segment]
        self.tasks = _Stretch(int(facts["task_begin"]), int(facts["task_end"]))
        of_tasks = sample.tasks[self.tasks.begin : self.tasks.end]
        self.edges = _Stretch(int(of_tasks["successor_begin"][0]), int(of_tasks["successor_end"][-1]))
        self.first_of_pool = sample.pool_tasks[sample.pools["begin"]]
        self.pools = self.by_task(self.first_of_pool)
        ends = np.append(sample.pools["begin"], len(sample.pool_tasks))
        self.pool_tasks = _Stretch(int(ends[self.pools.begin]), int(ends[self.pools.end]))
        own = [i for i, name in enumerate(sample.buffer_names) if name.startswith("layers.1.")]
        self.buffers = _Stretch(own[0], own[-1] + 1)

    def by_task(self, first: npt.NDArray[np.integer]) -> _Stretch:
        """The part of what is ordered by the tasks that it leads to."""
        begin, end = np.searchsorted(first, (self.tasks.begin, self.tasks.end))
        return _Stretch(int(begin), int(end))

    def stretched(self, rows: Rows, part: _Stretch, **moved: _Stretch) -> Rows:
        """The longer array; columns of `moved` count what is moved up by that much for each copy."""
        longer, turns = part.of(rows, self.copies), part.turns(rows, self.copies)
        for name, by in moved.items():
            longer[name] += (turns * by.length).astype(longer[name].dtype)
        return longer

    def program(self, plan: Plan) -> Program:
        sample = self.sample
        queues = [self.queue(sample.queue(worker)) for worker in range(sample.n_workers)]
        workers, lengths = sample.workers.copy(), np.cumsum([0, *map(len, queues)])
        workers["entry_begin"], workers["entry_end"] = lengths[:-1], lengths[1:]
        edges = self.edges.of(sample.successors, self.copies)
        edges += (self.edges.turns(sample.successors, self.copies) * self.tasks.length).astype(np.int32)
        pool_tasks = self.pool_tasks.of(sample.pool_tasks, self.copies)
        pool_tasks += (self.pool_tasks.turns(sample.pool_tasks, self.copies) * self.tasks.length).astype(np.int32)
        moved = {"op": self.ops, "successor_begin": self.edges, "successor_end": self.edges}
        return dataclasses.replace(
            sample,
            ops=self.operators(),
            tasks=self.stretched(sample.tasks, self.tasks, **moved),
            successors=edges,
            workers=workers,
            entries=np.concatenate(queues),
            pools=self.stretched(sample.pools, self.pools, begin=self.pool_tasks, end=self.pool_tasks),
            pool_tasks=pool_tasks,
            buffers=self.buffers.of(sample.buffers, self.copies),
            segments=self.stretched(sample.segments, self.segments, task_begin=self.tasks, task_end=self.tasks),
            op_names=self.names(sample.op_names, self.ops),
            op_sites=tuple(self.ops.of(np.array(sample.op_sites, object), self.copies).tolist()),
            op_kinds=tuple(self.ops.of(np.array(sample.op_kinds, object), self.copies).tolist()),
            buffer_names=self.names(sample.buffer_names, self.buffers),
            layers=plan.layers,
            plan_fingerprint=plan.fingerprint(),
        )

    def operators(self) -> Rows:
        ops, turns = self.ops.of(self.sample.ops, self.copies), self.ops.turns(self.sample.ops, self.copies)
        ops["layer"] += np.where(ops["layer"] >= 0, turns, 0).astype(np.int32)
        for slot in SLOTS:
            moves = (ops[slot] != NO_BUFFER) & (ops[slot] >= self.buffers.begin)
            ops[slot] += np.where(moves, turns * self.buffers.length, 0).astype(np.int32)
        return ops

    def queue(self, entries: Rows) -> Rows:
        """One worker's entries."""
        is_pool = entries["kind"] == EntryKind.POOL
        first = entries["index"].copy()
        first[is_pool] = self.first_of_pool[entries["index"][is_pool]]
        part = self.by_task(first)
        longer, turns = part.of(entries, self.copies), part.turns(entries, self.copies)
        step = np.where(longer["kind"] == EntryKind.POOL, self.pools.length, self.tasks.length)
        longer["index"] += (turns * step).astype(longer["index"].dtype)
        return longer

    def names(self, names: tuple[str, ...], part: _Stretch) -> tuple[str, ...]:
        """Names with the numbers of their layers."""
        longer, turns = part.of(np.array(names, object), self.copies), part.turns(np.array(names, object), self.copies)
        return tuple(
            _LAYER.sub(lambda number, turn=turn: str(int(number[0]) + turn), name)  # type: ignore[misc]
            for name, turn in zip(longer.tolist(), turns.tolist(), strict=True)
        )
