"""The roofline against closed forms on a chip of round figures."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_chip import quantity, small_chip_data

from smesim.errors import ChipError
from smesim.hwmodel.chip import Chip
from smesim.hwmodel.links import Agent
from smesim.hwmodel.roofline import (
    Demand,
    OperatorPoint,
    Roofline,
    cooperative_agents,
    core_agents,
    matrix_unit_agents,
)

SMALL = Chip.model_validate(small_chip_data())
CORE = Agent("big0", 0)
DRIVER = Agent("big0", 0, "big0.sme0")
SECOND_DRIVER = Agent("big0", 1, "big0.sme0")


def test_sets_of_agents(small: Chip) -> None:
    assert [a.core for a in core_agents(small)] == [0, 1, 2, 3, 4]
    assert core_agents(small, ["little"]) == (Agent("little", 4),)
    assert matrix_unit_agents(small) == (DRIVER, Agent("big1", 2, "big1.sme0"))
    assert cooperative_agents(small) == (
        *matrix_unit_agents(small),
        *core_agents(small)[1::2],
        Agent("little", 4),
    )


@pytest.mark.parametrize(
    ("agents", "dtype", "peak", "bandwidth"),
    [
        ((CORE,), "f32", 100e9, 30e9),
        ((CORE, CORE), "f32", 100e9, 30e9),  # a set: named twice is there once
        ((CORE,), "f16", 200e9, 30e9),
        ((DRIVER,), "f32", 1000e9, 40e9),
        ((DRIVER, SECOND_DRIVER), "f32", 1000e9, 50e9),  # no more FLOP, more DRAM, up to the unit's cap
        ((DRIVER, Agent("big0", 1)), "f32", 1100e9, 70e9),
        ((DRIVER, Agent("big0", 1)), "s8", 4000e9, 40e9),  # the core has no s8 rate: it takes no part
        (core_agents(SMALL), "f32", 430e9, 90e9),  # 4 x 30 + 10 GB/s wanted, DRAM gives 90
        (cooperative_agents(SMALL), "f32", 2230e9, 90e9),
    ],
)
def test_peak_bandwidth_and_ridge(
    agents: tuple[Agent, ...], dtype: str, peak: float, bandwidth: float
) -> None:
    roof = Roofline(SMALL, agents)
    assert roof.peak_flop_per_s(dtype) == peak
    assert roof.bandwidth_bytes_per_s(dtype) == bandwidth
    assert roof.ridge_flop_per_byte(dtype) == peak / bandwidth
    assert roof.attainable_flop_per_s(dtype, inf) == peak


@pytest.mark.parametrize(("intensity", "expected"), [(1.0, 70e9), (10.0, 500e9), (25.0, 1100e9)])
def test_work_is_divided_as_each_agent_can_take_it(intensity: float, expected: float) -> None:
    """At 10 FLOP/B the unit still waits for its 40 GB/s while the core has reached its 100 GFLOP/s."""
    roof = Roofline(SMALL, (DRIVER, Agent("big0", 1)))
    assert roof.attainable_flop_per_s("f32", intensity) == expected


def test_each_cluster_has_its_own_cache_link(small: Chip) -> None:
    two_clusters = tuple(Agent(f"big{i // 4}", i // 2, f"big{i // 4}.sme0") for i in range(0, 8, 2))
    assert Roofline(small, two_clusters[:2], "L2").bandwidth_bytes_per_s("f32") == 300e9
    assert Roofline(small, two_clusters, "L2").bandwidth_bytes_per_s("f32") == 600e9


def test_a_unit_that_wants_two_drivers_is_half_used_by_one(small_data: dict[str, Any]) -> None:
    small_data["clusters"][0]["matrix_units"][0]["useful_drivers"] = quantity(2, "threads")
    chip = Chip.model_validate(small_data)
    assert Roofline(chip, [DRIVER]).peak_flop_per_s("f32") == 500e9
    assert matrix_unit_agents(chip, ["big"])[:2] == (DRIVER, SECOND_DRIVER)
    assert Roofline(chip, matrix_unit_agents(chip)).peak_flop_per_s("f32") == 2000e9


def test_a_core_drives_one_unit_at_a_time(small_data: dict[str, Any]) -> None:
    small_data["clusters"][0]["matrix_units"][0]["count"] = 3
    driving = matrix_unit_agents(Chip.model_validate(small_data))
    assert driving == (
        Agent("big0", 0, "big0.sme0"),
        Agent("big0", 1, "big0.sme1"),
        Agent("big1", 2, "big1.sme0"),
        Agent("big1", 3, "big1.sme1"),
    )


def test_operator_points() -> None:
    roof = Roofline(SMALL, (DRIVER,))  # 1000 GFLOP/s, 40 GB/s, ridge 25
    prefill, decode, copy, resident = roof.points(
        [
            Demand("prefill", "f32", flop=1e12, n_bytes=1e9),
            Demand("decode", "f32", flop=2e9, n_bytes=4e9),
            Demand("copy", "f32", flop=0.0, n_bytes=4e9),
            Demand("resident", "f32", flop=1e12, n_bytes=0.0),
        ]
    )
    assert prefill == OperatorPoint("prefill", 1000.0, 1000e9, 1.0, "compute")
    assert decode == OperatorPoint("decode", 0.5, 20e9, 0.1, "bandwidth")
    assert copy == OperatorPoint("copy", 0.0, 0.0, 0.1, "bandwidth")
    assert resident == OperatorPoint("resident", inf, 1000e9, 1.0, "compute")


def test_what_cannot_be_computed_is_refused(small: Chip) -> None:
    with pytest.raises(ChipError, match="roofline of small: no agents given"):
        Roofline(small, [])
    with pytest.raises(ChipError, match=r"dtype 'bf16' given.*accepted on this chip: f16, f32, s8"):
        Roofline(small, [CORE]).peak_flop_per_s("bf16")


every_agent = st.sets(
    st.sampled_from(core_agents(SMALL) + matrix_unit_agents(SMALL) + (SECOND_DRIVER,)), min_size=1
)


@given(agents=every_agent, intensity=st.floats(1e-3, 1e4), level=st.sampled_from(["L3", "DRAM"]))
def test_the_roof_bounds_every_rate(agents: set[Agent], intensity: float, level: str) -> None:
    roof = Roofline(SMALL, agents, level)
    rate = roof.attainable_flop_per_s("f32", intensity)
    assert 0.0 < rate <= roof.peak_flop_per_s("f32") * (1 + 1e-12)
    assert rate <= intensity * roof.bandwidth_bytes_per_s("f32") * (1 + 1e-12)


@given(agents=every_agent, more=every_agent, intensity=st.floats(1e-3, 1e4))
def test_more_agents_never_lower_the_roof(agents: set[Agent], more: set[Agent], intensity: float) -> None:
    fewer = Roofline(SMALL, agents).attainable_flop_per_s("f32", intensity)
    assert Roofline(SMALL, agents | more).attainable_flop_per_s("f32", intensity) >= fewer * (1 - 1e-12)
