"""Running sweeps: the same rows wherever and in whichever order points are done, and nothing lost or done twice."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from smesim.cli import app
from smesim.errors import SweepError
from smesim.hwmodel import library
from smesim.plan.lower import lower
from smesim.plan.planners import matrix_only
from smesim.sim import SimExecutor, without
from smesim.sweep import Inputs, Points, Solver, Sweep, estimate, in_processes, parse_sweep, read_results, run
from smesim.sweep.store import Chunk, Packet
from smesim.sweep.workers import Stretches
from smesim.workload import DType, DTypes, Phase, build_graph, catalog

ROOT = Path(__file__).resolve().parents[2]
OPERATORS = """
schema_version = 1
name = "operators"
conditions = ["not (chip == 'apple-m4' and tokens == 3 and planner == 'cpu_only')"]
[base]
model = "smollm2-135m"
phase = "prefill"
[axes]
chip = ["apple-m4", "phone-d9500"]
site = ["k_proj", "v_proj", "attention"]
planner = ["cpu_only", "matrix_only", "roofline"]
tokens = [1, 3, 20]
threads = [4, 99]
"""
POINTS, NUMBERS = 102, 108
WHOLE = """
schema_version = 1
name = "whole"
[base]
model = "smollm2-135m"
chip = "apple-m4"
layers = 2
[questions.prompt]
without = ["contention"]
phase = "prefill:8,batch=2"
planner = "matrix_only"
weights = "q8_0"
[questions.decode]
phase = "decode"
[axes]
context = [9]
"chip.memory.bandwidth_bytes_per_s" = [50e9, 100e9]
"model.layers" = [2, 3]
"""


Finished = tuple[Path, pd.DataFrame]
"""A folder of results, and what is read from it."""


@pytest.fixture(scope="module")
def asked() -> Sweep:
    return parse_sweep(OPERATORS, "operators.toml")


@pytest.fixture(scope="module")
def finished(asked: Sweep, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("sweep") / "out"
    done = run(asked, Inputs.of(asked), folder)
    assert (done.answered, done.done_before, done.failed) == (POINTS, 0, POINTS // 2)
    return folder, read_results(folder)


def test_a_row_says_what_the_simulator_says_of_the_whole_phase() -> None:
    asked = parse_sweep(WHOLE, "whole.toml")
    points = Points(asked)
    rows = [Solver(Inputs.of(asked)).row(point) for point in points.between(0, points.count)]
    # `context` belongs to a decode step: beside a phase that is whole it changes nothing.
    assert [row["error"] for row in rows] == [None] * 8
    chip, model = library.load("apple-m4"), catalog.load("smollm2-135m")
    bandwidth = chip.memory.bandwidth_bytes_per_s.model_copy(update={"value": 50e9, "low": None, "high": None})
    slower = chip.model_copy(update={"memory": chip.memory.model_copy(update={"bandwidth_bytes_per_s": bandwidth})})
    graph = build_graph(model, Phase.prefill(8, batch=2), DTypes(weights=DType.Q8_0), layers=2)
    plan = matrix_only(graph, slower)
    timeline = SimExecutor(slower, without(["contention"])).timeline(lower(plan, graph))
    assert rows[0]["time_s"] == float(pd.Series(timeline.end_s).max())
    assert rows[0]["flop"] == graph.total_flop()
    assert rows[0]["tokens_per_s"] == 16 / rows[0]["time_s"]
    assert rows[4]["tokens_per_s"] == 1 / rows[4]["time_s"]
    assert rows[4]["time_s"] > rows[6]["time_s"], "half the bandwidth makes a decode step slower"
    assert len({row["inputs"] for row in rows}) == 8


def test_the_order_of_points_and_what_is_remembered_change_nothing(asked: Sweep, finished: Finished) -> None:
    points, frame = Points(asked), finished[1]
    chosen = [point for number in reversed(range(0, NUMBERS, 7)) if (point := points.at(number))]
    solver = Solver(Inputs.of(asked), remember=False)
    for point in chosen:
        row = solver.row(point)
        (stored,) = frame[frame["point"] == point.number].to_dict("records")
        assert (row["error"] is None) == (point.values["threads"] == 4)
        assert {key: None if stored[key] != stored[key] else stored[key] for key in row} == row


def with_a_loss(sweep: Sweep, inputs: Inputs, chunks: list[Chunk]) -> Iterator[tuple[Chunk, Packet]]:
    """Two processes, of which one is killed as soon as some points are done."""
    for done, answered in enumerate(in_processes(2)(sweep, inputs, chunks)):
        if done == 1:
            active_children()[0].kill()
        yield answered


def test_processes_give_the_same_rows_and_a_resumed_run_does_only_what_is_missing(
    asked: Sweep, finished: Finished, tmp_path: Path
) -> None:
    inputs, folder = Inputs.of(asked), tmp_path / "out"
    run(asked, inputs, folder, executor=with_a_loss)
    parts = sorted(folder.glob("points/*/part-*.parquet"))
    kept = {part: part.stat().st_mtime_ns for part in parts[::2]}
    for part in parts[1::2]:
        part.unlink()
    (parts[0].parent / f".{parts[1].name}.abc").write_bytes(b"half")
    missing = POINTS - len(read_results(folder))
    done = run(asked, inputs, folder, resume=True)
    assert done.answered == missing > 0
    assert {part: part.stat().st_mtime_ns for part in kept} == kept
    assert not list(folder.glob("points/*/.part-*"))
    pd.testing.assert_frame_equal(read_results(folder), finished[1])
    assert finished[1]["point"].is_unique


@settings(max_examples=40)
@given(st.integers(0, 40), st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True), st.randoms())
def test_each_chunk_is_handed_out_once_and_neighbours_to_the_same(
    count: int, hands: list[int], draw: random.Random
) -> None:
    chunks = [(i, i + 1) for i in range(count)]
    left, by = Stretches(chunks, hands), {hand: list[Chunk]() for hand in [*hands, 6]}
    while left:
        hand = draw.choice([*by])
        chunk = left.next(hand)
        assert chunk is not None
        if draw.random() < 0.1 and by[hand]:  # it was lost, and is done again
            left.back(hand, chunk)
        else:
            by[hand].append(chunk)
    assert sorted(chunk for of_hand in by.values() for chunk in of_hand) == chunks
    assert left.next(hands[0]) is None
    fair = Stretches(chunks, hands)
    for i, hand in enumerate(hands):
        own = [fair.next(hand) for _ in range((i + 1) * count // len(hands) - i * count // len(hands))]
        assert own == chunks[i * count // len(hands) : (i + 1) * count // len(hands)]


def test_a_folder_is_resumed_with_the_same_inputs_only(asked: Sweep, finished: Finished) -> None:
    folder, _ = finished
    with pytest.raises(SweepError, match="--resume"):
        run(asked, Inputs.of(asked), folder)
    other = parse_sweep(OPERATORS.replace("20", "21"), "other.toml")
    with pytest.raises(SweepError, match="another sweep file"):
        run(other, Inputs.of(other), folder, resume=True)


def test_a_point_that_raises_is_a_row(monkeypatch: pytest.MonkeyPatch, asked: Sweep, tmp_path: Path) -> None:
    whole = Solver.answer

    def poisoned(solver: Solver, point: object) -> object:
        if point.number == 4:  # type: ignore[attr-defined]
            raise ZeroDivisionError("poison")
        return whole(solver, point)  # type: ignore[arg-type]

    monkeypatch.setattr(Solver, "answer", poisoned)
    run(asked, Inputs.of(asked), tmp_path)
    frame = read_results(tmp_path).set_index("point")
    assert frame.loc[4, "error"] == "ZeroDivisionError: poison"
    assert (frame.loc[4, "chip"], frame.loc[4, "tokens"], frame.loc[4, "threads"]) == ("apple-m4", 20, 4)
    assert len(frame) == POINTS


def test_an_estimate_writes_nothing(asked: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = estimate(asked, Inputs.of(asked), workers=2)
    assert (expected.points, expected.excluded) == (POINTS, NUMBERS - POINTS)
    assert expected.seconds > 0
    assert not list(tmp_path.iterdir())


def test_the_files_that_ship_are_sweeps_whose_points_have_answers() -> None:
    for path in sorted((ROOT / "scenarios").glob("*sweep*.toml")):
        asked = parse_sweep(path.read_text(encoding="utf-8"), str(path))
        points = Points(asked)
        solver = Solver(Inputs.of(asked), asked.columns)
        for number in (0, points.count - 1):
            point = next(points.between(number, points.count))
            changed = {**point.values, "layers": 1} if "site" not in point.values else point.values
            row = solver.row(type(point)(point.number, point.question, changed))
            assert row["error"] is None, (path.name, row["error"])


def test_the_commands_sweep_and_read(tmp_path: Path, finished: Finished) -> None:
    file, folder = tmp_path / "operators.toml", finished[0]
    file.write_text(OPERATORS, encoding="utf-8")
    dry = CliRunner().invoke(app, ["sweep", str(file), "--dry-run", "--json"])
    assert json.loads(dry.stdout)["points"] == POINTS
    done = CliRunner().invoke(app, ["sweep", str(file), "--out", str(folder), "--resume", "--json"])
    assert json.loads(done.stdout)["done_before"] == NUMBERS
    best = ["--query", "threads == 4", "--best", "chip,site,tokens:time_s", "--csv", str(tmp_path / "best.csv")]
    read = CliRunner().invoke(app, ["results", str(folder), *best, "--json"])
    rows = json.loads(read.stdout)
    assert len(rows) == 18
    frame = finished[1]
    for row in rows:
        alike = (frame[["chip", "site", "tokens"]] == [row["chip"], row["site"], row["tokens"]]).all(axis=1)
        assert row["time_s"] == frame[alike]["time_s"].min()
    assert len(pd.read_csv(tmp_path / "best.csv")) == 18
    table = CliRunner().invoke(app, ["results", str(folder), "--pivot", "tokens,chip,time_s"])
    assert "chip=apple-m4" in table.stdout
    plot = ["--plot", "tokens,time_s,chip", "--html", str(tmp_path / "plot.html"), "--limit", "1"]
    assert CliRunner().invoke(app, ["results", str(folder), *plot]).exit_code == 0
    assert "phone-d9500" in (tmp_path / "plot.html").read_text(encoding="utf-8")
