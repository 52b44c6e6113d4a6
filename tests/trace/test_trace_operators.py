"""Elapsed time of operators that share workers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from smesim.trace import Trace, operator_times, site_times
from smesim.trace.operators import cut_pieces
from tests.trace import examples


def test_predicted_example_by_hand() -> None:
    times = operator_times(examples.predicted())
    assert times["op_name"].tolist() == ["layers.0.attn_norm", "layers.0.q_proj", "lm_head"]
    assert times["layer"].tolist() == [0, 0, -1]
    assert times["busy_s"].tolist() == [2.0, 9.0, 3.0]
    assert times["wait_s"].tolist() == [2.0, 1.0, 3.0]
    assert times["elapsed_s"].tolist() == [2.0, 5.0, 3.0]
    assert times["tasks"].tolist() == [1, 2, 1]
    assert times["bytes"].tolist() == [100, 100, 500]
    assert times["flop"].tolist() == [10, 1000, 50]


def test_measured_example_by_hand() -> None:
    times = operator_times(examples.measured((1.0, 2.0)))
    assert times["run"].tolist() == [0, 0, 0, 1, 1, 1]
    assert times["elapsed_s"].tolist() == [3.0, 6.0, 3.0, 6.0, 12.0, 6.0]
    assert times["wait_s"].tolist() == [4.0, 2.0, 4.0, 8.0, 4.0, 8.0]


def test_gap_before_a_task_is_waiting_until_it_is_ready_and_dispatch_after() -> None:
    pieces = cut_pieces(examples.measured())
    # Worker 1 waits 3 s for task 0 and 1 s for task 1, and task 3 ends 3 s after worker 0 has nothing left.
    assert pieces.wait_s.tolist() == [[3.0, 1.0, 0.0, 3.0]]
    assert pieces.dispatch_s.tolist() == [[1.0, 1.0, 0.0, 1.0]]
    assert pieces.total_s.sum() == 2 * 12.0


def test_a_long_wait_is_shared_by_the_operators_that_run_meanwhile() -> None:
    columns = examples.what() | {
        "worker": [0, 0, 0, 1],
        "ready_s": [0.0, 1.0, 3.0, 7.0],
        "start_s": [0.0, 1.0, 3.0, 7.0],
        "end_s": [1.0, 3.0, 7.0, 8.0],
    }
    pieces = cut_pieces(Trace.build(examples.meta("measured"), columns))
    assert pieces.wait_s.tolist() == [[1.0, 2.0, 4.0, 1.0]]


def test_gap_is_all_waiting_where_nobody_knows_when_the_task_was_ready() -> None:
    columns = examples.measured_columns() | {"ready_s": [np.nan] * 4}
    pieces = cut_pieces(Trace.build(examples.meta("measured"), columns))
    # Nobody is known to dispatch, so both workers wait until task 0 starts, and worker 0 from 3 to 4.
    assert pieces.wait_s.tolist() == [[4.0, 1.0, 1.0, 4.0]]
    assert pieces.dispatch_s.tolist() == [[0.0, 0.0, 0.0, 0.0]]


def test_a_worker_without_tasks_waits_for_all_the_others() -> None:
    trace = Trace.build(
        examples.meta("measured", workers=["cpu0", "cpu1", "cpu2", "cpu3"]), examples.measured_columns()
    )
    times = operator_times(trace)
    # Two more workers idle for 12 s each: 3 s until the norm ends, 6 s more until q_proj does, 3 s to the end.
    assert times["elapsed_s"].tolist() == [(6.0 + 6.0) / 4, (12.0 + 12.0) / 4, (6.0 + 6.0) / 4]


def test_sites_add_up_the_layers() -> None:
    columns = examples.predicted_columns() | {
        "op": [0, 1, 2, 3],
        "op_name": ["layers.0.norm", "layers.0.q_proj", "layers.1.q_proj", "lm_head"],
    }
    trace = Trace.build(examples.meta("simulated"), columns)
    assert operator_times(trace)["elapsed_s"].tolist() == [2.0, 2.0, 3.0, 3.0]
    sites = site_times(trace)
    assert sites["site"].tolist() == ["attn_norm", "q_proj", "lm_head"]
    assert sites["elapsed_s"].tolist() == [2.0, 5.0, 3.0]


def test_sites_come_in_the_order_of_the_program_not_of_the_tasks() -> None:
    columns = examples.predicted_columns() | {"op": [2, 1, 1, 0]}
    assert site_times(Trace.build(examples.meta("simulated"), columns))["site"].tolist() == [
        "lm_head",
        "q_proj",
        "attn_norm",
    ]


def test_large_counts_are_exact() -> None:
    columns = examples.predicted_columns() | {"flop": [0, 2**53 + 1, 2**53 + 2, 0]}
    assert operator_times(Trace.build(examples.meta("simulated"), columns))["flop"].tolist() == [
        0,
        2**54 + 3,
        0,
    ]


@examples.PROPERTY
@given(examples.trace_pairs())
def test_operators_add_up_to_the_makespan_of_every_run(pair: tuple[Trace, Trace]) -> None:
    for trace in pair:
        workers = len(trace.meta.workers)
        for times in (operator_times(trace), site_times(trace)):
            assert times.groupby("run")["elapsed_s"].sum().to_numpy() == pytest.approx(trace.makespans_s(), rel=1e-12)
            parts = (times["busy_s"] + times["wait_s"]) / workers
            assert times["elapsed_s"].to_numpy() == pytest.approx(parts.to_numpy(), rel=1e-9, abs=1e-15)
            assert times["tasks"].sum() == len(trace.tasks)
            assert times["bytes"].sum() == trace.tasks["bytes"].sum()
        pieces = cut_pieces(trace)
        assert (pieces.wait_s >= 0).all()
        assert (pieces.dispatch_s >= 0).all()
