"""Products cut into blocks for agents that are alike: how many blocks, how large, and when the last of them ends.

Where agents are few each takes many tiles, and it hardly matters how large these are. Of hundreds each takes a few, so
one more for some of them is a large part of the whole: a product of 128 experts in 24 steps of columns each is ten
tiles for everybody on 304 units and an eleventh for some, and in two blocks an expert one for most. The fewer the
blocks are, the less often rows are read beside them.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

from smesim.hwmodel.chip import Sync
from smesim.plan.agents import Agents
from smesim.plan.formats import ProductFormat
from smesim.plan.schema import Assignment
from smesim.plan.tiles import NR, experts_with_rows, rows_of_expert
from smesim.workload.operators import GroupedLinear, Linear

MOST_WAVES = 8
"""Blocks for each agent up to which a product is cut finer by rows, and experts by columns."""
WORTH_DRAWING = 0.03
"""Part of the time that drawing blocks of rows must be predicted to save: who has blocks of his own has their weights
near, and of finer ones weights are read more often from a cache, which the estimate leaves out."""
TICK_S = 1e-12


class Cut(NamedTuple):
    """Blocks of `width` panels by one of `row_parts` parts of the rows, who gets them, and seconds until all end."""

    seconds: float
    bound: str
    width: int
    row_parts: int = 1
    assignment: Assignment = "static"


class Ground(NamedTuple):
    """What blocks are weighed on: agents that are alike, whose strips are `mr` rows high, who draw so much from memory
    together; the format of the weights, and what it costs to hand out a block and to wait for the others."""

    agents: Agents
    mr: int
    streamed_bytes_per_s: float
    numbers: ProductFormat
    sync: Sync

    def rate(self, drawing: int) -> float:
        """Bytes per second that each of so many agents draws at once."""
        return min(self.agents[0].cap_bytes_per_s, self.streamed_bytes_per_s / min(drawing, len(self.agents)))


def experts_by_columns(operator: GroupedLinear, ground: Ground) -> Cut:
    """The columns of every expert in equal blocks, as many for each agent as for the others.

    Everybody has blocks of his own; when the last of them are not enough for all, those who have one draw faster.
    """
    one, count, sync = ground.agents[0], len(ground.agents), ground.sync
    experts, panels = experts_with_rows(operator), -(-operator.n // NR)
    rows = rows_of_expert(operator.m, experts, 0)
    granule = one.granule(rows)
    steps, step_s = -(-panels // granule), one.columns_s(rows, ground.mr, granule, operator.k)
    step_bytes = float(ground.numbers.rhs_bytes(granule * NR, operator.k))
    rows_bytes = fetched_rows_bytes(operator, ground.agents, ground.numbers)
    best: Cut | None = None
    for parts in _parts(steps, max(1, MOST_WAVES * count // experts)):
        taken = -(-steps // parts)
        whole, left = divmod(experts * -(-steps // taken), count)
        block_s, block_bytes, seconds, fetching_s = taken * step_s, taken * step_bytes + rows_bytes, 0.0, 0.0
        for waves, drawing in ((whole, count), (1, left)):
            if waves and drawing:
                fetch_s = block_bytes / ground.rate(drawing)
                fetching_s += waves * max(0.0, fetch_s - block_s)
                seconds += waves * (max(block_s, fetch_s) + sync.dispatch_s.value)
        seconds += sync.barrier_s.value if count > 1 else 0.0
        if best is None or seconds < best.seconds:
            bound = "bandwidth" if fetching_s else "compute"
            best = Cut(seconds, bound, min(taken * granule, panels))
    assert best is not None
    return best


def fetched_rows_bytes(operator: GroupedLinear, agents: Agents, numbers: ProductFormat) -> float:
    """Bytes of an expert's rows that come from memory with each of its blocks: none where a cache holds all rows."""
    if numbers.lhs_bytes(operator.m, operator.k) <= min(agent.cache_bytes for agent in agents.of_kinds):
        return 0.0
    return float(numbers.lhs_bytes(rows_of_expert(operator.m, experts_with_rows(operator), 0), operator.k))


