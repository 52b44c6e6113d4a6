"""The Perfetto export against the rules of the Chrome trace event format."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from smesim.errors import TraceError
from smesim.trace import Trace
from smesim.trace.perfetto import MEASURED_PID, PREDICTED_PID, perfetto_document, write_perfetto
from tests.trace import examples

_KEYS = {
    "M": {"ph", "pid", "tid", "name", "args"},
    "X": {"ph", "pid", "tid", "name", "cat", "ts", "dur", "args"},
    "C": {"ph", "pid", "name", "ts", "args"},
    "s": {"ph", "pid", "tid", "id", "name", "cat", "ts"},
    "f": {"ph", "pid", "tid", "id", "name", "cat", "ts", "bp"},
}


def _ns(microseconds: float) -> int:
    """As Perfetto reads a number of microseconds."""
    return round(microseconds * 1000)


def _of(document: dict[str, Any], phase: str) -> list[dict[str, Any]]:
    return [event for event in document["traceEvents"] if event["ph"] == phase]


def _check_rules(document: dict[str, Any]) -> None:
    """Keys, disjoint slices on each track, named tracks, paired flows that lie in slices and run forwards."""
    for event in document["traceEvents"]:
        assert set(event) == _KEYS[event["ph"]]
        assert event.get("ts", 0) >= 0
        assert event.get("dur", 0) >= 0
    named = {(e["pid"], e["tid"]) for e in _of(document, "M") if e["name"] == "thread_name"}
    assert len({tid for _, tid in named}) == len(named)
    tracks: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for event in _of(document, "X"):
        begin_ns = _ns(event["ts"])
        tracks[event["pid"], event["tid"]].append((begin_ns, begin_ns + _ns(event["dur"])))
    assert set(tracks) <= named
    for slices in tracks.values():
        for (_, before_ends), (begins, _) in zip(sorted(slices), sorted(slices)[1:], strict=False):
            assert before_ends <= begins
    starts, finishes = ({e["id"]: e for e in _of(document, phase)} for phase in ("s", "f"))
    assert starts.keys() == finishes.keys()
    assert len(starts) == len(_of(document, "s"))
    for identifier, start in starts.items():
        assert start["ts"] <= finishes[identifier]["ts"]
        for end in (start, finishes[identifier]):
            at_ns = _ns(end["ts"])
            assert any(begin <= at_ns <= until for begin, until in tracks[end["pid"], end["tid"]])
    counters: dict[tuple[int, str], float] = {}
    for event in _of(document, "C"):
        key = event["pid"], event["name"]
        assert counters.get(key, 0) <= event["ts"]
        counters[key] = event["ts"]


def test_example_by_hand() -> None:
    document = perfetto_document(examples.predicted(), examples.measured((1.0, 1.5, 0.5)))
    _check_rules(document)
    names = {(e["pid"], e["name"], e["args"]["name"]) for e in _of(document, "M") if "name" in e["args"]}
    assert names == {
        (PREDICTED_PID, "process_name", "predicted"),
        (PREDICTED_PID, "thread_name", "worker 0 (cpu0)"),
        (PREDICTED_PID, "thread_name", "worker 1 (cpu1)"),
        (PREDICTED_PID, "thread_name", "link dram"),
        (PREDICTED_PID, "thread_name", "link l2"),
        (MEASURED_PID, "process_name", "measured (median run)"),
        (MEASURED_PID, "thread_name", "worker 0 (cpu0)"),
        (MEASURED_PID, "thread_name", "worker 1 (cpu1)"),
    }
    tasks = [(e["pid"], e["name"], e["ts"], e["dur"]) for e in _of(document, "X") if e["cat"] != "link"]
    assert tasks == [
        (1, "layers.0.attn_norm", 0.0, 2e6),
        (1, "layers.0.q_proj", 2e6, 4e6),
        (1, "layers.0.q_proj", 2e6, 5e6),
        (1, "lm_head", 7e6, 3e6),
        (2, "layers.0.attn_norm", 1e6, 2e6),
        (2, "layers.0.q_proj", 4e6, 5e6),
        (2, "layers.0.q_proj", 3e6, 5e6),
        (2, "lm_head", 10e6, 2e6),
    ]
    last = next(e for e in _of(document, "X") if e["pid"] == 1 and e["name"] == "lm_head")
    assert last["args"] == {
        "task": 3,
        "op": 2,
        "op_kind": "linear",
        "kind": "gemv",
        "layer": -1,
        "flop": 50,
        "bytes": 500,
        "bound": "bandwidth",
    }
    assert "bound" not in next(e for e in _of(document, "X") if e["pid"] == 2)["args"]


def test_links_are_counters_and_slices_of_use() -> None:
    document = perfetto_document(examples.predicted())
    rates = [(e["name"], e["ts"], e["args"]["GB/s"]) for e in _of(document, "C")]
    assert rates == [
        ("dram granted", 0.0, 8.0),
        ("dram granted", 2e6, 0.0),
        ("dram granted", 7e6, 2.5),
        ("l2 granted", 0.0, 1.0),
        ("l2 granted", 7e6, 0.0),
    ]
    use = [(e["ts"], e["dur"], e["args"]["bytes"]) for e in _of(document, "X") if e["cat"] == "link"]
    # The last rate of dram holds until the last task ends, at 10 s.
    assert use == [(0.0, 2e6, 16_000_000_000), (7e6, 3e6, 7_500_000_000), (0.0, 7e6, 7_000_000_000)]


def test_flows_are_capped_and_it_says_so() -> None:
    document = perfetto_document(examples.predicted(), examples.measured(), max_flows=3)
    _check_rules(document)
    assert len(_of(document, "s")) == 6
    assert document["otherData"]["predicted dependencies shown"] == "the first 3 of 4"
    assert document["otherData"]["measured dependencies shown"] == "the first 3 of 4"
    assert not _of(perfetto_document(examples.predicted(), max_flows=0), "s")


def test_metadata_says_where_it_comes_from() -> None:
    other = perfetto_document(None, examples.measured((1.0, 2.0, 3.0), stand_in=True))["otherData"]
    assert other["measured from"] == "measured, stand-in: a test bench"
    assert other["measured run"] == "1 of 3, counted from 0"
    assert "predicted from" not in other


def test_clocks_that_contradict_each_other_by_nanoseconds_still_nest() -> None:
    columns = examples.measured_columns()
    columns["start_s"][1] = 3.0 - 60e-9
    columns["ready_s"][1] = 3.0
    trace = Trace.build(examples.meta("measured"), columns, dependencies=examples.DEPENDENCIES)
    _check_rules(perfetto_document(measured=trace))


def test_bad_arguments() -> None:
    with pytest.raises(TraceError, match="a prediction, a measurement, or both"):
        perfetto_document()
    with pytest.raises(TraceError, match="max_flows is -1; 0 or more"):
        perfetto_document(examples.predicted(), max_flows=-1)


def test_file_is_the_document(tmp_path: Path) -> None:
    path = tmp_path / "trace.perfetto.json"
    write_perfetto(path, examples.predicted(), examples.measured())
    assert json.loads(path.read_text()) == perfetto_document(examples.predicted(), examples.measured())


@examples.PROPERTY
@given(examples.trace_pairs())
def test_any_trace_keeps_the_rules(pair: tuple[Trace, Trace]) -> None:
    document = perfetto_document(*pair)
    _check_rules(document)
    assert sum(e["cat"] != "link" for e in _of(document, "X")) == sum(trace.tasks_per_run for trace in pair)
