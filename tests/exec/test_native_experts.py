"""Mixtures of experts through the native executor: against the numpy model, and what the router must do."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smesim.errors import DeviceError
from smesim.exec.lowp_tables import lowp_beside
from smesim.exec.routing import balanced_routing, routing_table
from smesim.exec.tensors import Tensors
from smesim.plan.program import TaskKind
from smesim.plan.tiles import rows_of_expert
from smesim.workload import DType, ModelConfig, Phase
from tests.exec.native_models import (
    CORES,
    DEVICE,
    ISAS,
    STRIPS,
    Case,
    Cut,
    assert_equals_the_reference,
    cuts,
    drawn_routing,
    execute,
    little_moe,
    little_phases,
    logits,
    make_case,
)


@st.composite
def mixtures(draw: st.DrawFn) -> ModelConfig:
    experts = draw(st.integers(1, 20))
    return little_moe(
        experts=experts,
        experts_per_token=draw(st.integers(1, min(experts, 5))),
        d_expert=draw(st.integers(1, 40)),
        d_model=draw(st.integers(2, 50)),
        layers=draw(st.integers(1, 2)),
        norm_topk_prob=draw(st.booleans()),
    )


@settings(max_examples=40, deadline=None)
@given(model=mixtures(), phase=little_phases(), cut=cuts(), seed=st.integers(0, 2**32 - 1))
def test_drawn_mixtures_phases_and_plans_equal_the_reference(
    model: ModelConfig, phase: Phase, cut: Cut, seed: int
) -> None:
    case = make_case(model, phase, cut, seed)
    trace, tensors = execute(case)
    trace.validate()
    assert_equals_the_reference(case, tensors)


MODELS = {
    "few": little_moe(experts=4, experts_per_token=1, norm_topk_prob=False),
    "many": little_moe(experts=33, experts_per_token=8, layers=2),
}
PHASES = ["prefill:1", "prefill:2", "prefill:7", "prefill:33", "prefill:70", "decode:9,batch=3"]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("model", MODELS)
def test_invariant_7_every_instruction_set_equals_the_reference(model: str, phase: str, isa: str) -> None:
    case = make_case(
        MODELS[model], Phase.parse(phase), Cut(m=5, n=20, assignment="shared", threads=CORES, mr=STRIPS[isa]), seed=3
    )
    trace, tensors = execute(case, isa)
    assert_equals_the_reference(case, tensors)
    assert set(trace.meta.kernels.values()) == {isa}


@pytest.mark.parametrize("phase", ["prefill:37", "decode:9"])
def test_invariant_7_all_cuts_give_the_same_bits(phase: str) -> None:
    whole, *others = (
        make_case(MODELS["many"], Phase.parse(phase), cut, seed=1)
        for cut in (
            Cut(),
            Cut(m=3, n=16, threads=CORES),
            Cut(m=1, n=40, threads=CORES, assignment="static_then_shared"),
            Cut(m=80, n=16, threads=CORES, assignment="shared"),
        )
    )
    expected = logits(whole, execute(whole)[1])
    for other in others:
        np.testing.assert_array_equal(expected, logits(other, execute(other)[1]))


@pytest.mark.parametrize("isa", ISAS)
def test_invariant_7_experts_in_bf16_equal_the_reference_that_rounds_as_they_are_packed(isa: str) -> None:
    """Odd depths are padded; of so few rows some experts have one, and multiply a vector."""
    model = little_moe(experts=5, experts_per_token=2, d_model=31, d_expert=17)
    for phase in (Phase.prefill(7), Phase.decode(9)):
        cut = Cut(m=3, n=20, assignment="shared", threads=CORES, mr=STRIPS[isa], weights=DType.BF16)
        case = make_case(model, phase, cut, seed=3)
        trace, tensors = execute(case, isa)
        assert_equals_the_reference(case, tensors)
        assert trace.meta.kernels["grouped_linear"] == lowp_beside(isa).isa


def with_router(case: Case, weight: np.ndarray) -> Case:
    return dataclasses.replace(case, arrays=case.arrays | {"layers.0.router.weight": weight.astype(np.float32)})


def test_the_router_keeps_the_best_of_equal_ones_the_first() -> None:
    case = make_case(little_moe(d_model=8, experts=7, experts_per_token=3), Phase.prefill(70), Cut(m=9), seed=4)
    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((3, 8))
    case = with_router(case, kinds[[2, 1, 0, 1, 2, 0, 1]])  # three pairs or triples of equal experts
    _, tensors = execute(case)
    chosen = tensors.read("layers.0.router.experts").reshape(70, 3).tolist()
    alike = {0: [2, 5], 1: [1, 3, 6], 2: [0, 4]}
    allowed = []
    for order in ([0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]):
        allowed.append([expert for kind in order for expert in alike[kind]][:3])
    assert all(row in allowed for row in chosen)
    assert len({tuple(row) for row in chosen}) > 2


@pytest.mark.parametrize("phase", ["prefill:5", "decode:5"])
@pytest.mark.parametrize("expert", [0, 6])
def test_scores_that_are_not_numbers_are_an_error(phase: str, expert: int) -> None:
    case = make_case(little_moe(), Phase.parse(phase), Cut(), seed=0)
    case.arrays["layers.0.router.weight"][expert, 3] = np.nan
    with pytest.raises(DeviceError, match=r"layers\.0\.router computed nan .* expected finite numbers"):
        execute(case)


@settings(max_examples=60, deadline=None)
@given(tokens=st.integers(1, 40), experts=st.integers(1, 30), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_a_routing_table_finds_every_row_and_gives_each_expert_its_share(
    tokens: int, experts: int, seed: int, data: st.DataObject
) -> None:
    per_token = data.draw(st.integers(1, experts))
    reached = data.draw(st.integers(per_token, min(experts, tokens * per_token)))
    drawn = drawn_routing(np.random.default_rng(seed), tokens, per_token, reached, experts)
    for routing in (drawn, balanced_routing(tokens, per_token, reached, experts, seed)):
        token, place, expert = routing_table(routing, reached, experts, "routing")
        for pair in range(tokens * per_token):
            row = place[pair]
            assert (token[row], expert[row]) == (pair // per_token, routing.ravel()[pair])
        counts = [len(list(run)) for run in np.split(expert, np.flatnonzero(np.diff(expert)) + 1)]
        assert counts == [rows_of_expert(tokens * per_token, reached, i) for i in range(reached)]
        assert len(np.unique(expert)) == reached


ROUTINGS = {
    "has experts 0..7; accepted: 0..6": [[0, 1, 7], [2, 3, 4]],
    "sends a token to one expert twice": [[0, 1, 1], [2, 3, 4]],
    "reaches 3 experts with 2 to 2 rows each; accepted: 5 experts with 1 to 2 rows": [[0, 1, 2], [0, 1, 2]],
    r"has shape \(3, 2\); accepted: \(2, 3\)": [[0, 1], [2, 3], [4, 0]],
}


@pytest.mark.parametrize("refusal", ROUTINGS)
def test_a_routing_that_the_plan_is_not_made_for_is_refused(refusal: str) -> None:
    case = make_case(little_moe(), Phase.prefill(2), Cut(), seed=0)
    assert case.program.ops["experts"].max() == 5  # expected of 7, if two tokens draw three each
    arrays = case.arrays | {"layers.0.routing": np.array(ROUTINGS[refusal])}
    with pytest.raises(DeviceError, match=refusal):
        Tensors.from_arrays(case.program, case.plan.model, DEVICE, arrays)


def test_a_routing_must_be_given_with_the_weights() -> None:
    case = make_case(little_moe(), Phase.prefill(2), Cut(), seed=0)
    arrays = {name: array for name, array in case.arrays.items() if name != "layers.0.routing"}
    with pytest.raises(DeviceError, match=r"no array for 'layers\.0\.routing'"):
        Tensors.from_arrays(case.program, case.plan.model, DEVICE, arrays)


def test_weights_of_experts_are_read_back_as_they_were_written() -> None:
    case = make_case(little_moe(), Phase.prefill(2), Cut(), seed=0)
    tensors = Tensors.from_arrays(case.program, case.plan.model, DEVICE, case.arrays)
    for name in ("layers.0.up_experts.weight", "layers.0.down_experts.weight"):
        np.testing.assert_array_equal(tensors.read(name), case.arrays[name])


def test_random_weights_differ_from_expert_to_expert_and_the_seed_gives_them_and_the_routing() -> None:
    case = make_case(little_moe(layers=2), Phase.prefill(9), Cut(), seed=0)
    same, again, other = (Tensors.random(case.program, case.plan.model, DEVICE, seed) for seed in (1, 1, 2))
    weight = same.read("layers.0.up_experts.weight")
    assert len(np.unique(weight)) > 0.99 * weight.size  # a few of so many numbers of 24 bits are equal
    for name in ("layers.0.up_experts.weight", "layers.0.routing"):
        np.testing.assert_array_equal(same.read(name), again.read(name))
        assert not np.array_equal(same.read(name), other.read(name))
    assert not np.array_equal(same.read("layers.0.routing"), same.read("layers.1.routing"))


def test_rows_are_packed_once_for_gate_and_up() -> None:
    program = make_case(little_moe(), Phase.prefill(9), Cut(threads=CORES), seed=0).program
    packs = program.tasks["op"][program.tasks["kind"] == TaskKind.EXPERT_PACK]
    assert [program.op_sites[op] for op in np.unique(packs)] == ["gate_experts", "down_experts"]
    packed = dict(zip(program.op_sites, program.ops["packed"].tolist(), strict=True))
    assert packed["gate_experts"] == packed["up_experts"] != packed["down_experts"]
