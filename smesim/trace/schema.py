"""A trace: what every worker did, and when; predicted or measured, in the same columns.

Both executors return a `Trace`, so whatever reads one does not know which of them made it. It holds

- `meta`: where the numbers come from (`TraceMeta`);
- `tasks`: one row a (run, task): the interval on its worker, and what it was for;
- `links`: the bandwidth granted on each link, piecewise constant (empty in a measured trace);
- `dependencies`: pairs of task identifiers, predecessor before successor (may be empty).

Times are seconds since the start of their own run, so a run begins at 0 and ends with its last task. Every
run holds the same tasks; its rows are sorted by (run, task). Categorical columns list their values in order
of first appearance. So a trace has one canonical form, and two traces of equal content are equal, whoever
built them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from smesim.errors import TraceError
from smesim.trace import _validation

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION: Literal[1] = 1

Source = Literal["simulated", "measured", "emulated"]

TASK_COLUMNS: dict[str, str] = {
    "run": "int32",
    "task": "int32",
    "op": "int32",
    "op_name": "category",
    "site": "category",
    "layer": "int32",
    "op_kind": "category",
    "kind": "category",
    "worker": "int16",
    "ready_s": "float64",
    "start_s": "float64",
    "end_s": "float64",
    "flop": "int64",
    "bytes": "int64",
    "compute_s": "float64",
    "transfer_s": "float64",
    "overhead_s": "float64",
    "bound": "category",
}
"""Columns of `Trace.tasks`. `layer` is -1 outside the layers; `ready_s` is when the last dependency was done
(NaN if unknown); `compute_s`, `transfer_s` and `overhead_s` say what [start_s, end_s] is made of in a
prediction (compute and transfer overlap, overhead comes on top) and are NaN in a measurement; `bound` is
"compute", "bandwidth" or "overhead" in a prediction and "" in a measurement."""

LINK_COLUMNS: dict[str, str] = {
    "link": "category",
    "start_s": "float64",
    "granted_bytes_per_s": "float64",
    "capacity_bytes_per_s": "float64",
}
"""Columns of `Trace.links`: from `start_s` until the link's next row, `granted_bytes_per_s` flows."""

DEPENDENCY_COLUMNS: dict[str, str] = {"predecessor": "int32", "successor": "int32"}

_TASK_DEFAULTS: dict[str, object] = {
    "run": 0,
    "ready_s": np.nan,
    "compute_s": np.nan,
    "transfer_s": np.nan,
    "overhead_s": np.nan,
    "bound": "",
}


