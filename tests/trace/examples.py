"""Traces for the tests: one small enough to be cut by hand, and a strategy for arbitrary valid ones.

The hand-made program has two workers and four tasks; 1 s is the unit, so every number below is exact.

    predicted  w0 |0: attn_norm 0-2|1: q_proj 2-6      |.......tail.......|
               w1 |....wait.....|2: q_proj 2-7    |3: lm_head 7-10|        ends at 10
    measured   w0 |d 0-1|0: 1-3|d 3-4|1: 4-9           |......tail........|
               w1 |...wait 0-3....|2: 3-8|wait 8-9|d 9-10|3: 10-12|        ends at 12

Every predicted task has 0.5 s of overhead in it; d is dispatch, the gap after a task is ready.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from smesim.trace import Trace, TraceMeta

PROPERTY = settings(deadline=None, max_examples=60)
"""For all property tests here: how long an example takes says nothing on a shared machine."""

DEPENDENCIES = {"predecessor": [0, 0, 1, 2], "successor": [1, 2, 3, 3]}

LINKS = {
    "link": ["dram", "l2", "dram", "l2", "dram"],
    "start_s": [0.0, 0.0, 2.0, 7.0, 7.0],
    "granted_bytes_per_s": [8e9, 1e9, 0.0, 0.0, 2.5e9],
    "capacity_bytes_per_s": [10e9, 4e9, 10e9, 4e9, 10e9],
}


def meta(source: str, **changes: Any) -> TraceMeta:
    values: dict[str, Any] = {
        "source": source,
        "machine": "a test bench",
        "chip": "bench",
        "chip_fingerprint": "chip-1",
        "model": "tiny",
        "phase": "prefill:16",
        "layers": 1,
        "plan_fingerprint": "plan-1",
        "program_fingerprint": "program-1",
        "planner": "cpu_only",
        "workers": ["cpu0", "cpu1"],
    }
    return TraceMeta.model_validate(values | changes)


def what() -> dict[str, list[Any]]:
    """The columns that say what the four tasks are."""
    return {
        "task": [0, 1, 2, 3],
        "op": [0, 1, 1, 2],
        "op_name": ["layers.0.attn_norm", "layers.0.q_proj", "layers.0.q_proj", "lm_head"],
        "site": ["attn_norm", "q_proj", "q_proj", "lm_head"],
        "layer": [0, 0, 0, -1],
        "op_kind": ["rms_norm", "linear", "linear", "linear"],
        "kind": ["rmsnorm", "gemm", "gemm", "gemv"],
        "worker": [0, 0, 1, 1],
        "flop": [10, 400, 600, 50],
        "bytes": [100, 40, 60, 500],
    }


def predicted_columns() -> dict[str, list[Any]]:
    return what() | {
        "ready_s": [0.0, 2.0, 2.0, 7.0],
        "start_s": [0.0, 2.0, 2.0, 7.0],
        "end_s": [2.0, 6.0, 7.0, 10.0],
        "compute_s": [0.5, 3.5, 4.5, 1.0],
        "transfer_s": [1.5, 1.0, 1.0, 2.5],
        "overhead_s": [0.5, 0.5, 0.5, 0.5],
        "bound": ["bandwidth", "compute", "compute", "bandwidth"],
    }


def measured_columns(stretch: tuple[float, ...] = (1.0,)) -> dict[str, Any]:
    """One run a factor, with all times stretched by it."""
    times = {
        "ready_s": [0.0, 3.0, 3.0, 9.0],
        "start_s": [1.0, 4.0, 3.0, 10.0],
        "end_s": [3.0, 9.0, 8.0, 12.0],
    }
    columns: dict[str, Any] = {name: values * len(stretch) for name, values in what().items()}
    columns["run"] = [run for run in range(len(stretch)) for _ in range(4)]
    for name, values in times.items():
        columns[name] = [value * factor for factor in stretch for value in values]
    return columns


def predicted(**changes: Any) -> Trace:
    return Trace.build(meta("simulated", **changes), predicted_columns(), LINKS, DEPENDENCIES)


def measured(stretch: tuple[float, ...] = (1.0,), **changes: Any) -> Trace:
    return Trace.build(
        meta("measured", runs=len(stretch), **changes), measured_columns(stretch), dependencies=DEPENDENCIES
    )


_DURATIONS = st.floats(min_value=0.0, max_value=1.0, allow_subnormal=False)
_NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8)


@st.composite
def trace_pairs(draw: st.DrawFn) -> tuple[Trace, Trace]:
    """A simulated and a measured trace of a random program, on one to four workers, randomly scheduled."""
    workers = draw(st.integers(1, 4))
    tasks = draw(st.integers(1, 12))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ops = np.sort(random.integers(0, 5, tasks))
    sites = draw(st.lists(_NAMES, min_size=5, max_size=5))
    labels = [f"cpu{worker}" for worker in range(workers)]

    def columns(runs: int, gaps: float) -> dict[str, Any]:
        ready_s, start_s, end_s, worker = (np.zeros((runs, tasks)) for _ in range(4))
        for run in range(runs):
            until_s = np.zeros(workers)
            for task in random.permutation(tasks):
                lane = int(random.integers(workers))
                gap_s, duration_s = random.uniform(0, gaps), draw(_DURATIONS)
                worker[run, task] = lane
                start_s[run, task] = until_s[lane] + gap_s
                end_s[run, task] = until_s[lane] = start_s[run, task] + duration_s
                ready_s[run, task] = random.choice([start_s[run, task] * random.uniform(), np.nan])
        return {
            "run": np.repeat(np.arange(runs), tasks),
            "task": np.tile(np.arange(tasks), runs),
            "op": np.tile(ops, runs),
            "op_name": [f"layers.{op}.{sites[op]}" for op in ops] * runs,
            "site": [sites[op] for op in ops] * runs,
            "layer": np.tile(ops, runs),
            "op_kind": ["linear"] * tasks * runs,
            "kind": ["gemm"] * tasks * runs,
            "worker": worker.ravel().astype(int),
            "ready_s": ready_s.ravel(),
            "start_s": start_s.ravel(),
            "end_s": end_s.ravel(),
            "flop": np.tile(random.integers(0, 2**62, tasks) // tasks, runs),
            "bytes": np.tile(random.integers(0, 2**40, tasks), runs),
        }

    simulated = columns(1, gaps=0.5)
    lasts_s = simulated["end_s"] - simulated["start_s"]
    simulated |= {
        "compute_s": lasts_s,
        "transfer_s": lasts_s * random.uniform(),
        "overhead_s": lasts_s * random.uniform(),
        "bound": random.choice(["compute", "bandwidth", "overhead"], tasks),
    }
    runs = draw(st.integers(1, 4))
    return (
        Trace.build(meta("simulated", workers=labels), simulated),
        Trace.build(meta("measured", workers=labels, runs=runs), columns(runs, gaps=0.5)),
    )
