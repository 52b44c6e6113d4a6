"""Tiles that workers draw at the end of an operator that was divided by their speed."""

from __future__ import annotations

import pytest

from smesim.hwmodel import library
from smesim.plan.planners import roofline
from smesim.plan.tiles import STATIC_PART, Tile, operator_tiles
from smesim.workload import Phase, build_graph, catalog

GRAPH = build_graph(catalog.load("llama-3.2-1b"), Phase.prefill(128), layers=1)
PLAN = roofline(GRAPH, library.load("apple-m4"))
SHARES = (40.0, 20.0, 4.0)


def drawn(shares: tuple[float, ...], rows: int = 128) -> list[Tile]:
    entry = PLAN.site("gate_proj").model_copy(
        update={
            "assignment": "static_then_shared" if shares else "shared",
            "workers": tuple(range(len(SHARES))),
            "shares": shares,
            "grain": 1,
            "lhs_layout": "lhs_f32_m6",
            "tile": PLAN.site("gate_proj").tile.model_copy(update={"m": rows, "n": 16 * 64}),
        }
    )
    tiles = operator_tiles(GRAPH.sites["gate_proj"][0], entry)
    panels = GRAPH.sites["gate_proj"][0].n // 16
    covered = [(strip, panel) for t in tiles for strip in range(*t.ranges[:2]) for panel in range(*t.ranges[2:4])]
    assert sorted(covered) == [(strip, panel) for strip in range(22) for panel in range(panels)]
    return [tile for tile in tiles if tile.worker is None]


def test_no_tile_keeps_the_slowest_longer_than_half_of_what_the_others_take_for_the_rest() -> None:
    left = 8192 // 16 * (1 - STATIC_PART) * 22
    for tile in drawn(SHARES):
        begin, end, first, last = tile.ranges[:4]
        size = (end - begin) * (last - first)
        assert size <= max(22, left * SHARES[-1] / sum(SHARES) / 2 + 22)
        left -= size
    assert left == pytest.approx(0)


def test_the_last_tiles_are_parts_of_a_panel() -> None:
    last = drawn(SHARES)[-1]
    assert last.ranges[3] - last.ranges[2] == 1
    assert 1 <= last.ranges[1] - last.ranges[0] <= 4  # of 22 strips
    alike = drawn(())[-1]
    assert alike.ranges[:2] == (0, 22)  # workers of one speed draw whole panels


def test_tiles_of_few_rows_are_not_divided_further() -> None:
    assert {tile.ranges[1] - tile.ranges[0] for tile in drawn(SHARES, rows=24)} == {4, 2}  # 22 strips are five of 4
