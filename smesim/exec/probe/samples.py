"""From traces to samples: what each task had to do, in the terms of the cost function, and how long it took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from smesim.exec.probe.little_models import LittleRun
from smesim.exec.probe.warm import BlockSizes, WarmProduct
from smesim.hwmodel.attention_blocks import BlockShape, block_work
from smesim.hwmodel.cost import AttentionShape, router_blocks, strip_heights
from smesim.hwmodel.product_cost import panels_taken
from smesim.plan.program import BufferRole, Number, Program, TaskKind
from smesim.plan.reuse import F32_BYTES, reuse_distances, row_operands, rows_of, shared_bytes

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """One task: seconds it took (median over repeats), on how many threads the run had; `weight` is its share of all
    samples of its run, so that a run of few tasks (a decode step) counts as much as one of many."""

    task: int
    seconds: float
    weight: float
    threads: int
    program: Program
    distances: dict[str, npt.NDArray[np.int64]]

    @property
    def row(self) -> Any:
        """The task's row of the program's `tasks`."""
        return self.program.tasks[self.task]

    @property
    def op(self) -> Any:
        """Its operator's row of the program's `ops`."""
        return self.program.ops[self.row["op"]]


def samples_of(
    runs: Iterable[LittleRun], kind: TaskKind, threads: int, steady_flop_per_s: float | None = None,
    number: Number = Number.F32,
) -> list[Sample]:  # fmt: skip
    """All tasks of one kind in the runs with so many threads; of products, those of one format of weights.

    With `steady_flop_per_s`, times are those that the tasks would have taken while the yardstick ran at that rate;
    for tasks that arithmetic bounds.
    """
    found = []
    for run in runs:
        if run.threads != threads:
            continue
        seconds = np.median(run.trace.by_run("end_s") - run.trace.by_run("start_s"), axis=0)
        if steady_flop_per_s is not None:
            seconds = seconds * run.reference.product.median / steady_flop_per_s
        tasks = run.trace.by_run("task")[0]
        chosen = run.program.tasks["kind"][tasks] == kind
        chosen &= run.program.ops["rhs_dtype"][run.program.tasks["op"][tasks]] == number
        distances = reuse_distances(run.program)
        found += [
            Sample(int(t), float(s), 1.0 / float(chosen.sum()), threads, run.program, distances)
            for t, s in zip(tasks[chosen], seconds[chosen], strict=True)
        ]
    return found


def gemm_features(sample: Sample, warm: WarmProduct, blocks: BlockSizes) -> tuple[float, float]:
    """(seconds of warm k-steps and micro-tiles, weight bytes new to the caches)."""
    row, op = sample.row, sample.op
    panels, k = int(row["end1"]) - int(row["begin1"]), int(op["k"])
    taken = panels_taken(panels, blocks.panels, warm.lone_panel)
    heights = strip_heights(int(op["m"]), blocks.mr, int(row["begin0"]), int(row["end0"]))
    steps_s = taken * k * sum(count * warm.kstep_s[height] for height, count in heights)
    tiles = taken * (int(row["end0"]) - int(row["begin0"])) * -(-k // blocks.kc)
    weight_bytes = float(Number(int(op["rhs_dtype"])).n_bytes * panels * 16 * k)
    return steps_s + tiles * warm.tile_s, weight_bytes if row["begin0"] == 0 else 0.0


def attention_task(sample: Sample) -> tuple[AttentionShape, int, float]:
    """The shape of a task of fused attention, of how many KV heads it is, and its bytes of old keys and values that are
    new to the caches."""
    row, op = sample.row, sample.op
    shape = AttentionShape(
        int(row["begin0"]),
        int(row["end0"]),
        int(op["past"]),
        int(op["heads"]) // int(op["kv_heads"]),
        int(op["head_dim"]),
    )
    units = (int(row["end1"]) - int(row["begin1"])) * (int(row["end2"]) - int(row["begin2"]))
    return shape, units, 8.0 * units * shape.head_dim * shape.past if shape.end == int(op["tokens"]) else 0.0


def _stage_block(sample: Sample) -> BlockShape:
    row, op = sample.row, sample.op
    begin, end, key_begin, key_end = (int(row[name]) for name in ("begin0", "end0", "begin1", "end1"))
    group = int(op["heads"]) // int(op["kv_heads"])
    return BlockShape(begin, end, int(op["past"]), group, int(op["head_dim"]), key_begin, key_end)


def pairs_of(sample: Sample) -> int:
    """The scores of a stage's block that the mask lets through."""
    return _stage_block(sample).pairs


