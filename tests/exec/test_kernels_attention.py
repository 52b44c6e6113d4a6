"""Attention on packed caches against a plain softmax: past, tokens, groups, heads, and parts of the work."""

import kernel_reference as ref
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_reference import Guarded, ffi, find, guarded_vector, lib, pointer

ISAS = ref.runnable()
TOLERANCE = 2e-5  # inputs are standard normal, so outputs are of order one


class Cache:
    """The K and V caches of one batch element, NaN wherever nothing was appended."""

    def __init__(self, isa: str, kv_heads: int, head_dim: int, capacity: int) -> None:
        self.kernels = find(isa)
        self.kv_heads, self.head_dim, self.capacity = kv_heads, head_dim, capacity
        self.k_size = lib.sms_k_cache_size(capacity, head_dim)
        self.v_size = lib.sms_v_cache_size(capacity, head_dim)
        self.k = np.full(kv_heads * self.k_size, np.nan, np.float32)
        self.v = np.full(kv_heads * self.v_size, np.nan, np.float32)

    def append(self, k: ref.F32, v: ref.F32, past: int) -> None:
        ld = self.kv_heads * self.head_dim
        self.kernels.kv_append(
            pointer(k), ld, pointer(v), ld, k.shape[0], past, 0, self.kv_heads, self.head_dim, self.capacity,
            pointer(self.k), pointer(self.v),
        )  # fmt: skip

    def attend(self, q: ref.F32, past: int, gap: int = 0, token0: int = 0, token1: int | None = None) -> Guarded:
        """Every KV head over the tokens token0 .. token1; q is [tokens][heads][head_dim]."""
        tokens, heads, d = q.shape
        token1 = tokens if token1 is None else token1
        group, ld = heads // self.kv_heads, heads * d
        out = Guarded(tokens, ld, ld + gap)
        scratch = guarded_vector(self.kernels.attention_scratch(group, d))
        for head in range(self.kv_heads):
            at = head * group * d
            self.kernels.attention(
                pointer(q) + at, ld, pointer(self.k) + head * self.k_size, pointer(self.v) + head * self.v_size,
                pointer(out.view) + at, ld + gap, token0, token1, past, group, d, self.capacity,
                pointer(scratch.view),
            )  # fmt: skip
        assert scratch.untouched(slice(0, 1))
        return out


def filled(
    isa: str, rng: np.random.Generator, past: int, tokens: int, kv_heads: int, d: int, slack: int
) -> tuple[Cache, ref.F32, ref.F32]:
    cache = Cache(isa, kv_heads, d, past + tokens + slack)
    k, v = ref.normal(rng, past + tokens, kv_heads * d), ref.normal(rng, past + tokens, kv_heads * d)
    if past:
        cache.append(k[:past], v[:past], 0)
    cache.append(k[past:], v[past:], past)
    return cache, k.reshape(-1, kv_heads, d), v.reshape(-1, kv_heads, d)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=settings().max_examples // 3 + 1)  # dear ones, fewer still where examples are few
