"""The accounting against an independent reference, and the other tools' numbers explained.

`accounting_reference.json` has what five analytical tools print for one workload. Ours must equal
`reference`; each of the others is reproduced by counting as it does: `docs/accounting.md` then says why.
"""

import json
from pathlib import Path

import pytest

from smesim.workload import DType, DTypes, Phase, build_graph, catalog

REFERENCE = json.loads((Path(__file__).parent / "accounting_reference.json").read_text())
PEAK = REFERENCE["hardware"]["peak_flop_per_s"]
BANDWIDTH = REFERENCE["hardware"]["bandwidth_bytes_per_s"]


def rows(tool):
    found = [row for row in REFERENCE["rows"] if row["tool"] == tool]
    assert found
    return [pytest.param(row, id=f"{row['model']}-{row['bits']}bit-{row['tokens']}") for row in found]


def graph_of(row, phase, **options):
    dtype = {32: DType.F32, 16: DType.F16}[row["bits"]]
    return build_graph(catalog.load(row["model"]), phase, DTypes(dtype, dtype, dtype), **options)


def ideal_ms(graph, kinds=("linear", "attention")):
    """Every operator as fast as the peak or the bandwidth allows, one after the other."""
    operators = [operator for operator in graph.operators if operator.kind in kinds]
    return 1e3 * sum(max(op.flop / PEAK, graph.moved_bytes(op) / BANDWIDTH) for op in operators)


def layer_linears(config):
    """Weights of all linear layers but lm_head."""
    attention = 2 * config.d_model * (config.q_dim + config.kv_dim)
    return config.layers * (attention + 3 * config.d_model * config.d_ff)


@pytest.mark.parametrize("row", rows("reference"))
def test_equals_the_reference_to_a_tenth_of_a_percent(row):
    assert ideal_ms(graph_of(row, Phase.prefill(row["tokens"]))) == pytest.approx(row["prefill_ms"], rel=1e-3)
    assert ideal_ms(graph_of(row, Phase.decode(row["tokens"]))) == pytest.approx(row["decode_ms"], rel=1e-3)


@pytest.mark.parametrize("row", rows("GenZ"))
def test_genz_counts_all_pairs_lm_head_everywhere_the_embedding_as_a_gemm_and_gibibytes(row):
    c, s, element = catalog.load(row["model"]), row["tokens"], row["bits"] // 8
    table = c.vocab * c.d_model
    prefill = (2 * s * (layer_linears(c) + table + table) + 4 * c.layers * c.q_dim * s * s) / PEAK
    gibi = 2**30 / 1e9
    decode = (layer_linears(c) + table + 2 * c.layers * c.kv_dim * s) * element / (BANDWIDTH * gibi)
    assert 1e3 * prefill == pytest.approx(row["prefill_ms"], rel=1e-4)
    assert 1e3 * decode == pytest.approx(row["decode_ms"], rel=1e-4)


@pytest.mark.parametrize("row", rows("LLM-Viewer"))
def test_llm_viewer_counts_all_pairs_and_writes_the_scores_to_memory(row):
    c, s, element = catalog.load(row["model"]), row["tokens"], row["bits"] // 8
    table = c.vocab * c.d_model
    # Two norms and two residuals read and write, the activation moves three rows, the soft-max two.
    element_wise = c.layers * (11 * c.d_model + 2 * c.heads * s)
    prefill = (2 * s * layer_linears(c) + 4 * c.layers * c.q_dim * s * s) / PEAK
    prefill += (s * element_wise + table) * element / BANDWIDTH
    in_and_out = (
        2 * (c.d_model + c.q_dim) + 2 * (c.d_model + c.kv_dim) + 3 * (c.d_model + c.d_ff) + 2 * c.q_dim
    )
    scores = 2 * c.heads * s
    cache = 2 * c.kv_dim * s
    per_layer = c.layers * (in_and_out + scores + cache)
    decode = (layer_linears(c) + table + per_layer + element_wise) * element / BANDWIDTH
    assert 1e3 * prefill == pytest.approx(row["prefill_ms"], rel=1e-4)
    assert 1e3 * decode == pytest.approx(row["decode_ms"], rel=1e-4)


