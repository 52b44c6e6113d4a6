"""Unfold a model and a phase into operators.

    embed
    per layer   attn_norm  q_proj k_proj v_proj  (q_norm k_norm)  q_rope k_rope
                kv_append  attention  o_proj  attn_add
      dense     ffn_norm  gate_proj up_proj swiglu down_proj  ffn_add
      experts   ffn_norm  router gate_experts up_experts expert_swiglu down_experts expert_combine  ffn_add
    final_norm  lm_head  sample

With quantised weights a Quantize operator stands before the products that read its output: attn_quantize,
o_quantize, ffn_quantize, down_quantize, head_quantize.

Only rows whose logits are wanted need the end of the model: `final_norm` reads the last row of each
sequence unless all logits are asked for. The rows may be dropped earlier, after the output projection of
the last layer, as llama.cpp does (ggml-org/llama.cpp, src/models/llama.cpp: `ggml_get_rows` with
`inp_out_ids` after `build_attn`). The operators behind that point then have sites of their own:
"last.attn_add", "last.ffn_norm", ...
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypedDict

from smesim.workload.config import ModelConfig
from smesim.workload.dtypes import DType
from smesim.workload.operators import (
    Add,
    Attention,
    Embed,
    ExpertCombine,
    GroupedLinear,
    KvAppend,
    Linear,
    Operator,
    Quantize,
    RmsNorm,
    Rope,
    Router,
    Sample,
    SwiGlu,
)
from smesim.workload.phase import Phase
from smesim.workload.tensors import DTypes, Role, TensorSpec, quantized_activations


class _Address(TypedDict):
    name: str
    site: str
    layer: int | None


@dataclass(frozen=True)
class _Place:
    """Where operators are added: the prefix of their names, of their sites, and the layer."""

    prefix: str
    site_prefix: str
    layer: int | None

    def name(self, node: str) -> str:
        return self.prefix + node

    def of(self, node: str) -> _Address:
        return {"name": self.prefix + node, "site": self.site_prefix + node, "layer": self.layer}


@dataclass
class Unfolding:
    """Adds operators one by one, with the tensors they bring in."""

    config: ModelConfig
    phase: Phase
    dtypes: DTypes
    routed: bool = False
    operators: list[Operator] = field(default_factory=list)
    tensors: dict[str, TensorSpec] = field(default_factory=dict)

    def embed(self) -> str:
        c, rows = self.config, self.phase.rows
        tokens = self._tensor("tokens", (rows,), DType.I32, Role.INDEX)
        table = self._weight("embed.weight", (c.vocab, c.d_model))
        out = self._activation("embed.out", rows, c.d_model)
        self.operators.append(
            Embed(
                name="embed",
                site="embed",
                layer=None,
                inputs=(tokens,),
                weights=(table,),
                outputs=(out,),
                rows=rows,
                dim=c.d_model,
            )
        )
        return out

    def attention_block(self, layer: int, stream: str, rows_out: int) -> str:
        """Attention with its residual. `rows_out` rows leave it."""
        c, phase, rows = self.config, self.phase, self.phase.rows
        at = _Place(f"layers.{layer}.", "", layer)
        normed = self._norm(at, "attn_norm", stream, rows=rows, dim=c.d_model)
        lhs = self._quantized(at, "attn_quantize", normed, rows=rows, dim=c.d_model)
        q = self._linear(at, "q_proj", lhs, m=rows, n=c.q_dim, k=c.d_model, bias=c.qkv_bias)
        k = self._linear(at, "k_proj", lhs, m=rows, n=c.kv_dim, k=c.d_model, bias=c.qkv_bias)
        v = self._linear(at, "v_proj", lhs, m=rows, n=c.kv_dim, k=c.d_model, bias=c.qkv_bias)
        if c.qk_norm:
            q = self._norm(at, "q_norm", q, rows=rows * c.heads, dim=c.head_dim, width=c.q_dim)
            k = self._norm(at, "k_norm", k, rows=rows * c.kv_heads, dim=c.head_dim, width=c.kv_dim)
        q = self._rope(at, "q_rope", q, c.heads)
        k = self._rope(at, "k_rope", k, c.kv_heads)
        cache = (phase.batch, c.kv_heads, phase.context, c.head_dim)
        caches = tuple(
            self._tensor(at.name(n), cache, self.dtypes.kv, Role.KV) for n in ("k_cache", "v_cache")
        )
        self.operators.append(
            KvAppend(
                **at.of("kv_append"),
                inputs=(k, v),
                outputs=caches,
                batch=phase.batch,
                tokens=phase.tokens,
                past=phase.past,
                kv_heads=c.kv_heads,
                head_dim=c.head_dim,
            )
        )
        mixed = self._activation(at.name("attention.out"), rows, c.q_dim)
        self.operators.append(
            Attention(
                **at.of("attention"),
                inputs=(q, *caches),
                outputs=(mixed,),
                batch=phase.batch,
                tokens=phase.tokens,
                past=phase.past,
                heads=c.heads,
                kv_heads=c.kv_heads,
                head_dim=c.head_dim,
            )
        )
        lhs = self._quantized(at, "o_quantize", mixed, rows=rows, dim=c.q_dim)
        projected = self._linear(at, "o_proj", lhs, m=rows, n=c.d_model, k=c.q_dim)
        return self._add(self._place_of_rows(at, rows_out), "attn_add", stream, projected, rows_out)

    def feed_forward_block(self, layer: int, stream: str, rows: int, experts_reached: float) -> str:
        """Feed-forward part, dense or experts, with its residual."""
        c = self.config
        at = self._place_of_rows(_Place(f"layers.{layer}.", "", layer), rows)
        normed = self._norm(at, "ffn_norm", stream, rows=rows, dim=c.d_model)
        if c.is_moe:
            mixed = self._experts(at, normed, rows, experts_reached)
        else:
            lhs = self._quantized(at, "ffn_quantize", normed, rows=rows, dim=c.d_model)
            gate = self._linear(at, "gate_proj", lhs, m=rows, n=c.d_ff, k=c.d_model)
            up = self._linear(at, "up_proj", lhs, m=rows, n=c.d_ff, k=c.d_model)
            hidden = self._swiglu(at, "swiglu", gate, up, rows=rows, dim=c.d_ff)
            lhs = self._quantized(at, "down_quantize", hidden, rows=rows, dim=c.d_ff)
            mixed = self._linear(at, "down_proj", lhs, m=rows, n=c.d_model, k=c.d_ff)
        return self._add(at, "ffn_add", stream, mixed, rows)

    def head(self, stream: str, rows: int) -> None:
        """Final norm, logits and the choice of the next token, for the rows whose logits are wanted."""
        c = self.config
        at = _Place("", "", None)
        normed = self._norm(at, "final_norm", stream, rows=rows, dim=c.d_model)
        lhs = self._quantized(
            at, "head_quantize", normed, rows=rows, dim=c.d_model, weights=self.dtypes.last_product
        )
        weight = "embed.weight" if c.tied_embeddings else "lm_head.weight"
        logits = self._linear(at, "lm_head", lhs, m=rows, n=c.vocab, k=c.d_model, weight=weight)
        chosen = self._tensor("sample.out", (rows,), DType.I32, Role.INDEX)
        self.operators.append(
            Sample(**at.of("sample"), inputs=(logits,), outputs=(chosen,), rows=rows, vocab=c.vocab)
        )

    def _experts(self, at: _Place, normed: str, rows: int, reached: float) -> str:
        c = self.config
        routed = rows * c.experts_per_token
        scores = self._tensor(at.name("router.weight"), (c.experts, c.d_model), DType.F32, Role.WEIGHT)
        chosen = self._tensor(at.name("router.experts"), (rows, c.experts_per_token), DType.I32, Role.INDEX)
        shares = self._activation(at.name("router.shares"), rows, c.experts_per_token)
        self.operators.append(
            Router(
                **at.of("router"),
                inputs=(normed,),
                weights=(scores,),
                outputs=(chosen, shares),
                rows=rows,
                dim=c.d_model,
                experts=c.experts,
                experts_per_token=c.experts_per_token,
                normalised=c.norm_topk_prob,
                routed=self.routed,
            )
        )
        lhs = self._quantized(at, "ffn_quantize", normed, rows=rows, dim=c.d_model)
        gate, up = (
            self._grouped(
                at, node, (lhs, chosen), m=routed, n=c.d_expert, k=c.d_model, reached=reached, gathers=True
            )
            for node in ("gate_experts", "up_experts")
        )
        hidden = self._swiglu(at, "expert_swiglu", gate, up, rows=routed, dim=c.d_expert)
        lhs = self._quantized(at, "down_quantize", hidden, rows=routed, dim=c.d_expert)
        outputs = self._grouped(
            at, "down_experts", (lhs, chosen), m=routed, n=c.d_model, k=c.d_expert, reached=reached, gathers=False
        )
        combined = self._activation(at.name("expert_combine.out"), rows, c.d_model)
        self.operators.append(
            ExpertCombine(
                **at.of("expert_combine"),
                inputs=(outputs, shares),
                outputs=(combined,),
                rows=rows,
                dim=c.d_model,
                experts_per_token=c.experts_per_token,
            )
        )
        return combined

    def _place_of_rows(self, at: _Place, rows: int) -> _Place:
        return at if rows == self.phase.rows else _Place(at.prefix, "last.", at.layer)

    def _tensor(self, name: str, shape: tuple[int, ...], dtype: DType, role: Role) -> str:
        self.tensors[name] = TensorSpec(name, shape, dtype, role)
        return name

    def _activation(self, name: str, rows: int, width: int) -> str:
        return self._tensor(name, (rows, width), self.dtypes.activations, Role.ACTIVATION)

    def _weight(self, name: str, shape: tuple[int, ...]) -> str:
        is_last = name == ("embed.weight" if self.config.tied_embeddings else "lm_head.weight")
        dtype = self.dtypes.last_product if is_last else self.dtypes.weights
        return self._tensor(name, shape, dtype if len(shape) > 1 else DType.F32, Role.WEIGHT)

    def _norm(self, at: _Place, node: str, x: str, *, rows: int, dim: int, width: int | None = None) -> str:
        """`width` is the activation's, where its rows are cut into several of `dim` (q_norm, k_norm)."""
        width = width or dim
        weight = self._weight(at.name(f"{node}.weight"), (dim,))
        out = self._activation(at.name(f"{node}.out"), rows * dim // width, width)
        self.operators.append(
            RmsNorm(
                **at.of(node),
                inputs=(x,),
                weights=(weight,),
                outputs=(out,),
                rows=rows,
                dim=dim,
                eps=self.config.rms_eps,
            )
        )
        return out

    def _linear(
        self,
        at: _Place,
        node: str,
        x: str,
        *,
        m: int,
        n: int,
        k: int,
        bias: bool = False,
        weight: str | None = None,
    ) -> str:
        weights = [self._weight(weight or at.name(f"{node}.weight"), (n, k))]
        if bias:
            weights.append(self._weight(at.name(f"{node}.bias"), (n,)))
        out = self._activation(at.name(f"{node}.out"), m, n)
        self.operators.append(
            Linear(
                **at.of(node), inputs=(x,), weights=tuple(weights), outputs=(out,), m=m, n=n, k=k, bias=bias
            )
        )
        return out

    def _grouped(
        self, at: _Place, node: str, inputs: tuple[str, ...], *, m: int, n: int, k: int, reached: float, gathers: bool
    ) -> str:
        weight = self._weight(at.name(f"{node}.weight"), (self.config.experts, n, k))
        out = self._activation(at.name(f"{node}.out"), m, n)
        self.operators.append(
            GroupedLinear(
                **at.of(node),
                inputs=inputs,
                weights=(weight,),
                outputs=(out,),
                m=m,
                n=n,
                k=k,
                experts=self.config.experts,
                experts_reached=reached,
                gathers=gathers,
                routed=self.routed,
            )
        )
        return out

    def _rope(self, at: _Place, node: str, x: str, heads: int) -> str:
        phase, head_dim = self.phase, self.config.head_dim
        out = self._activation(at.name(f"{node}.out"), phase.rows, heads * head_dim)
        self.operators.append(
            Rope(
                **at.of(node),
                inputs=(x,),
                outputs=(out,),
                rows=phase.rows,
                heads=heads,
                head_dim=head_dim,
                tokens=phase.tokens,
                past=phase.past,
            )
        )
        return out

    def _swiglu(self, at: _Place, node: str, gate: str, up: str, *, rows: int, dim: int) -> str:
        out = self._activation(at.name(f"{node}.out"), rows, dim)
        self.operators.append(SwiGlu(**at.of(node), inputs=(gate, up), outputs=(out,), rows=rows, dim=dim))
        return out

    def _add(self, at: _Place, node: str, stream: str, x: str, rows: int) -> str:
        dim = self.config.d_model
        out = self._activation(at.name(f"{node}.out"), rows, dim)
        self.operators.append(Add(**at.of(node), inputs=(stream, x), outputs=(out,), rows=rows, dim=dim))
        return out

    def _quantized(
        self, at: _Place, node: str, x: str, *, rows: int, dim: int, weights: DType | None = None
    ) -> str:
        dtype = quantized_activations(weights or self.dtypes.weights)
        if dtype is None:
            return x
        out = self._tensor(at.name(f"{node}.out"), (rows, dim), dtype, Role.ACTIVATION)
        self.operators.append(Quantize(**at.of(node), inputs=(x,), outputs=(out,), rows=rows, dim=dim))
        return out
