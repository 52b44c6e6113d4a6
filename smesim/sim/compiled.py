"""The engine in C: what `engine.run_part` does, to the last bit, some hundred times as fast.

SimPy asks what a task costs when a worker comes to it. Here all that can be asked is worked out before, once for tasks
and workers that are alike: a `WorkTable` has a row a task and a column for each kind of worker. Kinds of flows are
numbered in the order in which `fluid` solves their rates, since rounding depends on it; the rest of the correspondence
is in `native/sim`. A differential test draws programs and holds the engines against each other.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from smesim.errors import ProgramError, SmesimError
from smesim.sim.engine import Machine, PartResult, Work
from smesim.sim.fluid import check_amount, check_links, check_path
from smesim.sim.part import Int32s, Part, refuse_stuck

NO_WORK = -1

KIND_DTYPE = np.dtype([("cap", "<f8"), ("alone", "<f8"), ("path_begin", "<i4"), ("path_end", "<i4")], align=True)
FLOW_DTYPE = np.dtype([("amount", "<f8"), ("kind", "<i4")], align=True)
WORK_DTYPE = np.dtype(
    [("compute_s", "<f8"), ("serial_s", "<f8"), ("unit", "<i4"), ("flow_begin", "<i4"), ("flow_end", "<i4")], align=True
)

_PROBLEMS = {
    "SMS_SIM_NO_MEMORY": "there is not enough memory for its simulation",
    "SMS_SIM_BAD_PART": "a queue, a pool or an edge names a task that is not in its segment",
    "SMS_SIM_NO_WORK": "a worker came to a task that has no work there",
    "SMS_SIM_NO_RATE": "a flow got no bandwidth, since what others get rounds up to all there is",
}


@dataclass(frozen=True)
class WorkTable:
    """What the tasks of a part cost: `work_of[task, column_of[worker]]` is the place of its work in `works`, or
    NO_WORK where the worker cannot come to the task."""

    works: Sequence[Work]
    column_of: Int32s
    work_of: Int32s


def is_there() -> bool:
    """Whether the engine was built on this machine."""
    return _native() is not None


@cache
def _native() -> Any:
    try:
        return importlib.import_module("smesim.sim._engine")
    except ImportError:
        return None


def native() -> Any:
    """The module of the engine; SmesimError if it was not built."""
    found = _native()
    if found is None:
        raise SmesimError("the compiled engine is not there; accepted: the engine 'simpy', or setup.py build_ext")
    return found


def problem(status: int) -> str:
    """What a status of the engine other than OK says."""
    return next(words for name, words in _PROBLEMS.items() if status == getattr(native().lib, name))


def run_part(part: Part, machine: Machine, table: WorkTable, arrivals: Sequence[int], *, grants: bool) -> PartResult:
    """Simulate a part from time 0, as `engine.run_part` does; without `grants` what the links carry is not noted.

    Raises ProgramError if some task never runs, SmesimError if the engine was not built.
    """
    return Prepared(part, machine, table).run(arrivals, grants=grants)


class Prepared:
    """A part with its costs as C reads them, to be run with the workers coming to it in one order or another."""

    def __init__(self, part: Part, machine: Machine, table: WorkTable) -> None:
        self._ffi, self._lib = native().ffi, native().lib
        self._kept: list[Any] = []  # what C reads must stay where it is
        self._part, self._n_links = part, len(machine.links)
        tables = _tables(machine, table.works)
        arrays = {name: self._read(getattr(part, name), "int32_t[]") for name in _PART}
        self._in_c = self._ffi.new(
            "struct sms_sim_part *",
            {
                "n_tasks": part.n_tasks,
                "n_workers": part.n_workers,
                "n_pools": len(part.pool_begin) - 1,
                "is_join": self._read(part.is_join, "uint8_t[]"),
                **arrays,
            },
        )
        self._machine = self._ffi.new(
            "struct sms_sim_machine *",
            {
                "dispatch_s": machine.dispatch_s,
                "barrier_s": machine.barrier_s,
                "links": self._network(tables.links, machine.contention),
                "units": self._network(tables.units, machine.shared_units),
                "n_works": len(tables.works),
                "n_flows": len(tables.flows),
                "works": self._rows(tables.works, WORK_DTYPE, "struct sms_sim_work *"),
                "flows": self._rows(tables.flows, FLOW_DTYPE, "struct sms_sim_flow *"),
                "columns": table.work_of.shape[1],
                "column_of": self._read(table.column_of, "int32_t[]"),
                "work_of": self._read(table.work_of, "int32_t[]"),
            },
        )

    def run(self, arrivals: Sequence[int], *, grants: bool) -> PartResult:
        """Simulate it from time 0; see `run_part`."""
        ffi, lib, part, n_links = self._ffi, self._lib, self._part, self._n_links
        times = np.empty((6, part.n_tasks))
        counts = np.empty((2, part.n_tasks), np.int32)
        came = np.array(arrivals, np.int32)
        kept = {name: ffi.from_buffer("double[]", row) for name, row in zip(_TIMES, times, strict=True)}
        kept |= {
            name: ffi.from_buffer("int32_t[]", row)
            for name, row in (("worker", counts[0]), ("waiting_for", counts[1]), ("arrivals", came))
        }
        result = ffi.new("struct sms_sim_result *", {**kept, "with_grants": grants})
        order = ffi.from_buffer("int32_t[]", np.array(arrivals, np.int32))
        status = lib.sms_sim_run(self._in_c, self._machine, order, len(arrivals), result)
        try:
            if status != lib.SMS_SIM_OK:
                why = problem(status)
                raise ProgramError(f"the part of the program from task {part.first_task} on cannot run: {why}")
            refuse_stuck(part, times[2], counts[1])
            granted_at_s = self._copied(result.granted_at_s, result.n_grants)
            granted = self._copied(result.granted, result.n_grants * n_links).reshape(-1, n_links)
        finally:
            lib.sms_sim_release(result)
        ready_s, start_s, end_s, compute_s, transfer_s, serial_s = times
        return PartResult(
            ready_s=ready_s,
            start_s=start_s,
            end_of_task_s=end_s,
            compute_s=compute_s,
            transfer_s=transfer_s,
            serial_s=serial_s,
            worker=counts[0],
            end_s=result.released_s,
            arrivals=tuple(came[: result.n_arrivals].tolist()),
            granted_at_s=granted_at_s,
            granted=granted,
        )

    def _network(self, links: Links, contention: bool) -> dict[str, Any]:
        return {
            "n_links": len(links.capacities),
            "n_kinds": len(links.kinds),
            "contention": contention,
            "capacity": self._read(np.array(links.capacities, np.float64), "double[]"),
            "kinds": self._rows(links.kinds, KIND_DTYPE, "struct sms_sim_kind *"),
            "paths": self._read(np.array(links.paths, np.int32), "int32_t[]"),
        }

    def _rows(self, rows: Sequence[tuple[float, ...]], dtype: np.dtype[np.void], ctype: str) -> Any:
        return self._ffi.cast(ctype, self._read(np.array(rows, dtype), "char[]"))

    def _read(self, array: npt.NDArray[Any], ctype: str) -> Any:
        found = self._ffi.from_buffer(ctype, np.ascontiguousarray(array))
        self._kept.append(found)
        return found

    def _copied(self, numbers: Any, count: int) -> npt.NDArray[np.float64]:
        if not count:
            return np.zeros(0)
        return np.frombuffer(self._ffi.buffer(numbers, 8 * count), np.float64).copy()


_PART = (
    "predecessor_count", "successor_begin", "successors", "queue_begin", "queue", "pool_begin", "pool_tasks",
)  # fmt: skip
_TIMES = ("ready_s", "start_s", "end_s", "compute_s", "transfer_s", "serial_s")


@dataclass(frozen=True)
class Links:
    """Shared rates: the links' capacities, the kinds of flows over them, and the kinds' paths one behind the other."""

    capacities: list[float]
    kinds: list[tuple[float, float, int, int]]
    paths: list[int]


@dataclass(frozen=True)
class _Tables:
    links: Links
    units: Links
    works: list[tuple[float, float, int, int, int]]
    flows: list[tuple[float, int]]


def _tables(machine: Machine, works: Sequence[Work]) -> _Tables:
    units = {name: together for name, (together, _) in machine.units.items()}
    kinds = sorted({(flow.path, flow.cap_bytes_per_s) for work in works for flow in work.flows})
    unit_kinds = sorted({((work.unit,), machine.units[work.unit][1]) for work in works if work.unit is not None})
    kind_of = {kind: index for index, kind in enumerate(kinds)}
    unit_of: dict[str | None, int] = {path[0]: index for index, (path, _) in enumerate(unit_kinds)}
    rows: list[tuple[float, float, int, int, int]] = []
    flows: list[tuple[float, int]] = []
    for work in works:
        begin = len(flows)
        for flow in work.flows:
            check_amount(flow.n_bytes)
            flows.append((flow.n_bytes, kind_of[flow.path, flow.cap_bytes_per_s]))
        if work.unit is not None:
            check_amount(work.compute_s)
        rows.append((work.compute_s, work.serial_s, unit_of.get(work.unit, -1), begin, len(flows)))
    return _Tables(links_of(dict(machine.links), kinds), links_of(units, unit_kinds), rows, flows)


def links_of(capacities: dict[str, float], kinds: Sequence[tuple[tuple[str, ...], float]]) -> Links:
    """Links as C reads them; ChipError or ProgramError for one, or a kind, that cannot be."""
    check_links(capacities)
    index = {name: i for i, name in enumerate(capacities)}
    rows: list[tuple[float, float, int, int]] = []
    paths: list[int] = []
    for path, cap in kinds:
        check_path(capacities, path, cap)
        begin = len(paths)
        paths += [index[link] for link in path]
        rows.append((cap, min([cap, *(capacities[link] for link in path)]), begin, len(paths)))
    return Links(list(capacities.values()), rows, paths)


def tabulated(part: Part, work: Callable[[int, int], Work]) -> WorkTable:
    """The table of what `work(task, worker)` says, asked for each task and each worker that can come to it."""
    work_of = np.full((part.n_tasks, part.n_workers), NO_WORK, np.int32)
    workers, tasks = np.nonzero(part.reached())
    work_of[tasks, workers] = np.arange(len(tasks))
    works = [work(task, worker) for task, worker in zip(tasks.tolist(), workers.tolist(), strict=True)]
    return WorkTable(works, np.arange(part.n_workers, dtype=np.int32), work_of)
