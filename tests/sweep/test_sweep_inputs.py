"""Chips and models with changed numbers: what is checked again is enough."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smesim.errors import SweepError
from smesim.hwmodel import library
from smesim.sweep import Inputs, Point, Solver, inputs
from smesim.sweep.inputs import changed_chip
from smesim.sweep.schema import Value
from tests.workload.workload_models import tiny

CHIP = library.load("apple-m4")
CHANGES: dict[str, list[Value]] = {
    "memory.bandwidth_bytes_per_s": [50e9, 110e9, 1e15, -1.0, True, "fast"],
    "memory.spec_bandwidth_bytes_per_s": [200e9, 1.0],
    "sync.dispatch_s": [0.0, 1e-6],
    "clusters.P.core_count": [2, 4, 0, 2.5],
    "clusters.0.core.clock_hz": [4e9],
    "clusters.E.core.flop_per_s.f32": [1e10, 0],
    "clusters.P.matrix_units.sme.count": [1, 2],
    "clusters.P.matrix_units.sme.load_bytes_per_s.DRAM": [60e9],
    "caches.L2.size_bytes": [1e6],
    "clusters.P.matrix_units.amx.count": [1],
    "memory.nothing": [1.0],
    "memory": [1.0],
    "clusters.P.matrix_units.sme.driver_clusters": [("P",), ("X",)],
}


def outcome(change: object) -> str:
    """The fingerprint of a chip, or what is wrong with it."""
    try:
        return library.fingerprint(change())  # type: ignore[operator]
    except SweepError as error:
        return str(error)


@settings(max_examples=60)
@given(st.lists(st.sampled_from([(path, value) for path, values in CHANGES.items() for value in values]), max_size=3))
def test_a_changed_chip_is_the_one_that_its_file_would_give(changes: list[tuple[str, Value]]) -> None:
    asked = tuple(changes)
    assert outcome(lambda: changed_chip(CHIP, asked)) == outcome(lambda: inputs._read_anew(CHIP, asked))


def test_a_chip_with_one_number_changed_is_not_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_read_anew", lambda *_: pytest.fail("read anew"))
    changed = changed_chip(CHIP, (("memory.bandwidth_bytes_per_s", 50e9),))
    assert changed.memory.bandwidth_bytes_per_s.value == 50e9
    assert changed.memory.bandwidth_bytes_per_s.provenance == "guessed"
    assert changed.clusters == CHIP.clusters


def test_a_chip_goes_to_another_process_without_what_was_worked_out_from_it() -> None:
    solver = Solver(Inputs({"one": CHIP}, {"tiny": tiny()}))
    row = solver.row(Point(0, "base", {"model": "tiny", "chip": "one", "phase": "prefill:8", "site": "q_proj"}))
    assert row["error"] is None
    assert pickle.loads(pickle.dumps(CHIP)) == CHIP