class TraceMeta(BaseModel):
    """Where a trace comes from: enough to refuse a comparison that would mean nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = SCHEMA_VERSION
    source: Source
    stand_in: bool = Field(default=False, description="wide vector kernels played the part of a matrix unit")
    machine: str = Field(description="the machine in words")
    chip: str = Field(description="name of the chip file")
    chip_fingerprint: str
    model: str
    phase: str = Field(description='for example "prefill:128"')
    layers: int = Field(ge=0, description="layers that were really run")
    plan_fingerprint: str
    program_fingerprint: str
    planner: str
    workers: tuple[str, ...] = Field(min_length=1, description='one label a worker, for example "cpu0"')
    runs: int = Field(default=1, ge=1)
    warmup: int = Field(default=0, ge=0, description="runs before the counted ones")
    seed: int | None = Field(default=None, description="of the random weights and prompt; None: they were given")
    version: str = Field(default="", description="of smesim, that made the trace")
    kernels: dict[str, str] = Field(default_factory=dict, description="operator kind -> ISA that really ran")
    foreign_load: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="share of the machine that other processes took; None: not observed",
    )
    notes: tuple[str, ...] = ()
    created: str | None = Field(
        default=None, description="ISO time; None in a simulated trace, so that equal inputs give equal bytes"
    )


@dataclass(frozen=True, eq=False)
class Trace:
    """One program, executed `meta.runs` times or simulated once. Make one with `Trace.build`.

    >>> trace = Trace.build(meta, tasks={"task": [0, 1], "op": [0, 0], "worker": [0, 1], ...})
    >>> trace.makespans_s()
    array([0.0031])
    """

    meta: TraceMeta
    tasks: pd.DataFrame
    links: pd.DataFrame
    dependencies: pd.DataFrame

    @classmethod
    def build(
        cls,
        meta: TraceMeta,
        tasks: Mapping[str, Any] | pd.DataFrame,
        links: Mapping[str, Any] | pd.DataFrame | None = None,
        dependencies: Mapping[str, Any] | pd.DataFrame | None = None,
    ) -> Trace:
        """A valid trace in canonical form, from columns of equal length (arrays, lists or pandas
        categoricals).

        Columns that may be left out of `tasks`: `run` (then 0), `ready_s`, `compute_s`, `transfer_s`,
        `overhead_s` (NaN) and `bound` (""). Rows may come in any order. Raises TraceError.
        """
        columns = {str(name): values for name, values in tasks.items()}
        rows = len(next(iter(columns.values()), ()))
        for name, default in _TASK_DEFAULTS.items():
            if name not in columns:
                columns[name] = np.full(rows, default)
        trace = cls(
            meta=meta,
            tasks=_frame("tasks", columns, TASK_COLUMNS, sort_by=("run", "task")),
            links=_frame("links", links, LINK_COLUMNS),
            dependencies=_frame("dependencies", dependencies, DEPENDENCY_COLUMNS),
        )
        trace.validate()
        return trace

    def validate(self) -> None:
        """Raise TraceError at the first rule that the frames break; see `smesim.trace._validation`."""
        for name, frame, columns in (
            ("tasks", self.tasks, TASK_COLUMNS),
            ("links", self.links, LINK_COLUMNS),
            ("dependencies", self.dependencies, DEPENDENCY_COLUMNS),
        ):
            _validation.check_columns(name, list(frame.columns), columns)
        _validation.check_tasks(self.tasks, self.meta.source, self.meta.runs, len(self.meta.workers))
        _validation.check_dependencies(self.tasks, self.dependencies, self.meta.source, self.meta.runs)
        _validation.check_links(self.links)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trace):
            return NotImplemented
        return (
            self.meta == other.meta
            and self.tasks.equals(other.tasks)
            and self.links.equals(other.links)
            and self.dependencies.equals(other.dependencies)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def tasks_per_run(self) -> int:
        return len(self.tasks) // self.meta.runs

    def by_run(self, column: str) -> NDArray[Any]:
        """A numeric column of `tasks` as an array (runs, tasks of a run); tasks in order of their
        identifier."""
        return self.tasks[column].to_numpy().reshape(self.meta.runs, -1)

    def makespans_s(self) -> NDArray[np.float64]:
        """When the last task of each run ended, shape (runs,)."""
        return np.asarray(self.by_run("end_s").max(axis=1), dtype=np.float64)

    def middle_runs(self) -> tuple[int, ...]:
        """The run whose makespan is the median; of an even number of runs, the two whose mean is the
        median."""
        order = np.argsort(self.makespans_s(), kind="stable")
        return tuple(int(run) for run in order[(len(order) - 1) // 2 : len(order) // 2 + 1])

    def run(self, run: int) -> pd.DataFrame:
        """The rows of one run, in order of their task identifier."""
        return self.tasks.iloc[run * self.tasks_per_run : (run + 1) * self.tasks_per_run]


def _frame(
    name: str,
    columns: Mapping[str, Any] | pd.DataFrame | None,
    dtypes: Mapping[str, str],
    sort_by: tuple[str, str] | None = None,
) -> pd.DataFrame:
    """Canonical frame: known columns in their order, exact dtypes, rows sorted by the two integer columns."""
    given = (
        {str(key): values for key, values in columns.items()}
        if columns is not None
        else dict.fromkeys(dtypes, ())
    )
    _validation.check_columns(name, list(given), dtypes)
    lengths = {key: len(values) for key, values in given.items()}
    if len(set(lengths.values())) > 1:
        raise TraceError(f"trace {name}: columns differ in length: {lengths}")
    order: NDArray[np.intp] | None = None
    if sort_by is not None:
        major, minor = (_number(name, key, given[key], dtypes[key]).astype(np.int64) for key in sort_by)
        # One comparable key a row: runs and tasks are 32 bits each.
        key = (major << 32) + minor
        if np.any(key[1:] < key[:-1]):
            order = np.argsort(key, kind="stable")
    data: dict[str, Any] = {}
    import pandas as pd

    for column, dtype in dtypes.items():
        if dtype == "category":
            values: Any = _category(name, column, given[column], order)
        else:
            values = _number(name, column, given[column], dtype)
            values = values if order is None else values[order]
        data[column] = values
    return pd.DataFrame(data)


def _number(frame: str, column: str, values: Any, dtype: str) -> NDArray[Any]:
    """The values in exactly `dtype`; a value that does not survive the conversion is an error, not a
    rounding."""
    try:
        array = np.asarray(values)
        array = array.astype(dtype) if array.size == 0 else array
        with np.errstate(invalid="ignore"):
            converted = array.astype(dtype)
    except (TypeError, ValueError, OverflowError):
        raise TraceError(f"trace {frame}: column {column!r} must hold {dtype}") from None
    if dtype.startswith("int") and not np.array_equal(converted, array):
        row = int(np.flatnonzero(converted != array)[0])
        raise TraceError(f"trace {frame}: column {column!r}, row {row}: {array[row]} is not an {dtype}")
    # A copy, so that a later write to the caller's buffer does not change the trace.
    return np.array(converted, copy=True)


def _category(frame: str, column: str, values: Any, order: NDArray[np.intp] | None) -> pd.Categorical:
    """Codes and categories in order of first appearance, without unused categories."""
    import pandas as pd

    if not isinstance(values, pd.Categorical):
        dtype = getattr(values, "dtype", None)
        values = values.array if isinstance(dtype, pd.CategoricalDtype) else np.asarray(values, dtype=object)
    values = values if order is None else values[order]
    codes, uniques = pd.factorize(values)
    if np.any(codes < 0):
        row = int(np.flatnonzero(codes < 0)[0])
        raise TraceError(
            f"trace {frame}: column {column!r}, row {row}: a text is needed, not a missing value"
        )
    names = [str(name) for name in uniques]
    for text in names:
        if not text.isprintable():
            raise TraceError(f"trace {frame}: column {column!r}: {text!r} has control characters")
    return pd.Categorical.from_codes(codes.astype(np.int64), categories=pd.Index(names, dtype="str"))
