"""What a task costs on a matrix unit, against the closed forms of its blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smesim.hwmodel.attention_blocks import BlockShape
from smesim.hwmodel.cost import COST_EFFECTS, AttentionShape, CoreCosts
from smesim.hwmodel.unit_cost import GUESSED_UNIT_EFFICIENCY, UnitCosts
from tests.sim.chips import UNIT_CLOCK_HZ, UNIT_FLOP_PER_S, unit_chip

SIDE = 16
STORE_BYTES_PER_S = 150e9
CHIP = unit_chip()


def unit_costs(*without: str) -> UnitCosts:
    instance = CHIP.unit_instances[0]
    effects = set(COST_EFFECTS) - set(without)
    return UnitCosts(CHIP, instance, CoreCosts(instance.cluster.cluster, effects), effects)


PLAIN = ("tile_overhead", "mode_switch", "kernel_efficiency")


@given(m=st.integers(1, 200), columns=st.integers(1, 300), k=st.integers(1, 3000))
def test_a_product_costs_four_outer_products_a_step_edges_and_all(m: int, columns: int, k: int) -> None:
    strips = -(-m // (2 * SIDE))
    blocks = 0
    for strip in range(strips):
        rows = (strip + 1) * m // strips - strip * m // strips
        blocks += -(-columns // (2 * SIDE)) if rows > SIDE else -(-columns // (4 * SIDE))
    seconds = 4 * blocks * k * 2 * SIDE * SIDE / UNIT_FLOP_PER_S
    work = unit_costs(*PLAIN).gemm(m, 2 * SIDE, (0, strips), columns, k)
    assert work.unit_s == pytest.approx(seconds, rel=1e-12)
    assert work.core_s == 0


def test_without_edges_a_product_costs_its_flop() -> None:
    work = unit_costs(*PLAIN, "edge_tiles").gemm(45, 32, (0, 2), 77, 100)
    assert work.unit_s == pytest.approx(2 * 45 * 77 * 100 / UNIT_FLOP_PER_S)


def test_the_kernel_reaches_a_guessed_part_of_the_rate() -> None:
    plain = unit_costs(*PLAIN).gemm(64, 32, (0, 2), 64, 64).unit_s
    assert unit_costs("tile_overhead", "mode_switch").gemm(64, 32, (0, 2), 64, 64).unit_s == pytest.approx(
        plain / GUESSED_UNIT_EFFICIENCY
    )


def test_tiles_are_stored_after_every_block_of_the_depth_and_loaded_before_the_next() -> None:
    for k, moves in ((1024, 1), (1025, 3), (3072, 5)):
        plain, stored = (unit_costs(*without).gemm(32, 32, (0, 1), 32, k).unit_s for without in (PLAIN, PLAIN[1:]))
        expected = 4 * moves * (SIDE * SIDE * 4 / STORE_BYTES_PER_S + 4 / UNIT_CLOCK_HZ)
        assert stored - plain == pytest.approx(expected, rel=1e-6)


def test_operands_come_through_the_port_at_every_step() -> None:
    two_by_two = unit_costs().gemm(32, 32, (0, 1), 32, 10)
    one_by_four = unit_costs().gemm(16, 32, (0, 1), 64, 10)
    assert (two_by_two.operand_bytes, one_by_four.operand_bytes) == (10 * 4 * SIDE * 4, 10 * 5 * SIDE * 4)
    assert unit_costs("operand_traffic").gemm(32, 32, (0, 1), 32, 10).operand_bytes == 0


def test_each_leaf_enters_and_leaves_streaming_mode_once() -> None:
    for cost in (lambda c: c.gemm(32, 32, (0, 1), 32, 10), lambda c: c.gemv(32, 10), lambda c: c.pack(100),
                 lambda c: c.append(0, 9, 1, 64)):  # fmt: skip
        assert cost(unit_costs()).unit_s - cost(unit_costs("mode_switch")).unit_s == pytest.approx(4e-8)


def test_keys_come_out_of_tiles_in_slices_however_few_they_are_and_values_in_whole_vectors() -> None:
    costs = unit_costs("mode_switch")
    slice_s = SIDE * 4 / STORE_BYTES_PER_S
    panels, tokens, width = 3, 32, 64  # of 11, 16 and 5 positions
    work = costs.append(5, 5 + tokens, 2, width)
    assert work.unit_s == pytest.approx(2 * width * (panels + tokens / SIDE) * slice_s)
    assert work.operand_bytes == 2 * 2 * tokens * width * 4
    assert costs.append(16, 17, 1, width).unit_s == pytest.approx(width * (1 + 1 / SIDE) * slice_s)
    whole = unit_costs("mode_switch", "edge_tiles").append(16, 17, 1, width).unit_s
    assert whole == pytest.approx(2 * costs.pack(width).unit_s)


def test_attention_grows_with_the_keys_and_leaves_the_softmax_to_the_core() -> None:
    short, long = (unit_costs().attention(AttentionShape(0, 64, past, 3, 128)) for past in (0, 1024))
    assert min(long.unit_s / short.unit_s, long.core_s / short.core_s) > 5
    products = 2 * 2 * 64 * 3 * 1024 * 128 / UNIT_FLOP_PER_S
    assert long.unit_s - short.unit_s > products


def test_a_unit_multiplies_vectors_only_with_instructions_for_it() -> None:
    assert unit_costs().multiplies_vectors("f32")
    assert not unit_costs().multiplies_vectors("bf16")
    assert unit_costs(*PLAIN).gemv(64, 1000).unit_s == pytest.approx(2 * 64 * 1000 / 100e9)


def test_the_stages_of_a_whole_attention_add_up_to_the_fused_one() -> None:
    costs = unit_costs("mode_switch")
    fused = costs.attention(AttentionShape(0, 32, 480, 4, 128))
    blocks = [BlockShape(0, 32, 480, 4, 128, begin, begin + 256) for begin in (0, 256)]
    staged = [costs.stage(block, is_qk) for block in blocks for is_qk in (True, False)]
    assert sum(work.unit_s for work in staged) == pytest.approx(fused.unit_s, rel=0.02)
    assert sum(work.core_s for work in staged) < fused.core_s  # which has the softmax besides
