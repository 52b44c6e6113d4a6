import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from workload_models import models, phases, tiny, tiny_moe

from smesim.errors import WorkloadError
from smesim.workload import DType, DTypes, Phase, Role, build_graph, catalog
from smesim.workload.operators import causal_pairs, expected_experts_reached

ATTENTION = ["attn_norm", "q_proj", "k_proj", "v_proj"]
CACHED = ["q_rope", "k_rope", "kv_append", "attention", "o_proj", "attn_add", "ffn_norm"]
DENSE_LAYER = [*ATTENTION, *CACHED, "gate_proj", "up_proj", "swiglu", "down_proj", "ffn_add"]
EXPERTS = ["router", "gate_experts", "up_experts", "expert_swiglu", "down_experts", "expert_combine"]
MOE_LAYER = [*ATTENTION, "q_norm", "k_norm", *CACHED, *EXPERTS, "ffn_add"]


def total(graph, kind):
    return sum(operator.flop for operator in graph.operators if operator.kind == kind)


# Structure


def test_operators_of_a_dense_model_in_order():
    graph = build_graph(tiny(), Phase.prefill(5))
    expected = ["embed", *(f"layers.{i}.{site}" for i in range(2) for site in DENSE_LAYER)]
    assert [op.name for op in graph.operators] == [*expected, "final_norm", "lm_head", "sample"]
    assert list(graph.sites) == ["embed", *DENSE_LAYER, "final_norm", "lm_head", "sample"]
    assert [op.layer for op in graph.sites["q_proj"]] == [0, 1]
    assert graph.operator("lm_head").layer is None


def test_operators_of_a_mixture_of_experts_in_order():
    graph = build_graph(tiny_moe(), Phase.decode(5))
    assert list(graph.sites)[1:-3] == MOE_LAYER


def test_a_bias_is_a_weight_of_the_projections_that_have_one():
    graph = build_graph(tiny(architecture="qwen2", qkv_bias=True), Phase.prefill(3))
    assert graph.operator("layers.0.k_proj").weights == ("layers.0.k_proj.weight", "layers.0.k_proj.bias")
    assert graph.operator("layers.0.o_proj").weights == ("layers.0.o_proj.weight",)
    assert graph.operator("layers.0.k_proj").flop == 2 * 3 * 64 * 64 + 3 * 64


def test_a_tied_head_reads_the_embedding_table():
    tied, untied = (build_graph(tiny(tied_embeddings=tied), Phase.decode(1)) for tied in (True, False))
    assert tied.operator("lm_head").weights == ("embed.weight",)
    assert untied.operator("lm_head").weights == ("lm_head.weight",)
    assert untied.resident_bytes(Role.WEIGHT) - tied.resident_bytes(Role.WEIGHT) == 160 * 64 * 4


@given(models(), phases(), st.booleans(), st.booleans())
def test_every_tensor_is_written_before_it_is_read_and_only_once(config, phase, logits_only, all_logits):
    graph = build_graph(
        config,
        phase,
        last_layer_rows="logits" if logits_only else "all",
        lm_head_rows="all" if all_logits else "last",
    )
    live = {name for name, tensor in graph.tensors.items() if tensor.role is Role.WEIGHT} | {"tokens"}
    for operator in graph.operators:
        assert set(operator.inputs + operator.weights) <= live
        assert not set(operator.outputs) & live
        live |= set(operator.outputs)
    assert live == set(graph.tensors)


@given(models(), phases())
def test_shapes_fit_together(config, phase):
    graph = build_graph(config, phase)
    for operator in graph.operators:
        if operator.kind == "linear":
            assert (
                graph.tensors[operator.inputs[0]].shape == (operator.m, operator.k)
                or operator.name == "lm_head"
            )
            assert graph.tensors[operator.weights[0]].shape == (operator.n, operator.k)
            assert graph.tensors[operator.outputs[0]].shape == (operator.m, operator.n)
        if operator.kind in ("add", "swiglu"):
            for name in operator.inputs + operator.outputs:
                assert graph.tensors[name].shape == (operator.rows, operator.dim)
    cache = graph.tensors["layers.0.k_cache"]
    assert cache.shape == (phase.batch, config.kv_heads, phase.context, config.head_dim)
    assert graph.tensors["lm_head.out"].shape == (phase.batch, config.vocab)


