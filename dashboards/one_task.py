"""One task looked at closely: when it ran and what that time is made of, what it waited for, and how far off it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from smesim.trace import Comparison, Trace
from smesim.trace.compare import PARTS

Fact = str | float | int | None


@dataclass(frozen=True)
class Wait:
    """What a task could not start before: another task, as one that it needs or as the one before it on its worker."""

    task: int
    words: str


def last_wait(trace: Trace, task: int) -> Wait | None:
    """What ended last of all that a task had to wait for, in the median run; None if it could start at once.

    Joins are no tasks: what they wait for ended when the task was ready.
    """
    tasks = trace.run(trace.middle_runs()[0]).set_index("task")
    row: Any = tasks.loc[task]
    needed = _ended_last(tasks, _predecessors(trace, task))
    on_worker = tasks[(tasks["worker"] == row["worker"]) & (tasks["start_s"] < row["start_s"])]
    before = on_worker["end_s"].idxmax() if len(on_worker) else None
    ready_s = float(row["ready_s"])
    if before is not None and not tasks.loc[before, "end_s"] <= ready_s:  # also where nobody knows when it was ready
        return Wait(int(before), f"its worker, busy with {_named(tasks, int(before))}")
    return None if needed is None else Wait(needed, _named(tasks, needed))


def _named(tasks: pd.DataFrame, task: int) -> str:
    return f"task {task}, {tasks.loc[task, 'op_name']!s}"


def _predecessors(trace: Trace, task: int) -> list[int]:
    pairs = trace.dependencies
    found: list[int] = pairs.loc[pairs["successor"] == task, "predecessor"].tolist()
    return found


def _ended_last(tasks: pd.DataFrame, candidates: list[int]) -> int | None:
    known = tasks.index.intersection(candidates)
    return int(tasks.loc[known, "end_s"].idxmax()) if len(known) else None


def facts(trace: Trace, task: int) -> dict[str, Fact]:
    """What a task of the median run was: its times in µs, what they are made of, and what it waited for."""
    tasks = trace.run(trace.middle_runs()[0])
    row: dict[Any, Any] = tasks.loc[tasks["task"] == task].iloc[0].to_dict()
    wait = last_wait(trace, task)
    spans = {f"{part}, µs": float(row[f"{part}_s"]) * 1e6 for part in ("compute", "transfer", "overhead")}
    ready_s = float(row["ready_s"])
    return {
        "operator": str(row["op_name"]),
        "kind": str(row["kind"]),
        "worker": trace.meta.workers[int(row["worker"])],
        "waited for": None if wait is None else wait.words,
        "ready, ms": ready_s * 1e3 if np.isfinite(ready_s) else None,
        "start, ms": float(row["start_s"]) * 1e3,
        "duration, µs": float(row["end_s"] - row["start_s"]) * 1e6,
        **{name: value if np.isfinite(value) else None for name, value in spans.items()},
        "bound": str(row["bound"]) or None,
        "FLOP": int(row["flop"]),
        "bytes": int(row["bytes"]),
    }


def error_split(comparison: Comparison, task: int) -> dict[str, float]:
    """Measured minus predicted of one task, µs of its worker, and the parts that it is the sum of."""
    rows = comparison.tasks
    row = rows[rows["task"] == task].iloc[0]
    parts = {part: float(row[f"{part}_error_s"]) * 1e6 for part in PARTS}
    return {"measured minus predicted": sum(parts.values()), **parts}
