"""Runs a program on this machine and returns the trace of what happened.

    executor = NativeExecutor(Device.here())
    trace = executor.run(program, tensors, about, repeats=5)

The threads live as long as the call. Between start and end of a run no Python runs; the calling thread sleeps and
looks up a few times a second, so that Ctrl-C ends the run after the tasks in hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from smesim import __version__
from smesim.errors import DeviceError
from smesim.exec.allocation import allocate
from smesim.exec.cpu_time import CpuTime
from smesim.exec.device import Device, KernelTable, native
from smesim.exec.finite import check_finite
from smesim.exec.lowp_tables import blocks_beside, lowp_beside, table_beside
from smesim.exec.memory import MemoryBill, check_fits, memory_bill
from smesim.exec.tensors import Tensors
from smesim.plan.assemble import CPU_ROLE
from smesim.plan.program import ANY_WORKER, Number, Program, TaskKind
from smesim.plan.schema import Plan
from smesim.plan.work import dependency_pairs, trace_columns
from smesim.trace.schema import Trace, TraceMeta

SHORT_RUN_S = 0.05
"""A run shorter than this may live on what the one before it left in the caches."""
WAIT_MS = 200
"""How often the calling thread looks for Ctrl-C."""

_STRUCTS = {
    "ops": "sms_op", "tasks": "sms_task", "workers": "sms_worker", "entries": "sms_entry", "pools": "sms_pool",
}  # fmt: skip


@dataclass(frozen=True)
class RunTimes:
    """When each task of one run started and ended, by the system's steady clock, and on which worker."""

    begin_ns: int
    start_ns: npt.NDArray[np.int64]
    end_ns: npt.NDArray[np.int64]
    ran_on: npt.NDArray[np.int32]

    @property
    def seconds(self) -> float:
        return float(self.end_ns.max() - self.begin_ns) * 1e-9

    def span_s(self, tasks: npt.NDArray[np.bool_]) -> float:
        """Seconds from the first start to the last end of some tasks."""
        return float(self.end_ns[tasks].max() - self.start_ns[tasks].min()) * 1e-9


