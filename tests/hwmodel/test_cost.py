"""What a task costs on a core: counted work by brute force, coefficients by closed forms, effects one by one."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smesim.hwmodel import library
from smesim.hwmodel.attention_blocks import BlockShape
from smesim.hwmodel.chip import Chip, Cluster, FactorPoint, KernelModel
from smesim.hwmodel.cost import (
    ATTENTION_KEYS,
    ATTENTION_ROWS,
    COST_EFFECTS,
    GUESSED_GEMM_EFFICIENCY,
    AttentionShape,
    CoreCosts,
    attention_work,
    strip_heights,
)
from smesim.hwmodel.quantity import Quantity

MR, NR, KC = 6, 16, 256
KSTEP_S = {1: 1.5e-9, 2: 1.6e-9, 3: 1.7e-9, 4: 1.8e-9, 5: 1.9e-9, 6: 2.0e-9}
TILE_S = 3e-8


def quantity(value: float, unit: str) -> Quantity:
    return Quantity(value=value, unit=unit, provenance="fitted", source="a test")


@pytest.fixture
def cluster() -> Cluster:
    """The M4's P cluster with a GEMM kernel of round coefficients, and half the rate when two cores are busy."""
    chip: Chip = library.load("apple-m4")
    described = chip.clusters[0]
    parameters = {f"s_per_kstep_h{h}": quantity(s, "s") for h, s in KSTEP_S.items()}
    parameters |= {"s_per_tile": quantity(TILE_S, "s"), "s_per_streamed_byte": quantity(1e-12, "s/B")}
    parameters |= {"mr": quantity(MR, "1"), "nr": quantity(NR, "1"), "kc": quantity(KC, "1")}
    kernels = (
        KernelModel(name="gemm_f32", isa="neon", parameters=parameters),
        KernelModel(name="gemv_f32", isa="neon", parameters={"s_per_element": quantity(2e-11, "s/element")}),
        KernelModel(
            name="add_f32",
            isa="neon",
            parameters={"s_per_element": quantity(1e-10, "s/element"), "s_per_row": quantity(5e-9, "s")},
        ),
    )
    core = described.core.model_copy(update={"kernels": kernels})
    factors = (FactorPoint(threads=2, factor=quantity(0.5, "1")),)
    return described.model_copy(update={"core": core, "multi_core_factors": factors})


