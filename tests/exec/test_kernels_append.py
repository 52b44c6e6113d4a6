"""Keys and values in their caches: where the layouts say, rounded as they say, by the leaf that appends and by the one
that packs; bit for bit, and nothing else is touched."""

import kernel_reference as ref
import lowp_reference as lowp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kernel_reference import NR
from lowp_reference import pointer
from numpy.typing import NDArray

Bits = NDArray[np.uint32] | NDArray[np.uint16]

CASES = [("f32", isa) for isa in ref.runnable()] + [("f16", isa) for isa in lowp.runnable()]
LEAVES = {"f32": ("kv_append", "kv_pack"), "f16": ("kv_append_f16", "kv_pack_f16")}
BITS = {"f32": np.dtype(np.uint32), "f16": np.dtype(np.uint16)}
UNTOUCHED = 0x5A5A
SPECIAL = (0x80000000, 0x7F800000, 0xFF812345, 0x7FC00001, 0x00000001, 0x477FEFFF, 0x477FF000, 0x33000000, 0x33000001)
"""As bits of f32: minus zero, infinity, NaNs that signal and that do not, a denormal, both sides of the largest f16,
and of half the smallest."""


def drawn(seed: int, rows: int, columns: int) -> ref.F32:
    """Numbers of all sizes, among them special ones."""
    rng = np.random.default_rng(seed)
    x = ref.normal(rng, rows, columns) * np.exp2(rng.integers(-30, 18, (rows, columns))).astype(np.float32)
    some = rng.integers(0, x.size, x.size // 4 + 1)
    x.view(np.uint32).flat[some] = rng.choice(np.array(SPECIAL, np.uint32), some.size)
    return x


def kept(number: str, x: ref.F32) -> Bits:
    return x.view(np.uint32) if number == "f32" else lowp.round_to_f16(x)


@pytest.mark.parametrize(("number", "isa"), CASES, ids=["-".join(case) for case in CASES])
@settings(max_examples=settings().max_examples // 3 + 1)  # dear ones, fewer still where examples are few
@given(
    past=st.integers(0, 40), tokens=st.integers(1, 40), heads=st.tuples(*[st.integers(0, 3)] * 2), d=st.integers(1, 70),
    slack=st.integers(0, 20), gap=st.integers(0, 5), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
@example(past=7, tokens=42, heads=(1, 3), d=70, slack=3, gap=1, seed=0)  # whole panels of keys and of values, and parts
def test_appended_keys_and_values_lie_where_the_layout_says(
    number: str, isa: str, past: int, tokens: int, heads: tuple[int, int], d: int, slack: int, gap: int, seed: int
) -> None:
    kv_heads, capacity, positions = 3, past + tokens + slack, past + np.arange(tokens)
    (head0, head1), element = sorted(heads), np.arange(d)
    appended = slice(head0, head1)
    k, v = (drawn(seed + i, tokens, kv_heads * d + gap) for i in range(2))
    k_rows, v_rows = (kept(number, x)[:, : kv_heads * d].reshape(tokens, kv_heads, d)[:, appended] for x in (k, v))
    keys = np.full((kv_heads, -(-capacity // NR), d, NR), UNTOUCHED, BITS[number])
    keys[appended, positions // NR, :, positions % NR] = k_rows
    values = np.full((kv_heads, -(-d // NR), capacity, NR), UNTOUCHED, BITS[number])
    values[appended, element // NR, positions[:, None], element % NR] = v_rows.transpose(1, 0, 2)
    table = ref.find(isa) if number == "f32" else lowp.find(isa)
    for leaf in LEAVES[number]:
        caches = [np.full(expected.size, UNTOUCHED, BITS[number]) for expected in (keys, values)]
        typed = [cache.view(np.float32) if number == "f32" else cache for cache in caches]
        ld = kv_heads * d + gap
        getattr(table, leaf)(
            pointer(k), ld, pointer(v), ld, tokens, past, head0, head1, d, capacity, *map(pointer, typed)
        )  # fmt: skip
        np.testing.assert_array_equal(caches[0], keys.ravel(), leaf)
        np.testing.assert_array_equal(caches[1], values.ravel(), leaf)
