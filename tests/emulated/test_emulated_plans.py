"""One plan, made on the host, with operators of every mode: each emulated processor computes what the host computes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from smesim.emulation import SVL_BITS, EmulatedDevice, Features
from smesim.hwmodel import library
from smesim.plan.pipeline import pipelined
from smesim.plan.planners import matrix_only
from smesim.plan.schema import Plan
from smesim.workload import DType, DTypes, Phase, build_graph
from tests.emulated.conftest import EmulatedPython
from tests.emulated.lengths import AnyLength, Ended, Job, run_all
from tests.emulated.plan_outputs import outputs, target_of
from tests.plan.plans import with_entry
from tests.workload.workload_models import tiny, tiny_moe

WITHOUT_UNIT = EmulatedDevice(features=Features.NONE)
WITH_SVE = EmulatedDevice(sve=True)
PROCESSORS: dict[EmulatedDevice, tuple[EmulatedDevice, ...]] = {
    AnyLength(): tuple(EmulatedDevice(svl) for svl in SVL_BITS),
    AnyLength(features=Features.SME1): tuple(EmulatedDevice(svl, Features.SME1) for svl in SVL_BITS),
    WITH_SVE: (WITH_SVE,),
    WITHOUT_UNIT: (WITHOUT_UNIT,),
}
"""Each set to the lengths of these devices, one after the other."""
DEVICES = [device for devices in PROCESSORS.values() for device in devices]
PLAN_OUTPUTS = "tests.emulated.plan_outputs"
IMPORTS = ("numpy", "smesim.plan.lower", "smesim.workflow")
COOPERATIVE = ("q_proj", "up_proj", "lm_head")
MATRIX = ("k_proj", "gate_proj")
CPU = ("v_proj", "down_proj")
EXPERTS = "prefill:9"
"""A phase of a mixture of experts; the others are of a dense model."""
CASES = (
    ("prefill:45", DType.F32), ("decode:37", DType.F32), (EXPERTS, DType.F32), ("prefill:45", DType.BF16),
    ("prefill:45", DType.Q4_0), (EXPERTS, DType.Q8_0),
)  # fmt: skip
KV = {DType.BF16: DType.F16, DType.Q4_0: DType.Q8_0}
"""Formats of keys and values, by those of the weights; else f32."""
LARGEST_ERROR = {DType.F32: 1e-5, DType.BF16: 2e-2, DType.Q4_0: 5e-2, DType.Q8_0: 5e-2}
"""Of an output, as a share of its largest number: a machine may round a multiply-add once or twice, and with weights in
bf16 or in blocks that decides to which side a number is rounded that is packed for the next product."""

Case = tuple[str, DType]

Outputs = dict[str, NDArray[Any]]
Runs = dict[EmulatedDevice, Future[dict[str, Ended]]]


def mixed(phase: str, weights: DType) -> Plan:
    """A plan for one worker that drives a unit and one that does not, with products in every mode, and the unit packs
    keys and values.

    Attention of the prompt is a pipeline: the unit multiplies, the core does the softmax. That of one token is divided
    into parts, which both draw.
    """
    if phase == EXPERTS:
        return mixture_of_experts(phase, weights)
    d_ff, head_dim = (192, 64) if weights.is_quantized else (200, 40)  # whole blocks, or no powers of two
    model = tiny(d_model=160, d_ff=d_ff, heads=6, kv_heads=3, head_dim=head_dim, vocab=150)
    dtypes = DTypes(weights=weights, kv=KV.get(weights, DType.F32))
    graph = build_graph(model, Phase.parse(phase), dtypes, layers=2)
    plan = matrix_only(graph, library.load("apple-m4"), threads=2)
    for site in COOPERATIVE:
        plan = with_entry(plan, site, mode="cooperative", workers=(0, 1), assignment="shared")
    for site in MATRIX:
        plan = with_entry(plan, site, mode="matrix", workers=(0,))
    for site in CPU:
        plan = with_entry(plan, site, mode="cpu", workers=(1,))
    plan = with_entry(plan, "kv_append", packers=(0,))
    if phase.startswith("decode"):
        return with_entry(
            plan, "attention", mode="cooperative", workers=(0, 1), assignment="shared", past_split=2
        )
    entry = pipelined(plan.site("attention"), plan.workers, depth=2, query_block=16, key_block=16)
    return plan.model_copy(update={"operators": tuple(entry if o.site == "attention" else o for o in plan.operators)})


def mixture_of_experts(phase: str, weights: DType) -> Plan:
    """A plan for both workers: experts on the unit, on the core and on either."""
    d_model, d_expert = (64, 32) if weights.is_quantized else (48, 40)
    model = tiny_moe(d_model=d_model, d_expert=d_expert, experts=5, experts_per_token=3, vocab=70, heads=2, kv_heads=1)
    graph = build_graph(model, Phase.parse(phase), DTypes(weights=weights), layers=1)
    plan = matrix_only(graph, library.load("apple-m4"), threads=2)
    plan = with_entry(plan, "gate_experts", mode="cooperative", workers=(0, 1), assignment="shared")
    plan = with_entry(plan, "up_experts", mode="matrix", workers=(0,))
    return with_entry(plan, "down_experts", mode="cpu", workers=(1,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plans")


@pytest.fixture(scope="module")
def expected() -> dict[Case, Outputs]:
    return {case: outputs(mixed(*case), "portable") for case in CASES}


@pytest.fixture(scope="module")
def runs(emulated_python: EmulatedPython, folder: Path) -> Iterator[Runs]:
    """The plans on all devices, as many processors at a time as there are cores, each device with its own kernels."""
    pool = ThreadPoolExecutor(os.cpu_count())
    yield {
        device: run
        for processor, devices in PROCESSORS.items()
        for run in [pool.submit(run_all, emulated_python, processor, jobs(devices, folder), IMPORTS)]
        for device in devices
    }
    pool.shutdown(cancel_futures=True)


def jobs(devices: Iterable[EmulatedDevice], folder: Path) -> dict[str, Job]:
    found = {}
    for device in devices:
        files = [plan_file(folder, device, case) for case in CASES]
        for case, file in zip(CASES, files, strict=True):
            mixed(*case).save(file)
        svl_bits = None if device == WITHOUT_UNIT else device.svl_bits
        found[str(device)] = Job(PLAN_OUTPUTS, ("best", *map(str, files)), svl_bits)
    return found


def plan_file(folder: Path, device: EmulatedDevice, case: Case) -> Path:
    phase, weights = case
    return folder / f"{device.features}-{device.svl_bits}-{device.sve}-{phase.replace(':', '-')}-{weights}.json"


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_a_plan_with_every_mode_gives_the_numbers_of_the_portable_kernels(
    device: EmulatedDevice, runs: Runs, folder: Path, expected: dict[Case, Outputs]
) -> None:
    ended = runs[device].result()[str(device)]
    assert (ended.returncode, ended.stderr) == (0, "")
    # The unit's worker runs the unit's kernels; where there is none the cores' stand in, beside narrower ones.
    unit = {Features.SME2: "sme2", Features.SME1: "sme", Features.NONE: "portable"}[device.features]
    for (_, weights), ran in zip(CASES, ended.stdout.splitlines(), strict=True):
        # Weights in bf16 or in blocks the core multiplies by its BFMMLA or SDOT, where it has them.
        of_cores = {"neon"} if weights is DType.F32 else {"neon", "neonmm", "neondot"}
        used = set(ran.split())
        assert used & of_cores
        assert used - of_cores == {unit}
    for case in CASES:
        there = np.load(target_of(plan_file(folder, device, case), "best"))
        assert set(there) == set(expected[case])
        for name, numbers in expected[case].items():
            largest = LARGEST_ERROR[case[1]] * np.abs(numbers).max()
            assert np.abs(there[name] - numbers).max() <= largest, (case, name)
