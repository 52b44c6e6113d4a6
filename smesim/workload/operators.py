"""The operators of a transformer and what each has to compute.

An operator is one node of the graph: its shapes, the names of the tensors it touches, and `flop`, the
arithmetic it cannot do without. How many bytes it moves depends on the tensors' formats and is the graph's
to say (`OperatorGraph.read_bytes`). The rules, with worked numbers, are on `docs/accounting.md`:

- a multiply-add is 2 FLOP; a comparison, a division, an exponential count 1;
- causal attention counts only the pairs it needs; its soft-max is not counted, nor is the router's;
- an embedding look-up and an append to the KV cache move bytes and compute nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One node. `name` is unique ("layers.3.q_proj"); identical layers share the `site` ("q_proj")."""

    kind: ClassVar[str]

    name: str
    site: str
    layer: int | None
    inputs: tuple[str, ...]
    weights: tuple[str, ...] = ()
    outputs: tuple[str, ...]

    @property
    def flop(self) -> int:
        """Floating-point (or integer) operations of one execution."""
        return 0

    @property
    def activation_rows(self) -> int:
        """Rows that it takes from its activation inputs: all they have, if that is less."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class _RowWise(Operator):
    """Each row is computed alone."""

    rows: int

    @property
    def activation_rows(self) -> int:
        return self.rows


@dataclass(frozen=True, kw_only=True)
class Embed(_RowWise):
    """Gather: out[r] = table[token[r]], `dim` wide. Reads only the rows it gathers."""

    kind: ClassVar[str] = "embed"
    dim: int


@dataclass(frozen=True, kw_only=True)
class RmsNorm(_RowWise):
    """out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight. Square, sum, scale, weight: 4 FLOP an element."""

    kind: ClassVar[str] = "rms_norm"
    dim: int
    eps: float

    @property
    def flop(self) -> int:
        return 4 * self.rows * self.dim


@dataclass(frozen=True, kw_only=True)
class Linear(Operator):
    """out[m][n] = x[m][k] w[n][k]^T (+ bias[n])."""

    kind: ClassVar[str] = "linear"
    m: int
    n: int
    k: int
    bias: bool = False

    @property
    def flop(self) -> int:
        return 2 * self.m * self.n * self.k + self.m * self.n * self.bias

    @property
    def activation_rows(self) -> int:
        return self.m


@dataclass(frozen=True, kw_only=True)
class Rope(_RowWise):
    """Turn pairs of each head by an angle that grows with the position: 6 FLOP a pair.

    Row r is at position past + r % tokens.
    """

    kind: ClassVar[str] = "rope"
    heads: int
    head_dim: int
    tokens: int
    past: int

    @property
    def flop(self) -> int:
        return 3 * self.rows * self.heads * self.head_dim


@dataclass(frozen=True, kw_only=True)
class KvAppend(Operator):
    """Copy the new keys and values to positions past .. past + tokens of the KV cache."""

    kind: ClassVar[str] = "kv_append"
    batch: int
    tokens: int
    past: int
    kv_heads: int
    head_dim: int

    @property
    def activation_rows(self) -> int:
        return self.batch * self.tokens

    @property
    def cache_rows(self) -> int:
        """Vectors of head_dim that it writes to each of the two caches."""
        return self.batch * self.tokens * self.kv_heads

    @property
    def width(self) -> int:
        """Elements of one position's keys, and of its values."""
        return self.kv_heads * self.head_dim


@dataclass(frozen=True, kw_only=True)
class Attention(Operator):
    """out = softmax(q k^T / sqrt(head_dim), causal) v, per query head; inputs q, K cache, V cache."""

    kind: ClassVar[str] = "attention"
    batch: int
    tokens: int
    past: int
    heads: int
    kv_heads: int
    head_dim: int

    @property
    def pairs(self) -> int:
        """(query, key) pairs that the causal mask lets through, over all sequences, per head."""
        return self.batch * causal_pairs(self.tokens, self.past)

    @property
    def flop(self) -> int:
        return 4 * self.head_dim * self.heads * self.pairs

    @property
    def activation_rows(self) -> int:
        return self.batch * self.tokens


