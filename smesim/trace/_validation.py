"""The rules a trace keeps, checked on whole columns at once.

1. Every run 0 .. runs-1 holds the same tasks, and a task is the same operator, work and bytes in every run.
2. Times are finite; a task is ready before it starts and starts before it ends; nothing happens before 0.
3. A worker does one task at a time.
4. A task starts after all that it depends on has ended.
5. A link never grants more than its capacity.
6. A prediction says what each task is made of and what bounds it; a measurement claims neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smesim.errors import TraceError

if TYPE_CHECKING:
    import pandas as pd

BOUNDS = ("compute", "bandwidth", "overhead")

CLOCK_SLACK_S = {"simulated": 1e-9, "measured": 1e-7, "emulated": 1e-7}
"""How far two times may contradict each other. A simulation sums floats in different orders (1 ns is far
below any task); real stamps come from two cores whose clock reads are not ordered with the instructions
around them."""

_SAME_IN_EVERY_RUN = ("task", "op", "op_name", "site", "layer", "op_kind", "kind", "flop", "bytes")


def check_columns(frame: str, given: Sequence[str], expected: Mapping[str, str]) -> None:
    unknown = [name for name in given if name not in expected]
    if unknown:
        raise TraceError(f"trace {frame}: unknown column {unknown[0]!r}; known are {', '.join(expected)}")
    missing = [name for name in expected if name not in given]
    if missing:
        raise TraceError(f"trace {frame}: column {missing[0]!r} is missing")


def _times(tasks: pd.DataFrame, column: str) -> NDArray[np.float64]:
    return tasks[column].to_numpy(dtype=np.float64)


def _where(tasks: pd.DataFrame, row: int) -> str:
    line = tasks.iloc[row]
    return f"run {line['run']}, task {line['task']} ({line['op_name']}, worker {line['worker']})"


def _refuse_first(tasks: pd.DataFrame, broken: NDArray[np.bool_], rule: str) -> None:
    if broken.any():
        row = int(np.flatnonzero(broken)[0])
        line = tasks.iloc[row]
        raise TraceError(
            f"trace tasks: {_where(tasks, row)}: {rule} "
            f"(ready {line['ready_s']!r} s, start {line['start_s']!r} s, end {line['end_s']!r} s)"
        )


def _same_tasks(tasks: pd.DataFrame, runs: int) -> None:
    if len(tasks) == 0 or len(tasks) % runs:
        raise TraceError(f"trace tasks: {len(tasks)} rows cannot be {runs} run(s) of the same tasks")
    expected = np.repeat(np.arange(runs), len(tasks) // runs)
    if not np.array_equal(tasks["run"].to_numpy(), expected):
        raise TraceError(
            f"trace tasks: every run 0 to {runs - 1} must hold the same tasks, sorted by run and task"
        )
    for column in _SAME_IN_EVERY_RUN:
        values = tasks[column]
        numbers: NDArray[Any] = (
            values.cat.codes.to_numpy() if values.dtype == "category" else values.to_numpy()
        )
        by_run = numbers.reshape(runs, -1)
        differs = (by_run != by_run[0]).any(axis=0)
        if differs.any():
            task = int(tasks["task"].iloc[int(np.flatnonzero(differs)[0])])
            raise TraceError(f"trace tasks: task {task}: column {column!r} is not the same in every run")
    identifiers = tasks["task"].to_numpy()[: len(tasks) // runs]
    repeated = identifiers[1:][identifiers[1:] == identifiers[:-1]]
    if len(repeated):
        raise TraceError(f"trace tasks: task {int(repeated[0])} appears twice in one run")


def _one_task_at_a_time(tasks: pd.DataFrame, slack_s: float) -> None:
    run, worker = tasks["run"].to_numpy(), tasks["worker"].to_numpy()
    start_s, end_s = _times(tasks, "start_s"), _times(tasks, "end_s")
    order = np.lexsort((end_s, start_s, worker, run))
    same_worker = (run[order][1:] == run[order][:-1]) & (worker[order][1:] == worker[order][:-1])
    broken = np.zeros(len(tasks), dtype=bool)
    broken[order[1:]] = same_worker & (start_s[order][1:] < end_s[order][:-1] - slack_s)
    _refuse_first(tasks, broken, "starts before the task before it on the same worker ends")


def check_tasks(tasks: pd.DataFrame, source: str, runs: int, workers: int) -> None:
    """Rules 1, 2, 3 and 6."""
    _same_tasks(tasks, runs)
    slack_s = CLOCK_SLACK_S[source]
    ready_s, start_s, end_s = (_times(tasks, name) for name in ("ready_s", "start_s", "end_s"))
    worker = tasks["worker"].to_numpy()
    _refuse_first(
        tasks, ~(np.isfinite(start_s) & np.isfinite(end_s) & ~np.isinf(ready_s)), "a time is not finite"
    )
    _refuse_first(tasks, (worker < 0) | (worker >= workers), f"the trace has workers 0 to {workers - 1}")
    _refuse_first(tasks, (start_s < 0) | (ready_s < 0), "happens before the run starts")
    _refuse_first(tasks, end_s < start_s, "ends before it starts")
    _refuse_first(tasks, start_s < ready_s - slack_s, "starts before it is ready")
    _refuse_first(
        tasks, (tasks["flop"].to_numpy() < 0) | (tasks["bytes"].to_numpy() < 0), "negative FLOP or bytes"
    )
    _one_task_at_a_time(tasks, slack_s)
    parts = np.stack([_times(tasks, name) for name in ("compute_s", "transfer_s", "overhead_s")])
    bound = tasks["bound"].astype(str).to_numpy()
    if source == "simulated":
        complete = (np.isfinite(parts) & (parts >= 0)).min(axis=0)
        _refuse_first(tasks, ~complete, "a prediction needs its parts, >= 0 s")
        _refuse_first(tasks, ~np.isin(bound, BOUNDS), f"a prediction's bound is one of {', '.join(BOUNDS)}")
        _refuse_first(tasks, parts[2] > end_s - start_s + slack_s, "more overhead than the task lasts")
    else:
        _refuse_first(
            tasks, ~np.isnan(parts).all(axis=0) | (bound != ""), f"a {source} trace has no parts and no bound"
        )


def check_dependencies(tasks: pd.DataFrame, dependencies: pd.DataFrame, source: str, runs: int) -> None:
    """Rule 4, in every run."""
    if dependencies.empty:
        return
    identifiers = tasks["task"].to_numpy()[: len(tasks) // runs]
    pairs = dependencies[["predecessor", "successor"]].to_numpy()
    position = np.searchsorted(identifiers, pairs)
    known = position < len(identifiers)
    known[known] = identifiers[position[known]] == pairs[known]
    if not known.all():
        raise TraceError(f"trace dependencies: task {int(pairs[~known][0])} is not in the trace")
    if (pairs[:, 0] == pairs[:, 1]).any():
        raise TraceError(
            f"trace dependencies: task {int(pairs[pairs[:, 0] == pairs[:, 1]][0, 0])} depends on itself"
        )
    before, after = position[:, 0], position[:, 1]
    end_s = _times(tasks, "end_s").reshape(runs, -1)[:, before]
    start_s = _times(tasks, "start_s").reshape(runs, -1)[:, after]
    broken = np.argwhere(start_s < end_s - CLOCK_SLACK_S[source])
    if len(broken):
        run, pair = (int(index) for index in broken[0])
        raise TraceError(
            f"trace dependencies: run {run}: task {pairs[pair, 1]} starts at {start_s[run, pair]!r} s, "
            f"before task {pairs[pair, 0]}, which it depends on, ends at {end_s[run, pair]!r} s"
        )


def check_links(links: pd.DataFrame) -> None:
    """Rule 5, and that each link's times do not run backwards."""
    numbers = links[["start_s", "granted_bytes_per_s", "capacity_bytes_per_s"]].to_numpy()
    broken = ~np.isfinite(numbers).all(axis=1) | (numbers < 0).any(axis=1)
    # Rates are solved in floats, so "never more" is up to a relative rounding error.
    broken |= numbers[:, 1] > numbers[:, 2] * (1 + 1e-9)
    if broken.any():
        line = links.iloc[int(np.flatnonzero(broken)[0])]
        raise TraceError(
            f"trace links: {line['link']} at {line['start_s']!r} s grants {line['granted_bytes_per_s']!r} of "
            f"{line['capacity_bytes_per_s']!r} bytes/s; needed: finite, >= 0, never above the capacity"
        )
    for name, start_s in links.groupby("link", observed=True)["start_s"]:
        if not start_s.is_monotonic_increasing:
            raise TraceError(f"trace links: {name}: time runs backwards")
