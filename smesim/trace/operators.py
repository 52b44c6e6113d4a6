"""How long an operator took, when operators share the workers.

Operators run beside and into each other, so "from its first start to its last end" counts some time twice and
some not at all. Here every worker's timeline, from the start of a run to its end, is cut into pieces, and
each piece belongs to exactly one operator:

    worker 0  |..task of A.......|..task of B..|wait for C|
    worker 1  |..task of A..|wait|dispatch|..task of C....|
              start of the run              end of the run
                             `-- A's: it is what B and C wait for

- a task belongs to its operator;
- of the gap before a task, what comes after the task was ready (its last dependency done) is *dispatch*, and
  belongs to the task's operator too;
- all other idle time, the tail behind a worker's last task included, is *waiting*. A moment of waiting
  belongs to the task that ends next, on whichever worker: an operator that keeps one worker busy longer than
  the others pays for it, not the operator that comes after.

An operator's elapsed time is the sum of its pieces over the workers, divided by the number of workers: where
operators follow each other, the time from barrier to barrier. The elapsed times of all operators add up to
the makespan of the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from smesim.trace.schema import Trace

if TYPE_CHECKING:
    import pandas as pd

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pieces:
    """The cut timelines. Arrays have the shape (runs, tasks of a run), tasks in order of their identifier.

    Their sum over the tasks of a run is workers * makespan.
    """

    wait_s: _Floats
    """Worker-seconds of waiting until this task ended, summed over the workers."""
    dispatch_s: _Floats
    busy_s: _Floats

    @property
    def total_s(self) -> _Floats:
        return self.wait_s + self.dispatch_s + self.busy_s


def cut_pieces(trace: Trace) -> Pieces:
    """Cut every worker's timeline of every run into pieces; where `ready_s` is NaN, a gap is all waiting."""
    runs, workers = trace.meta.runs, len(trace.meta.workers)
    start_s, end_s, ready_s, worker = (trace.by_run(name) for name in ("start_s", "end_s", "ready_s", "worker"))
    shape = start_s.shape
    run_of = np.broadcast_to(np.arange(runs)[:, None], shape)
    lane = (run_of * workers + worker).ravel()
    order = np.lexsort((end_s.ravel(), start_s.ravel(), lane))
    lane_sorted, end_sorted = lane[order], end_s.ravel()[order]

    is_first = np.r_[True, lane_sorted[1:] != lane_sorted[:-1]]
    previous_end_sorted = np.where(is_first, 0.0, np.r_[0.0, end_sorted[:-1]])
    previous_end_s = np.empty(shape)
    previous_end_s.reshape(-1)[order] = previous_end_sorted
    ready_s = np.where(np.isnan(ready_s), start_s, ready_s)
    dispatched_s = np.clip(ready_s, previous_end_s, np.maximum(start_s, previous_end_s))

    lane_end_s = np.zeros((runs, workers))
    is_last = np.r_[lane_sorted[1:] != lane_sorted[:-1], True]
    lane_end_s.reshape(-1)[lane_sorted[is_last]] = end_sorted[is_last]
    return Pieces(
        wait_s=np.stack(
            [
                _waited_until_each_end(
                    end_s[run],
                    np.r_[previous_end_s[run], lane_end_s[run]],
                    np.r_[dispatched_s[run], np.full(workers, end_s[run].max())],
                )
                for run in range(runs)
            ]
        ),
        dispatch_s=start_s - dispatched_s,
        busy_s=end_s - start_s,
    )


def _waited_until_each_end(end_s: _Floats, idle_from_s: _Floats, idle_until_s: _Floats) -> _Floats:
    """Idle seconds, of all the intervals together, between each task's end and the end before it."""
    order = np.argsort(end_s, kind="stable")
    ends_s = end_s[order]
    is_gap = idle_until_s > idle_from_s
    idle_from_s, idle_until_s = idle_from_s[is_gap], idle_until_s[is_gap]
    # Between two neighbouring points nobody begins or ends waiting, and no task ends.
    points_s = np.concatenate([idle_from_s, idle_until_s, ends_s])
    step = np.repeat([1, -1, 0], [len(idle_from_s), len(idle_until_s), len(ends_s)])
    in_time = np.argsort(points_s, kind="stable")
    points_s = points_s[in_time]
    waiting = np.cumsum(step[in_time])[:-1]
    next_end = np.searchsorted(ends_s[:-1], points_s[:-1], side="right")
    until_each_s = np.empty_like(end_s)
    until_each_s[order] = np.bincount(next_end, weights=waiting * np.diff(points_s), minlength=len(end_s))
    return until_each_s


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


def group_by_operator(trace: Trace) -> Grouping:
    """One group an operator, in order of its identifier; columns op, op_name, site, op_kind, layer."""
    first = trace.run(0)
    _, rows, of_task = np.unique(first["op"].to_numpy(), return_index=True, return_inverse=True)
    groups = first.iloc[rows][["op", "op_name", "site", "op_kind", "layer"]].reset_index(drop=True)
    return Grouping(of_task=of_task, groups=groups)


def group_by_site(trace: Trace) -> Grouping:
    """One group a site (all layers together), in order of its first operator; columns site, op_kind."""
    import pandas as pd

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
    return grouping.total(pieces.total_s) / len(trace.meta.workers)


def _times(trace: Trace, grouping: Grouping) -> pd.DataFrame:
    pieces = cut_pieces(trace)
    idle_s = grouping.total(pieces.wait_s + pieces.dispatch_s)
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

    `busy_s` and `wait_s` (waiting and dispatch) are worker-seconds: elapsed_s = (busy_s + wait_s) /
    workers. The `elapsed_s` of one run add up to its makespan.
    """
    return _times(trace, group_by_operator(trace))


def site_times(trace: Trace) -> pd.DataFrame:
    """As `operator_times`, one row a (run, site): all layers' operators at one site, summed."""
    return _times(trace, group_by_site(trace))
