"""How a product's columns are divided among agents of different speed, in whole panels.

The work of each agent grows in steps: a core takes panel by panel, a matrix unit a block of panels at a time, and
nobody is faster for taking less than a step. The best division is the one in which the last to end ends earliest; it
is found by asking how many panels all can take together until a time, and going on from step to step.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

ROUNDING = 1e-9


class Share(NamedTuple):
    """One that takes part: seconds for a step, above 0, and panels in a step."""

    step_s: float
    granule: int = 1

    def seconds(self, panels: int) -> float:
        return -(-panels // self.granule) * self.step_s


def divide(shares: Sequence[Share], panels: int, counts: Sequence[int] | None = None) -> tuple[list[list[int]], float]:
    """Panels of all that take part, which add up to `panels`, and when the last of them ends.

    `shares` must not be empty, and are all different if `counts` say how many of each take part; by default one. Who
    of those that are alike gets less than the others comes first. Whoever is too slow to take even one step in that
    time gets nothing.
    """
    many = [1] * len(shares) if counts is None else counts
    kinds = [(share.step_s, share.granule, count) for share, count in zip(shares, many, strict=True)]
    # If steps could be divided all would end at once, and nobody ends earlier; from there step by step.
    at_once_s = panels / sum([count * granule / step_s for step_s, granule, count in kinds])
    end_s = at_once_s * (1 - ROUNDING)
    steps = [int(end_s / step_s) for step_s, _, _ in kinds]
    while sum([min(n * granule, panels) * count for n, (_, granule, count) in zip(steps, kinds, strict=True)]) < panels:
        end_s = min([(n + 1) * step_s for n, (step_s, _, _) in zip(steps, kinds, strict=True)])
        steps = [int(end_s / step_s * (1 + ROUNDING)) for step_s, _, _ in kinds]
    most = [min(n * share.granule, panels) for n, share in zip(steps, shares, strict=True)]
    surplus = sum(n * count for n, count in zip(most, many, strict=True)) - panels
    # Of each share those that take as much as each other: (when they end, share, panels of each, how many).
    lots = [(-share.seconds(n), i, n, many[i]) for i, (share, n) in enumerate(zip(shares, most, strict=True)) if n]
    heapq.heapify(lots)
    while surplus > 0:  # what is too much goes back where it saves most: from those that would end last
        _, i, n, count = heapq.heappop(lots)
        back = min(surplus, shares[i].granule, n)
        giving = min(count, surplus // back)
        surplus -= giving * back
        for left, of_them in ((n - back, giving), (n, count - giving)):
            if left and of_them:
                heapq.heappush(lots, (-shares[i].seconds(left), i, left, of_them))
    taken: list[list[int]] = [[] for _ in shares]
    for _, i, n, count in sorted(lots, key=lambda lot: lot[2]):
        taken[i] += [n] * count
    return [[0] * (count - len(lot)) + lot for lot, count in zip(taken, many, strict=True)], -lots[0][0]
