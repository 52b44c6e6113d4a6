"""Blocks of products: when the last of them ends."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smesim.plan.cut import drawn_in_turn_s

TASKS_S = st.sampled_from([1e-6, 2e-6, 3.5e-6, 7e-6])


@given(st.lists(TASKS_S, min_size=1, max_size=5), st.integers(1, 40), st.integers(1, 9))
def test_tasks_that_come_in_turn_end_as_if_each_worker_drew_them_one_by_one(
    tasks_s: list[float], times: int, workers: int
) -> None:
    free = [0.0] * workers
    ends = []
    for task_s in tasks_s * times:
        ends.append(heapq.heappop(free) + task_s)
        heapq.heappush(free, ends[-1])
    assert drawn_in_turn_s(tasks_s, times, workers) == pytest.approx(max(ends))
