"""Programs of many layers made from those of three are the programs that lowering makes, bit for bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smesim.hwmodel import library
from smesim.plan.alike import lower_alike
from smesim.plan.lower import lower
from smesim.plan.planners import planner
from smesim.plan.schema import Plan
from smesim.workload import DType, DTypes, Phase, build_graph
from tests.plan.plans import plans
from tests.workload.workload_models import tiny, tiny_moe

LAYERS = 6


def assert_same_program(plan: Plan) -> None:
    found, expected = lower_alike(plan), lower(plan)
    assert found.fingerprint() == expected.fingerprint()
    for field in dataclasses.fields(expected):
        a, b = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(b, np.ndarray):
            assert a.dtype == b.dtype, field.name
            assert (a == b).all(), field.name
        else:
            assert a == b, field.name


@settings(max_examples=8, deadline=None)
@given(plan=plans(), layers=st.integers(4, 7))
def test_drawn_plans_give_the_same_program(plan: Plan, layers: int) -> None:
    if plan.layers == 1 and plan.last_layer_rows == "logits":
        layers = 1  # it has no entries for layers before the last
    model = plan.model.model_copy(update={"layers": layers})
    assert_same_program(plan.model_copy(update={"model": model, "layers": layers}))


@pytest.mark.parametrize("name", ["cpu_only", "matrix_only", "roofline"])
@pytest.mark.parametrize("phase", ["prefill:48", "prefill:200,past=30", "decode:600"])
def test_a_plan_of_three_layers_is_that_of_all_and_gives_the_same_program(name: str, phase: str) -> None:
    chip = library.load("apple-m4")
    for model, weights in ((tiny(layers=LAYERS), DType.F32), (tiny_moe(layers=LAYERS), DType.F32)):
        options = {"dtypes": DTypes(weights=weights), "routed": model.is_moe}
        whole, sample = (build_graph(model, Phase.parse(phase), layers=n, **options) for n in (LAYERS, 3))
        plan = planner(name)(whole, chip, 4)
        assert planner(name)(sample, chip, 4).model_copy(update={"layers": LAYERS}) == plan
        assert_same_program(plan)
