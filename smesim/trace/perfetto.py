"""A trace for ui.perfetto.dev: the Chrome trace event format (JSON).

Prediction and measurement become two processes on one time axis. Each worker is a track with one slice a
task; each link is a track with one slice a stretch of time in which something flows, and a counter of the
bandwidth granted; each dependency is an arrow (a flow) from the end of one slice to the start of the next.

Perfetto reads microseconds into whole nanoseconds, and drops a slice that overlaps another on its track
without lying inside it (github.com/google/perfetto/issues/4280). So times are rounded to nanoseconds first,
which keeps their order, and a slice never begins before the one before it on its track has ended.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smesim.errors import TraceError
from smesim.files import write_atomically
from smesim.trace.schema import Trace

PREDICTED_PID, MEASURED_PID = 1, 2
_TIDS_PER_PROCESS, _FIRST_WORKER, _FIRST_LINK = 100_000, 1, 50_001

PHASE_GAP_US = 1000.0
_MOST_TRACKS, _IDS_PER_PHASE = 1000, 100_000_000

Event = dict[str, Any]


def perfetto_document(
    predicted: Trace | None = None, measured: Trace | None = None, *, max_flows: int = 5000
) -> dict[str, Any]:
    """The trace event document of a prediction (process 1), a measurement (process 2: its median run), or
    both.

    Of the dependencies of each trace the first `max_flows` in time become arrows, since a viewer chokes on
    too many; `otherData` says how many there are. Raises TraceError if neither trace is given or max_flows is
    negative.
    """
    if predicted is None and measured is None:
        raise TraceError("a Perfetto file needs a prediction, a measurement, or both")
    if max_flows < 0:
        raise TraceError(f"max_flows is {max_flows}; 0 or more is accepted")
    events: list[Event] = []
    other: dict[str, str] = {}
    for trace, pid, label in ((predicted, PREDICTED_PID, "predicted"), (measured, MEASURED_PID, "measured")):
        if trace is None:
            continue
        meta = trace.meta
        run = trace.middle_runs()[0]
        name = f"{label} (median run)" if meta.runs > 1 else label
        track = _Workers(trace, run, pid)
        events += _names(trace, pid, name)
        events += track.slices()
        events += _link_events(trace.links, pid, track.end_ns)
        shown = track.flows(max_flows, first_id=pid * 10_000_000)
        events += shown
        other[f"{label} from"] = f"{meta.source}{', stand-in' if meta.stand_in else ''}: {meta.machine}"
        other[f"{label} program"] = (
            f"{meta.model}, {meta.phase}, layers run: {meta.layers}, planner {meta.planner}"
        )
        other[f"{label} run"] = f"{run} of {meta.runs}, counted from 0"
        other[f"{label} dependencies shown"] = f"the first {len(shown) // 2} of {len(trace.dependencies)}"
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": other}


def write_perfetto(
    path: Path | str, predicted: Trace | None = None, measured: Trace | None = None, *, max_flows: int = 5000
) -> None:
    """Write `perfetto_document` as JSON, whole or not at all."""
    document = perfetto_document(predicted, measured, max_flows=max_flows)
    write_atomically(Path(path), json.dumps(document, separators=(",", ":"), allow_nan=False) + "\n")


def write_perfetto_sequence(
    path: Path | str, pairs: Sequence[tuple[Trace, Trace]], *, max_flows: int = 5000
) -> None:
    """Write several (predicted, measured) pairs, the phases of one study, into one document: two processes still, and
    on both each phase begins `PHASE_GAP_US` after the longer of the two runs of the phase before."""
    events: list[Event] = []
    other: dict[str, str] = {}
    offset_us = 0.0
    for number, (predicted, measured) in enumerate(pairs):
        document = perfetto_document(predicted, measured, max_flows=max_flows)
        other |= {f"{measured.meta.phase}: {key}": value for key, value in document["otherData"].items()}
        for event in document["traceEvents"]:
            if event["ph"] == "M":
                if event not in events[:_MOST_TRACKS]:
                    events.append(event)
                continue
            event["ts"] = round(event["ts"] + offset_us, 3)
            if "id" in event:
                event["id"] += number * _IDS_PER_PHASE
            events.append(event)
        offset_us += max(float(t.makespans_s().max()) for t in (predicted, measured)) * 1e6 + PHASE_GAP_US
    document = {"traceEvents": events, "displayTimeUnit": "ms", "otherData": other}
    write_atomically(Path(path), json.dumps(document, separators=(",", ":"), allow_nan=False) + "\n")


def _to_ns(seconds: pd.Series[float]) -> NDArray[np.int64]:
    return np.asarray(np.rint(seconds.to_numpy(dtype=np.float64) * 1e9), dtype=np.int64)


def _us(nanoseconds: int) -> float:
    return round(nanoseconds / 1e3, 3)


def _worker_tid(pid: int, worker: int) -> int:
    # Unique over both processes, since thread identifiers are system-wide in a trace.
    return pid * _TIDS_PER_PROCESS + _FIRST_WORKER + worker


def _link_tid(pid: int, link: int) -> int:
    return pid * _TIDS_PER_PROCESS + _FIRST_LINK + link


def _names(trace: Trace, pid: int, process: str) -> Iterator[Event]:
    def event(kind: str, tid: int, **args: object) -> Event:
        return {"ph": "M", "pid": pid, "tid": tid, "name": kind, "args": args}

    yield event("process_name", 0, name=process)
    yield event("process_sort_index", 0, sort_index=pid)
    links = trace.links["link"].cat.categories
    tracks = [(_worker_tid(pid, i), f"worker {i} ({label})") for i, label in enumerate(trace.meta.workers)]
    tracks += [(_link_tid(pid, i), f"link {link}") for i, link in enumerate(links)]
    for tid, name in tracks:
        yield event("thread_name", tid, name=name)
        yield event("thread_sort_index", tid, sort_index=tid)


class _Workers:
    """The slices of one run, on whole nanoseconds, disjoint on each worker's track."""

    def __init__(self, trace: Trace, run: int, pid: int) -> None:
        tasks = trace.run(run)
        start_ns, end_ns = _to_ns(tasks["start_s"]), _to_ns(tasks["end_s"])
        worker = tasks["worker"].to_numpy()
        order = np.lexsort((end_ns, start_ns, worker))
        # Clocks may contradict each other by a few nanoseconds; the viewer forgives none.
        busy_until: dict[int, int] = {}
        for row in order:
            start_ns[row] = max(start_ns[row], busy_until.get(worker[row], 0))
            end_ns[row] = max(end_ns[row], start_ns[row])
            busy_until[worker[row]] = end_ns[row]
        self._tasks, self._order, self._pid = tasks, order, pid
        self._start_ns, self._end_ns, self._worker = start_ns, end_ns, worker
        self._dependencies = trace.dependencies
        self.end_ns = int(end_ns.max())

    def slices(self) -> Iterator[Event]:
        columns = ["task", "op", "op_name", "op_kind", "kind", "layer", "flop", "bytes", "bound"]
        values = {name: self._tasks[name].tolist() for name in columns}
        for row in self._order.tolist():
            args = {name: values[name][row] for name in columns if name != "op_name"}
            if not args["bound"]:
                del args["bound"]
            yield {
                "ph": "X",
                "pid": self._pid,
                "tid": _worker_tid(self._pid, int(self._worker[row])),
                "name": values["op_name"][row],
                "cat": values["kind"][row],
                "ts": _us(int(self._start_ns[row])),
                "dur": _us(int(self._end_ns[row] - self._start_ns[row])),
                "args": args,
            }

    def flows(self, max_flows: int, first_id: int) -> list[Event]:
        """Two events a dependency, each inside its slice; at its very end, a slice no longer catches an
        arrow."""
        identifiers = self._tasks["task"].to_numpy()
        before = np.searchsorted(identifiers, self._dependencies["predecessor"].to_numpy())
        after = np.searchsorted(identifiers, self._dependencies["successor"].to_numpy())
        chosen = np.lexsort((before, after, self._start_ns[after]))[:max_flows]
        events: list[Event] = []
        for number, pair in enumerate(chosen.tolist()):
            source, target = int(before[pair]), int(after[pair])
            arrives_ns = int(self._start_ns[target])
            leaves_ns = max(int(self._start_ns[source]), min(int(self._end_ns[source]) - 1, arrives_ns))
            for phase, row, at_ns in (("s", source, leaves_ns), ("f", target, arrives_ns)):
                event: Event = {
                    "ph": phase,
                    "pid": self._pid,
                    "tid": _worker_tid(self._pid, int(self._worker[row])),
                    "id": first_id + number,
                    "name": "dependency",
                    "cat": "dependency",
                    "ts": _us(at_ns),
                }
                if phase == "f":
                    event["bp"] = "e"
                events.append(event)
        return events


