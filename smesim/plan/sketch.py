"""A sketch: the tasks of a single operator as plain numbers.

It says what a `Program` of that operator would say, and is made in a fraction of the time: arrays, names, a fingerprint
and a signature pay where there are layers to be repeated, traces to be written or C code to read them, and none of that
is asked for where a sweep wants the time of one operator after another. `lower.sketch` makes it by the same rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from smesim.plan.program import BufferRow, OpRow, TaskRow


class Rows(Protocol):
    """Operators and tasks as rows of numbers, and the buffers: a program or a sketch."""

    @property
    def op_rows(self) -> list[OpRow]: ...

    def task_row(self, task: int) -> TaskRow: ...

    def buffer_row(self, buffer: int) -> BufferRow: ...


@dataclass(frozen=True)
class Sketch:
    """The operator's row; of each task the first columns of its row, and the tasks that it waits for; of each worker
    the entries of its queue, kind and index; of each pool its tasks; the buffers; of each worker its core, role and
    unit."""

    op: OpRow
    tasks: Sequence[Sequence[int]]
    predecessors: Sequence[tuple[int, ...]]
    entries: Sequence[Sequence[tuple[int, int]]]
    pools: Sequence[Sequence[int]]
    buffer_rows: Sequence[BufferRow]
    workers: tuple[tuple[int, int, int], ...]
    elsewhere_bytes: int

    @property
    def op_rows(self) -> list[OpRow]:
        return [self.op]

    def task_row(self, task: int) -> TaskRow:
        """The task's row; what it waits for is in `predecessors`."""
        return TaskRow._make([*self.tasks[task], 0, 0, 0])

    def buffer_row(self, buffer: int) -> BufferRow:
        return self.buffer_rows[buffer]
