"""The fluid network against closed forms, and the properties that any sharing must have (invariants 3 and
4)."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Generator

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from smesim.errors import ChipError, ProgramError
from smesim.hwmodel.sharing import max_min_rates
from smesim.sim.fluid import FluidNetwork
from tests.oracles.closed_forms import (
    lindley_waits_s,
    md1_mean_wait_s,
    mg1_processor_sharing_mean_sojourn_s,
    processor_sharing_ends_s,
    why_not_max_min_fair,
)

LINKS = ("core0", "core1", "l2", "slc", "dram")
Start = tuple[float, tuple[str, ...], float, float]  # at, path, bytes, cap

paths = st.lists(st.sampled_from(LINKS), unique=True, max_size=4).map(tuple)
bandwidths = st.floats(1e6, 1e12)
capacities = st.fixed_dictionaries(dict.fromkeys(LINKS, bandwidths))
caps = st.one_of(st.just(math.inf), bandwidths)
flows = st.lists(st.tuples(paths, caps), min_size=1, max_size=12)
starts = st.lists(
    st.tuples(st.sampled_from([0.0, 1e-5, 0.5, 1.25]), paths.filter(bool), st.floats(0, 1e9), caps),
    min_size=1,
    max_size=12,
)


class Run:
    """Transfers started at given times: when each ended, and what the links were seen to grant."""

    def __init__(self, links: dict[str, float], starts: list[Start], *, contention: bool = True) -> None:
        self.grants: list[tuple[float, dict[str, float]]] = []
        self.ends: list[float] = [math.nan] * len(starts)
        self.links = links
        self._env = simpy.Environment()
        self._network = FluidNetwork(self._env, links, contention=contention, observer=self._granted)
        for index, start in enumerate(starts):
            self._env.process(self._one(index, *start))
        self._env.run()
        self.flows_left = self._network.flows

    def _one(
        self, index: int, at: float, path: tuple[str, ...], n_bytes: float, cap: float
    ) -> Generator[simpy.Event, None, None]:
        yield self._env.timeout(at)
        yield self._network.transfer(path, n_bytes, cap)
        self.ends[index] = self._env.now

    def _granted(self, now: float, granted: tuple[float, ...]) -> None:
        self.grants.append((now, dict(zip(self.links, granted, strict=True))))

    def bytes_over(self, link: str) -> float:
        """Integral of what the link granted."""
        ends = [now for now, _ in self.grants[1:]]
        return sum(granted[link] * (end - now) for (now, granted), end in zip(self.grants[:-1], ends, strict=True))


def test_the_second_transfer_slows_the_first() -> None:
    run = Run({"dram": 120e9}, [(0.0, ("dram",), 12e9, math.inf), (0.020, ("dram",), 6e9, math.inf)])
    assert run.ends == pytest.approx([0.150, 0.120], rel=1e-11)


def test_grants_are_piecewise_constant_and_end_at_zero() -> None:
    run = Run({"dram": 100.0, "l2": 400.0}, [(0.0, ("dram", "l2"), 100.0, 50.0), (1.0, ("l2",), 300.0, 300.0)])
    assert run.grants == [
        (0.0, {"dram": 50.0, "l2": 50.0}),
        (1.0, {"dram": 50.0, "l2": 350.0}),
        (2.0, {"dram": 0.0, "l2": 0.0}),
    ]


def test_a_capped_flow_leaves_the_rest_to_others() -> None:
    assert max_min_rates([("dram",)] * 3, [10.0, math.inf, math.inf], {"dram": 100.0}) == [10.0, 45.0, 45.0]


def test_a_bottleneck_elsewhere_leaves_the_rest_to_others() -> None:
    # Textbook case: two flows on a narrow link, one of them also on a wide one with a third flow.
    rates = max_min_rates([("a",), ("a", "b"), ("b",)], [math.inf] * 3, {"a": 10.0, "b": 30.0})
    assert rates == [5.0, 5.0, 25.0]


def test_links_that_suffice_limit_nobody() -> None:
    assert max_min_rates([("a",), ("a", "b"), ()], [3.0, 4.0, 5.0], {"a": 7.0, "b": 4.0}) == [3.0, 4.0, 5.0]


@given(flows, capacities)
def test_rates_are_max_min_fair(flows: list[tuple[tuple[str, ...], float]], capacities: dict[str, float]) -> None:
    flow_paths, flow_caps = [path for path, _ in flows], [cap for _, cap in flows]
    rates = max_min_rates(flow_paths, flow_caps, capacities)
    assert why_not_max_min_fair(rates, flow_paths, flow_caps, capacities) is None


@given(flows, capacities, st.randoms(use_true_random=False))
def test_rates_do_not_depend_on_the_order_of_flows(
    flows: list[tuple[tuple[str, ...], float]], capacities: dict[str, float], shuffler: random.Random
) -> None:
    order = list(range(len(flows)))
    shuffler.shuffle(order)
    plain = max_min_rates([p for p, _ in flows], [c for _, c in flows], capacities)
    mixed = max_min_rates([flows[i][0] for i in order], [flows[i][1] for i in order], capacities)
    assert mixed == pytest.approx([plain[i] for i in order], rel=1e-12)


@given(capacities, starts)
def test_all_bytes_arrive_and_no_link_carries_more_than_it_has(
    capacities: dict[str, float], starts: list[Start]
) -> None:
    run = Run(capacities, starts)
    assert run.flows_left == 0
    for link, capacity in capacities.items():
        wanted = sum(n_bytes for _, path, n_bytes, _ in starts if link in path)
        # Each flow's end is rounded to a tick of 1.1e-13 s: at most that long at full rate.
        assert run.bytes_over(link) == pytest.approx(wanted, rel=1e-9, abs=1e-12 * capacity * len(starts))
        assert all(granted[link] <= capacity * (1 + 1e-12) for _, granted in run.grants)


@given(capacities, starts)
def test_no_flow_is_faster_than_alone_and_alone_means_its_narrowest_link(
    capacities: dict[str, float], starts: list[Start]
) -> None:
    shared, alone = Run(capacities, starts), Run(capacities, starts, contention=False)
    for (at, path, n_bytes, cap), end, end_alone in zip(starts, shared.ends, alone.ends, strict=True):
        narrowest = min([cap, *(capacities[link] for link in path)])
        assert end_alone == pytest.approx(at + n_bytes / narrowest, rel=1e-12, abs=1e-12)
        assert end >= at + n_bytes / narrowest - 1e-12 * max(1.0, end)


@given(capacities, starts)
def test_the_same_transfers_give_the_same_times_bit_for_bit(capacities: dict[str, float], starts: list[Start]) -> None:
    first, second = Run(capacities, starts), Run(capacities, starts)
    assert first.ends == second.ends
    assert first.grants == second.grants


@given(st.lists(st.floats(1.0, 1e9), min_size=1, max_size=16), st.floats(1e6, 1e12))
def test_one_link_is_work_conserving_processor_sharing(sizes: list[float], bandwidth: float) -> None:
    run = Run({"dram": bandwidth}, [(0.0, ("dram",), size, math.inf) for size in sizes])
    assert run.ends == pytest.approx(processor_sharing_ends_s(sizes, bandwidth), rel=1e-9, abs=1e-11)
    assert max(run.ends) == pytest.approx(sum(sizes) / bandwidth, rel=1e-9, abs=1e-11)
    assert all(granted["dram"] == pytest.approx(bandwidth) for _, granted in run.grants[:-1])


@given(paths.filter(bool), capacities, st.integers(2, 16), st.floats(1.0, 1e9), caps)
def test_equal_flows_end_together(
    path: tuple[str, ...], capacities: dict[str, float], count: int, n_bytes: float, cap: float
) -> None:
    run = Run(capacities, [(0.25, path, n_bytes, cap)] * count)
    assert len(set(run.ends)) == 1


def test_nothing_to_move_and_nothing_to_wait_for_end_at_once() -> None:
    run = Run({"dram": 1.0}, [(1.0, ("dram",), 0.0, math.inf), (1.0, (), 1e9, math.inf), (1.0, (), 3.0, 2.0)])
    assert run.ends == [1.0, 1.0, 2.5]


def test_sizes_twenty_orders_apart_still_end() -> None:
    run = Run({"dram": 1e9}, [(0.0, ("dram",), size, math.inf) for size in (1e-9, 1.0, 1e11)])
    assert run.ends[0] < run.ends[1] < run.ends[2]
    assert run.ends[2] == pytest.approx(100.0, rel=1e-8)


def test_constant_transfers_one_at_a_time_are_an_md1_queue() -> None:
    service_s, load, customers = 1e-3, 0.6, 20_000
    generator = random.Random(20260801)
    gaps_s = [generator.expovariate(load / service_s) for _ in range(customers - 1)]
    env = simpy.Environment()
    network = FluidNetwork(env, {"dram": 1e9})
    server = simpy.Resource(env)
    waits_s: list[float] = []

    def customer() -> Generator[simpy.Event, None, None]:
        arrived = env.now
        with server.request() as turn:
            yield turn
            waits_s.append(env.now - arrived)
            yield network.transfer(("dram",), 1e9 * service_s)

    def arrivals() -> Generator[simpy.Event, None, None]:
        env.process(customer())
        for gap in gaps_s:
            yield env.timeout(gap)
            env.process(customer())

    env.process(arrivals())
    env.run()
    assert waits_s == pytest.approx(lindley_waits_s(gaps_s, service_s), abs=1e-8)
    batches = [statistics.fmean(waits_s[i : i + 1000]) for i in range(0, customers, 1000)]
    standard_error = statistics.stdev(batches) / math.sqrt(len(batches))
    assert abs(statistics.fmean(waits_s) - md1_mean_wait_s(load, service_s)) < 3 * standard_error
    assert standard_error < 0.1 * md1_mean_wait_s(load, service_s)


def test_poisson_transfers_on_one_link_are_a_processor_sharing_queue() -> None:
    service_s, load, customers = 1e-3, 0.5, 10_000
    generator = random.Random(7)
    starts: list[Start] = []
    now = 0.0
    for _ in range(customers):
        now += generator.expovariate(load / service_s)
        starts.append((now, ("dram",), 1e9 * service_s * generator.choice([0.5, 1.5]), math.inf))
    run = Run({"dram": 1e9}, starts)
    sojourns_s = [end - at for end, (at, *_) in zip(run.ends, starts, strict=True)]
    batches = [statistics.fmean(sojourns_s[i : i + 500]) for i in range(0, customers, 500)]
    standard_error = statistics.stdev(batches) / math.sqrt(len(batches))
    expected_s = mg1_processor_sharing_mean_sojourn_s(load, service_s)
    assert abs(statistics.fmean(sojourns_s) - expected_s) < 3 * standard_error
    assert standard_error < 0.1 * expected_s


@pytest.mark.parametrize(
    ("path", "n_bytes", "cap", "words"),
    [
        (("hbm",), 1.0, 1.0, "unknown link 'hbm'; there are dram, l2"),
        (("l2", "l2"), 1.0, 1.0, "crosses a link twice: l2 -> l2"),
        (("l2",), -1.0, 1.0, "transfer of -1.0 bytes"),
        (("l2",), math.nan, 1.0, "transfer of nan bytes"),
        (("l2",), math.inf, 1.0, "transfer of inf bytes"),
        (("l2",), 1.0, 0.0, "a cap of 0.0 bytes/s"),
        (("l2",), 1.0, math.nan, "a cap of nan bytes/s"),
    ],
)
def test_a_senseless_transfer_is_refused(path: tuple[str, ...], n_bytes: float, cap: float, words: str) -> None:
    network = FluidNetwork(simpy.Environment(), {"dram": 1.0, "l2": 1.0})
    with pytest.raises(ProgramError, match=words):
        network.transfer(path, n_bytes, cap)


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, math.nan])
def test_a_link_needs_bandwidth(bandwidth: float) -> None:
    with pytest.raises(ChipError, match=r"link 'dram' has .* accepted: a number above 0"):
        FluidNetwork(simpy.Environment(), {"dram": bandwidth})