@dataclass(frozen=True, kw_only=True)
class Add(_RowWise):
    """out = a + b, `dim` wide."""

    kind: ClassVar[str] = "add"
    dim: int

    @property
    def flop(self) -> int:
        return self.rows * self.dim


@dataclass(frozen=True, kw_only=True)
class SwiGlu(_RowWise):
    """out = gate / (1 + exp(-gate)) * up. Exponential, sum, division, product: 4 FLOP an element."""

    kind: ClassVar[str] = "swiglu"
    dim: int

    @property
    def flop(self) -> int:
        return 4 * self.rows * self.dim


@dataclass(frozen=True, kw_only=True)
class Router(_RowWise):
    """Score all experts for each row and keep the best: outputs their indices, best first, and their shares.

    Shares are the soft-max of the scores, over all experts, or `normalised` over those that were kept.
    """

    kind: ClassVar[str] = "router"
    dim: int
    experts: int
    experts_per_token: int
    normalised: bool
    routed: bool = False
    """Whether the experts get the rows that it chooses for them; else those of a given routing."""

    @property
    def flop(self) -> int:
        return 2 * self.rows * self.experts * self.dim


@dataclass(frozen=True, kw_only=True)
class GroupedLinear(Operator):
    """One product per expert, over the rows that the router sent to it.

    `m` counts rows over all experts (tokens x experts_per_token); weights are [experts][n][k].
    `experts_reached` is how many experts get at least one row: whole for a given routing, an expectation
    for random routing. If it `gathers`, its input has a row for each token; else the input's rows lie expert after
    expert, as those of its output do.
    """

    kind: ClassVar[str] = "grouped_linear"
    m: int
    n: int
    k: int
    experts: int
    experts_reached: float
    gathers: bool
    routed: bool = False
    """Whether the router chooses the rows; then `experts_reached` is the most that there can be."""

    @property
    def flop(self) -> int:
        return 2 * self.m * self.n * self.k

    @property
    def activation_rows(self) -> int:
        return self.m


@dataclass(frozen=True, kw_only=True)
class ExpertCombine(_RowWise):
    """out[r] = sum over the row's experts of weight x expert output: a multiply-add each."""

    kind: ClassVar[str] = "expert_combine"
    dim: int
    experts_per_token: int

    @property
    def activation_rows(self) -> int:
        return self.rows * self.experts_per_token

    @property
    def flop(self) -> int:
        return 2 * self.rows * self.experts_per_token * self.dim


@dataclass(frozen=True, kw_only=True)
class Quantize(_RowWise):
    """Turn activations into the integer format that quantised weights are multiplied with.

    Find the largest magnitude of a block or row, scale by it: 2 FLOP an element.
    """

    kind: ClassVar[str] = "quantize"
    dim: int

    @property
    def flop(self) -> int:
        return 2 * self.rows * self.dim


@dataclass(frozen=True, kw_only=True)
class Sample(_RowWise):
    """Greedy choice: the index of the largest of `vocab` logits, for each row."""

    kind: ClassVar[str] = "sample"
    vocab: int

    @property
    def flop(self) -> int:
        return self.rows * self.vocab


def causal_pairs(tokens: int, past: int) -> int:
    """(query, key) pairs of one sequence: a query sees all `past` keys, itself and the new ones before."""
    return tokens * past + tokens * (tokens + 1) // 2


def expected_experts_reached(tokens: int, experts: int, experts_per_token: int) -> float:
    """Distinct experts that `tokens` reach if each draws `experts_per_token` different ones uniformly.

    One token misses a given expert with probability 1 - experts_per_token / experts; tokens draw
    independently.
    """
    return experts * (1.0 - (1.0 - experts_per_token / experts) ** tokens)
