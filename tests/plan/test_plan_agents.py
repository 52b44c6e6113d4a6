"""Agents that are alike are counted, which says the same as looking at each of them."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smesim.hwmodel import library
from smesim.hwmodel.links import LinkNetwork
from smesim.hwmodel.sharing import max_min_rates
from smesim.plan.agents import Agents, agents_of, on_cores, streamed_bytes_per_s, streaming_rates
from smesim.plan.drawn import drawn_s
from smesim.plan.formats import product_format
from smesim.plan.teams import both_workers
from smesim.workload.dtypes import DType

CHIPS = {name: library.load(name) for name in ("apple-m4-pro", "server-lx2")}
ALL = [
    (LinkNetwork.of(chip), agents(chip, both_workers(chip, None), product_format(DType.F32)))
    for chip in CHIPS.values()
    for agents in (agents_of, on_cores)
]


@given(st.sampled_from(ALL), st.data())
def test_some_of_the_agents_are_grouped_as_if_there_were_no_others(
    of: tuple[LinkNetwork, Agents], data: st.DataObject
) -> None:
    network, agents = of
    places = sorted(data.draw(st.sets(st.integers(0, len(agents) - 1), min_size=1)))
    some, alone = agents.at(places), Agents(agents[place] for place in places)
    assert some == alone
    assert some.groups == alone.groups
    assert sorted(place for _, group in some.groups for place in group) == list(range(len(places)))
    assert sum(some.counts.values()) == len(places)
    capacities = {link.name: link.bandwidth_bytes_per_s for link in network.links}
    rates = max_min_rates([a.path for a in some], [a.cap_bytes_per_s for a in some], capacities)
    of_groups = streaming_rates(network, some)
    for (_, group), rate in zip(some.groups, of_groups, strict=True):
        assert [rates[place] for place in group] == pytest.approx([rate] * len(group))
    assert streamed_bytes_per_s(network, some) == pytest.approx(sum(rates))


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4)), min_size=1, max_size=3), st.integers(1, 40))
def test_tasks_that_are_drawn_end_as_if_each_worker_drew_them(kinds: list[tuple[int, int]], tasks: int) -> None:
    kinds = sorted(kinds)
    free = [(0, worker) for worker in range(sum(count for _, count in kinds))]
    task_s = [one_s for one_s, count in kinds for _ in range(count)]
    last_s = 0
    for _ in range(tasks):
        at_s, worker = heapq.heappop(free)
        last_s = max(last_s, at_s + task_s[worker])
        heapq.heappush(free, (at_s + task_s[worker], worker))
    assert drawn_s([(float(one_s), count) for one_s, count in kinds], tasks) == last_s
