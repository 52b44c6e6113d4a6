"""A program that moves along a sequence: lowered once, run at many places.

A program is made for one place: so many tokens behind so many past ones. But what it does at the next place is nearly
the same. Rotary positions and the KV cache begin one further on, attention sees more keys, and that is all; tasks,
queues, dependencies and weights stay. So a session plans once for a span of places, and moves the program by writing a
few numbers of its operators, which takes microseconds:

- `past` of rotary operators, appends and attention, in every layer;
- of attention whose past is divided among workers, the keys of each part;
- how many of its rows are tokens: the others fill it up, and the logits are those of the last token.

KV caches and rotary tables get room for all places of the session, so that all its programs have the same.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from smesim.errors import PlanError
from smesim.plan.buffers import ROPE_TABLES
from smesim.plan.lower import lower
from smesim.plan.pipeline import past_parts
from smesim.plan.program import BufferRole, Program, TaskKind
from smesim.plan.schema import Plan
from smesim.plan.tiles import kv_capacity
from smesim.workload.operators import Attention
from smesim.workload.phase import Phase

_AT_A_PLACE = (
    TaskKind.ROPE, TaskKind.KV_APPEND, TaskKind.ATTENTION, TaskKind.ATTENTION_QK, TaskKind.ATTENTION_PART,
)  # fmt: skip


def with_room(program: Program, positions: int) -> Program:
    """The same program with KV caches and rotary tables for so many positions, in whole panels."""
    capacity = kv_capacity(positions)
    ops, buffers = program.ops.copy(), program.buffers.copy()
    most = int(ops["capacity"].max())
    if capacity < most:
        raise PlanError(f"room for {positions} positions asked for; the program has {most} in its KV caches already")
    ops["capacity"][ops["capacity"] > 0] = capacity
    caches = buffers["role"] == BufferRole.KV
    buffers["n_bytes"][caches] = buffers["n_bytes"][caches] // buffers["rows"][caches] * capacity
    tables = np.isin(program.buffer_names, ROPE_TABLES)
    buffers["n_bytes"][tables] = buffers["n_bytes"][tables] // buffers["rows"][tables] * capacity
    buffers["rows"][caches | tables] = capacity
    return dataclasses.replace(program, ops=ops, buffers=buffers)


class MovingProgram:
    """A plan lowered for a session: `program` is what runs, at the place where it was moved to last.

    `positions` is the room in the KV caches. A plan with attention in stages has other tasks at every place, and can
    only be run at its own; PlanError if it is asked to move.
    """

    def __init__(self, plan: Plan, positions: int) -> None:
        self.plan = plan
        self.phase = Phase.parse(plan.phase)
        graph = plan.graph()
        self.program = program = with_room(lower(plan, graph), positions)
        self.tokens = self.phase.tokens
        self._past = self.phase.past
        self._at_place = np.isin(program.ops["kind"], _AT_A_PLACE)
        rows = program.buffers["rows"][np.maximum(program.ops["input0"], 0)]
        drops = (program.ops["input0"] >= 0) & (program.ops["m"] < rows) & (program.ops["tokens"] == 0)
        self._last_rows = np.flatnonzero(drops)
        operator = next(o for o in graph.operators if isinstance(o, Attention))
        self._attention = operator
        entry = plan.site(operator.site)
        self._staged = entry.pipeline is not None
        self._entry = entry.model_copy(update={"past_split": len(past_parts(operator, entry))})
        self._parts = np.flatnonzero(program.tasks["kind"] == TaskKind.ATTENTION_PART)

    @property
    def is_fixed(self) -> bool:
        """Whether it can be run at its own place only."""
        return self._staged

    @property
    def rows(self) -> int:
        """Tokens of all sequences that there is room for in one run."""
        return self.phase.rows

    def plan_at(self, past: int) -> Plan:
        """The same division of the phase behind so many past tokens."""
        phase = dataclasses.replace(self.phase, past=past)
        entries = (e if e.site != self._entry.site else self._entry for e in self.plan.operators)
        return self.plan.model_copy(update={"phase": str(phase), "operators": tuple(entries)})

    def move(self, past: int, tokens: int | None = None) -> None:
        """To behind `past` tokens of each sequence, with so many new ones, at most and by default as many as planned.

        A past below that of the plan is accepted only if the plan's attention is in one part.
        """
        ops, tasks = self.program.ops, self.program.tasks
        if past != self._past:
            if self._staged:
                raise PlanError(f"attention in stages, planned behind {self._past} tokens, cannot run behind {past}")
            ops["past"][self._at_place] = past
            if len(self._parts):
                moved = dataclasses.replace(self._attention, past=past)
                bounds = np.array(past_parts(moved, self._entry), np.int32)
                slots = tasks["slot"][self._parts]
                tasks["begin0"][self._parts], tasks["end0"][self._parts] = bounds[slots].T
            self._past = past
        ops["tokens"][self._last_rows] = self.tokens if tokens is None else tokens

