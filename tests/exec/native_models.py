"""Little models on this machine: drawn configurations, plans cut in odd ways, and weights as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from smesim.exec.device import Device
from smesim.exec.executor import NativeExecutor
from smesim.exec.tensors import Tensors
from smesim.plan.buffers import is_routing
from smesim.plan.formats import product_format
from smesim.plan.layout import LayoutReuse, with_out_layouts
from smesim.plan.lower import lower
from smesim.plan.planners import cpu_only
from smesim.plan.program import BufferRole, Program
from smesim.plan.schema import OperatorPlan, Partition, Plan, TileShape
from smesim.trace.schema import Trace
from smesim.workload import DType, DTypes, ModelConfig, Phase, build_graph
from smesim.workload.config import Llama3RopeScaling
from tests.oracles.reference_model import Result, Shapes, forward
from tests.sim.chips import two_core_chip

DEVICE = Device.here()
CHIP = two_core_chip()
CORES = min(2, len(DEVICE.cores))
ISAS = [table.isa for table in DEVICE.kernels if table.supported]
STRIPS = {table.isa: table.mr for table in DEVICE.kernels}
SCALING = Llama3RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=24)


def little(**changes: Any) -> ModelConfig:
    """A dense model of one layer whose widths are multiples of nothing."""
    fields: dict[str, Any] = {
        "name": "little", "architecture": "llama", "layers": 1, "d_model": 37, "d_ff": 53, "heads": 6, "kv_heads": 2,
        "head_dim": 10, "vocab": 61, "tied_embeddings": True, "rms_eps": 1e-5, "rope_theta": 1e4, "max_position": 4096,
    }  # fmt: skip
    return ModelConfig(**(fields | changes))


def little_moe(**changes: Any) -> ModelConfig:
    """A mixture of 7 experts, 3 of them for each token."""
    fields: dict[str, Any] = {
        "architecture": "qwen3moe", "qk_norm": True, "experts": 7, "experts_per_token": 3, "d_expert": 21,
        "norm_topk_prob": True,
    }  # fmt: skip
    return little(**(fields | changes))


@st.composite
def little_models(draw: st.DrawFn) -> ModelConfig:
    kv_heads = draw(st.integers(1, 3))
    architecture = draw(st.sampled_from(["llama", "qwen2", "qwen3"]))
    return little(
        architecture=architecture,
        qkv_bias=architecture == "qwen2",
        qk_norm=architecture == "qwen3",
        layers=draw(st.integers(1, 3)),
        d_model=draw(st.integers(2, 70)),
        d_ff=draw(st.integers(1, 70)),
        kv_heads=kv_heads,
        heads=kv_heads * draw(st.integers(1, 4)),
        head_dim=2 * draw(st.integers(1, 20)),
        vocab=draw(st.integers(1, 90)),
        tied_embeddings=draw(st.booleans()),
        rope_scaling=draw(st.sampled_from([None, SCALING])),
    )


@st.composite
def little_phases(draw: st.DrawFn) -> Phase:
    batch = draw(st.integers(1, 3))
    if draw(st.booleans()):
        return Phase.decode(draw(st.integers(1, 40)), batch)
    return Phase.prefill(draw(st.integers(1, 40)), draw(st.integers(0, 20)), batch)


@dataclass(frozen=True)
class Cut:
    """How a plan is cut: tile sizes (0: the planner's), assignment, threads, strip height, rows of the last layer, the
    format of its weights, and how layouts are reused."""

    m: int = 0
    n: int = 0
    assignment: str = "static"
    threads: int = 1
    mr: int = STRIPS[DEVICE.isa]
    last_layer_rows: str = "all"
    weights: DType = DType.F32
    reuse: LayoutReuse = "full"
    partition: Partition = "columns"


@st.composite
def cuts(draw: st.DrawFn, isa: str = DEVICE.isa) -> Cut:
    return Cut(
        m=draw(st.integers(0, 9)),
        n=draw(st.integers(0, 40)),
        assignment=draw(st.sampled_from(["static", "shared", "static_then_shared"])),
        threads=draw(st.integers(1, CORES)),
        mr=STRIPS[isa],
        last_layer_rows=draw(st.sampled_from(["all", "logits"])),
        weights=draw(st.sampled_from([DType.F32, DType.BF16])),
        reuse=draw(st.sampled_from(["full", "shared_packs", "none"])),
        partition=draw(st.sampled_from(["columns", "rows"])),
    )


def cut_plan(model: ModelConfig, phase: Phase, cut: Cut) -> Plan:
    """The planner's plan with its tiles, assignments and strips replaced; all workers share every operator."""
    dtypes = DTypes(weights=cut.weights)
    graph = build_graph(model, phase, dtypes, last_layer_rows=cut.last_layer_rows)  # type: ignore[arg-type]
    plan = cpu_only(graph, CHIP, cut.threads, last_layer_rows=cut.last_layer_rows, layout_reuse=cut.reuse)

    def replaced(entry: OperatorPlan) -> OperatorPlan:
        packed = entry.kernel.startswith("gemm_")
        return entry.model_copy(
            update={
                "tile": TileShape(m=cut.m or entry.tile.m, n=cut.n or entry.tile.n),
                "assignment": cut.assignment,
                "workers": tuple(range(cut.threads)),
                "lhs_layout": product_format(cut.weights).lhs_layout(cut.mr) if packed else entry.lhs_layout,
                "partition": cut.partition if packed and entry.kind == "linear" else "columns",
            }
        )

    entries = with_out_layouts(graph, (replaced(entry) for entry in plan.operators), cut.reuse)
    return plan.model_copy(update={"operators": entries})


@dataclass(frozen=True)
class Case:
    """A plan, its program, and the arrays that go in, by buffer name; KV caches hold `past` positions."""

    plan: Plan
    program: Program
    arrays: dict[str, NDArray[Any]]

    @property
    def phase(self) -> Phase:
        return Phase.parse(self.plan.phase)


def make_case(model: ModelConfig, phase: Phase, cut: Cut, seed: int) -> Case:
    """Weights of a size that keeps activations of order one; gains around one; rows dealt out to experts at random."""
    plan = cut_plan(model, phase, cut)
    graph, program = plan.graph(), lower(plan)
    rng = np.random.default_rng(seed)
    arrays: dict[str, NDArray[Any]] = {"tokens": rng.integers(0, model.vocab, phase.rows)}
    for name, role in zip(program.buffer_names, program.buffers["role"], strict=True):
        if role == BufferRole.WEIGHT:
            shape = graph.tensors[name].shape
            size = shape[-1] ** -0.5 if len(shape) > 1 else 0.2
            centre = 1.0 if name.endswith("norm.weight") else 0.0
            arrays[name] = (centre + size * rng.standard_normal(shape)).astype(np.float32)
        elif role == BufferRole.KV:
            shape = (phase.batch, model.kv_heads, phase.past, model.head_dim)
            arrays[name] = rng.standard_normal(shape, dtype=np.float32)
        elif is_routing(name):
            chosen = graph.tensors[name.removesuffix("routing") + "router.experts"]
            reached = max(1, round(graph.operator(name.removesuffix("routing") + "up_experts").experts_reached))
            arrays[name] = drawn_routing(rng, *chosen.shape, reached, model.experts)
    return Case(plan, program, arrays)


def drawn_routing(
    rng: np.random.Generator, tokens: int, per_token: int, reached: int, experts: int
) -> NDArray[np.int32]:
    """Distinct experts for each token, `reached` of them in all, whose numbers of rows differ by at most one."""
    counts = np.full(reached, tokens * per_token // reached)
    counts[: tokens * per_token % reached] += 1
    left, routing = rng.permutation(counts), np.empty((tokens, per_token), np.int32)
    for row in routing:  # those that have most left must come first, or a last token would find too few
        row[:] = rng.permutation(np.lexsort((rng.random(reached), -left))[:per_token])
        left[row] -= 1
    return rng.permutation(rng.permutation(experts)[:reached].astype(np.int32)[routing])


def execute(case: Case, isa: str | None = None, repeats: int = 1) -> tuple[Trace, Tensors]:
    tensors = Tensors.from_arrays(case.program, case.plan.model, DEVICE, case.arrays)
    trace = NativeExecutor(DEVICE, isa).run(case.program, tensors, case.plan, repeats=repeats, warmup=0)
    return trace, tensors


def reference(case: Case) -> Result:
    model, phase = case.plan.model, case.phase
    scaling = None if model.rope_scaling is None else model.rope_scaling.model_dump()
    shapes = Shapes(
        model.layers, model.heads, model.kv_heads, model.head_dim, model.rms_eps, model.rope_theta, scaling,
        model.tied_embeddings, model.norm_topk_prob,
    )  # fmt: skip
    past = {kind: [case.arrays[f"layers.{layer}.{kind}_cache"] for layer in range(model.layers)] for kind in ("k", "v")}
    tokens = case.arrays["tokens"].reshape(phase.batch, phase.tokens)
    return forward(
        shapes, case.arrays, tokens, past["k"], past["v"],
        bf16=case.plan.weights_dtype is DType.BF16, last_layer_rows=case.plan.last_layer_rows,
    )  # fmt: skip


def logits(case: Case, tensors: Tensors) -> NDArray[np.float32]:
    name = next(name for name in case.program.buffer_names if name.startswith("lm_head.out["))
    return np.asarray(tensors.read(name))


def cache(case: Case, tensors: Tensors, name: str) -> NDArray[np.float32]:
    """[batch][kv head][position][d] of a KV cache, as far as it is filled."""
    model, phase = case.plan.model, case.phase
    rows = tensors.read(name)
    return np.asarray(rows.reshape(phase.batch, model.kv_heads, -1, model.head_dim)[:, :, : phase.context])


def assert_equals_the_reference(case: Case, tensors: Tensors) -> None:
    expected = reference(case)
    found = {"logits": logits(case, tensors).astype(np.float64)}
    wanted = {"logits": expected.logits}
    for layer in range(case.plan.model.layers):
        for kind, caches in (("k", expected.k_caches), ("v", expected.v_caches)):
            name = f"layers.{layer}.{kind}_cache"
            found[name], wanted[name] = cache(case, tensors, name).astype(np.float64), caches[layer]
    for name, values in found.items():
        off = np.abs(values - wanted[name].value)
        assert (off <= wanted[name].error).all(), f"{name} is off by up to {off.max()}"
    near_best = expected.logits.value.max(axis=1) - 2 * expected.logits.error.max(axis=1)
    chosen = np.take_along_axis(expected.logits.value, tensors.read("sample.out")[:, None], axis=1)[:, 0]
    assert (chosen >= near_best).all()
