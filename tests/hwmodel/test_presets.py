"""The presets: complete, every number sourced, and equal to the published figures they claim to hold."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from smesim.hwmodel import library
from smesim.hwmodel.chip import (
    Cache,
    Chip,
    Cluster,
    CoreSpec,
    MatrixUnit,
    Memory,
    Sync,
    TileShape,
)
from smesim.hwmodel.links import Agent, LinkNetwork
from smesim.hwmodel.quantity import PROVENANCES, Evidence, Quantity
from smesim.hwmodel.roofline import Roofline, core_agents, matrix_unit_agents

PRESETS = (
    "apple-m1", "apple-m1-max", "apple-m2", "apple-m2-max", "apple-m2-ultra", "apple-m4", "apple-m4-max",
    "apple-m4-pro", "apple-m5", "cix-p1", "dgx-spark", "dimensity-9000-plus", "graviton3e", "graviton4",
    "kunpeng-920", "phone-d9500",
    "server-lx2", "server-spr-amx", "snapdragon-8-elite", "snapdragon-8-elite-gen5", "snapdragon-8cx-gen3",
    "snapdragon-x-elite", "xeon-6980p", "xeon-8480", "xeon-w9-3475x", "xeon-w9-3495x",
)  # fmt: skip
WITHOUT_MATRIX_UNIT = {
    "cix-p1", "dgx-spark", "dimensity-9000-plus", "graviton3e", "graviton4", "kunpeng-920", "snapdragon-8-elite",
    "snapdragon-8cx-gen3", "snapdragon-x-elite",
}  # fmt: skip
M4_P_UNIT = [Agent("P", 0, "P.sme0")]


def evidence(node: Any, path: str = "") -> Iterator[tuple[str, Evidence]]:
    """Every piece of evidence in a chip, with its path."""
    if isinstance(node, Evidence):
        yield path, node
    elif isinstance(node, BaseModel):
        for name in type(node).model_fields:
            yield from evidence(getattr(node, name), f"{path}.{name}")
    elif isinstance(node, dict):
        for name, inner in node.items():
            yield from evidence(inner, f"{path}.{name}")
    elif isinstance(node, tuple):
        for index, inner in enumerate(node):
            yield from evidence(inner, f"{path}[{index}]")


def test_the_presets_are_these() -> None:
    assert library.names() == PRESETS


@pytest.mark.parametrize("name", PRESETS)
class TestEveryPreset:
    def test_it_is_named_as_its_file(self, name: str) -> None:
        chip = library.load(name)
        assert chip.name == name
        assert not chip.host

    def test_it_survives_writing_and_reading(self, name: str, tmp_path: Path) -> None:
        chip = library.load(name)
        library.save(chip, tmp_path / "copy.toml")
        assert library.load(tmp_path / "copy.toml") == chip

    def test_every_number_has_a_source_and_every_guess_or_sum_a_reason(self, name: str) -> None:
        entries = list(evidence(library.load(name)))
        assert len(entries) > (20 if name in WITHOUT_MATRIX_UNIT else 35)
        for path, entry in entries:
            assert entry.source.strip(), path
            if entry.provenance in ("guessed", "derived"):
                assert entry.reason or path.endswith("structure"), path

    def test_an_assumption_never_passes_for_more_than_a_guess(self, name: str) -> None:
        for path, entry in evidence(library.load(name)):
            if entry.source == "assumption":
                assert entry.provenance == "guessed", path

    def test_it_has_what_a_simulation_needs(self, name: str) -> None:
        chip = library.load(name)
        assert bool(chip.unit_instances) == (name not in WITHOUT_MATRIX_UNIT)
        assert chip.memory.spec_bandwidth_bytes_per_s is not None
        for cluster in chip.clusters:
            assert {"f32", "f16", "s8"} <= set(cluster.core.flop_per_s)
            assert len(chip.levels(cluster.name)) >= 3
            assert "L1" in cluster.core.load_bytes_per_s

    def test_clock_tile_and_pipeline_explain_the_rates_of_its_units(self, name: str) -> None:
        """A tile's instruction issues once each latency / accumulators cycles."""
        for unit in {id(u.unit): u.unit for u in library.load(name).unit_instances}.values():
            for dtype, rate in unit.flop_per_s.items():
                tile = unit.tile(dtype)
                issue_cycles = unit.latency_cycles[dtype].value / unit.accumulators[dtype].value
                flop_per_cycle = 2 * tile.rows * tile.columns * tile.depth / issue_cycles
                assert rate.value == pytest.approx(flop_per_cycle * unit.clock_hz.value, rel=0.05), dtype

    def test_nearer_levels_are_not_slower(self, name: str) -> None:
        chip = library.load(name)
        network = LinkNetwork(chip)
        agents = [network.agent(instance.first_core) for instance in chip.instances]
        agents += [network.agent(unit.cores[0], unit.index) for unit in chip.unit_instances]
        for agent in agents:
            levels = chip.levels(chip.instance_of(agent.core).cluster.name)
            caps = [network.route(agent, level).cap_bytes_per_s for level in levels]
            assert caps == sorted(caps, reverse=True), agent

    def test_no_agent_draws_more_than_its_links_carry(self, name: str) -> None:
        chip = library.load(name)
        network = LinkNetwork(chip)
        agents = [*core_agents(chip), *matrix_unit_agents(chip)]
        for agent in agents:
            for level in chip.levels(chip.instance_of(agent.core).cluster.name):
                route = network.route(agent, level)
                for link in route.links:
                    assert route.cap_bytes_per_s <= network.bandwidth_bytes_per_s(link), (agent, level)


