"""Textbook results for shared links and queues, written without looking at the simulator.

Sources: L. Kleinrock, Queueing Systems, volumes 1 (M/D/1, Lindley's recursion) and 2 (processor sharing);
D. Bertsekas and R. Gallager, Data Networks, section 6.5.2 (the bottleneck condition of max-min fairness).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def processor_sharing_ends_s(sizes: Sequence[float], bandwidth: float) -> list[float]:
    """When each of several jobs ends that start at 0 and share one link equally.

    In order of size, job k ends after sum over j <= k of (size_j - size_{j-1}) * (jobs left) / bandwidth.
    """
    ends = [0.0] * len(sizes)
    now, served = 0.0, 0.0
    by_size = sorted(range(len(sizes)), key=lambda job: sizes[job])
    for rank, job in enumerate(by_size):
        now += (sizes[job] - served) * (len(sizes) - rank) / bandwidth
        served = sizes[job]
        ends[job] = now
    return ends


def md1_mean_wait_s(load: float, service_s: float) -> float:
    """Mean time in the queue before service, Poisson arrivals, constant service, one server
    (Pollaczek-Khinchine)."""
    return load * service_s / (2 * (1 - load))


def mg1_processor_sharing_mean_sojourn_s(load: float, service_s: float) -> float:
    """Mean time in an M/G/1 processor-sharing system; it depends on the mean of the service time alone."""
    return service_s / (1 - load)


def lindley_waits_s(gaps_s: Sequence[float], service_s: float) -> list[float]:
    """Wait of each customer of a first-come queue; gaps_s[i] separates customers i and i + 1."""
    waits = [0.0]
    for gap in gaps_s:
        waits.append(max(0.0, waits[-1] + service_s - gap))
    return waits


def why_not_max_min_fair(
    rates: Sequence[float],
    paths: Sequence[tuple[str, ...]],
    caps: Sequence[float],
    capacities: Mapping[str, float],
    tolerance: float = 1e-9,
) -> str | None:
    """None if the rates are feasible and every flow below its cap has a bottleneck, else the first violation.

    A bottleneck of a flow is a full link on which no other flow has a higher rate. Rates are max-min fair
    exactly when every flow is at its cap or has one.
    """
    load = {link: sum(rate for rate, path in zip(rates, paths, strict=True) if link in path) for link in capacities}
    for link, capacity in capacities.items():
        if load[link] > capacity * (1 + tolerance):
            return f"{link} carries {load[link]} of {capacity}"
    for flow, (rate, path, cap) in enumerate(zip(rates, paths, caps, strict=True)):
        if rate > cap * (1 + tolerance):
            return f"flow {flow} has {rate}, above its cap {cap}"
        if rate >= cap * (1 - tolerance):
            continue
        bottleneck = any(
            load[link] >= capacities[link] * (1 - tolerance)
            and all(r <= rate * (1 + tolerance) for r, p in zip(rates, paths, strict=True) if link in p)
            for link in path
        )
        if not bottleneck:
            return f"flow {flow} at {rate} of {cap} could get more without taking from a smaller one"
    return None
