"""Who gets how much of links that several flows share: max-min fairness.

Raise all rates together until a link is full or a flow reaches its own cap, freeze those flows, go on with the rest
(progressive filling, Bertsekas and Gallager, Data Networks, section 6.5.2). In the result no flow can get more without
taking from one that has no more than it has.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from operator import itemgetter

Path = tuple[str, ...]
"""Names of the links that a flow crosses."""


def max_min_rates(
    paths: Sequence[Path], caps: Sequence[float], capacities: Mapping[str, float], counts: Sequence[int] | None = None
) -> list[float]:
    """The max-min fair rate of each flow, bytes per second.

    paths: the links that each flow crosses (none twice; an empty path is limited by its cap alone).
    caps: the most each flow can take. capacities: bytes per second of every link that a path names.
    counts: how many flows each entry stands for, all with its path, cap and rate; by default one.
    """
    many = [1] * len(paths) if counts is None else counts
    demand: dict[str, float] = {}
    for path, cap, count in zip(paths, caps, many, strict=True):
        for link in path:
            demand[link] = demand.get(link, 0.0) + count * cap
    # A link that could serve all caps at once limits nobody; only the others take part in the filling.
    left = {link: capacities[link] for link, wanted in demand.items() if wanted > capacities[link]}
    rates = list(caps)
    if not left:
        return rates

    waiting = dict.fromkeys(left, 0)  # flows on each contested link whose rate is still open
    rising: list[tuple[float, int, list[str]]] = []
    for flow, path in enumerate(paths):
        contested = [link for link in path if link in left]
        if contested:
            rising.append((caps[flow], flow, contested))
            for link in contested:
                waiting[link] += many[flow]
    rising.sort()
    while rising:
        shares = {link: left[link] / users for link, users in waiting.items() if users}
        level = min(shares.values())
        # Everybody gets at least `level` or all it wants: caps up to the level are final. Only when there is
        # none does the narrowest link bind.
        if rising[0][0] <= level:
            content = bisect_right(rising, level, key=itemgetter(0))
            frozen, rising = rising[:content], rising[content:]
        else:
            narrowest = {link for link, share in shares.items() if share == level}
            frozen = [item for item in rising if not narrowest.isdisjoint(item[2])]
            rising = [item for item in rising if narrowest.isdisjoint(item[2])]
            for _, flow, _ in frozen:
                rates[flow] = level
        for _, flow, contested in frozen:
            for link in contested:
                left[link] -= many[flow] * rates[flow]
                waiting[link] -= many[flow]
    return rates
