"""Columns divided among the fast and the slow: nobody can be given less so that all end earlier."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smesim.plan.split import Share, divide

workers = st.builds(Share, st.floats(0.1, 20), st.integers(1, 4))


@given(st.lists(workers, min_size=1, max_size=3), st.integers(1, 14))
def test_no_division_ends_earlier(shares: list[Share], panels: int) -> None:
    divided, seconds = divide(shares, panels)
    taken = [sum(parts) for parts in divided]
    assert sum(taken) == panels
    assert min(taken) >= 0
    ends = [share.seconds(n) for share, n in zip(shares, taken, strict=True)]
    assert seconds == max(end for end, n in zip(ends, taken, strict=True) if n)
    best = min(
        max(share.seconds(n) for share, n in zip(shares, parts, strict=True) if n)
        for parts in product(range(panels + 1), repeat=len(shares))
        if sum(parts) == panels
    )
    assert seconds <= best * (1 + 1e-6)


def test_who_is_too_slow_gets_nothing() -> None:
    taken, seconds = divide([Share(1.0), Share(100.0)], 10)
    assert taken == [[10], [0]]
    assert seconds == pytest.approx(10.0)
