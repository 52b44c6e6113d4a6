"""What a valid trace is, and that every rule is enforced with a message that says where."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from smesim.errors import TraceError
from smesim.trace import Trace
from smesim.trace.schema import TASK_COLUMNS
from tests.trace import examples


def test_columns_have_the_dtypes_of_the_schema() -> None:
    trace = examples.predicted()
    assert {name: str(dtype) for name, dtype in trace.tasks.dtypes.items()} == TASK_COLUMNS
    assert trace.tasks["op_name"].cat.categories.tolist() == [
        "layers.0.attn_norm",
        "layers.0.q_proj",
        "lm_head",
    ]


def test_row_order_and_kind_of_container_do_not_matter() -> None:
    columns = examples.measured_columns((1.0, 2.0))
    order = np.random.default_rng(1).permutation(8)
    shuffled: dict[str, Any] = {name: np.asarray(values)[order] for name, values in columns.items()}
    shuffled["site"] = pd.Categorical(
        shuffled["site"], categories=["unused", "q_proj", "lm_head", "attn_norm"]
    )
    meta = examples.meta("measured", runs=2)
    assert Trace.build(meta, shuffled) == Trace.build(meta, columns)
    assert Trace.build(meta, pd.DataFrame(columns)) == Trace.build(meta, columns)


def test_traces_differ_if_one_number_differs() -> None:
    columns = examples.predicted_columns()
    columns["end_s"] = [*columns["end_s"][:3], np.nextafter(10.0, 11.0)]
    other = Trace.build(examples.meta("simulated"), columns, examples.LINKS, examples.DEPENDENCIES)
    assert examples.predicted() == examples.predicted()
    assert other != examples.predicted()


def test_a_trace_does_not_change_with_the_arrays_it_was_built_from() -> None:
    end_s = np.array([2.0, 6.0, 7.0, 10.0])
    trace = Trace.build(examples.meta("simulated"), examples.predicted_columns() | {"end_s": end_s})
    end_s[3] = 99.0
    assert trace.makespans_s().tolist() == [10.0]


def test_a_measurement_may_leave_out_what_it_cannot_know() -> None:
    tasks = examples.measured().tasks
    assert tasks[["compute_s", "transfer_s", "overhead_s"]].isna().all(axis=None)
    assert tasks["bound"].tolist() == [""] * 4
    assert tasks["run"].tolist() == [0] * 4


@pytest.mark.parametrize(
    ("stretch", "middle"),
    [((1.0,), (0,)), ((1.0, 3.0, 2.0), (2,)), ((4.0, 1.0, 3.0, 2.0), (3, 2)), ((1.0, 1.0, 1.0), (1,))],
)
def test_middle_runs_average_to_the_median(stretch: tuple[float, ...], middle: tuple[int, ...]) -> None:
    trace = examples.measured(stretch)
    assert trace.middle_runs() == middle
    makespans_s = trace.makespans_s()
    assert np.mean(makespans_s[list(middle)]) == np.median(makespans_s)


def _change(column: str, row: int, value: Any, columns: dict[str, Any]) -> dict[str, Any]:
    values = list(columns[column])
    values[row] = value
    return columns | {column: values}


@pytest.mark.parametrize(
    ("column", "row", "value", "message"),
    [
        ("end_s", 3, 6.5, r"run 0, task 3 \(lm_head, worker 1\): ends before it starts"),
        ("end_s", 1, float("nan"), "task 1.*a time is not finite"),
        ("end_s", 1, float("inf"), "task 1.*a time is not finite"),
        ("start_s", 0, -1.0, "task 0.*happens before the run starts"),
        ("ready_s", 1, 2.5, "task 1.*starts before it is ready"),
        ("start_s", 3, 6.9, "task 3.*starts before"),
        ("end_s", 0, 2.5, "task 1.*starts before the task before it on the same worker ends"),
        ("worker", 2, 2, "task 2.*the trace has workers 0 to 1"),
        ("worker", 2, -1, "task 2.*the trace has workers 0 to 1"),
        ("flop", 2, -1, "task 2.*negative FLOP or bytes"),
        ("task", 1, 0, "task 0 appears twice"),
        ("bound", 1, "luck", "task 1.*bound is one of compute, bandwidth, overhead"),
        ("overhead_s", 1, 4.5, "task 1.*more overhead than the task lasts"),
        ("transfer_s", 1, -0.1, "task 1.*needs its parts"),
        ("compute_s", 1, float("nan"), "task 1.*needs its parts"),
        ("flop", 1, 0.5, "column 'flop', row 1: 0.5 is not an int64"),
        ("task", 1, 2**40, "column 'task', row 1: 1099511627776 is not an int32"),
        ("flop", 1, "many", "column 'flop' must hold int64"),
        ("site", 1, None, "column 'site', row 1: a text is needed"),
        ("site", 1, "a\nb", "has control characters"),
        ("run", 3, 1, "every run 0 to 0 must hold the same tasks"),
    ],
)
def test_a_broken_rule_is_named(column: str, row: int, value: Any, message: str) -> None:
    columns = _change(column, row, value, {"run": [0] * 4} | examples.predicted_columns())
    with pytest.raises(TraceError, match=message):
        Trace.build(examples.meta("simulated"), columns)


def test_columns_are_known_complete_and_equally_long() -> None:
    meta, columns = examples.meta("simulated"), examples.predicted_columns()
    with pytest.raises(TraceError, match="unknown column 'colour'; known are run, task"):
        Trace.build(meta, columns | {"colour": [1] * 4})
    with pytest.raises(TraceError, match="column 'worker' is missing"):
        Trace.build(meta, {name: values for name, values in columns.items() if name != "worker"})
    with pytest.raises(TraceError, match="differ in length"):
        Trace.build(meta, columns | {"worker": [0]})
    with pytest.raises(TraceError, match="0 rows"):
        Trace.build(meta, {name: [] for name in columns})


def test_every_run_holds_the_same_tasks() -> None:
    columns = examples.measured_columns((1.0, 2.0))
    meta = examples.meta("measured", runs=2)
    with pytest.raises(TraceError, match="task 3: column 'flop' is not the same in every run"):
        Trace.build(meta, _change("flop", 7, 51, columns))
    with pytest.raises(TraceError, match="7 rows cannot be 2"):
        Trace.build(meta, {name: values[:7] for name, values in columns.items()})
    with pytest.raises(TraceError, match="8 rows cannot be 3"):
        Trace.build(examples.meta("measured", runs=3), columns)


def test_a_measurement_claims_no_parts() -> None:
    with pytest.raises(TraceError, match="a measured trace has no parts and no bound"):
        Trace.build(examples.meta("measured"), examples.predicted_columns())


@pytest.mark.parametrize(
    ("dependencies", "message"),
    [
        (
            {"predecessor": [2], "successor": [1]},
            "run 0: task 1 starts at .*2.0.*before task 2.*ends at .*7.0",
        ),
        ({"predecessor": [0], "successor": [9]}, "task 9 is not in the trace"),
        ({"predecessor": [-1], "successor": [1]}, "task -1 is not in the trace"),
        ({"predecessor": [1], "successor": [1]}, "task 1 depends on itself"),
        ({"predecessor": [1]}, "column 'successor' is missing"),
    ],
)
def test_dependencies_hold(dependencies: dict[str, list[int]], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        Trace.build(examples.meta("simulated"), examples.predicted_columns(), dependencies=dependencies)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("granted_bytes_per_s", 10.1e9, "dram at .* grants .*never above the capacity"),
        ("granted_bytes_per_s", -1.0, "dram at .* grants"),
        ("capacity_bytes_per_s", float("nan"), "dram at .* grants"),
        ("start_s", 1.0, "dram: time runs backwards"),
    ],
)
def test_links_hold(column: str, value: float, message: str) -> None:
    links = _change(column, 4, value, examples.LINKS)
    with pytest.raises(TraceError, match=message):
        Trace.build(examples.meta("simulated"), examples.predicted_columns(), links)


def test_meta_is_strict() -> None:
    with pytest.raises(ValidationError):
        examples.meta("simulated", colour="red")
    with pytest.raises(ValidationError):
        examples.meta("guessed")
    with pytest.raises(ValidationError):
        examples.meta("measured", foreign_load=1.5)
    with pytest.raises(ValidationError):
        examples.meta("measured", schema_version=2)


@examples.PROPERTY
@given(examples.trace_pairs(), st.data())
def test_no_two_tasks_at_once_on_a_worker(pair: tuple[Trace, Trace], data: st.DataObject) -> None:
    """Invariant 1: whichever task is put over the middle of another one on its worker, it is refused."""
    trace = pair[1]
    last_s = float(trace.makespans_s()[0])
    columns = {str(name): values.to_numpy(copy=True) for name, values in trace.tasks.items()}
    long_enough = np.flatnonzero((columns["end_s"] - columns["start_s"] > 1e-3) & (columns["run"] == 0))
    if trace.tasks_per_run < 2 or not len(long_enough):
        return
    covered = data.draw(st.sampled_from(long_enough.tolist()))
    moved = data.draw(st.sampled_from([row for row in range(trace.tasks_per_run) if row != covered]))
    columns["worker"][moved] = columns["worker"][covered]
    columns["start_s"][moved] = (columns["start_s"][covered] + columns["end_s"][covered]) / 2
    columns["end_s"][moved] = last_s + 1
    columns["ready_s"][moved] = np.nan
    with pytest.raises(TraceError, match="starts before the task before it on the same worker ends"):
        Trace.build(trace.meta, columns)


def test_the_schema_imports_no_other_room_and_nothing_that_draws() -> None:
    """The arrows of the architecture: trace knows none of the other rooms; plotly and rich load when used."""
    code = "import sys, smesim.trace.schema; print(*sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = run.stdout.split()
    rooms = {name.split(".")[1] for name in loaded if name.startswith("smesim.")}
    assert rooms == {"errors", "files", "trace"}
    assert not {"plotly", "rich", "simpy", "cffi"} & set(loaded)
