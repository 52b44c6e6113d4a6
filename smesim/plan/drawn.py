"""Who takes part in tasks that whoever is free draws, and when the last of them ends.

Agents are told apart by their kind: `alone_s` is what one of each would take for all tasks, fastest first, and `counts`
how many of each there are. The answer says how many of each kind draw.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from math import ceil

from smesim.plan.split import ROUNDING


def drawn(
    alone_s: Mapping[str, float], counts: Mapping[str, int], tasks: int, longest: float = 1.0
) -> tuple[dict[str, int], float]:
    """Of many tasks, one of which is the `longest`, as a multiple of their mean: speeds add up, of those fast enough.

    Who needs longer for a task than the others for all that is left would be waited for, and is left out. Those that
    are as fast as the others take part as far as there are tasks for them.
    """
    team: dict[str, int] = {}
    speed, seconds = 0.0, float("inf")
    for kind, one_s in alone_s.items():
        task_s = one_s * longest / tasks
        if task_s >= seconds:
            break
        useful = max(1, ceil((tasks / one_s - speed) * one_s * (1 - ROUNDING)))
        team[kind] = min(useful, counts[kind])
        speed += team[kind] / one_s
        seconds = max(1 / speed, min(task_s, one_s))
    return team, seconds


def drawn_alike(alone_s: Mapping[str, float], counts: Mapping[str, int], tasks: int) -> tuple[dict[str, int], float]:
    """Of tasks of one size: the fastest kind alone, or with the next as well where that is worth waiting for the slow
    one that draws last."""
    team: dict[str, int] = {}
    best, best_s = team, float("inf")
    task_s: list[tuple[float, int]] = []
    for kind, one_s in alone_s.items():
        left = tasks - sum(team.values())
        if left == 0:
            break
        team = team | {kind: min(left, counts[kind])}
        task_s.append((one_s / tasks, team[kind]))
        seconds = drawn_s(task_s, tasks)
        if seconds < best_s:
            best, best_s = team, seconds
    return best, best_s


def drawn_s(task_s: Sequence[tuple[float, int]], tasks: int) -> float:
    """When the last of so many tasks ends that workers draw from a queue, each as soon as it is free; `task_s` is what
    each worker of a kind takes for a task, and how many there are. The first kind in line draws first."""
    if len(task_s) == 1:
        one_s, count = task_s[0]
        return -(-tasks // count) * one_s
    free = [(0.0, kind) for kind in range(len(task_s))]
    last_s = 0.0
    while tasks > 0:
        at_s, kind = heapq.heappop(free)
        end_s = at_s + task_s[kind][0]
        tasks -= task_s[kind][1]
        last_s = max(last_s, end_s)
        heapq.heappush(free, (end_s, kind))
    return last_s