@given(models())
def test_weights_of_the_graph_are_the_parameters_of_the_model(config):
    graph = build_graph(config, Phase.decode(1))
    weights = [tensor for tensor in graph.tensors.values() if tensor.role is Role.WEIGHT]
    assert sum(tensor.elements for tensor in weights) == config.parameters
    assert graph.resident_bytes(Role.WEIGHT) == 4 * config.parameters


def test_a_graph_can_be_sent_to_another_process():
    graph = build_graph(tiny(), Phase.decode(3))
    assert pickle.loads(pickle.dumps(graph)) == graph


# FLOP


@given(st.integers(1, 60), st.integers(0, 60))
def test_causal_pairs_are_those_below_the_diagonal(tokens, past):
    mask = np.tril(np.ones((tokens, past + tokens)), k=past)
    assert causal_pairs(tokens, past) == mask.sum()


@given(models(), st.integers(1, 40))
def test_a_prompt_attends_as_much_as_its_tokens_decoded_one_by_one(config, tokens):
    prompt = build_graph(config, Phase.prefill(tokens))
    decodes = [build_graph(config, Phase.decode(context)) for context in range(1, tokens + 1)]
    assert total(prompt, "attention") == sum(total(step, "attention") for step in decodes)
    assert prompt.total_write_bytes(Role.KV) == sum(step.total_write_bytes(Role.KV) for step in decodes)


@given(models(), st.integers(1, 20), st.integers(1, 20))
def test_a_prompt_in_two_parts_does_the_same_work(config, first, second):
    whole = build_graph(config, Phase.prefill(first + second), lm_head_rows="all")
    parts = [
        build_graph(config, Phase.prefill(first), lm_head_rows="all"),
        build_graph(config, Phase.prefill(second, past=first), lm_head_rows="all"),
    ]
    assert whole.total_flop() == sum(part.total_flop() for part in parts)
    assert whole.total_write_bytes() == sum(part.total_write_bytes() for part in parts)


@given(models(), phases(), st.integers(2, 4))
def test_flop_and_kv_grow_with_the_batch_and_weights_do_not(config, phase, times):
    more = Phase(phase.kind, phase.batch * times, phase.tokens, phase.past)
    one, many = build_graph(config, phase), build_graph(config, more)
    assert many.total_flop() == times * one.total_flop()
    for role in (Role.KV, Role.ACTIVATION):
        assert many.total_read_bytes(role) == times * one.total_read_bytes(role)
        assert many.total_write_bytes(role) == times * one.total_write_bytes(role)
    if not config.is_moe:
        gathered = one.operator("embed").rows * config.d_model * 4
        assert (
            many.total_read_bytes(Role.WEIGHT) - one.total_read_bytes(Role.WEIGHT) == (times - 1) * gathered
        )