def rows_and_columns(operator: Linear, ground: Ground) -> Cut | None:
    """A product of several rows cut by rows as well: blocks of rows times steps of columns.

    The blocks of the first rows bring the weights in, each as fast as one agent draws from memory; those below them
    find them in a cache. So a step may be narrower than what a unit has in its tiles anyway. Either everybody has as
    many blocks as the others, or they are drawn, which evens out who has to bring weights in and who has not.
    """
    agents, mr, sync = ground.agents, ground.mr, ground.sync
    one, count = agents[0], len(agents)
    granule, panels, strips = one.granule(operator.m), -(-operator.n // NR), -(-operator.m // mr)
    fixed: Cut | None = None
    in_turn: Cut | None = None
    for width in _halves(granule):
        steps = -(-panels // width)
        n_bytes = float(ground.numbers.rhs_bytes(width * NR, operator.k))
        for parts in _parts(strips, -(-MOST_WAVES * count // steps), least=2):
            height = -(-strips // parts)
            waves = -(-parts * steps // count)
            # Not all are at the first rows of a step at once, unless everybody has whole steps.
            fetch_s = n_bytes / ground.rate(steps if steps % count == 0 else min(steps, -(-count // parts)))
            block_s = one.columns_s(min(operator.m, height * mr), mr, width, operator.k)
            first = -(-waves // parts)  # of each one's blocks: those of a step follow one another
            seconds = first * max(block_s, fetch_s) + (waves - first) * block_s
            seconds += waves * sync.dispatch_s.value + sync.barrier_s.value
            if fixed is None or seconds < fixed.seconds:
                bound = "bandwidth" if first * fetch_s > waves * block_s else "compute"
                fixed = Cut(seconds, bound, width, parts)
            if width < granule:
                continue  # what is drawn is whole steps of a unit
            last_rows = operator.m - (parts - 1) * height * mr
            last_s = block_s if last_rows == height * mr else one.columns_s(last_rows, mr, width, operator.k)
            first_s = max(block_s, fetch_s)
            tasks_s = [of + sync.dispatch_s.value for of in (first_s, *[block_s] * (parts - 2), last_s)]
            best_s = min(cut.seconds for cut in (fixed, in_turn) if cut is not None)
            if steps * sum(tasks_s) / count + sync.barrier_s.value < best_s:
                seconds = drawn_in_turn_s(tasks_s, steps, count) + sync.barrier_s.value
                if in_turn is None or seconds < in_turn.seconds:
                    bound = "bandwidth" if first_s > parts * block_s else "compute"
                    in_turn = Cut(seconds, bound, width, parts, "shared")
    if fixed is None or in_turn is None or in_turn.seconds >= fixed.seconds * (1 - WORTH_DRAWING):
        return fixed
    return in_turn


def drawn_in_turn_s(tasks_s: Sequence[float], times: int, workers: int) -> float:
    """When the last ends of tasks that come in the same order so many times over, and that workers who are alike draw,
    each as soon as it is free."""
    ticks, period, total = [round(task_s / TICK_S) for task_s in tasks_s], len(tasks_s), times * len(tasks_s)
    free = {0: workers}  # how many become free at a time, in ticks: sums of them are exact, and so often the same
    at, drawn, last = [0], 0, 0
    while drawn < total:
        now = heapq.heappop(at)
        taking = min(free.pop(now), total - drawn)
        taken: dict[int, int] = {}
        for place in range(min(period, taking)):
            task = ticks[(drawn + place) % period]
            taken[task] = taken.get(task, 0) + (taking - place - 1) // period + 1
        drawn += taking
        for task, count in taken.items():
            end = now + task
            if end not in free:
                heapq.heappush(at, end)
            free[end] = free.get(end, 0) + count
            last = max(last, end)
    return last * TICK_S


def _parts(whole: int, most: int, least: int = 1) -> list[int]:
    """In how many parts something can be cut, at most and at least so many, each as long as the others but the last."""
    return sorted({ceil(whole / ceil(whole / parts)) for parts in range(least, min(whole, most) + 1)})


def _halves(number: int) -> list[int]:
    """A number, half of it, and so on down to 1."""
    return [] if number == 0 else [number, *_halves(number // 2)]