@given(rows=st.integers(1, 700), mr=st.integers(1, 14), data=st.data())
def test_strip_heights_count_every_row_once(rows: int, mr: int, data: st.DataObject) -> None:
    strips = -(-rows // mr)
    begin = data.draw(st.integers(0, strips))
    end = data.draw(st.integers(begin, strips))
    counted = strip_heights(rows, mr, begin, end)
    expected = [(s + 1) * rows // strips - s * rows // strips for s in range(begin, end)]
    assert sorted(h for h, n in counted for _ in range(n)) == sorted(expected)
    assert all(1 <= h <= mr for h, _ in counted)


@given(
    tokens=st.integers(1, 90),
    past=st.integers(0, 600),
    group=st.integers(1, 8),
    head_dim=st.sampled_from([64, 80, 128]),
)
def test_attention_work_against_walking_every_row(tokens: int, past: int, group: int, head_dim: int) -> None:
    work = attention_work(AttentionShape(0, tokens, past, group, head_dim), MR, NR)
    block = max(1, ATTENTION_ROWS // group)
    pairs = visits = cut = steps = tiles = 0
    for first in range(0, tokens, block):
        held = min(block, tokens - first)
        rows = [past + first + r // group + 1 for r in range(held * group)]
        pairs += sum(rows)
        for key in range(0, rows[-1], ATTENTION_KEYS):
            keys = min(ATTENTION_KEYS, rows[-1] - key)
            visits += sum(seen > key for seen in rows)
            cut += sum(0 < seen - key < keys for seen in rows)
        strips = -(-len(rows) // MR)
        for s in range(strips):
            seen = rows[(s + 1) * len(rows) // strips - 1]
            steps += head_dim * -(-seen // NR) + -(-head_dim // NR) * seen
            tiles += -(-seen // NR) + -(-head_dim // NR) * -(-seen // ATTENTION_KEYS)
    assert (work.pairs, work.row_blocks, work.cut_rows) == (pairs, visits, cut)
    assert (work.tiles, work.rows) == (tiles, tokens * group)
    assert sum(n for _, n in work.ksteps_by_height) == steps


ATTENTION = {
    "kstep_factor": 1.1, "s_per_tile": 1e-8, "s_per_score": 3e-10, "s_per_row_block": 4e-8, "s_per_cut_row": 2e-8,
    "s_per_query_element": 2e-9,
}  # fmt: skip


def with_attention(cluster: Cluster) -> Cluster:
    parameters = {name: quantity(value, "s") for name, value in ATTENTION.items()}
    fitted = KernelModel(name="attention_f32", isa="neon", parameters=parameters)
    return cluster.model_copy(
        update={"core": cluster.core.model_copy(update={"kernels": (*cluster.core.kernels, fitted)})}
    )


@given(
    tokens=st.integers(1, 12),
    past=st.integers(0, 600),
    group=st.integers(1, 8),
    head_dim=st.sampled_from([64, 80, 128]),
    is_fitted=st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_stages_of_fused_attentions_own_blocks_cost_what_it_costs(
    cluster: Cluster, tokens: int, past: int, group: int, head_dim: int, is_fitted: bool
) -> None:
    costs = CoreCosts(with_attention(cluster) if is_fitted else cluster, COST_EFFECTS, 2)
    blocks = [
        BlockShape(0, tokens, past, group, head_dim, key, min(key + ATTENTION_KEYS, past + tokens))
        for key in range(0, past + tokens, ATTENTION_KEYS)
    ]
    in_stages = sum(costs.qk_s(block) + costs.softmax_s(block) + costs.pv_s(block) for block in blocks)
    whole = AttentionShape(0, tokens, past, group, head_dim)
    assert in_stages == pytest.approx(costs.attention_s(whole), rel=1e-9)
    one_part = BlockShape(0, tokens, past, group, head_dim, 0, past + tokens)
    assert costs.part_s(one_part) == pytest.approx(costs.attention_s(whole), rel=1e-9)


def test_a_block_that_cuts_the_diagonal_costs_less_than_one_below_it(cluster: Cluster) -> None:
    costs = CoreCosts(with_attention(cluster), COST_EFFECTS)
    below, across = (BlockShape(64, 128, 0, 1, 64, key, key + 64) for key in (0, 64))
    inner = {"qk": costs.qk_s(below) - 64 * 64 * 1e-9, "pv": costs.pv_s(below)}  # the first block scales the queries
    # All but the last of its rows see a part of it.
    of_pairs = costs.softmax_s(across) - 64 * 4e-8 - 63 * 2e-8
    assert of_pairs == pytest.approx((costs.softmax_s(below) - 64 * 4e-8) * 65 / 128)
    assert 0.5 * inner["qk"] < costs.qk_s(across) < inner["qk"]
    assert 0.5 * inner["pv"] < costs.pv_s(across) - 64 * 64 * 1e-9 < inner["pv"]  # and the last writes the output


def test_gemm_is_ksteps_of_each_height_and_tiles(cluster: Cluster) -> None:
    costs = CoreCosts(cluster, COST_EFFECTS)
    # 8 rows are two strips of 4; 600 is three blocks of 256.
    expected = 5 * 2 * (600 * KSTEP_S[4] + 3 * TILE_S)
    assert costs.gemm_s(8, MR, (0, 2), panels=5, k=600) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("off", "expected"),
    [
        ("edge_tiles", 2 * (600 * KSTEP_S[6] * 4 / 6 + 3 * TILE_S)),
        ("tile_overhead", 2 * 600 * KSTEP_S[4]),
        ("kernel_efficiency", None),
    ],
)
def test_each_effect_can_be_switched_off(cluster: Cluster, off: str, expected: float | None) -> None:
    costs = CoreCosts(cluster, set(COST_EFFECTS) - {off})
    if expected is None:
        peak = cluster.core.flop_per_s["f32"].value
        expected = 2 * (600 * 2 * 4 * NR / peak + 3 * TILE_S)
    assert costs.gemm_s(8, MR, (0, 2), panels=1, k=600) == pytest.approx(expected, rel=1e-12)


def test_a_format_that_was_fitted_has_its_own_coefficients_and_shape(cluster: Cluster) -> None:
    parameters = {f"s_per_kstep_h{h}": quantity(h * 1e-9, "s") for h in (1, 2)}
    parameters |= {"mr": quantity(2, "1"), "nr": quantity(NR, "1"), "kc": quantity(128, "1")}
    parameters |= {"s_per_tile": quantity(TILE_S, "s")}
    models = (
        KernelModel(name="gemm_bf16", isa="neonmm", parameters=parameters),
        KernelModel(name="gemv_bf16", isa="neonmm", parameters={"s_per_element": quantity(3e-11, "s/element")}),
    )
    core = cluster.core.model_copy(update={"kernels": (*cluster.core.kernels, *models)})
    costs = CoreCosts(cluster.model_copy(update={"core": core}), COST_EFFECTS)
    assert costs.products("bf16").mr == 2
    # A strip of 3 rows is micro-tiles of 1 and 2; 300 is three blocks of 128.
    expected = 5 * (300 * 3e-9 + 2 * 3 * TILE_S)
    assert costs.gemm_s(3, MR, (0, 1), panels=5, k=300, dtype="bf16") == pytest.approx(expected, rel=1e-12)
    assert costs.gemv_s(4, 300, "bf16") == pytest.approx(4 * NR * 300 * 3e-11, rel=1e-12)
    assert costs.gemm_s(3, MR, (0, 1), panels=5, k=300) == pytest.approx(5 * (300 * KSTEP_S[3] + 2 * TILE_S), rel=1e-12)


@pytest.mark.parametrize(("rate", "like_f32"), [(None, 1.0), (300e9, 2.0)])
def test_a_format_that_was_not_fitted_follows_from_its_rate_or_that_of_f32(
    cluster: Cluster, rate: float | None, like_f32: float
) -> None:
    rates = {"f32": quantity(150e9, "FLOP/s")} | ({} if rate is None else {"bf16": quantity(rate, "FLOP/s")})
    core = cluster.core.model_copy(update={"kernels": (), "flop_per_s": rates})
    costs = CoreCosts(cluster.model_copy(update={"core": core}), COST_EFFECTS)
    in_f32, in_bf16 = (costs.gemm_s(12, MR, (0, 2), 4, 512, dtype) for dtype in ("f32", "bf16"))
    assert in_bf16 == pytest.approx(in_f32 / like_f32, rel=1e-12)


def test_exposed_latency_goes_with_streamed_bytes_and_its_effect(cluster: Cluster) -> None:
    assert CoreCosts(cluster, COST_EFFECTS).exposed_s("gemm_f32", 1e9) == pytest.approx(1e-3)
    assert CoreCosts(cluster, set(COST_EFFECTS) - {"exposed_latency"}).exposed_s("gemm_f32", 1e9) == 0.0


@pytest.mark.parametrize(("busy", "effects", "factor"), [(1, True, 1.0), (2, True, 0.5), (2, False, 1.0)])
def test_busy_neighbours_slow_what_computes(cluster: Cluster, busy: int, effects: bool, factor: float) -> None:
    chosen = set(COST_EFFECTS) if effects else set(COST_EFFECTS) - {"multi_core"}
    alone, among = CoreCosts(cluster, chosen, 1), CoreCosts(cluster, chosen, busy)
    shape = AttentionShape(0, 40, 10, 3, 128)
    for cost in (
        lambda c: c.gemm_s(40, MR, (0, 7), 3, 512),
        lambda c: c.gemv_s(4, 512),
        lambda c: c.pack_s(1000),
        lambda c: c.attention_s(shape),
    ):
        assert cost(among) == pytest.approx(cost(alone) / factor, rel=1e-12)
    assert among.elementwise_s("add_f32", 3, 3000) == alone.elementwise_s("add_f32", 3, 3000)


def test_elementwise_by_element_and_by_row(cluster: Cluster) -> None:
    assert CoreCosts(cluster, COST_EFFECTS).elementwise_s("add_f32", 7, 7000) == pytest.approx(7e-7 + 3.5e-8)


def test_a_packed_kernel_that_was_never_measured_costs_as_much_as_the_two_whose_work_it_does(cluster: Cluster) -> None:
    costs = CoreCosts(cluster, COST_EFFECTS)
    parts = (costs.elementwise_s(kernel, 12, 6000) for kernel in ("swiglu_f32", "pack_lhs_f32"))
    assert costs.elementwise_s("swiglu_packed_f32", 12, 6000) == pytest.approx(sum(parts))
    measured = KernelModel(
        name="swiglu_packed_f32", isa="neon", parameters={"s_per_element": quantity(1e-10, "s/element")}
    )
    core = cluster.core.model_copy(update={"kernels": (*cluster.core.kernels, measured)})
    costs = CoreCosts(cluster.model_copy(update={"core": core}), COST_EFFECTS)
    assert costs.elementwise_s("swiglu_packed_f32", 12, 6000) == pytest.approx(6e-7)



def test_without_fitted_kernels_the_peak_and_a_guess_decide() -> None:
    described = library.load("apple-m4").clusters[0]
    peak = described.core.flop_per_s["f32"].value
    seconds = CoreCosts(described, COST_EFFECTS).gemm_s(6, 6, (0, 1), panels=10, k=1000)
    assert seconds == pytest.approx(2.0 * 6 * 160 * 1000 / peak / GUESSED_GEMM_EFFICIENCY)


def test_a_router_costs_its_products_its_packing_and_its_choice(cluster: Cluster) -> None:
    chooses = KernelModel(name="router_f32", isa="neon", parameters={"s_per_score": quantity(3e-9, "s")})
    packs = KernelModel(name="pack_lhs_f32", isa="neon", parameters={"s_per_element": quantity(2e-10, "s/element")})
    core = cluster.core.model_copy(update={"kernels": (*cluster.core.kernels, chooses, packs)})
    costs = CoreCosts(cluster.model_copy(update={"core": core}), COST_EFFECTS)
    strips = 11  # of 64 rows, at most 6 in one
    blocks = 2 * costs.gemm_s(64, MR, (0, strips), 3, 500) + costs.gemm_s(2, MR, (0, 1), 3, 500)
    assert costs.router_s(130, 40, 500, is_gemv=False) == pytest.approx(
        130 * 40 * 3e-9 + 130 * 500 * 2e-10 + blocks
    )
    assert costs.router_s(1, 40, 500, is_gemv=True) == pytest.approx(40 * 3e-9 + 3 * 16 * 500 * 2e-11)


def test_panels_that_cannot_be_read_side_by_side_wait_for_a_lone_stream(cluster: Cluster) -> None:
    (gemv,) = (kernel for kernel in cluster.core.kernels if kernel.name == "gemv_f32")
    lone = gemv.model_copy(update={"parameters": gemv.parameters | {"lone_stream_share": quantity(0.5, "1")}})
    core = cluster.core.model_copy(update={"kernels": (lone,)})
    costs, known = (CoreCosts(c, COST_EFFECTS) for c in (cluster, cluster.model_copy(update={"core": core})))
    bytes_per_s = cluster.core.load_bytes_per_s["DRAM"].value
    for panels in range(1, 13):
        whole, alone = panels // 4 * 4, panels % 4
        at_least_s = 1e6 * (whole + alone / 0.5) / bytes_per_s if alone else 0.0
        assert known.lone_streams_s(panels, panels * 1e6) == pytest.approx(at_least_s)
        assert costs.lone_streams_s(panels, panels * 1e6) == 0.0  # never measured
    assert CoreCosts(cluster.model_copy(update={"core": core}), ()).lone_streams_s(1, 1e6) == 0.0


def test_a_panel_by_itself_takes_longer_where_kernels_take_two(cluster: Cluster) -> None:
    (gemm,) = (kernel for kernel in cluster.core.kernels if kernel.name == "gemm_f32")
    of_pairs = {"panels": quantity(2, "1"), "lone_panel_factor": quantity(1.25, "1")}
    core = cluster.core.model_copy(
        update={"kernels": (gemm.model_copy(update={"parameters": gemm.parameters | of_pairs}),)}
    )
    in_pairs = cluster.model_copy(update={"core": core})
    costs, known = CoreCosts(cluster, COST_EFFECTS), CoreCosts(in_pairs, COST_EFFECTS)
    one_s = costs.gemm_s(MR, MR, (0, 1), 1, 300)
    for panels, as_many in ((1, 1.25), (2, 2.0), (5, 5.25)):
        assert known.gemm_s(MR, MR, (0, 1), panels, 300) == pytest.approx(as_many * one_s)
        assert costs.gemm_s(MR, MR, (0, 1), panels, 300) == pytest.approx(panels * one_s)
    without = CoreCosts(in_pairs, COST_EFFECTS.keys() - {"edge_tiles"})
    assert without.gemm_s(MR, MR, (0, 1), 1, 300) == pytest.approx(one_s)


def test_products_of_several_rows_draw_what_their_kernel_was_seen_to_draw(cluster: Cluster) -> None:
    (gemm,) = (kernel for kernel in cluster.core.kernels if kernel.name == "gemm_f32")
    drawn = gemm.model_copy(update={"parameters": gemm.parameters | {"stream_share": quantity(0.8, "1")}})
    core = cluster.core.model_copy(update={"kernels": (drawn,)})
    known = cluster.model_copy(update={"core": core})
    bytes_per_s = cluster.core.load_bytes_per_s["DRAM"].value
    assert CoreCosts(known, COST_EFFECTS).streamed_s(1e6) == pytest.approx(1e6 / 0.8 / bytes_per_s)
    assert CoreCosts(known, ()).streamed_s(1e6) == 0.0
    assert CoreCosts(cluster, COST_EFFECTS).streamed_s(1e6) == 0.0  # never measured
