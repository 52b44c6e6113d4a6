"""Whole programs under the sanitizers of addresses and of undefined behaviour, every buffer no longer than it is said.

Formats of weights and of keys and values take turns, so each leaf of the portable kernels runs in one of them.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from smesim.exec import bf16, blocks
from smesim.exec.executor import NativeExecutor
from smesim.exec.tensors import Tensors
from smesim.plan.lower import lower
from smesim.plan.planners import cpu_only
from smesim.plan.program import Number
from smesim.workload import DType, DTypes, ModelConfig, Phase, build_graph
from tests.exec.native_models import CHIP, CORES, DEVICE, Cut, little, little_moe, logits, make_case
from tests.exec.sanitized import driver_under, run_driver, run_packing

WIDTHS = {"d_model": 96, "d_ff": 160, "head_dim": 32, "heads": 4, "kv_heads": 2}
DENSE = little(**WIDTHS, architecture="qwen2", qkv_bias=True)
MIXED = little_moe(**WIDTHS, d_expert=64, tied_embeddings=False)
CASES = (
    (little(), "prefill:19,past=3", DType.F32, DType.F32),
    (little(), "decode:35", DType.BF16, DType.F16),
    (little(), "prefill:13,batch=2", DType.BF16, DType.F16),
    (DENSE, "prefill:21,past=7", DType.Q4_0, DType.Q8_0),
    (DENSE, "decode:40,batch=2", DType.Q4_1, DType.Q8_0),
    (MIXED, "prefill:9", DType.Q8_0, DType.F16),
    (little_moe(d_model=31, d_expert=17), "prefill:6", DType.BF16, DType.F32),
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return driver_under("address,undefined", tmp_path_factory.mktemp("driver"), "-O0", packing=True)  # soon compiled


@pytest.mark.parametrize(("model", "phase", "weights", "kv"), CASES, ids=[f"{c[1]}-{c[2]}-{c[3]}" for c in CASES])
def test_programs_stay_within_their_buffers_and_give_the_same_bits(
    model: ModelConfig, phase: str, weights: DType, kv: DType, driver: Path, tmp_path: Path
) -> None:
    case = make_case(model, Phase.parse(phase), Cut(weights=weights), 7)
    plan = cpu_only(build_graph(model, case.phase, DTypes(weights=weights, kv=kv)), CHIP, CORES)
    case = dataclasses.replace(case, plan=plan, program=lower(plan))
    expected, watched = (Tensors.from_arrays(case.program, model, DEVICE, case.arrays) for _ in range(2))
    NativeExecutor(DEVICE, "portable").run(case.program, expected, case.plan, warmup=0)
    run_driver(driver, case.program, watched, tmp_path, runs=1)
    found, wanted = logits(case, watched), logits(case, expected)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())  # compiled otherwise


@pytest.mark.parametrize("number", [Number.F32, Number.BF16, *blocks.IN_BLOCKS], ids=lambda number: number.name)
def test_packing_reads_and_writes_its_own_and_gives_the_bits_of_a_load(number: Number, driver: Path) -> None:
    """From f32, and for blocks from GGUF's; the last panel is not whole, and neither are most pieces of other sizes."""
    n, k, form = 37, 96, number.name.lower()
    values = np.random.default_rng(5).standard_normal((n, k)).astype(np.float32)
    if number is Number.F32:
        whole = np.zeros((48, k), np.float32)
        whole[:n] = values
        expected = whole.reshape(3, 16, k).transpose(0, 2, 1).tobytes()
    elif number is Number.BF16:
        expected = bf16.packed_rhs(values).tobytes()
    else:
        expected = blocks.packed_floats(number, values).tobytes()
        assert run_packing(driver, form, blocks.quantized(number, values), k, 16) == expected
        form = f"to_{form}"
    for piece in (16, 32, 48):
        assert run_packing(driver, form, values, k, piece) == expected