@given(
    past=st.integers(0, 50), tokens=st.integers(1, 40), kv_heads=st.integers(1, 2), group=st.integers(1, 9),
    d=st.sampled_from([8, 20, 64, 80, 96, 128]), slack=st.integers(0, 20), gap=st.integers(0, 5),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_attention(
    isa: str, past: int, tokens: int, kv_heads: int, group: int, d: int, slack: int, gap: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    cache, k, v = filled(isa, rng, past, tokens, kv_heads, d, slack)
    q = ref.normal(rng, tokens, kv_heads * group, d)
    out = cache.attend(q, past, gap)
    expected = ref.attention(q, k, v, past).reshape(tokens, -1)
    np.testing.assert_allclose(out.view, expected, rtol=0, atol=TOLERANCE)
    assert out.untouched(slice(None))


# Several blocks of rows and of keys, whole and ragged; decode with a long past; a group larger than a block of rows.
LONG_CASES = [(0, 300, 1, 3, 64), (260, 40, 2, 4, 128), (600, 1, 2, 8, 128), (511, 1, 1, 1, 80), (0, 5, 1, 130, 16)]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", LONG_CASES, ids=str)
def test_attention_across_blocks(isa: str, case: tuple[int, int, int, int, int]) -> None:
    past, tokens, kv_heads, group, d = case
    rng = np.random.default_rng(5)
    cache, k, v = filled(isa, rng, past, tokens, kv_heads, d, 3)
    q = ref.normal(rng, tokens, kv_heads * group, d)
    expected = ref.attention(q, k, v, past).reshape(tokens, -1)
    np.testing.assert_allclose(cache.attend(q, past).view, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("isa", ISAS)
def test_token_ranges_write_their_tokens_only(isa: str) -> None:
    rng = np.random.default_rng(6)
    cache, k, v = filled(isa, rng, 9, 50, 2, 32, 0)
    q = ref.normal(rng, 50, 6, 32)
    expected = ref.attention(q, k, v, 9).reshape(50, -1)
    for token0, token1 in [(0, 1), (7, 30), (49, 50), (20, 20)]:
        out = cache.attend(q, 9, 2, token0, token1)
        rows = slice(token0, token1)
        np.testing.assert_allclose(out.view[rows], expected[rows], rtol=0, atol=TOLERANCE)
        assert out.untouched(rows)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [1e-30, 40.0])
def test_softmax_of_tiny_and_of_large_scores(isa: str, size: float) -> None:
    rng = np.random.default_rng(7)
    cache, k, v = filled(isa, rng, 0, 300, 1, 16, 0)
    q = ref.normal(rng, 300, 1, 16) * np.float32(size)
    expected = ref.attention(q, k, v, 0).reshape(300, -1)
    # A score is off by its own rounding, and its weight by that factor.
    np.testing.assert_allclose(cache.attend(q, 0).view, expected, rtol=0, atol=TOLERANCE + 64 * size * ref.EPSILON)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [1e4, 1e30])
def test_softmax_of_scores_far_apart_picks_the_largest(isa: str, size: float) -> None:
    rng = np.random.default_rng(9)
    tokens = 300
    cache = Cache(isa, 1, 16, tokens)
    heights = rng.permutation(tokens)
    k, v = np.zeros((tokens, 16), np.float32), ref.normal(rng, tokens, 16)
    k[:, 0] = heights
    cache.append(k, v, 0)
    q = np.zeros((tokens, 1, 16), np.float32)
    q[:, 0, 0] = size
    highest = [int(np.argmax(heights[: token + 1])) for token in range(tokens)]
    np.testing.assert_array_equal(cache.attend(q, 0).view, v[highest])


def rows_at(cache: Cache, tokens: int, group: int, position: int) -> object:
    return ffi.new(
        "struct sms_attention_rows *",
        {
            "rows": tokens * group, "group": group, "position": position, "head_dim": cache.head_dim,
            "capacity": cache.capacity,
        },
    )  # fmt: skip


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("keys", [16, 48, 112])
def test_stages_by_hand_give_the_fused_result(isa: str, keys: int) -> None:
    """The stage in the middle is another table's, whose strips have another height."""
    rng = np.random.default_rng(8)
    past, tokens, group, d = 30, 45, 3, 64
    cache, _, _ = filled(isa, rng, past, tokens, 1, d, 5)
    kernels = cache.kernels
    q = ref.normal(rng, tokens, group, d)
    rows = tokens * group
    at = rows_at(cache, tokens, group, past)
    scaled, out = Guarded(rows, d, d), Guarded(tokens, group * d, group * d + 3)
    kernels.attention_begin(at, pointer(q), group * d, pointer(scaled.view))
    np.testing.assert_allclose(scaled.view, q.reshape(rows, d) / np.float32(np.sqrt(d)), rtol=1e-6)
    peak, total = np.full(rows, -np.inf, np.float32), np.zeros(rows, np.float32)
    shrink, acc = np.empty(rows, np.float32), np.zeros((rows, d), np.float32)
    for key0 in range(0, past + tokens, keys):
        width = min(keys, past + tokens - key0)
        scores = Guarded(rows, width, keys + 5)
        kernels.qk_block(at, pointer(scaled.view), pointer(cache.k), key0, width, pointer(scores.view), scores.ld)
        before = peak.copy()
        find(ISAS[-1]).softmax_block(
            at, key0, width, pointer(scores.view), scores.ld, pointer(peak), pointer(total), pointer(shrink)
        )  # fmt: skip
        np.testing.assert_allclose(shrink, np.where(peak > before, np.exp(before - peak), 1.0), rtol=1e-6, atol=1e-30)
        kernels.scale_rows(pointer(acc), rows, d, pointer(shrink))
        kernels.pv_block(at, pointer(scores.view), scores.ld, pointer(cache.v), key0, width, pointer(acc))
        assert scores.untouched(slice(None))
    kernels.attention_end(at, pointer(acc), pointer(total), pointer(out.view), group * d + 3)
    np.testing.assert_allclose(out.view, cache.attend(q, past).view, rtol=0, atol=TOLERANCE)
    assert out.untouched(slice(None))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("ends", [(600,), (16, 600), (256, 528, 592, 600)])
def test_parts_of_the_past_combined_give_the_whole(isa: str, ends: tuple[int, ...]) -> None:
    rng = np.random.default_rng(9)
    group, d, keys = 5, 40, ends[-1]
    cache, k, v = filled(isa, rng, keys - 1, 1, 1, d, 3)
    k[:, 0] *= np.linspace(0, 8, keys, dtype=np.float32)[:, None]  # later keys weigh more: peaks differ between parts
    cache.append(k.reshape(keys, d), v.reshape(keys, d), 0)
    q = ref.normal(rng, 1, group, d)
    at = rows_at(cache, 1, group, keys - 1)
    size = lib.sms_attention_part_size(group, d)
    parts, out = Guarded(len(ends), size, size), Guarded(1, group * d, group * d)
    scratch = guarded_vector(cache.kernels.attention_scratch(group, d))
    for part, (key0, end) in enumerate(zip((0, *ends), ends, strict=False)):
        cache.kernels.attention_part(
            at, pointer(q), group * d, pointer(cache.k), pointer(cache.v), key0, end - key0,
            pointer(parts.view) + part * size, pointer(scratch.view),
        )  # fmt: skip
    cache.kernels.attention_combine(at, pointer(parts.view), len(ends), size, pointer(out.view), group * d)
    expected = ref.attention(q, k, v, keys - 1).reshape(1, -1)
    np.testing.assert_allclose(out.view, expected, rtol=0, atol=TOLERANCE)
    assert scratch.untouched(slice(0, 1))
    assert parts.untouched(slice(None))