def stage_features(sample: Sample, kstep_s: Sequence[float], mr: int) -> tuple[float, float, float, float]:
    """What a stage of attention did of one block, by the coefficients of its kind: (k-step seconds by the warm rates,
    micro-tiles, query elements, 1) of a product, (pairs, rows that see any key, rows cut short, 0) of a softmax."""
    kind, block = sample.row["kind"], _stage_block(sample)
    work = block_work(block, mr, 16)
    if kind == TaskKind.ATTENTION_SOFTMAX:
        return float(work.pairs), float(work.seeing_rows), float(work.cut_rows), 0.0
    is_qk = kind == TaskKind.ATTENTION_QK
    steps_s = sum(steps * kstep_s[min(height, mr)] for height, steps in (work.qk_ksteps if is_qk else work.pv_ksteps))
    at_an_end = block.is_first if is_qk else block.is_last
    elements = float(block.rows * block.head_dim) if at_an_end else 0.0
    return steps_s, float(work.qk_tiles if is_qk else work.pv_tiles), elements, 1.0


def router_features(
    sample: Sample, gemm: Mapping[str, float], gemv_element_s: float, pack_element_s: float
) -> tuple[float, float]:
    """(seconds of packing and of products by what these cost elsewhere, scores to choose from) of a router's task.

    `gemm` are the parameters of its kernel.
    """
    row, op = sample.row, sample.op
    rows, experts, k = int(row["end0"]) - int(row["begin0"]), int(op["n"]), int(op["k"])
    panels, mr = -(-experts // 16), int(gemm["mr"])
    if op["m"] == 1:
        return panels * 16 * k * gemv_element_s, float(rows * experts)
    seconds = rows * k * pack_element_s
    per_tile = -(-k // int(gemm["kc"])) * gemm["s_per_tile"]
    for block, blocks in router_blocks(rows):
        for height, strips in strip_heights(block, mr, 0, -(-block // mr)):
            seconds += blocks * strips * panels * (k * gemm[f"s_per_kstep_h{height}"] + per_tile)
    return seconds, float(rows * experts)


def row_features(sample: Sample, last_cache_bytes: float) -> tuple[float, float, float, float, float, float]:
    """(1, elements of the mean operand, rows, elements of a row, bytes to and from DRAM, bytes another core wrote) of a
    row-wise task."""
    row = sample.program.task_row(sample.task)
    operands = row_operands(sample.program, row)
    streamed = 0.0
    for operand in operands:
        distance = sample.distances[operand.slot][row.op]
        whole = sample.program.buffers["n_bytes"][sample.op[operand.slot]]
        if distance + whole > last_cache_bytes:
            streamed += operand.n_bytes * (2.0 if operand.is_write else 1.0)
    elements = sum(o.n_bytes for o in operands) / len(operands) / F32_BYTES
    shared = shared_bytes(operands, sample.threads)
    rows = float(rows_of(row, sample.program.op_rows[row.op]))
    return 1.0, elements, rows, elements / rows, streamed, shared


def stream_rates(runs: Iterable[LittleRun], threads: int) -> list[float]:
    """DRAM bandwidth of every large GEMV operator in f32 as a share of what the yardstick drew meanwhile.

    An operator's bandwidth is its weights over the time from first start to last end.
    """
    rates = []
    for run in runs:
        if run.threads != threads:
            continue
        program = run.program
        tasks = run.trace.by_run("task")[0]
        start, end = run.trace.by_run("start_s"), run.trace.by_run("end_s")
        ops = program.tasks["op"][tasks]
        gemv = (program.tasks["kind"][tasks] == TaskKind.GEMV) & (program.ops["rhs_dtype"][ops] == Number.F32)
        for op in np.unique(ops[gemv]):
            weight = int(program.ops["weight"][op])
            n_bytes = float(program.buffers["n_bytes"][weight])
            if n_bytes < LARGE_BYTES or program.buffers["role"][weight] != BufferRole.WEIGHT:
                continue
            mine = ops == op
            elapsed = np.median(end[:, mine].max(axis=1) - start[:, mine].min(axis=1))
            rates.append(n_bytes / float(elapsed) / run.reference.memory.median)
    return rates


LARGE_BYTES = 24e6
"""A stream shorter than this is over before start and end stop mattering."""


def handover_gaps(runs: Iterable[LittleRun]) -> tuple[list[float], list[float]]:
    """(dispatch, barrier) gaps in seconds: from the moment a task could start to its start.

    Dispatch: the task was ready before its worker became free. Barrier: the worker was free before, and the task that
    made it ready ended on another worker.
    """
    dispatch: list[float] = []
    barrier: list[float] = []
    for run in runs:
        frame = run.trace.tasks
        for _, one_run in frame.groupby("run", sort=False):
            for worker, rows in one_run.groupby("worker", sort=False):
                ordered = rows.sort_values("start_s")
                start, end = ordered["start_s"].to_numpy(), ordered["end_s"].to_numpy()
                ready = ordered["ready_s"].to_numpy()[1:]
                free = end[:-1]
                gap = start[1:] - np.maximum(ready, free)
                dispatch += gap[ready <= free].tolist()
                if run.threads > 1 and worker != 0:
                    barrier += gap[ready > free].tolist()
    return dispatch, barrier