CHIPS_PAGE = (Path(__file__).parents[2] / "docs" / "chips.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PRESETS)
def test_the_documented_provenance_is_the_presets(name: str) -> None:
    counts = Counter(entry.provenance for _, entry in evidence(library.load(name)))
    row = " | ".join(str(counts[provenance]) for provenance in PROVENANCES)
    assert f"| `{name}` | {row} |" in CHIPS_PAGE


@pytest.mark.parametrize(
    "model", [Chip, Memory, Sync, Cache, Cluster, CoreSpec, MatrixUnit, TileShape, Quantity]
)
def test_every_field_is_documented(model: type[BaseModel]) -> None:
    for field in model.model_fields:
        assert re.search(rf"[`.\[]{field}\b", CHIPS_PAGE), f"{model.__name__}.{field}"


def test_a_p_unit_of_the_m4() -> None:
    """tzakharko/m4-sme-exploration @80ec71b4: rates, accumulators, bandwidths of one and three threads."""
    unit = library.load("apple-m4").unit_instances[0].unit
    rates = {dtype: rate.value / 1e9 for dtype, rate in unit.flop_per_s.items()}
    assert rates == {"f64": 499, "f32": 2005, "f16": 2004, "bf16": 2004, "s8": 4017}
    assert unit.rate_flop_per_s("f32", 1) == pytest.approx(499.8e9, rel=0.01)
    assert unit.rate_flop_per_s("f32", 3) == pytest.approx(1499.7e9, rel=0.01)
    assert unit.rate_flop_per_s("s8", 1) == pytest.approx(2003.4e9, rel=0.01)
    assert unit.load_bytes_per_s["DRAM"].value == 75e9
    assert unit.multi_driver_load_bytes_per_s["L2"].value == 649e9
    assert unit.useful_drivers.value == 1


def test_both_m4_units_together_leave_the_dram_link_full() -> None:
    """Measured: 106 to 110 GB/s from P + E units; the preset's DRAM sustains 105."""
    chip = library.load("apple-m4")
    assert Roofline(chip, matrix_unit_agents(chip)).bandwidth_bytes_per_s("f32") == 105e9


# Ridge points in FLOP per byte from rates and bandwidths of m4-sme-exploration @80ec71b4 and cpufp @93e165ea.
# P + E: 2312 / 108 and 4620 / 108; four cores: over 100 GB/s. The preset's DRAM gives 105.
@pytest.mark.parametrize(
    ("agents", "level", "dtype", "ridge", "tolerance"),
    [
        (M4_P_UNIT, "DRAM", "f32", 27, 0.02),
        (M4_P_UNIT, "DRAM", "bf16", 27, 0.02),
        (M4_P_UNIT, "DRAM", "s8", 54, 0.02),
        ([*M4_P_UNIT, Agent("E", 4, "E.sme0")], "DRAM", "f32", 2312 / 108, 0.06),
        ([*M4_P_UNIT, Agent("E", 4, "E.sme0")], "DRAM", "s8", 4620 / 108, 0.06),
        ([Agent("P", core) for core in range(4)], "DRAM", "f32", 4.7, 0.05),
        ([Agent("P", core) for core in range(4)], "DRAM", "f16", 9.4, 0.05),
        ([Agent("P", core) for core in range(4)], "DRAM", "s8", 19, 0.05),
        (M4_P_UNIT, "L2", "f32", 4.5, 0.02),
        (M4_P_UNIT, "L2", "s8", 9, 0.02),
    ],
)
def test_ridge_points_of_the_m4(
    agents: list[Agent], level: str, dtype: str, ridge: float, tolerance: float
) -> None:
    roof = Roofline(library.load("apple-m4"), agents, level)
    assert roof.ridge_flop_per_byte(dtype) == pytest.approx(ridge, rel=tolerance)


@pytest.mark.parametrize(("dtype", "gain"), [("f32", 1.24), ("f16", 1.47), ("s8", 1.47)])
def test_what_four_cores_add_to_an_m4_p_unit(dtype: str, gain: float) -> None:
    """Upper bound of a cooperative split, compute only: (unit + 4 P cores) / unit."""
    chip = library.load("apple-m4")
    unit = Roofline(chip, M4_P_UNIT).peak_flop_per_s(dtype)
    both = Roofline(chip, [*M4_P_UNIT, *core_agents(chip, ["P"])]).peak_flop_per_s(dtype)
    assert both / unit == pytest.approx(gain, rel=0.01)


def test_the_phone_has_one_unit_that_every_core_may_drive() -> None:
    chip = library.load("phone-d9500")
    (unit,) = chip.unit_instances
    assert unit.cores == tuple(range(8))
    rate = unit.unit.flop_per_s["s8"]
    assert (rate.low, rate.value, rate.high) == (1800e9, 2250e9, 4300e9)
    # A k-step of the products here takes 8.0 cycles (tools/cycles.py): four outer products of words of 4 bytes.
    side, clock = unit.unit.svl_bits // 32, unit.unit.clock_hz.value
    for dtype, in_a_word in (("f32", 1), ("bf16", 2), ("f16", 2), ("s8", 4)):
        assert unit.unit.flop_per_s[dtype].value == pytest.approx(4 * 2 * side**2 * in_a_word / 8 * clock, rel=0.01)


def peak_flop_per_s(chip: Chip, dtype: str) -> float:
    return Roofline(chip, matrix_unit_agents(chip)).peak_flop_per_s(dtype)


def test_the_units_of_the_lx2_add_up_to_its_data_sheet() -> None:
    """Published chip peaks: 120.6 TF FP32, 240 TF BF16, 960 TOPS INT8 over 304 cores."""
    chip = library.load("server-lx2")
    assert chip.core_count == len(chip.unit_instances) == 304
    assert peak_flop_per_s(chip, "f32") == pytest.approx(120.6e12, rel=0.01)
    assert peak_flop_per_s(chip, "bf16") == pytest.approx(240e12, rel=0.01)
    assert peak_flop_per_s(chip, "s8") == pytest.approx(960e12, rel=0.01)


def test_intel_amx_has_no_f32() -> None:
    chip = library.load("server-spr-amx")
    assert set(chip.unit_instances[0].unit.flop_per_s) == {"bf16", "s8"}
    assert chip.unit_instances[31].cores == (31,)


def test_the_knee_of_one_thread_on_the_m1() -> None:
    """Published for AMX on an M1: 645 GFLOP/s from one thread with loads, a knee near 15 FLOP per byte."""
    roof = Roofline(library.load("apple-m1"), [Agent("P", 0, "P.amx0")])
    assert roof.peak_flop_per_s("f32") == pytest.approx(645e9, rel=0.02)
    assert roof.ridge_flop_per_byte("f32") == pytest.approx(15, rel=0.05)
