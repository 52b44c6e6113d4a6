"""How long an operator took, when operators share the workers.

Operators run beside and into each other, so "from its first start to its last end" counts some time twice and
some not at all. Here every worker's timeline, from the start of a run to its end, is cut into pieces, and
each piece belongs to exactly one operator:

    worker 0  |..task of A....|wait|..task of B..|........tail........|
    worker 1  |wait|..task of A.......|wait|........task of B.........|
              start of the run                            end of the run

- a task, and the gap before it on its worker, belong to the task's operator;
- the idle tail behind a worker's last task belongs to the operator that ends last.

The gap before a task is *waiting* until the task is ready (its last dependency done), and *dispatch* from
then until it starts. An operator's elapsed time is the sum of its pieces over the workers, divided by the
number of workers. So the elapsed times of all operators add up to the makespan of the run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smesim.trace.schema import Trace

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pieces:
    """The cut timelines. Arrays have the shape (runs, tasks of a run), tasks in order of their identifier.

    `wait_s + dispatch_s + busy_s`, summed over the tasks of a run, plus its `tail_s`, is workers * makespan.
    """

    wait_s: _Floats
    dispatch_s: _Floats
    busy_s: _Floats
    tail_s: _Floats
    """Shape (runs,): idle worker-seconds behind the last tasks, summed over the workers."""
    last_task: NDArray[np.intp]
    """Shape (runs,): position of the task that ends last; of several, the one with the largest identifier."""


def cut_pieces(trace: Trace) -> Pieces:
    """Cut every worker's timeline of every run into pieces; where `ready_s` is NaN, a gap is all waiting."""
    runs, workers = trace.meta.runs, len(trace.meta.workers)
    start_s, end_s, ready_s, worker = (
        trace.by_run(name) for name in ("start_s", "end_s", "ready_s", "worker")
    )
    shape = start_s.shape
    run_of = np.broadcast_to(np.arange(runs)[:, None], shape)
    lane = (run_of * workers + worker).ravel()
    order = np.lexsort((end_s.ravel(), start_s.ravel(), lane))
    lane_sorted, end_sorted = lane[order], end_s.ravel()[order]

    is_first = np.r_[True, lane_sorted[1:] != lane_sorted[:-1]]
    previous_end_sorted = np.where(is_first, 0.0, np.r_[0.0, end_sorted[:-1]])
    previous_end_s = np.empty(shape)
    previous_end_s.reshape(-1)[order] = previous_end_sorted

    gap_s = start_s - previous_end_s
    ready_s = np.where(np.isnan(ready_s), start_s, ready_s)
    wait_s = np.clip(ready_s - previous_end_s, 0.0, np.maximum(gap_s, 0.0))

    lane_end_s = np.zeros(runs * workers)
    is_last = np.r_[lane_sorted[1:] != lane_sorted[:-1], True]
    lane_end_s[lane_sorted[is_last]] = end_sorted[is_last]
    makespan_s = end_s.max(axis=1)
    tail_s = (makespan_s[:, None] - lane_end_s.reshape(runs, workers)).sum(axis=1)
    last_task = end_s.shape[1] - 1 - np.argmax(end_s[:, ::-1], axis=1)
    return Pieces(
        wait_s=wait_s, dispatch_s=gap_s - wait_s, busy_s=end_s - start_s, tail_s=tail_s, last_task=last_task
    )


@dataclass(frozen=True)
class Grouping:
    """Which group (an operator, or a site) each task of a run belongs to."""

    of_task: NDArray[np.intp]
    """Shape (tasks of a run,): position of the task's group."""
    groups: pd.DataFrame
    """One row a group, in order of the first operator: its names."""

    def total(self, values: _Floats) -> _Floats:
        """Sum over the tasks of each group: (runs, tasks) -> (runs, groups)."""
        runs, count = len(values), len(self.groups)
        index = (np.arange(runs)[:, None] * count + self.of_task).ravel()
        sums = np.bincount(index, weights=values.ravel(), minlength=runs * count)
        return np.asarray(sums, dtype=np.float64).reshape(runs, count)

    def total_with_tail(self, values: _Floats, pieces: Pieces) -> _Floats:
        """As `total`, with each run's tail added to the group of the task that ends last."""
        totals = self.total(values)
        totals[np.arange(len(totals)), self.of_task[pieces.last_task]] += pieces.tail_s
        return totals


def group_by_operator(trace: Trace) -> Grouping:
    """One group an operator, in order of its identifier; columns op, op_name, site, op_kind, layer."""
    first = trace.run(0)
    _, rows, of_task = np.unique(first["op"].to_numpy(), return_index=True, return_inverse=True)
    groups = first.iloc[rows][["op", "op_name", "site", "op_kind", "layer"]].reset_index(drop=True)
    return Grouping(of_task=of_task, groups=groups)


def group_by_site(trace: Trace) -> Grouping:
    """One group a site (all layers together), in order of its first operator; columns site, op_kind."""
    first = trace.run(0)
    by_op = np.argsort(first["op"].to_numpy(), kind="stable")
    codes, _ = pd.factorize(first["site"].array[by_op])
    of_task = np.empty(len(first), dtype=np.intp)
    of_task[by_op] = codes
    _, rows = np.unique(codes, return_index=True)
    groups = first.iloc[by_op[rows]][["site", "op_kind"]].reset_index(drop=True)
    return Grouping(of_task=of_task, groups=groups)


def elapsed_s(trace: Trace, pieces: Pieces, grouping: Grouping) -> _Floats:
    """Elapsed seconds of each group in each run, shape (runs, groups); a row adds up to the run's
    makespan."""
    task_s = pieces.wait_s + pieces.dispatch_s + pieces.busy_s
    return grouping.total_with_tail(task_s, pieces) / len(trace.meta.workers)


def _times(trace: Trace, grouping: Grouping) -> pd.DataFrame:
    pieces = cut_pieces(trace)
    idle_s = grouping.total_with_tail(pieces.wait_s + pieces.dispatch_s, pieces)
    busy_s = grouping.total(pieces.busy_s)
    runs, count = busy_s.shape
    frame = grouping.groups.iloc[np.tile(np.arange(count), runs)].reset_index(drop=True)
    frame.insert(0, "run", np.repeat(np.arange(runs, dtype=np.int32), count))
    frame["elapsed_s"] = elapsed_s(trace, pieces, grouping).ravel()
    frame["busy_s"] = busy_s.ravel()
    frame["wait_s"] = idle_s.ravel()
    frame["tasks"] = np.tile(np.bincount(grouping.of_task, minlength=count), runs)
    for name in ("bytes", "flop"):
        # Summed as integers: through floats, units are lost above 2**53.
        totals = np.zeros(count, dtype=np.int64)
        np.add.at(totals, grouping.of_task, trace.by_run(name)[0])
        frame[name] = np.tile(totals, runs)
    return frame


def operator_times(trace: Trace) -> pd.DataFrame:
    """One row a (run, operator): run, op, op_name, site, op_kind, layer, elapsed_s, busy_s, wait_s, tasks,
    bytes, flop.

    `busy_s` and `wait_s` (waiting, dispatch and tail) are worker-seconds: elapsed_s = (busy_s + wait_s) /
    workers. The `elapsed_s` of one run add up to its makespan.
    """
    return _times(trace, group_by_operator(trace))


def site_times(trace: Trace) -> pd.DataFrame:
    """As `operator_times`, one row a (run, site): all layers' operators at one site, summed."""
    return _times(trace, group_by_site(trace))