def _link_events(links: pd.DataFrame, pid: int, trace_end_ns: int) -> Iterator[Event]:
    """Counters in GB/s at every change, and one slice for each stretch in which something flows."""
    for position, (link, rows) in enumerate(links.groupby("link", observed=True, sort=False)):
        at_ns = _to_ns(rows["start_s"])
        until_ns = np.append(at_ns[1:], max(trace_end_ns, int(at_ns[-1])))
        granted = rows["granted_bytes_per_s"].to_numpy(dtype=np.float64)
        for ns, rate in zip(at_ns.tolist(), granted.tolist(), strict=True):
            yield {
                "ph": "C",
                "pid": pid,
                "name": f"{link} granted",
                "ts": _us(ns),
                "args": {"GB/s": rate / 1e9},
            }
        busy = granted > 0
        edges = np.flatnonzero(np.diff(np.r_[False, busy, False].astype(np.int8)))
        for first, beyond in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            begin_ns, end_ns = int(at_ns[first]), int(until_ns[beyond - 1])
            length_ns = (until_ns - at_ns)[first:beyond]
            moved_bytes = float(np.sum(length_ns * 1e-9 * granted[first:beyond]))
            yield {
                "ph": "X",
                "pid": pid,
                "tid": _link_tid(pid, position),
                "name": "in use",
                "cat": "link",
                "ts": _us(begin_ns),
                "dur": _us(end_ns - begin_ns),
                "args": {
                    "bytes": round(moved_bytes),
                    "capacity_GB/s": float(rows["capacity_bytes_per_s"].iloc[first]) / 1e9,
                },
            }
