"""A whole transformer in plain numpy, float64, written from the papers and the published implementations' equations.

Nothing here comes from smesim but the configuration's numbers: no operator, no layout, no kernel, no rotary table.

- RMSNorm: Zhang and Sennrich, arXiv 1910.07467.
- Rotary positions: Su et al., arXiv 2104.09864, with the halves of a head paired as Hugging Face's `rotate_half` does.
- Llama 3.1's slowed frequencies: transformers, `modeling_rope_utils._compute_llama3_parameters`.
- Grouped queries: Ainslie et al., arXiv 2305.13245. SwiGLU: Shazeer, arXiv 2002.05202.
- Mixtures of experts: Shazeer et al., arXiv 1701.06538; the shares of the chosen experts may be normalised
  (transformers, `modeling_qwen3_moe`). Which expert a share is applied to is given, rank by rank, or else the router's
  choice, those with the largest logits.
- Qwen2 adds biases to q, k and v; Qwen3 normalises each head of q and k before the rotation (transformers,
  `modeling_qwen2`, `modeling_qwen3`).

With weights in bf16 the products of several rows take both factors rounded to bf16, as engines do that pack them so;
one row is multiplied as it is. Sums stay f32. An error may then decide to which side a number is rounded; such steps
are few and large, so the sum of two must fit.

Beside every value the model carries how far an f32 computation may be from it: to first order, the errors of the inputs
pass through each step, and each step adds its own rounding, growing with the square root of what it sums. Errors of
different elements are independent, so their squares add.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
EPSILON = float(np.finfo(np.float32).eps)
ROOM = 8.0
"""A step's own rounding error: ROOM * sqrt(terms) * epsilon * sum of magnitudes."""


@dataclass(frozen=True)
class Approximate:
    """Values, and how far from them an f32 computation may be, element by element."""

    value: F64
    error: F64

    @classmethod
    def exact(cls, value: NDArray[np.floating]) -> Approximate:
        return cls(value.astype(np.float64), np.zeros(value.shape))

    def __add__(self, other: Approximate) -> Approximate:
        value = self.value + other.value
        return Approximate(value, together(self.error, other.error, EPSILON * np.abs(value)))

    def __getitem__(self, index: object) -> Approximate:
        return Approximate(self.value[index], self.error[index])  # type: ignore[index]

    def reshape(self, *shape: int) -> Approximate:
        return Approximate(self.value.reshape(shape), self.error.reshape(shape))


def together(*errors: F64) -> F64:
    """Independent errors of one value."""
    return np.asarray(np.sqrt(sum(error**2 for error in errors)))


def passed_on(error: F64, weight: F64) -> F64:
    """Error of sums x @ weight from the errors of x."""
    return np.asarray(np.sqrt(error**2 @ weight**2))


@dataclass(frozen=True)
class Shapes:
    """The numbers of a `config.json` that the equations need."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rms_eps: float
    rope_theta: float
    rope_scaling: Mapping[str, float] | None
    tied_embeddings: bool
    norm_topk_prob: bool = False
    experts_per_token: int = 0


@dataclass(frozen=True)
class Result:
    """Logits of each sequence's last token [batch][vocab]; caches of each layer [batch][kv head][position][d]."""

    logits: Approximate
    k_caches: list[Approximate]
    v_caches: list[Approximate]


def to_bf16(x: F64) -> F64:
    """The nearest bf16, ties to even: 8 bits of significand, at the exponents of f32."""
    step = np.exp2(np.maximum(np.frexp(x)[1] - 8, -133))
    return np.asarray(np.round(x / step) * step)


def packed_in_bf16(x: Approximate) -> Approximate:
    """What may come out when anything between value - error and value + error is rounded."""
    value = to_bf16(x.value)
    return Approximate(value, np.maximum(to_bf16(x.value + x.error) - value, value - to_bf16(x.value - x.error)))


def linear(
    x: Approximate, weight: NDArray[np.float32], bias: NDArray[np.float32] | None = None, *, bf16: bool = False,
    of_expert: bool = False,
) -> Approximate:  # fmt: skip
    packed = bf16 and (of_expert or x.value.size > x.value.shape[-1])
    if packed:
        x = packed_in_bf16(x)
    w = weight.astype(np.float64)
    value = x.value @ w.T
    size = np.abs(x.value) @ np.abs(w).T
    if bias is not None:
        value = value + bias
        size = size + np.abs(bias)
    own = ROOM * np.sqrt(w.shape[1] + 1) * EPSILON * size
    passed = (2.0 if packed else 1.0) * passed_on(x.error, w.T)
    return Approximate(value, together(passed, own))


def rms_norm(x: Approximate, weight: NDArray[np.float32], eps: float) -> Approximate:
    gain = weight.astype(np.float64)
    mean_square = np.mean(x.value**2, axis=-1, keepdims=True) + eps
    scale = 1.0 / np.sqrt(mean_square)
    value = x.value * scale * gain
    # d(x_i * s) = s * dx_i + x_i * ds, and ds = -s^3 * mean(x * dx).
    width = x.value.shape[-1]
    of_scale = scale**3 * np.sqrt(np.sum((x.value * x.error) ** 2, axis=-1, keepdims=True)) / width
    own = ROOM * np.sqrt(width) * EPSILON * np.abs(value)
    return Approximate(value, together(scale * x.error * gain, x.value * of_scale * gain, own))


