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


def divide(shares: Sequence[Share], panels: int) -> tuple[list[int], float]:
    """Panels of each that takes part, which add up to `panels`, and when the last of them ends.

    `shares` must not be empty. Whoever is too slow to take even one step in that time gets nothing.
    """
    counts = dict.fromkeys(shares, 0)
    for share in shares:
        counts[share] += 1
    kinds = [(step_s, granule, count) for (step_s, granule), count in counts.items()]
    # If steps could be divided all would end at once, and nobody ends earlier; from there step by step.
    at_once_s = panels / sum([count * granule / step_s for step_s, granule, count in kinds])
    end_s = at_once_s * (1 - ROUNDING)
    steps = [int(end_s / step_s) for step_s, _, _ in kinds]
    while sum([min(n * granule, panels) * count for n, (_, granule, count) in zip(steps, kinds, strict=True)]) < panels:
        end_s = min([(n + 1) * step_s for n, (step_s, _, _) in zip(steps, kinds, strict=True)])
        steps = [int(end_s / step_s * (1 + ROUNDING)) for step_s, _, _ in kinds]
    most = {share: min(n * share.granule, panels) for share, n in zip(counts, steps, strict=True)}
    taken = [most[share] for share in shares]
    surplus = sum(taken) - panels
    last_s = {share: share.seconds(n) for share, n in most.items()}
    ends = [(-last_s[share], i) for i, share in enumerate(shares) if most[share]]
    heapq.heapify(ends)
    while surplus > 0:  # what is too much goes back where it saves most: from those that would end last
        slowest = ends[0][1]
        step_s, granule = shares[slowest]
        left = taken[slowest]
        back = min(surplus, granule, left)
        surplus -= back
        taken[slowest] = left = left - back
        if left:
            heapq.heapreplace(ends, (-(-(-left // granule) * step_s), slowest))
        else:
            heapq.heappop(ends)
    return taken, -ends[0][0]
