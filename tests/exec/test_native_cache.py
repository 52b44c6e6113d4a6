"""Models with their keys and values in f16 and Q8_0: what is kept, and what attention makes of it, against numpy.

A model of one layer has a buffer of its own for each tensor, so what attention read and wrote is there when the program
has run. What was appended is the f32 model's, rounded: up to there both compute the same.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import blocks_reference as blocks
import kernel_reference as ref
import numpy as np
import pytest
from numpy.typing import NDArray

from smesim.errors import PlanError
from smesim.exec.executor import NativeExecutor
from smesim.exec.tensors import Tensors
from smesim.plan.lower import lower
from smesim.plan.pipeline import pipelined
from smesim.plan.planners import cpu_only
from smesim.plan.schema import Plan
from smesim.sim import SimExecutor
from smesim.workload import DType, DTypes, Phase, build_graph
from smesim.workload.graph import Role
from tests.exec.native_models import CHIP, CORES, DEVICE, ISAS, Case, Cut, cache, little, make_case
from tests.plan.plans import with_entry

MODELS = {
    DType.F16: little(heads=6, kv_heads=2, head_dim=20),
    DType.Q8_0: little(heads=6, kv_heads=2, head_dim=64),
}
PHASES = {
    "fused": Phase.prefill(45, 9), "in stages": Phase.prefill(40, 30), "one token": Phase.decode(90, 2),
    "in parts": Phase.decode(300),
}  # fmt: skip


def plan_of(kv: DType, way: str) -> Plan:
    graph = build_graph(MODELS[kv], PHASES[way], DTypes(kv=kv))
    plan = cpu_only(graph, CHIP, CORES)
    if way != "fused":
        plan = with_entry(plan, "kv_append", packers=tuple(range(CORES)))
    if way == "in parts":
        return with_entry(plan, "attention", past_split=3)
    if way == "in stages":
        entry = pipelined(plan.site("attention"), plan.workers, depth=2, query_block=16, key_block=32,
                          qk="cpu", softmax="cpu", pv="cpu")  # fmt: skip
        entries = (entry if entry.site == o.site else o for o in plan.operators)
        return plan.model_copy(update={"operators": tuple(entries)})
    return with_entry(plan, "attention", past_split=1)


def case_of(kv: DType, way: str) -> Case:
    case = make_case(MODELS[kv], PHASES[way], Cut(), 3)
    plan = plan_of(kv, way)
    return dataclasses.replace(case, plan=plan, program=lower(plan))


def run(case: Case, isa: str) -> Tensors:
    tensors = Tensors.from_arrays(case.program, case.plan.model, DEVICE, case.arrays)
    NativeExecutor(DEVICE, isa).run(case.program, tensors, case.plan, warmup=0)
    return tensors


def kept(values: NDArray[np.float32], kv: DType) -> NDArray[np.float32]:
    """What is left of numbers that are kept in a format."""
    if kv is DType.F16:
        return values.astype(np.float16).astype(np.float32)
    quantized = blocks.quantize_rhs(values.reshape(-1, values.shape[-1]), "q8")
    return (quantized.numbers * quantized.scales[..., None].astype(np.float32)).reshape(values.shape)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kv", MODELS)
def test_attention_reads_what_was_appended_rounded(kv: DType, isa: str) -> None:
    for way in PHASES:
        case = case_of(kv, way)
        model, phase = case.plan.model, case.phase
        tensors = run(case, isa)
        in_f32 = make_case(model, phase, Cut(threads=CORES), 3)
        exact = run(in_f32, isa)
        caches: dict[str, NDArray[Any]] = {}
        for name in ("layers.0.k_cache", "layers.0.v_cache"):
            caches[name] = cache(case, tensors, name)
            np.testing.assert_array_equal(caches[name], kept(cache(in_f32, exact, name), kv), f"{name}, {way}")
        op = case.program.ops[case.program.op_sites.index("attention")]
        shape = (phase.batch, phase.tokens, -1, model.head_dim)
        q, out = (tensors.read(case.program.buffer_names[op[slot]]).reshape(shape) for slot in ("input0", "output0"))
        for sequence in range(phase.batch):
            k, v = (caches[name][sequence].transpose(1, 0, 2) for name in caches)
            expected = ref.attention(q[sequence], k, v, phase.past)
            np.testing.assert_allclose(out[sequence], expected.reshape(out[sequence].shape), rtol=0, atol=1e-4)


def test_bytes_of_a_narrow_cache_are_those_of_its_format() -> None:
    """In the graph, in memory, and in what a step is predicted to read."""
    found = {}
    for kv, share in ((DType.F32, 1.0), (DType.F16, 0.5), (DType.Q8_0, 34 / 128)):
        graph = build_graph(MODELS[DType.Q8_0], Phase.decode(4096), DTypes(kv=kv))
        plan = cpu_only(graph, CHIP, 1)
        program = lower(plan)
        kv_bytes = sum(program.buffers["n_bytes"][[name.endswith("_cache") for name in program.buffer_names]])
        assert kv_bytes == graph.resident_bytes(Role.KV) == share * 2 * 2 * 4096 * 64 * 4
        read = graph.total_read_bytes(Role.KV)
        timeline = SimExecutor(CHIP).timeline(program)
        found[kv] = read, float(np.nanmax(timeline.end_s))
    assert found[DType.Q8_0][0] == found[DType.F32][0] * 34 / 128
    assert found[DType.Q8_0][1] <= found[DType.F16][1] <= found[DType.F32][1]
    random = Tensors.random(program, plan.model, DEVICE, seed=1)
    drawn = random.read("layers.0.v_cache")
    assert 0.9 < np.abs(drawn).max() <= 1.01
    assert len(np.unique(drawn)) > 1000


def test_formats_that_caches_cannot_have_are_refused() -> None:
    with pytest.raises(PlanError, match=r"a KV cache of bf16 asked for; accepted: f32, f16, q8_0"):
        cpu_only(build_graph(little(), Phase.decode(9), DTypes(kv=DType.BF16)), CHIP)