def frequencies(shapes: Shapes) -> F64:
    """Radians per position of each pair."""
    plain = 1.0 / shapes.rope_theta ** (np.arange(0, shapes.head_dim, 2) / shapes.head_dim)
    scaling = shapes.rope_scaling
    if scaling is None:
        return plain
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    original = scaling["original_max_position"]
    wavelength = 2 * np.pi / plain
    smooth = (original / wavelength - low) / (high - low)
    blended = (1 - smooth) * plain / factor + smooth * plain
    slowed = np.where(wavelength > original / low, plain / factor, blended)
    return np.where(wavelength < original / high, plain, slowed)


def rotate(x: Approximate, shapes: Shapes, past: int) -> Approximate:
    """x [batch][token][head][head_dim]; token t is at position past + t."""
    positions = past + np.arange(x.value.shape[1])
    angles = np.outer(positions, frequencies(shapes))
    angles = np.concatenate([angles, angles], axis=-1)[None, :, None, :]
    cosine, sine = np.cos(angles), np.sin(angles)
    half = shapes.head_dim // 2

    def turned(v: F64) -> F64:
        return np.concatenate([-v[..., half:], v[..., :half]], axis=-1)

    value = x.value * cosine + turned(x.value) * sine
    size = np.abs(x.value) + np.abs(turned(x.value))
    return Approximate(value, together(x.error * cosine, turned(x.error) * sine, ROOM * EPSILON * size))


