"""What the machine gives right now, by a little model that takes some 25 ms: one decode step and one short prompt.

On a virtual machine this changes while one looks. The host moves the virtual cores, lends their time to others, or
gives the memory's bandwidth away: for seconds or minutes all threads together draw a third more or less from memory,
or multiply a quarter slower. So the little model is run between the repeats of a measurement, in the probe and in a
comparison; how long it takes now against then says how far the machine has drifted in between.

It goes the way of every program, with the same kernels and the same queues, because plain loops see something else: a
loop of multiply-adds kept its rate while every product lost 25 %, and two threads that read a block each are only as
fast as the slower of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smesim.exec.device import Device
from smesim.exec.executor import NativeExecutor, RunTimes
from smesim.exec.probe.timing import Timing
from smesim.exec.tensors import Tensors
from smesim.hwmodel.chip import Chip
from smesim.plan.lower import lower
from smesim.plan.planners import cpu_only
from smesim.plan.program import Program, TaskKind
from smesim.workload.config import ModelConfig
from smesim.workload.graph import build_graph
from smesim.workload.phase import Phase

MODEL = ModelConfig(
    name="yardstick", architecture="llama", layers=1, d_model=1408, d_ff=7936, heads=11, kv_heads=11,
    head_dim=128, vocab=512, tied_embeddings=True, rms_eps=1e-5, rope_theta=1e4, max_position=4096,
)  # fmt: skip
"""166 MB of weights, more than a desktop's caches hold; no product has the shape of one of a catalogue model."""
DECODE, PREFILL = "decode:32", "prefill:48"
MEMORY_BYTES = 200_000_000
"""What a yardstick needs, generously."""
WATCHED_SHARE = 0.25
"""Of the time between two calls, what the yardstick is given: a long run needs more than one look."""
LONGEST_WATCH_S = 0.5


@dataclass(frozen=True)
class Reference:
    """What the yardstick gave around the runs: bytes/s of the matrix-vector products of its decode step, FLOP/s of the
    matrix products of its prompt."""

    memory: Timing
    product: Timing


class Yardstick:
    """Takes samples on `threads` threads; `chip` is for the planner to choose tile sizes by.

    Yardsticks of one `share` use its weights.
    """

    def __init__(self, device: Device, chip: Chip, threads: int, share: Yardstick | None = None) -> None:
        self._tensors: Tensors | None = None if share is None else share._tensors
        self._decode, program, self._gemv = self._stopwatch(device, chip, threads, DECODE, TaskKind.GEMV)
        weights = np.unique(program.ops["weight"][program.ops["kind"] == TaskKind.GEMV])
        self._bytes = float(program.buffers["n_bytes"][weights].sum())
        self._prefill, program, self._gemm = self._stopwatch(device, chip, threads, PREFILL, TaskKind.GEMM)
        self.product_flop = float(program.ops["flop"][program.ops["kind"] == TaskKind.GEMM].sum())
        self._looks: list[list[tuple[float, float]]] = []
        self._last_s = time.perf_counter()

    def _stopwatch(
        self, device: Device, chip: Chip, threads: int, phase: str, kind: TaskKind
    ) -> tuple[Callable[[], RunTimes], Program, list[npt.NDArray[np.bool_]]]:
        """What runs a phase, its program, and the tasks of each operator of a kind."""
        graph = build_graph(MODEL, Phase.parse(phase))
        program = lower(cpu_only(graph, chip, threads), graph)
        self._tensors = Tensors.random(program, MODEL, device, seed=0, share=self._tensors)
        run = NativeExecutor(device).stopwatch(program, self._tensors)
        run()
        is_kind = program.tasks["kind"] == kind
        return run, program, [is_kind & (program.tasks["op"] == op) for op in np.unique(program.tasks["op"][is_kind])]

    def memory_s(self) -> float:
        """Seconds that the matrix-vector products of one decode step take, now."""
        times = self._decode()
        return sum(times.span_s(tasks) for tasks in self._gemv)

    def product_s(self) -> float:
        """Seconds that the matrix products of one prompt take, now."""
        times = self._prefill()
        return sum(times.span_s(tasks) for tasks in self._gemm)

    def look(self) -> None:
        """Run both once, and again while the time since the last call allows."""
        begin_s = time.perf_counter()
        until_s = begin_s + min(WATCHED_SHARE * (begin_s - self._last_s), LONGEST_WATCH_S)
        look: list[tuple[float, float]] = []
        self._looks.append(look)
        while True:
            look.append((self._bytes / self.memory_s(), self.product_flop / self.product_s()))
            self._last_s = time.perf_counter()
            if self._last_s >= until_s:
                return

    def take(self, run_s: Sequence[float] | npt.NDArray[np.float64]) -> Reference:
        """Medians and spreads of the looks before and after the typical ones of the runs since the last call.

        `run_s` is how long each run took, in seconds, with one look before the first of them and one after each. What
        is reported of several runs is their median, so what counts is how the machine was then: typical is the half of
        the runs that is nearest to it.
        """
        seconds = np.asarray(run_s, np.float64)
        looks, self._looks = self._looks, []
        if len(looks) != seconds.size + 1:
            raise ValueError(f"{len(looks)} looks at {seconds.size} runs; there must be one more than there are runs")
        distance = np.abs(seconds - np.median(seconds))
        nearest = np.argsort(distance, kind="stable")[: (seconds.size + 1) // 2]
        around = sorted({*nearest.tolist(), *(nearest + 1).tolist()})
        memory, product = (Timing.of(v) for v in zip(*(s for i in around for s in looks[i]), strict=True))
        return Reference(memory, product)


def typical(references: Sequence[Reference]) -> Reference:
    """The median of several references."""
    return Reference(
        Timing.of([r.memory.median for r in references]), Timing.of([r.product.median for r in references])
    )
