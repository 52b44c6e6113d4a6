"""How a product's columns are divided among agents of different speed, in whole panels.

The work of each agent grows in steps: a core takes panel by panel, a matrix unit a block of panels at a time, and
nobody is faster for taking less than a step. The best division is the one in which the last to end ends earliest; it
is found by asking how many panels all can take together within a time, and narrowing that time down.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

STEPS_OF_BISECTION = 40
ROUNDING = 1e-9


class Share(NamedTuple):
    """One that takes part: seconds for a step, above 0, and panels in a step."""

    step_s: float
    granule: int = 1

    def seconds(self, panels: int) -> float:
        return -(-panels // self.granule) * self.step_s

    def within(self, limit_s: float, panels: int) -> int:
        """The most panels, up to `panels`, that take no longer than `limit_s`."""
        steps = int(limit_s / self.step_s * (1 + ROUNDING))
        return min(steps * self.granule, panels)


def divide(shares: Sequence[Share], panels: int) -> tuple[list[int], float]:
    """Panels of each that takes part, which add up to `panels`, and when the last of them ends.

    `shares` must not be empty. Whoever is too slow to take even one step in that time gets nothing.
    """
    alike = Counter(shares)
    kinds = [(share.step_s, share.granule, count) for share, count in alike.items()]
    # If steps could be divided all would end at once; as they cannot, nobody ends later than a step behind that.
    at_once = panels / sum(count * granule / step_s for step_s, granule, count in kinds)
    low, high = at_once * (1 - ROUNDING), min(share.seconds(panels) for share in alike)
    high = min(high, (at_once + max(share.step_s for share in alike)) * (1 + ROUNDING))
    # Steps that each kind can take within `low`, which is too little or just enough, and within `high`.
    fewest = [int(low / step_s) for step_s, _, _ in kinds]
    most_steps = [int(high / step_s * (1 + ROUNDING)) for step_s, _, _ in kinds]
    for _ in range(STEPS_OF_BISECTION):
        middle = (low + high) / 2
        together = 0
        steps = []
        for step_s, granule, count in kinds:  # `Share.within`, written out: it is asked so often
            taking = int(middle / step_s * (1 + ROUNDING))
            steps.append(taking)
            together += min(taking * granule, panels) * count
        if together >= panels:
            high, most_steps = middle, steps
        else:
            low, fewest = middle, steps
        if sum(most_steps) - sum(fewest) == 1:
            break  # nobody's last step lies between but the one without which it would be too little
    most = {share: share.within(high, panels) for share in alike}
    taken = [most[share] for share in shares]
    surplus = sum(taken) - panels
    end_s = {share: share.seconds(n) for share, n in most.items()}
    ends = [(-end_s[share], i) for i, share in enumerate(shares) if most[share]]
    heapq.heapify(ends)
    while surplus > 0:  # what is too much goes back where it saves most: from those that would end last
        slowest = heapq.heappop(ends)[1]
        back = min(surplus, shares[slowest].granule, taken[slowest])
        taken[slowest] -= back
        surplus -= back
        if taken[slowest]:
            heapq.heappush(ends, (-shares[slowest].seconds(taken[slowest]), slowest))
    return taken, -ends[0][0]