def attention(q: Approximate, k: Approximate, v: Approximate, past: int) -> Approximate:
    """q [batch][token][head][d], k and v [batch][kv head][position][d]; causal."""
    batch, tokens, heads, head_dim = q.value.shape
    group = heads // k.value.shape[1]
    value, error = np.empty(q.value.shape), np.empty(q.value.shape)
    for b in range(batch):
        for t in range(tokens):
            seen = past + t + 1
            for h in range(heads):
                keys, values = k[b, h // group, :seen], v[b, h // group, :seen]
                query = q[b, t, h]
                scores = keys.value @ query.value / np.sqrt(head_dim)
                size = np.abs(keys.value) @ np.abs(query.value) / np.sqrt(head_dim)
                own = ROOM * np.sqrt(head_dim) * EPSILON * (size + 1.0)
                passed = together(passed_on(keys.error, query.value), passed_on(query.error, keys.value.T))
                score_error = together(passed / np.sqrt(head_dim), own)
                weights = np.exp(scores - scores.max())
                weights /= weights.sum()
                value[b, t, h] = weights @ values.value
                # A weight is off by its score's error and by what all scores do to the sum.
                weight_error = weights * together(score_error, passed_on(score_error, weights))
                own = ROOM * np.sqrt(seen) * EPSILON * (weights @ np.abs(values.value))
                passed = together(passed_on(weight_error, values.value), passed_on(weights, values.error))
                error[b, t, h] = together(passed, own)
    return Approximate(value, error)


def swiglu(gate: Approximate, up: Approximate) -> Approximate:
    sigmoid = 1.0 / (1.0 + np.exp(-gate.value))
    silu = gate.value * sigmoid
    slope = np.abs(sigmoid * (1.0 + gate.value * (1.0 - sigmoid)))
    value = silu * up.value
    own = ROOM * EPSILON * np.abs(gate.value * up.value)
    return Approximate(value, together(slope * gate.error * up.value, silu * up.error, own))


def shares(logits: Approximate, kept: int, normalised: bool) -> Approximate:
    """The soft-max of the `kept` largest logits of each row, largest first, over themselves or over all.

    Sorting moves no number by more than the largest error among them.
    """
    order = np.argsort(-logits.value, axis=-1, kind="stable")
    ordered = np.take_along_axis(logits.value, order, axis=-1)
    error = np.broadcast_to(logits.error.max(axis=-1, keepdims=True), ordered.shape)
    if normalised:
        ordered, error = ordered[..., :kept], error[..., :kept]
    weights = np.exp(ordered - ordered[..., :1])
    weights /= weights.sum(axis=-1, keepdims=True)
    of_sum = np.sqrt(np.sum((weights * error) ** 2, axis=-1, keepdims=True))
    own = ROOM * np.sqrt(weights.shape[-1]) * EPSILON * np.ones_like(weights)
    return Approximate(weights, weights * together(error, of_sum, own))[..., :kept]


def experts(
    x: Approximate, own: Mapping[str, NDArray[np.float32]], routing: NDArray[np.integer], normalised: bool, bf16: bool
) -> Approximate:
    """x [token][d_model]; routing [token][rank] says to which expert the share of a rank is applied."""
    share = shares(linear(x, own["router.weight"]), routing.shape[1], normalised)
    project = partial(linear, bf16=bf16, of_expert=True)
    value, error = np.empty(x.value.shape), np.empty(x.value.shape)
    for t, chosen in enumerate(routing):
        row = x[t : t + 1]
        outputs = []
        for expert in chosen:
            gate, up = (project(row, own[f"{node}_experts.weight"][expert]) for node in ("gate", "up"))
            outputs.append(project(swiglu(gate, up), own["down_experts.weight"][expert]))
        rows = np.concatenate([o.value for o in outputs])
        off = np.concatenate([o.error for o in outputs])
        value[t] = share.value[t] @ rows
        rounding = ROOM * np.sqrt(len(chosen)) * EPSILON * (share.value[t] @ np.abs(rows))
        error[t] = together(passed_on(share.error[t], rows), passed_on(share.value[t], off), rounding)
    return Approximate(value, error)


def forward(
    shapes: Shapes,
    weights: Mapping[str, NDArray[np.float32]],
    tokens: NDArray[np.integer],
    past_k: list[NDArray[np.float32]],
    past_v: list[NDArray[np.float32]],
    *,
    bf16: bool = False,
    last_layer_rows: str = "all",
) -> Result:
    """One pass over tokens [batch][token] behind the cached keys and values, [layer] of [batch][kv head][past][d].

    `weights` are by name, as the operator graph names them; a bias, a q/k norm, a router is applied where there is one.
    A layer's "routing" may be of the last tokens only: then the others go no further than its attention. With `bf16`
    all matrices but a router are rounded to that, and so is what experts, and several rows of others, are multiplied
    with. With `last_layer_rows` of
    "logits" only each sequence's last row goes on from the last layer's `o_proj`: one row alone is not rounded.
    """
    if bf16:
        weights = {
            name: to_bf16(w.astype(np.float64)).astype(np.float32) if w.ndim > 1 and ".rout" not in name else w
            for name, w in weights.items()
        }
    batch, n_tokens = tokens.shape
    past = past_k[0].shape[2]
    x = Approximate.exact(weights["embed.weight"][tokens])
    k_caches, v_caches = [], []
    for layer in range(shapes.layers):
        own = {name.split(".", 2)[2]: w for name, w in weights.items() if name.startswith(f"layers.{layer}.")}

        def project(x: Approximate, node: str, own: Mapping[str, NDArray[np.float32]] = own) -> Approximate:
            return linear(x, own[f"{node}.weight"], own.get(f"{node}.bias"), bf16=bf16)

        def heads(x: Approximate, count: int, norm: str, own: Mapping[str, NDArray[np.float32]] = own) -> Approximate:
            split = x.reshape(batch, n_tokens, count, shapes.head_dim)
            return rms_norm(split, own[norm], shapes.rms_eps) if norm in own else split

        normed = rms_norm(x, own["attn_norm.weight"], shapes.rms_eps)
        q = rotate(heads(project(normed, "q_proj"), shapes.heads, "q_norm.weight"), shapes, past)
        k = rotate(heads(project(normed, "k_proj"), shapes.kv_heads, "k_norm.weight"), shapes, past)
        v = heads(project(normed, "v_proj"), shapes.kv_heads, "")
        k_cache, v_cache = _appended(past_k[layer], k), _appended(past_v[layer], v)
        k_caches.append(k_cache)
        v_caches.append(v_cache)
        mixed = attention(q, k_cache, v_cache, past).reshape(batch, n_tokens, -1)
        x = x + project(mixed, "o_proj")
        if layer == shapes.layers - 1 and last_layer_rows == "logits":
            x = x[:, -1:]
        if "router.weight" in own and "routing" not in own:
            normed = rms_norm(x, own["ffn_norm.weight"], shapes.rms_eps).value.reshape(batch * x.value.shape[1], -1)
            order = np.argsort(-normed @ own["router.weight"].T.astype(np.float64), axis=1, kind="stable")
            own["routing"] = order[:, : shapes.experts_per_token]
        if "routing" in own:
            x = x[:, -(len(own["routing"]) // batch) :]
            normed = rms_norm(x, own["ffn_norm.weight"], shapes.rms_eps).reshape(len(own["routing"]), -1)
            x = x + experts(normed, own, own["routing"], shapes.norm_topk_prob, bf16).reshape(*x.value.shape)
            continue
        normed = rms_norm(x, own["ffn_norm.weight"], shapes.rms_eps)
        x = x + project(swiglu(project(normed, "gate_proj"), project(normed, "up_proj")), "down_proj")
    last = rms_norm(x[:, -1], weights["final_norm.weight"], shapes.rms_eps)
    head = weights["embed.weight" if shapes.tied_embeddings else "lm_head.weight"]
    return Result(linear(last, head, bf16=bf16), k_caches, v_caches)


def _appended(past: NDArray[np.float32], new: Approximate) -> Approximate:
    """The cache with the new vectors [batch][token][kv head][d] behind the old ones."""
    old, order = Approximate.exact(past), (0, 2, 1, 3)
    return Approximate(
        np.concatenate([old.value, new.value.transpose(order)], axis=2),
        np.concatenate([old.error, new.error.transpose(order)], axis=2),
    )
