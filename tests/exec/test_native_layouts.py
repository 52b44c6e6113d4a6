"""Layouts change who moves bytes, never what is computed: all ways of reusing them give the same bits."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from smesim.plan.program import TaskKind
from smesim.workload import DType, ModelConfig, Phase
from tests.exec.native_models import Cut, cuts, execute, little_models, little_phases, logits, make_case


@settings(max_examples=15, deadline=None)
@given(model=little_models(), phase=little_phases(), cut=cuts(), mr=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
def test_all_ways_of_reusing_layouts_give_the_same_bits(
    model: ModelConfig, phase: Phase, cut: Cut, mr: int, seed: int
) -> None:
    found, moved = [], []
    for reuse in ("none", "shared_packs", "full"):
        case = make_case(model, phase, dataclasses.replace(cut, mr=mr, reuse=reuse), seed)
        trace, tensors = execute(case)
        found.append(logits(case, tensors))
        kinds = case.program.tasks["kind"]
        packed = np.isin(kinds, [TaskKind.RMSNORM_PACKED, TaskKind.SWIGLU_PACKED])
        writes_packed = cut.weights is DType.F32 and phase.rows > 1  # there are no kernels that write packed bf16
        assert packed.any() == (reuse == "full" and writes_packed)
        moved.append(int(trace.tasks["bytes"].sum()))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    assert moved[0] > moved[1] if phase.rows > 1 else moved[0] == moved[1]
    assert moved[1] > moved[2] if writes_packed else moved[1] == moved[2]
