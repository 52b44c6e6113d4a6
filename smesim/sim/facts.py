"""Facts: what the costs of a program's tasks depend on besides the chip, worked out once a program.

How far away its bytes are, of what it hands over how much another worker wrote, and which of its operators are alike.
Of a sketch, which is one operator by itself, hardly anything of that is left to work out: nobody else touches its
buffers but the rest of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smesim.hwmodel.kept import kept_with
from smesim.plan.program import NO_BUFFER, SLOTS, EntryKind, Program, TaskKind
from smesim.plan.records import words
from smesim.plan.reuse import KEPT_ROLES, reuse_distances, touched_bytes, touched_of_operator
from smesim.plan.sketch import Rows, Sketch

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
Shares = Mapping[TaskKind, Sequence[float] | Floats]

HANDED_OVER = (
    (TaskKind.ATTENTION_QK, TaskKind.ATTENTION_SOFTMAX),
    (TaskKind.ATTENTION_SOFTMAX, TaskKind.ATTENTION_PV),
)


@dataclass(frozen=True)
class Facts:
    """For each slot and operator `far_bytes`, all that is touched between two touches of a byte of its buffer;
    `pass_bytes` is what a pass touches, with what of the model is elsewhere. `foreign` are `foreign_shares`, `op_keys`
    numbers that are the same for operators whose tasks cost the same."""

    rows: Rows
    far_bytes: Mapping[str, Sequence[float]]
    pass_bytes: float
    foreign: Shares
    op_keys: Sequence[int]


def facts_of(program: Program) -> Facts:
    """The facts of a program, the same object whenever they are asked for."""
    return kept_with(program, "facts", lambda: _facts(program))


def _facts(program: Program) -> Facts:
    distances, touched = reuse_distances(program), touched_bytes(program)
    foreign = foreign_shares(program)
    # Between two touches of a byte lies all that was touched between, and the rest of its buffer.
    far_bytes = {slot: (far + touched[program.ops[slot]]).tolist() for slot, far in distances.items()}
    return Facts(
        rows=program,
        far_bytes=far_bytes,
        pass_bytes=float(touched.sum() + program.elsewhere_bytes),
        foreign=foreign,
        op_keys=_op_keys(program, distances, touched, foreign),
    )


def _op_keys(
    program: Program, distances: Mapping[str, Int64s], touched: Int64s, foreign: Mapping[TaskKind, Floats]
) -> list[int]:  # fmt: skip
    """For each operator a number for what its costs depend on: its shape and the sizes of its buffers, not which they
    are."""
    ops = program.ops.copy()
    ops["layer"] = 0
    buffers = words(ops)[:, -len(SLOTS) :]
    sizes = np.where(buffers != NO_BUFFER, touched[buffers], NO_BUFFER)
    buffers[:] = 0
    far = np.array([*distances.values(), *(shares.view(np.int64) for shares in foreign.values())])
    rows = np.concatenate([words(ops), sizes.view(np.int32), far.T.copy().view(np.int32)], axis=1)
    known: dict[bytes, int] = {}
    return [known.setdefault(row.tobytes(), len(known)) for row in rows]


def facts_of_sketch(sketch: Sketch) -> Facts:
    """The same of an operator by itself."""
    op, touched = sketch.op, [row[0] for row in sketch.buffer_rows]
    of_experts = touched_of_operator(op)
    if of_experts is not None:
        touched[op.weight] = of_experts
    # Nobody else touches its buffers; weights, keys and values come again when the rest of the model has passed.
    away = [sketch.elsewhere_bytes if row[1] in KEPT_ROLES else 0 for row in sketch.buffer_rows]
    used = zip(SLOTS, map(int, op[-len(SLOTS) :]), strict=True)
    far_bytes = {slot: (away[buffer] + touched[buffer],) for slot, buffer in used if buffer != NO_BUFFER}
    pass_bytes = float(sum(touched) + sketch.elsewhere_bytes)
    return Facts(sketch, far_bytes, pass_bytes, _foreign_of_sketch(sketch), (0,))


def _foreign_of_sketch(sketch: Sketch) -> Shares:
    if sketch.op.handover == NO_BUFFER:
        return _NOTHING_FOREIGN
    teams = _Teams(len(sketch.workers))
    team_of = np.array([max(task[2], 0) for task in sketch.tasks], np.int64)
    visitors: dict[int, set[int]] = {}
    for worker, queue in enumerate(sketch.entries):
        for kind, index in queue:
            if kind == EntryKind.POOL:
                visitors.setdefault(index, set()).add(worker)
    for pool, workers in visitors.items():
        team_of[sketch.pools[pool]] = teams.number(frozenset(workers))
    edges = sorted((before, task) for task, after in enumerate(sketch.predecessors) for before in after)
    kinds = np.array([task[1] for task in sketch.tasks])
    op = np.zeros(len(sketch.tasks), np.int64)
    writers, readers = np.array(edges, np.int64).reshape(-1, 2).T
    return _foreign(kinds, op, 1, writers, readers, teams, team_of)


def foreign_shares(program: Program) -> dict[TaskKind, Floats]:
    """By kind of reading task, for each operator: of what it takes over, the share that another worker wrote.

    A task in a pool falls to any of its visitors, to each as likely as to the others.
    """
    if not (program.ops["handover"] != NO_BUFFER).any():
        return _nothing_foreign(len(program.ops))
    teams, team_of = _teams(program)
    counts = program.tasks["successor_end"] - program.tasks["successor_begin"]
    writers = np.repeat(np.arange(program.n_tasks), counts)
    tasks = program.tasks
    return _foreign(tasks["kind"], tasks["op"], len(program.ops), writers, program.successors, teams, team_of)


def _nothing_foreign(n_ops: int) -> dict[TaskKind, Floats]:
    kinds = (TaskKind.ATTENTION_SOFTMAX, TaskKind.ATTENTION_PV, TaskKind.ATTENTION_COMBINE)
    return dict.fromkeys(kinds, np.zeros(n_ops))


_NOTHING_FOREIGN = _nothing_foreign(1)


class _Teams:
    """The sets of workers that tasks may fall to, by number; those of one worker have its number."""

    def __init__(self, n_workers: int) -> None:
        self._numbers = {frozenset({worker}): worker for worker in range(n_workers)}

    def number(self, team: frozenset[int]) -> int:
        return self._numbers.setdefault(team, len(self._numbers))

    def apart(self) -> Floats:
        """How likely a task of one team and one of another are to fall to different workers."""
        teams = list(self._numbers)
        return np.array([[1.0 - len(a & b) / (len(a) * len(b)) for b in teams] for a in teams])


def _foreign(
    kind: npt.NDArray[np.integer], op: npt.NDArray[np.integer], n_ops: int, writers: npt.NDArray[np.integer],
    readers: npt.NDArray[np.integer], teams: _Teams, team_of: Int64s,
) -> dict[TaskKind, Floats]:  # fmt: skip
    apart = teams.apart()
    shares = {}
    for written_by, read_by in HANDED_OVER:
        edges = (kind[writers] == written_by) & (kind[readers] == read_by)
        writer, reader = writers[edges], readers[edges]
        foreign = np.bincount(op[reader], weights=apart[team_of[writer], team_of[reader]], minlength=n_ops)
        shares[read_by] = foreign / np.maximum(np.bincount(op[reader], minlength=n_ops), 1)
    combined = shares[TaskKind.ATTENTION_COMBINE] = np.zeros(n_ops)  # behind a join: any part with any task
    for index in np.unique(op[kind == TaskKind.ATTENTION_COMBINE]):
        writer, reader = (
            team_of[(op == index) & (kind == side)] for side in (TaskKind.ATTENTION_PART, TaskKind.ATTENTION_COMBINE)
        )
        combined[index] = apart[np.ix_(writer, reader)].mean()
    return shares


def _teams(program: Program) -> tuple[_Teams, Int64s]:
    """The teams of a program, and for each task which of them it may fall to; of joins it says nothing."""
    teams = _Teams(program.n_workers)
    team_of = np.maximum(program.tasks["worker"].astype(np.int64), 0)
    visitors: dict[int, set[int]] = {}
    for worker in range(program.n_workers):
        queue = program.queue(worker)
        for pool in np.unique(queue["index"][queue["kind"] == EntryKind.POOL]).tolist():
            visitors.setdefault(pool, set()).add(worker)
    for pool, workers in visitors.items():
        begin, end = program.pools[pool].item()
        team_of[program.pool_tasks[begin:end]] = teams.number(frozenset(workers))
    return teams, team_of