class NativeExecutor:
    """Runs programs on this machine's cores with the kernels of one instruction set, each on its own team of threads.

    `isa` forces a set of kernels (DeviceError if it cannot run here); by default they are the fastest. `handicaps` lets
    the tasks of a worker take so many times as long, at least 1: a core that is not what it should be.
    """

    def __init__(self, device: Device, isa: str | None = None, handicaps: Mapping[int, float] | None = None) -> None:
        self.device = device
        self.handicaps = dict(handicaps or {})
        for worker, factor in self.handicaps.items():
            if not (worker >= 0 and 1 <= factor < float("inf")):
                raise DeviceError(f"a handicap of {factor:g} for worker {worker}; accepted: a factor from 1 on")
        self._forced = None if isa is None else device.kernel_table(isa)

    def check(self, program: Program, share: Tensors | None = None, reserve_bytes: int = 0) -> MemoryBill:
        """Everything that can be refused before memory is taken; returns the bill.

        Weights that can be taken over from `share` are in memory already and not counted against what is free;
        `reserve_bytes` of that are for something else.
        """
        tables = self._checked_tables(program)
        bill = memory_bill(program, sum(_scratch_bytes(program, table) for table in tables))
        shared_bytes = 0 if share is None else share.shared_bytes(program)
        check_fits(bill, self.device.available_bytes + shared_bytes - reserve_bytes)
        return bill

    def _checked_tables(self, program: Program) -> tuple[KernelTable, ...]:
        """The kernels of each worker; DeviceError unless this machine has them, and the cores, that a program asks
        for."""
        if program.n_workers > len(self.device.cores):
            raise DeviceError(
                f"the plan has {program.n_workers} workers; this machine has {len(self.device.cores)} usable cores"
            )
        for worker in self.handicaps:
            if worker >= program.n_workers:
                raise DeviceError(f"a handicap for worker {worker}; the plan has workers 0..{program.n_workers - 1}")
        if self._forced is not None:
            return (self._forced,) * program.n_workers
        device = self.device
        if device.matrix_isa is None and (program.workers["role"] != CPU_ROLE).any():
            device = device.with_stand_in()
        cores = device.kernel_table(device.isa)
        units = device.kernel_table(device.matrix_isa or device.isa)
        return tuple(cores if role == CPU_ROLE else units for role in program.workers["role"])

    def run(
        self,
        program: Program,
        tensors: Tensors,
        plan: Plan,
        repeats: int = 1,
        warmup: int = 1,
        progress: Callable[[], None] | None = None,
        between: Callable[[], None] | None = None,
    ) -> Trace:
        """Execute a program `repeats` times after `warmup` uncounted runs; one trace with all counted runs.

        `plan` is what the program was lowered from; the trace's head names it. `progress` is called after every run;
        so is `between`, which may disturb the caches: a short program then runs once uncounted to warm them again.
        Raises DeviceError if the program cannot run here, or if the numbers that come out are not finite.
        """
        tables = self._checked_tables(program)
        tensors.check_fit(program)
        team = self.team(program)
        run = _NativeRun(program, tensors, tables, self.handicaps)
        counted: list[RunTimes] = []
        before = CpuTime.now()
        for i in range(warmup + repeats):
            if i == warmup:
                before = CpuTime.now()
            times = run.execute(team)
            if i >= warmup:
                counted.append(times)
            if progress is not None:
                progress()
            if between is not None:
                between()
                if times.seconds < SHORT_RUN_S and i + 1 < warmup + repeats:
                    run.execute(team)
        foreign_load = before.foreign_share(CpuTime.now())
        check_finite(program, tensors)
        notes = [] if self._forced is None else _notes_of_forced(self._forced.isa, self.device.isa)
        stand_in = any(r != CPU_ROLE and not t.matrix for r, t in zip(program.workers["role"], tables, strict=True))
        if stand_in:
            notes.append("stand-in: what the plan gives to a matrix unit ran on cores")
        elif self.device.stand_in:
            notes.append("stand-in: the cores ran narrower kernels than they could")
        notes += _notes_of_strips(program, tables)
        notes += [f"worker {worker} took {factor:g} times as long" for worker, factor in self.handicaps.items()]
        if loose := program.n_workers - native()[1].sms_team_pinned(team):
            notes.append(f"{loose} of {program.n_workers} threads could not be pinned to a core")
        head = {
            "warmup": warmup, "seed": tensors.seed, "foreign_load": foreign_load, "notes": tuple(notes),
            "stand_in": stand_in or self.device.stand_in,
        }  # fmt: skip
        return self._trace(program, plan, counted, tables, head)

    def stopwatch(self, program: Program, tensors: Tensors, team: Any = None) -> Callable[[], RunTimes]:
        """A call that executes a program once, on threads that wait for the next call, and returns the times.

        `team` are threads that other programs with the same workers use as well.
        """
        tables = self._checked_tables(program)
        tensors.check_fit(program)
        run = _NativeRun(program, tensors, tables, self.handicaps)
        team = self.team(program) if team is None else team
        return lambda: run.execute(team)

    def trace(self, program: Program, plan: Plan, runs: list[RunTimes], foreign_load: float | None) -> Trace:
        """The trace of runs that a stopwatch took."""
        head = {"warmup": 0, "seed": None, "foreign_load": foreign_load, "notes": (), "stand_in": self.device.stand_in}
        return self._trace(program, plan, runs, self._checked_tables(program), head)

    def kernels_that_ran(self, program: Program, runs: Sequence[RunTimes]) -> dict[str, str]:
        """By kind of operator, the instruction sets of the workers that had a part in it, as "neon+sme2"."""
        return _kernels_that_ran(program, runs, self._checked_tables(program))

    def team(self, program: Program) -> Any:
        """Threads for the workers of a program, pinned to their cores where the system lets us."""
        ffi, lib = native()
        cores = self._cores(program)
        team = ffi.gc(lib.sms_team_create(len(cores), cores), lib.sms_team_destroy)
        if team == ffi.NULL:
            raise DeviceError(f"the system refused to start {len(cores)} threads")
        return team

    def _cores(self, program: Program) -> list[int]:
        """The core of each worker: the one the plan says if this machine has them all, else one after the other."""
        wanted, usable = program.workers["core"].tolist(), self.device.cores
        return [usable[c] for c in wanted] if max(wanted) < len(usable) else list(usable[: len(wanted)])

    def _trace(
        self,
        program: Program,
        plan: Plan,
        runs: list[RunTimes],
        tables: Sequence[KernelTable],
        head: dict[str, Any],
    ) -> Trace:
        columns = trace_columns(program)
        rows = columns["task"]
        ready = np.stack([_ready_ns(program, times) for times in runs])
        start = np.stack([times.start_ns for times in runs])
        end = np.stack([times.end_ns for times in runs])
        begin = np.array([[times.begin_ns] for times in runs])

        def seconds(stamps: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
            return np.asarray(((stamps - begin)[:, rows] * 1e-9).ravel(), np.float64)

        repeated: dict[str, Any] = {
            name: np.tile(values, len(runs)) if isinstance(values, np.ndarray) else _tile(values, len(runs))
            for name, values in columns.items()
        }
        repeated.update(
            run=np.repeat(np.arange(len(runs), dtype=np.int32), len(rows)),
            worker=np.stack([times.ran_on[rows] for times in runs]).ravel().astype(np.int16),
            ready_s=np.minimum(seconds(np.maximum(ready, begin)), seconds(start)),
            start_s=seconds(start),
            end_s=seconds(end),
        )
        meta = TraceMeta(
            source="emulated" if self.device.emulated else "measured",
            machine=self.device.summary(),
            chip=plan.chip,
            chip_fingerprint=plan.chip_fingerprint,
            model=plan.model.name,
            phase=plan.phase,
            layers=plan.layers,
            plan_fingerprint=program.plan_fingerprint,
            program_fingerprint=program.fingerprint(),
            planner=plan.planner,
            workers=tuple(f"{w.role}{i}" for i, w in enumerate(plan.workers)),
            runs=len(runs),
            kernels=_kernels_that_ran(program, runs, tables),
            version=__version__,
            **head,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        return Trace.build(meta, repeated, dependencies=dependency_pairs(program))


def _notes_of_forced(forced: str, best: str) -> list[str]:
    return [] if forced == best else [f"{forced} kernels, not {best}"]


def _notes_of_strips(program: Program, tables: Sequence[KernelTable]) -> list[str]:
    """Which strips are not as high as suits the kernels that read them best."""
    notes = []
    for number in np.unique(program.ops["rhs_dtype"][np.isin(program.ops["kind"], _PRODUCTS)]).tolist():
        of_number = program.ops["lhs_mr"][program.ops["rhs_dtype"] == number]
        strips = np.unique(of_number[of_number > 0]).tolist()
        for table in dict.fromkeys(tables if strips else ()):
            suits = table if number == Number.F32 else table_beside(table.isa, number)
            if any(height != suits.mr for height in strips):
                heights = ", ".join(map(str, strips))
                notes.append(f"the plan packs strips of {heights} rows; {suits.mr} suit the {suits.isa} kernels best")
    return notes


_PRODUCTS = (TaskKind.GEMM, TaskKind.GEMV, TaskKind.EXPERT_GEMM)


def _kernels_that_ran(program: Program, runs: Sequence[RunTimes], tables: Sequence[KernelTable]) -> dict[str, str]:
    """By kind of operator, the instruction sets of the workers that had a part in it, as "neon+sme2"."""
    names = np.asarray(program.op_kinds, dtype=object)
    numbers = program.ops["rhs_dtype"]
    low = np.isin(program.ops["kind"], _PRODUCTS) & (numbers != Number.F32)
    found: dict[str, set[str]] = {}
    for run in runs:
        for worker in np.unique(run.ran_on[run.ran_on >= 0]).tolist():
            ops = np.unique(program.tasks["op"][run.ran_on == worker])
            isa = tables[worker].isa
            for op in ops.tolist():
                found.setdefault(names[op], set()).add(table_beside(isa, numbers[op]).isa if low[op] else isa)
    return {kind: "+".join(sorted(found[kind])) for kind in sorted(found)}


def _scratch_bytes(program: Program, table: KernelTable) -> int:
    """Scratch that one worker needs."""
    ffi, lib = native()
    kernels = lib.sms_kernels_find(table.isa.encode())
    ops = ffi.from_buffer("struct sms_op *", program.ops)
    tasks = ffi.from_buffer("struct sms_task *", program.tasks)
    return int(lib.sms_scratch_bytes(kernels, ops, tasks, program.n_tasks))


class _NativeRun:
    """The C side's view of a program and its buffers; keeps alive everything that it points to."""

    def __init__(
        self, program: Program, tensors: Tensors, tables: Sequence[KernelTable], handicaps: Mapping[int, float]
    ) -> None:
        ffi, lib = native()
        self.program = program
        n_tasks, n_workers = program.n_tasks, program.n_workers
        self.pending = np.zeros(n_tasks, np.int32)
        self.cursors = np.zeros(max(len(program.pools), 1), np.int32)
        self.start_ns = np.zeros(n_tasks, np.int64)
        self.end_ns = np.zeros(n_tasks, np.int64)
        self.ran_on = np.full(n_tasks, ANY_WORKER, np.int32)
        self.scratch = [allocate(_scratch_bytes(program, table)) for table in tables]
        run = self.struct = ffi.new("struct sms_run *")
        self.keep: list[Any] = [tensors]

        def pointer(ctype: str, array: npt.NDArray[Any]) -> Any:
            view = ffi.from_buffer(f"{ctype} *", array)
            self.keep.append(view)
            return view

        def pointers(ctype: str, items: list[Any]) -> Any:
            block = ffi.new(f"{ctype}[]", items)
            self.keep.append(block)
            return block

        for field, struct in _STRUCTS.items():
            setattr(run, field, pointer(f"struct {struct}", getattr(program, field)))
        run.buffer_facts = pointer("struct sms_buffer", program.buffers)
        run.successors = pointer("int32_t", program.successors)
        run.pool_tasks = pointer("int32_t", program.pool_tasks)
        run.n_tasks, run.n_workers, run.n_pools = n_tasks, n_workers, len(program.pools)
        run.buffers = pointers("void *", [ffi.from_buffer(a) for a in tensors.arrays])
        kernels = [lib.sms_kernels_find(table.isa.encode()) for table in tables]
        run.kernels = pointers("const struct sms_kernels *", kernels)
        lowp = [lib.sms_lowp_find(lowp_beside(table.isa).isa.encode()) for table in tables]
        run.lowp = pointers("const struct sms_lowp *", lowp)
        blocks = [lib.sms_blocks_find(blocks_beside(table.isa).isa.encode()) for table in tables]
        run.blocks = pointers("const struct sms_blocks *", blocks)
        run.scratch = pointers("void *", [ffi.from_buffer(a) for a in self.scratch])
        if handicaps:
            factors = np.ones(n_workers)
            factors[list(handicaps)] = list(handicaps.values())
            run.handicaps = pointer("double", factors)
        run.pending = pointer("int32_t", self.pending)
        run.cursors = pointer("int32_t", self.cursors)
        run.start_ns = pointer("int64_t", self.start_ns)
        run.end_ns = pointer("int64_t", self.end_ns)
        run.ran_on = pointer("int32_t", self.ran_on)

    def execute(self, team: Any) -> RunTimes:
        _, lib = native()
        lib.sms_team_start(team, self.struct)
        try:
            while (status := lib.sms_team_wait(team, WAIT_MS)) == lib.SMS_RUNNING:
                pass
        except BaseException:
            lib.sms_team_cancel(team)
            while lib.sms_team_wait(team, WAIT_MS) == lib.SMS_RUNNING:
                pass
            raise
        if status != lib.SMS_DONE:
            raise DeviceError("the run stopped at a task that has no native kernel")
        return RunTimes(int(self.struct.begin_ns), self.start_ns.copy(), self.end_ns.copy(), self.ran_on.copy())


def _tile(values: Any, times: int) -> Any:
    import pandas as pd

    return pd.Categorical.from_codes(np.tile(values.codes, times), dtype=values.dtype)


def _ready_ns(program: Program, times: RunTimes) -> npt.NDArray[np.int64]:
    """When the last predecessor of each task ended; the run's begin for tasks that wait for none."""
    counts = program.tasks["successor_end"] - program.tasks["successor_begin"]
    sources = np.repeat(np.arange(program.n_tasks), counts)
    ready = np.full(program.n_tasks, times.begin_ns, np.int64)
    np.maximum.at(ready, program.successors, times.end_ns[sources])
    return ready