def test_flop_of_each_kind_of_operator():
    graph = build_graph(tiny_moe(), Phase.prefill(3, past=4, batch=2))
    flop = {operator.name: operator.flop for operator in graph.operators}
    assert flop["embed"] == 0
    assert flop["layers.0.attn_norm"] == 4 * 6 * 64
    assert flop["layers.0.q_proj"] == 2 * 6 * 128 * 64
    assert flop["layers.0.k_norm"] == 4 * 6 * 64
    assert flop["layers.0.q_rope"] == 6 * (6 * 128 // 2)
    assert flop["layers.0.kv_append"] == 0
    assert flop["layers.0.attention"] == 4 * 32 * 4 * 2 * (5 + 6 + 7)
    assert flop["layers.0.router"] == 2 * 6 * 8 * 64
    assert flop["layers.0.gate_experts"] == 2 * 12 * 32 * 64
    assert flop["layers.0.expert_swiglu"] == 4 * 12 * 32
    assert flop["layers.0.expert_combine"] == 2 * 12 * 64
    assert flop["layers.0.ffn_add"] == 6 * 64
    assert flop["lm_head"] == 2 * 2 * 160 * 64
    assert flop["sample"] == 2 * 160


# Bytes


@given(models(), phases(), st.sampled_from([DType.F32, DType.F16, DType.Q8_0, DType.Q4_0, DType.S8]))
def test_bytes_by_role_add_up(config, phase, weights):
    graph = build_graph(config, phase, DTypes(weights=weights, kv=DType.F16))
    for operator in graph.operators:
        assert graph.read_bytes(operator) == pytest.approx(
            sum(graph.read_bytes(operator, role) for role in Role)
        )
        assert graph.write_bytes(operator) == sum(graph.write_bytes(operator, role) for role in Role)
    moved = sum(graph.moved_bytes(operator) for operator in graph.operators)
    assert moved == pytest.approx(graph.total_read_bytes() + graph.total_write_bytes())


def test_bytes_of_each_kind_of_operator():
    graph = build_graph(
        tiny(), Phase.prefill(3, past=4, batch=2), DTypes(activations=DType.F16, kv=DType.F16)
    )
    read = {operator.name: graph.read_bytes(operator) for operator in graph.operators}
    write = {operator.name: graph.write_bytes(operator) for operator in graph.operators}
    assert read["embed"] == 6 * 4 + 6 * 64 * 4
    assert write["embed"] == 6 * 64 * 2
    assert read["layers.0.attn_norm"] == 6 * 64 * 2 + 64 * 4
    assert read["layers.0.q_proj"] == 6 * 64 * 2 + 128 * 64 * 4
    assert write["layers.0.q_proj"] == 6 * 128 * 2
    assert read["layers.0.kv_append"] == 2 * 6 * 64 * 2
    assert write["layers.0.kv_append"] == 2 * 6 * 64 * 2
    assert read["layers.0.attention"] == 6 * 128 * 2 + 2 * (2 * 2 * 7 * 32) * 2
    assert write["layers.0.attention"] == 6 * 128 * 2
    assert read["layers.0.swiglu"] == 2 * 6 * 96 * 2
    assert read["layers.0.ffn_add"] == 2 * 6 * 64 * 2
    assert read["final_norm"] == 2 * 64 * 2 + 64 * 4
    assert read["lm_head"] == 2 * 64 * 2 + 160 * 64 * 4
    assert read["sample"] == 2 * 160 * 2
    assert write["sample"] == 2 * 4


def test_a_key_is_read_once_for_all_query_heads_that_share_it():
    grouped, full = (build_graph(tiny(heads=8, kv_heads=kv_heads), Phase.decode(100)) for kv_heads in (2, 8))
    kv = [graph.read_bytes(graph.operator("layers.0.attention"), Role.KV) for graph in (grouped, full)]
    assert kv == [2 * 100 * 2 * 32 * 4, 2 * 100 * 8 * 32 * 4]
    assert grouped.operator("layers.0.attention").flop == full.operator("layers.0.attention").flop


@pytest.mark.parametrize(("dtype", "block"), [(DType.Q4_0, 18), (DType.Q4_1, 20), (DType.Q8_0, 34)])
def test_quantised_weights_count_their_scales_and_vectors_stay_f32(dtype, block):
    config = catalog.load("qwen2.5-0.5b")
    graph = build_graph(config, Phase.decode(1), DTypes(weights=dtype))
    matrices = [t for t in graph.tensors.values() if t.role is Role.WEIGHT and len(t.shape) > 1]
    vectors = [t for t in graph.tensors.values() if t.role is Role.WEIGHT and len(t.shape) == 1]
    assert sum(t.bytes for t in matrices) == sum(t.elements for t in matrices) // 32 * block
    assert sum(t.bytes for t in vectors) == sum(t.elements for t in vectors) * 4


def test_quantised_weights_bring_one_quantisation_per_activation():
    graph = build_graph(tiny(), Phase.prefill(4), DTypes(weights=DType.Q4_0))
    quantize = [op.name for op in graph.operators if op.kind == "quantize" and op.layer in (0, None)]
    assert quantize == [
        "layers.0.attn_quantize", "layers.0.o_quantize", "layers.0.ffn_quantize", "layers.0.down_quantize",
        "head_quantize",
    ]  # fmt: skip
    readers = [op.name for op in graph.operators if "layers.0.attn_quantize.out" in op.inputs]
    assert readers == ["layers.0.q_proj", "layers.0.k_proj", "layers.0.v_proj"]
    assert graph.tensors["layers.0.attn_quantize.out"].bytes == 4 * 64 // 32 * 34
    row_scaled = build_graph(tiny(), Phase.prefill(4), DTypes(weights=DType.S8))
    assert row_scaled.tensors["layers.0.attn_quantize.out"].bytes == 4 * (64 + 4)
    assert not [op for op in build_graph(tiny(), Phase.prefill(4)).operators if op.kind == "quantize"]


# Rows whose logits are wanted


def test_all_rows_but_those_of_the_last_tokens_end_before_the_final_norm():
    graph = build_graph(tiny(), Phase.prefill(7, batch=2))
    assert graph.operator("layers.1.ffn_add").rows == 14
    assert [graph.operator("final_norm").rows, graph.operator("lm_head").m] == [2, 2]
    everything = build_graph(tiny(), Phase.prefill(7, batch=2), lm_head_rows="all")
    assert [everything.operator("final_norm").rows, everything.operator("lm_head").m] == [14, 14]


def test_the_last_layer_can_drop_rows_after_its_output_projection():
    graph = build_graph(tiny(), Phase.prefill(7, batch=2), last_layer_rows="logits")
    last = [op for op in graph.operators if op.site.startswith("last.")]
    assert [op.name for op in last] == [
        f"layers.1.{site}" for site in DENSE_LAYER[DENSE_LAYER.index("attn_add") :]
    ]
    assert graph.operator("layers.1.o_proj").m == 14
    assert graph.operator("layers.1.o_proj").site == "o_proj"
    assert graph.operator("layers.1.gate_proj").m == 2
    assert graph.read_bytes(graph.operator("layers.1.attn_add")) == 2 * 2 * 64 * 4
    assert graph.operator("layers.0.gate_proj").m == 14


@given(models(), phases())
def test_nothing_is_dropped_where_all_rows_are_wanted(config, phase):
    kept = build_graph(config, phase, last_layer_rows="logits", lm_head_rows="all")
    assert kept == build_graph(config, phase, lm_head_rows="all")


@given(models(), phases())
def test_dropping_rows_changes_the_last_layer_alone(config, phase):
    whole, dropped = (build_graph(config, phase, last_layer_rows=rows) for rows in ("all", "logits"))
    saved = whole.total_flop() - dropped.total_flop()
    last = [op for op in whole.operators if op.layer == config.layers - 1]
    after = last[[op.site for op in last].index("attn_add") :]
    assert saved * phase.tokens == sum(op.flop for op in after) * (phase.tokens - 1)


@given(models(), phases(), st.integers(1, 3))
def test_fewer_layers_are_the_first_layers(config, phase, layers):
    layers = min(layers, config.layers)
    part, whole = build_graph(config, phase, layers=layers), build_graph(config, phase)
    in_layers = [op for op in part.operators if op.layer is not None]
    assert in_layers == [op for op in whole.operators if op.layer is not None and op.layer < layers]
    assert part.layers == layers


# Experts


def test_one_token_reaches_as_many_experts_as_it_is_sent_to():
    config = catalog.load("qwen3-30b-a3b")
    graph = build_graph(config, Phase.decode(128), layers=1)
    gate = graph.operator("layers.0.gate_experts")
    assert gate.experts_reached == pytest.approx(8)
    assert graph.read_bytes(gate, Role.WEIGHT) == pytest.approx(8 * 768 * 2048 * 4)


def test_expected_experts_by_simulating_the_routing():
    rng = np.random.default_rng(0)
    drawn = [len(np.unique([rng.choice(16, 3, replace=False) for _ in range(6)])) for _ in range(4000)]
    standard_error = np.std(drawn) / math.sqrt(len(drawn))
    assert abs(np.mean(drawn) - expected_experts_reached(6, 16, 3)) < 4 * standard_error


@given(st.integers(1, 30), st.integers(1, 16), st.data())
def test_expected_experts_lie_between_one_tokens_and_all(tokens, experts, data):
    per_token = data.draw(st.integers(1, experts))
    expected = expected_experts_reached(tokens, experts, per_token)
    assert per_token - 1e-9 <= expected <= min(experts, tokens * per_token) + 1e-9
    assert expected <= expected_experts_reached(tokens + 1, experts, per_token) + 1e-9


def test_a_given_routing_is_counted_exactly():
    routing = [np.array([[0, 1], [1, 2], [0, 2]]), np.array([[7, 3], [7, 3], [7, 3]])]
    graph = build_graph(tiny_moe(), Phase.prefill(3), routing=routing)
    assert [op.experts_reached for op in graph.sites["up_experts"]] == [3, 2]
    gate = graph.operator("layers.0.gate_experts")
    assert graph.read_bytes(gate, Role.WEIGHT) == 3 * 32 * 64 * 4
    assert gate.flop == 2 * 6 * 32 * 64


def test_a_given_routing_of_dropped_rows_counts_the_last_tokens_only():
    routing = [np.array([[0, 1], [2, 3], [4, 5], [3, 2]])] * 2
    graph = build_graph(tiny_moe(), Phase.prefill(2, batch=2), last_layer_rows="logits", routing=routing)
    assert graph.operator("layers.0.gate_experts").experts_reached == 6
    assert graph.operator("layers.1.gate_experts").experts_reached == 2


# Bad input


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (tiny(), {"layers": 3}, "layers is 3; accepted for tiny: 1..2"),
        (tiny(), {"layers": 0}, "accepted for tiny: 1..2"),
        (tiny(), {"last_layer_rows": "some"}, "last_layer_rows is 'some'; accepted: all, logits"),
        (tiny(), {"lm_head_rows": "first"}, "lm_head_rows is 'first'; accepted: last, all"),
        (tiny(max_position=7), {}, "phase prefill:4,past=4 reaches position 8; tiny has at most 7"),
        (tiny(d_model=40), {"dtypes": DTypes(weights=DType.Q4_0)}, "embed.weight: q4_0 stores blocks of 32"),
        (tiny(), {"routing": []}, "tiny has no experts"),
        (tiny_moe(), {"routing": []}, "routing has 0 layers; the graph has 2"),
        (tiny_moe(), {"routing": [np.zeros((4, 3), int)] * 2}, r"accepted: integers \(4, 2\)"),
        (tiny_moe(), {"routing": [np.ones((4, 2))] * 2}, "float64"),
        (tiny_moe(), {"routing": [np.tile([0, 8], (4, 1))] * 2}, "names experts 0..8; accepted: 0..7"),
        (tiny_moe(), {"routing": [np.zeros((4, 2), int)] * 2}, "sends a token to one expert twice"),
    ],
)
def test_bad_requests_say_what_would_be_accepted(config, options, message):
    with pytest.raises(WorkloadError, match=message):
        build_graph(config, Phase.prefill(4, past=4), **options)


def test_an_unknown_operator_is_an_error():
    with pytest.raises(WorkloadError, match=r"no operator 'layers.9.q_proj'"):
        build_graph(tiny(), Phase.decode(1)).operator("layers.9.q_proj")
