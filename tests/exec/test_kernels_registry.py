"""Which kernels there are, which this machine may use, and the layout arithmetic that they share with Python."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_reference import NR, ffi, find, isa_of, lib, runnable, strip_rows, tables


def test_portable_kernels_run_everywhere() -> None:
    assert "portable" in runnable()


def test_names_are_unique_and_find_their_table() -> None:
    names = [isa_of(table) for table in tables()]
    assert len(set(names)) == len(names)
    for table, name in zip(tables(), names, strict=True):
        assert find(name) == (table if lib.sms_kernels_supported(table) else ffi.NULL)


def test_unknown_name_is_not_found() -> None:
    assert find("sse9") == ffi.NULL


def test_index_outside_the_list_is_null() -> None:
    assert lib.sms_kernels_at(-1) == ffi.NULL
    assert lib.sms_kernels_at(len(tables())) == ffi.NULL


def test_best_is_the_first_that_runs_here_on_a_core_and_is_not_for_tests() -> None:
    here = [table for table in tables() if lib.sms_kernels_supported(table)]
    assert lib.sms_kernels_best() == next(table for table in here if not table.test_only and not table.matrix)


@pytest.mark.parametrize("table", tables(), ids=isa_of)
def test_tables_are_whole_and_consistent(table: Any) -> None:
    facts = ffi.typeof("struct sms_kernels").fields
    leaves = [name for name, fact in facts if fact.type.kind in {"function", "pointer"}]
    assert all(getattr(table, name) != ffi.NULL for name in leaves)
    assert table.nr == NR
    assert table.fma_flop % (2 * table.lanes) == 0


@given(m=st.integers(1, 500), mr=st.integers(1, 16))
def test_strips_are_balanced_and_cover_the_rows(m: int, mr: int) -> None:
    strips = lib.sms_lhs_strips(m, mr)
    bounds = [lib.sms_lhs_strip_row(s, m, strips) for s in range(strips + 1)]
    heights = [end - begin for begin, end in pairwise(bounds)]
    assert list(pairwise(bounds)) == strip_rows(m, mr)
    assert (bounds[0], bounds[-1]) == (0, m)
    assert min(heights) >= 1
    assert max(heights) <= min(mr, min(heights) + 1)


@given(capacity=st.integers(1, 200), head_dim=st.integers(1, 160))
def test_caches_have_room_for_every_position(capacity: int, head_dim: int) -> None:
    last_k = lib.sms_rhs_offset(capacity - 1, head_dim - 1, head_dim)
    last_v = lib.sms_rhs_offset(head_dim - 1, capacity - 1, capacity)
    assert last_k < lib.sms_k_cache_size(capacity, head_dim) == -(-capacity // NR) * NR * head_dim
    assert last_v < lib.sms_v_cache_size(capacity, head_dim) == -(-head_dim // NR) * NR * capacity
