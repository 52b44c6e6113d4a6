"""The network of shared links: which links a flow crosses, and what one agent can draw alone."""

from __future__ import annotations

from typing import Any

import pytest

from smesim.hwmodel.chip import Chip
from smesim.hwmodel.links import Agent, Link, LinkNetwork, Route


def test_every_shared_bandwidth_is_a_link(small: Chip) -> None:
    assert set(LinkNetwork(small).links) == {
        Link("big0.sme0.DRAM", 50e9),
        Link("big0.sme0.port", 300e9),
        Link("big1.sme0.DRAM", 50e9),
        Link("big1.sme0.port", 300e9),
        Link("big0.L2", 320e9),
        Link("big1.L2", 320e9),
        Link("L3", 120e9),
        Link("DRAM", 90e9),
    }


def test_dram_is_the_last_link(small: Chip) -> None:
    assert LinkNetwork(small).links[-1].name == "DRAM"


@pytest.mark.parametrize(
    ("core", "unit", "level", "expected"),
    [
        (0, None, "L1", Route(150e9, ())),
        (0, None, "L2", Route(100e9, ("big0.L2",))),
        (3, None, "L2", Route(100e9, ("big1.L2",))),
        (0, None, "L3", Route(30e9, ("L3",))),  # no figure for L3: the core's DRAM rate
        (0, None, "DRAM", Route(30e9, ("DRAM",))),
        (4, None, "L3", Route(10e9, ("L3",))),
        (0, 0, "L1", Route(200e9, ("big0.sme0.port", "big0.L2"))),  # the unit has no L1
        (1, 0, "L2", Route(200e9, ("big0.sme0.port", "big0.L2"))),
        (2, 1, "DRAM", Route(40e9, ("big1.sme0.DRAM", "big1.sme0.port", "DRAM"))),
    ],
)
def test_routes(small: Chip, core: int, unit: int | None, level: str, expected: Route) -> None:
    network = LinkNetwork(small)
    assert network.route(network.agent(core, unit), level) == expected


def test_stores_of_a_unit_have_their_own_cap(small: Chip) -> None:
    network = LinkNetwork(small)
    driver = network.agent(0, 0)
    assert network.route(driver, "DRAM").cap_bytes_per_s == 40e9
    assert network.route(driver, "DRAM", store=True).cap_bytes_per_s == 20e9
    assert network.route(driver, "DRAM", store=True).links == network.route(driver, "DRAM").links
    core = network.agent(0)
    assert network.route(core, "DRAM", store=True) == network.route(core, "DRAM")


def test_a_cache_without_a_known_total_is_no_link(small_data: dict[str, Any]) -> None:
    del small_data["caches"][1]["bandwidth_bytes_per_s"]
    network = LinkNetwork(Chip.model_validate(small_data))
    assert network.route(network.agent(0), "L2") == Route(100e9, ())
    assert network.route(network.agent(0, 0), "L2").links == ("big0.sme0.port",)


def test_agents_that_do_not_exist_are_refused(small: Chip) -> None:
    network = LinkNetwork(small)
    assert network.agent(2, 1) == Agent("big1", 2, "big1.sme0")
    with pytest.raises(IndexError, match="core 9"):
        network.agent(9)
    with pytest.raises(IndexError, match="unit 2 of small: it has 2 units"):
        network.agent(0, 2)
    with pytest.raises(ValueError, match=r"core 4 cannot drive big0\.sme0; accepted: 0, 1"):
        network.agent(4, 0)
    with pytest.raises(KeyError, match="level 'L2' of cluster little: accepted L3, DRAM"):
        network.route(network.agent(4), "L2")