@pytest.mark.parametrize("row", rows("llm-analysis"))
def test_llm_analysis_reads_the_whole_table_and_the_cache_twice(row):
    c, s, element = catalog.load(row["model"]), row["tokens"], row["bits"] // 8
    table = c.vocab * c.d_model
    norms = 4 * c.layers * c.d_model
    prefill = (2 * s * (layer_linears(c) + table) + 4 * c.layers * c.q_dim * s * s) / PEAK
    prefill += (table + s * norms) * element / BANDWIDTH
    cache = 2 * c.layers * c.kv_dim * s
    decode = 2 * table / PEAK + (layer_linears(c) + table + 2 * cache + norms) * element / BANDWIDTH
    assert 1e3 * prefill == pytest.approx(row["prefill_ms"], rel=1e-4)
    assert 1e3 * decode == pytest.approx(row["decode_ms"], rel=5e-4)


@pytest.mark.parametrize("row", rows("LLMCompass"))
def test_llm_compass_agrees_on_bytes_and_adds_a_fifth_of_tile_overhead(row):
    tokens = row["tokens"]
    phase = Phase.decode(1) if tokens == 1 else Phase.prefill(tokens)
    graph = graph_of(row, phase)
    head = graph.operator("lm_head")
    head_ms = 1e3 * max(head.flop / PEAK, graph.moved_bytes(head) / BANDWIDTH)
    ours = ideal_ms(graph, kinds=("linear",)) - head_ms
    if tokens == 1:
        assert ours == pytest.approx(row["linear_ms"], rel=1e-3)
    else:
        assert 1.20 < row["linear_ms"] / ours < 1.21


def test_the_worked_numbers_of_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "accounting.md").read_text()
    config = catalog.load("llama-3.2-3b")
    prefill = build_graph(config, Phase.prefill(128))
    decode = build_graph(config, Phase.decode(128))
    logits = build_graph(config, Phase.prefill(128), last_layer_rows="logits")
    q4 = build_graph(config, Phase.decode(128), DTypes(weights=DType.Q4_0))
    moe = build_graph(catalog.load("qwen3-30b-a3b"), Phase.decode(128, batch=16)).operator(
        "layers.0.gate_experts"
    )
    shown = [
        prefill.operator("layers.0.gate_proj").flop,
        prefill.operator("layers.0.attention").flop,
        decode.operator("layers.0.attention").flop,
        prefill.operator("lm_head").flop,
        decode.read_bytes(decode.operator("layers.0.attention")),
        decode.read_bytes(decode.operator("embed")),
        prefill.read_bytes(prefill.operator("embed")),
        q4.tensors["layers.0.gate_proj.weight"].bytes,
        prefill.tensors["layers.0.gate_proj.weight"].bytes,
        config.parameters,
        prefill.total_flop(),
        logits.total_flop(),
        decode.total_flop(),
    ]
    for number in shown:
        assert f"{number:,}" in page
    assert f"{moe.experts_reached:.1f}" in page


@pytest.mark.parametrize("row", rows("reference"))
def test_the_documentation_shows_our_numbers(row):
    page = (Path(__file__).parents[2] / "docs" / "accounting.md").read_text()
    ours = [
        ideal_ms(graph_of(row, Phase.prefill(row["tokens"]))),
        ideal_ms(graph_of(row, Phase.decode(row["tokens"]))),
    ]
    line = next(
        text for text in page.splitlines()
        if text.startswith(f"| {row['model']}, {row['bits']} bit, {row['tokens']} |")
    )  # fmt: skip
    for number in ours:
        assert f"{number:.1f}" in line
