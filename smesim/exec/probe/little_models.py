"""Three little transformers of odd widths, one a mixture of experts, run for real: the cost function is fitted to them.

They go the whole way that a real model goes (graph, plan, program, executor), so a sample is the time of a task under
the conditions of a run: weights cold, the other workers busy. No product in them has the shape of one of a catalogue
model (a test holds that), and their row counts and contexts are not those that one usually asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from smesim.exec.device import Device
from smesim.exec.executor import NativeExecutor
from smesim.exec.probe.yardstick import Reference, Yardstick
from smesim.exec.tensors import Tensors
from smesim.hwmodel.chip import Chip
from smesim.plan.lower import lower
from smesim.plan.pipeline import pipelined
from smesim.plan.planners import cpu_only
from smesim.plan.program import Program
from smesim.plan.schema import Plan
from smesim.trace.schema import Trace
from smesim.workload.config import ModelConfig
from smesim.workload.dtypes import DType
from smesim.workload.graph import DTypes, build_graph
from smesim.workload.phase import Phase

REPEATS = 5
LONG_PROMPT, REPEATS_OF_LONG = 128, 3
"""A run over so many tokens has many tasks of each kind, so fewer runs tell as much."""


def _little(
    name: str, architecture: Literal["llama", "qwen3"], d_model: int, d_ff: int, heads: int, kv_heads: int, vocab: int
) -> ModelConfig:
    return ModelConfig(
        name=name, architecture=architecture, qk_norm=architecture == "qwen3", layers=2, d_model=d_model, d_ff=d_ff,
        heads=heads, kv_heads=kv_heads, head_dim=d_model // heads, vocab=vocab, tied_embeddings=True, rms_eps=1e-5,
        rope_theta=1e4, max_position=4096,
    )  # fmt: skip


WIDE = _little("probe-wide", "llama", d_model=2304, d_ff=5888, heads=18, kv_heads=9, vocab=24000)
# Its norms of queries and keys have rows as short as a head; without them, rows and elements grow together.
NARROW = _little("probe-narrow", "qwen3", d_model=1792, d_ff=4736, heads=28, kv_heads=4, vocab=44000)
# One layer: its experts are half a gigabyte.
MIXED = _little("probe-mixed", "qwen3", d_model=1472, d_ff=544, heads=16, kv_heads=4, vocab=6000).model_copy(
    update={
        "architecture": "qwen3moe", "layers": 1, "experts": 48, "experts_per_token": 5, "d_expert": 544,
        "norm_topk_prob": True,
    }
)  # fmt: skip

QUICK_RUNS = (
    (WIDE, ("prefill:10", "prefill:22", "prefill:44", "prefill:92", "prefill:190", "prefill:380")),
    (WIDE, ("decode:60", "decode:300", "decode:700", "decode:1500")),
    (NARROW, ("prefill:76", "prefill:210", "decode:400", "decode:1900")),
    (MIXED, ("prefill:50", "prefill:150", "decode:210")),
)
SLOW_ALONE = ("prefill:380", "prefill:210")
"""Prompts that take a second on one thread; shorter ones tell as much of what one thread does."""
MORE_RUNS = (
    (WIDE, ("prefill:3", "prefill:6", "prefill:16", "prefill:66", "prefill:140", "decode:1100")),
    (NARROW, ("prefill:20", "prefill:340,past=300", "decode:90", "decode:850")),
    (MIXED, ("prefill:14", "prefill:330", "decode:70,batch=3")),
)
ROW_MAJOR_RUNS = ("prefill:3", "prefill:22", "prefill:66", "prefill:140", "prefill:190", "prefill:210")
"""In these, norms and activations write row major and products pack their operands; in the others they write packed."""

# Attention in stages, so that each can be timed: short, and with blocks of few keys and of many.
STAGED_RUNS = ((WIDE, "prefill:130", 48), (WIDE, "prefill:250", 112), (NARROW, "prefill:100,past=150", 192))
STAGED_QUERY_BLOCK = 40


LOW_PRECISION_RUNS = ((WIDE, ("prefill:22", "prefill:92", "prefill:190", "decode:300")),)
"""With weights in another format than f32: only products and what packs for them differ."""
MORE_LOW_PRECISION_RUNS = ((WIDE, ("prefill:380",)),)
"""Of many rows, so that a fit can tell what a k-step costs from what fetching the weights does."""


class PlannedRun(NamedTuple):
    """One run of a little model; with attention in stages in blocks of `key_block` keys, or fused where that is 0."""

    model: ModelConfig
    phase: str
    threads: int
    weights: DType = DType.F32
    key_block: int = 0


@dataclass(frozen=True)
class LittleRun:
    """What was run, what was seen, and what the machine gave meanwhile to the yardstick on as many threads."""

    program: Program
    trace: Trace
    threads: int
    reference: Reference


def planned_runs(quick: bool, threads: int, formats: Sequence[DType] = (DType.F32,)) -> list[PlannedRun]:
    """Every run: each with all threads and with one; in a quick probe of experts only with one, and the longest prompts
    only with all."""
    groups = [(DType.F32, *group) for group in (QUICK_RUNS if quick else (*QUICK_RUNS, *MORE_RUNS))]
    low_precision = LOW_PRECISION_RUNS if quick else (*LOW_PRECISION_RUNS, *MORE_LOW_PRECISION_RUNS)
    groups += [(weights, *group) for weights in formats if weights is not DType.F32 for group in low_precision]
    counts = (1,) if threads == 1 else (threads, 1)
    return [
        PlannedRun(model, phase, count, weights)
        for weights, model, phases in groups
        for count in (counts[-1:] if quick and model is MIXED else counts)
        for phase in phases
        if not (quick and phase in SLOW_ALONE and count < threads)
    ]


def planned_stages(threads: int) -> list[PlannedRun]:
    """Every run with attention in stages: with all threads and with one."""
    counts = (1,) if threads == 1 else (threads, 1)
    return [
        PlannedRun(model, phase, count, key_block=keys) for model, phase, keys in STAGED_RUNS for count in counts
    ]


def in_stages(plan: Plan, key_block: int) -> Plan:
    """The plan with attention as a pipeline whose tasks any worker draws: so what one wrote others read."""
    entry = pipelined(
        plan.site("attention"), plan.workers, query_block=STAGED_QUERY_BLOCK, key_block=key_block, qk="cpu",
        softmax="cpu", pv="cpu", assignment="shared",
    )  # fmt: skip
    return plan.model_copy(update={"operators": tuple(entry if o.site == entry.site else o for o in plan.operators)})


def run_all(
    device: Device, sketch: Chip, runs: Iterable[PlannedRun], yardsticks: Mapping[int, Yardstick], seed: int,
    progress: Callable[[], None],
) -> Iterator[LittleRun]:  # fmt: skip
    """Run the little models; there is a yardstick for each number of threads.

    `sketch` is a chip with what is known so far, for the planner to choose tile sizes by.
    """
    executor = NativeExecutor(device)
    tensors: Tensors | None = None
    for model, phase, count, weights, key_block in runs:
        graph = build_graph(model, Phase.parse(phase), DTypes(weights=weights))
        plan = cpu_only(graph, sketch, count, layout_reuse="shared_packs" if phase in ROW_MAJOR_RUNS else "full")
        if key_block:
            plan = in_stages(plan, key_block)
        program = lower(plan, graph)
        executor.check(program)
        tensors = Tensors.random(program, model, device, seed, share=tensors)
        yardstick = yardsticks[count]
        repeats = REPEATS if graph.phase.rows < LONG_PROMPT else min(REPEATS, REPEATS_OF_LONG)
        trace = executor.run(program, tensors, plan, repeats=repeats, between=yardstick.look)
        yield LittleRun(program, trace, count, yardstick.take(trace.makespans_s()))
        progress()
