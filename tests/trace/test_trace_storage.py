"""Invariant 8: a trace read back equals the trace written. Invariant 9: no half-written file."""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given

from smesim.errors import SmesimError, TraceError
from smesim.trace import Trace, read_trace, write_trace
from tests.trace import examples

_HAS_PYARROW = importlib.util.find_spec("pyarrow") is not None
_SUFFIXES = [".json", ".csv", *([".parquet"] if _HAS_PYARROW else [])]
_FULL_META = {
    "stand_in": True,
    "kernels": {"linear": "avx2"},
    "foreign_load": 0.125,
    "notes": ["a \"note\", with 'quotes' and ü"],
    "created": "2026-01-02T03:04:05+00:00",
}


def _bits(trace: Trace) -> list[bytes]:
    frames = (trace.tasks, trace.links, trace.dependencies)
    return [
        frame[name].to_numpy().tobytes()
        for frame in frames
        for name in frame.columns
        if frame[name].dtype != "category"
    ]


@pytest.mark.parametrize("suffix", _SUFFIXES)
def test_round_trip(suffix: str, tmp_path: Path) -> None:
    for trace in (examples.predicted(), examples.measured((1.0, 1 / 3), **_FULL_META)):
        path = tmp_path / f"trace{suffix}"
        write_trace(trace, path)
        again = read_trace(path)
        assert again == trace
        assert _bits(again) == _bits(trace)
        for name in ("op_name", "site", "op_kind", "kind", "bound"):
            assert again.tasks[name].cat.categories.tolist() == trace.tasks[name].cat.categories.tolist()
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", _SUFFIXES)
@examples.PROPERTY
@given(pair=examples.trace_pairs())
def test_round_trip_of_any_trace(suffix: str, pair: tuple[Trace, Trace]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for trace in pair:
            path = Path(folder) / f"trace{suffix}"
            write_trace(trace, path)
            again = read_trace(path)
            assert again == trace
            assert _bits(again) == _bits(trace)


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_same_trace_same_bytes(suffix: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_trace(examples.predicted(), tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_csv_is_ordinary_csv(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    write_trace(examples.predicted(), path)
    tasks = pd.read_csv(path, comment="#")
    assert tasks["end_s"].tolist() == [2.0, 6.0, 7.0, 10.0]
    assert tasks["site"].tolist() == ["attn_norm", "q_proj", "q_proj", "lm_head"]


@pytest.mark.parametrize("suffix", _SUFFIXES)
def test_a_truncated_file_is_one_error_that_names_it(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"trace{suffix}"
    write_trace(examples.measured((1.0, 2.0)), path)
    whole = path.read_bytes()
    for length in np.linspace(0, len(whole) - 2, 25).astype(int).tolist():
        path.write_bytes(whole[:length])
        with pytest.raises(TraceError, match=f"trace{suffix}") as refusal:
            read_trace(path)
        assert "\n" not in str(refusal.value)


def test_a_csv_cut_at_the_end_of_a_line_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    write_trace(examples.predicted(), path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    with pytest.raises(TraceError, match="4 tasks are announced and 3 found"):
        read_trace(path)


@pytest.mark.parametrize("suffix", _SUFFIXES)
@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1, 2]", b"a,b\n1,2\n", b"\xff\xfe\x00", b"# {}\n", b"null"]
)
def test_a_foreign_file_is_one_error_that_names_it(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"foreign{suffix}"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=f"foreign{suffix}.*expected a trace written by smesim"):
        read_trace(path)


def test_a_missing_file_and_an_unknown_suffix(tmp_path: Path) -> None:
    for suffix in _SUFFIXES:
        with pytest.raises(TraceError, match=f"none{suffix}: No such file"):
            read_trace(tmp_path / f"none{suffix}")
    with pytest.raises(TraceError, match=r"ends in \.json, \.csv, \.parquet, not in '\.xml'"):
        write_trace(examples.predicted(), tmp_path / "trace.xml")
    with pytest.raises(TraceError, match="not in ''"):
        read_trace(tmp_path / "trace")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"runs":1', '"runs":2', "tasks: 4 rows|cannot be 2|must hold the same tasks"),
        ('"source":"simulated"', '"source":"dreamt"', "meta: source: .*'dreamt'"),
        ('"schema_version":1', '"schema_version":7', "meta: schema_version"),
        ('"codes":[0,1,1,2]', '"codes":[0,1,1,9]', "column 'op_name' does not hold category values"),
        ('"codes":[0,1,1,2]', '"codes":[0,1,1,-1]', "column 'op_name' does not hold category values"),
        ('"end_s":[2.0', '"end_s":["two"', "column 'end_s' does not hold float64 values"),
        ('"end_s":[2.0', '"end_s":[null', "task 0.*a time is not finite"),
        ('"flop":[10', '"flop":[10.5', "column 'flop', row 0: 10.5 is not an int64"),
        ('"worker":[', '"wroker":[', "unknown column 'wroker'"),
        ('"links":{', '"lniks":{', "links: columns are needed"),
    ],
)
def test_a_wrong_value_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    write_trace(examples.predicted(), path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(TraceError, match=message) as refusal:
        read_trace(path)
    assert str(refusal.value).startswith(f"{path}: ")


def test_a_wrong_value_in_csv_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    write_trace(examples.predicted(), path)
    text = path.read_text()
    for old, new, message in (
        (",10.0,", ",ten,", "column 'end_s' must hold float64"),
        (",400,", ",4.5e2,", "column 'flop' must hold int64"),
    ):
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(TraceError, match=message):
            read_trace(path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trace.json"
    write_trace(examples.predicted(), path)
    before = path.read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(SmesimError, match=r"trace\.json: No space left on device"):
        write_trace(examples.measured(), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["trace.json"]


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(TraceError, match="pip install pyarrow"):
        write_trace(examples.predicted(), tmp_path / "trace.parquet")
    assert not list(tmp_path.iterdir())


def test_json_holds_only_standard_json(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    write_trace(examples.measured(), path)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    content = json.loads(path.read_text(), parse_constant=refuse)
    assert content["tasks"]["compute_s"] == [None] * 4
