"""What a model is: the handful of numbers that fix every shape in it.

`ModelConfig` describes a decoder-only transformer with RMSNorm, rotary positions, grouped-query attention
and a SwiGLU feed-forward part, dense or a mixture of experts: the Llama, Qwen2, Qwen3 and Qwen3-MoE
families. It is read from a Hugging Face `config.json` (`from_hf_json`), from the metadata of a GGUF file
(`from_gguf`), or from the catalogue (`smesim.workload.catalog`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Architecture = Literal["llama", "qwen2", "qwen3", "qwen3moe"]
_LARGEST = 2**31 - 1  # programs hold shapes as 32-bit integers
Positive = Annotated[int, Field(ge=1, le=_LARGEST)]
Count = Annotated[int, Field(ge=0, le=_LARGEST)]
PositiveReal = Annotated[float, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Llama3RopeScaling(_Part):
    """Llama 3.1's stretching of rotary frequencies (see `smesim.workload.rope`)."""

    factor: PositiveReal = Field(description="how much longer the context became")
    low_freq_factor: PositiveReal = Field(description="wavelengths above original/low are divided by factor")
    high_freq_factor: PositiveReal = Field(description="wavelengths below original/high stay as they are")
    original_max_position: Positive = Field(description="context length of the model before stretching")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.high_freq_factor <= self.low_freq_factor:
            high, low = self.high_freq_factor, self.low_freq_factor
            raise ValueError(f"high_freq_factor ({high}) must be above low_freq_factor ({low})")
        return self


class ModelConfig(_Part):
    """The numbers that fix the shapes of a decoder-only transformer.

    Dense models have `experts` = `experts_per_token` = `d_expert` = 0 and a `d_ff`; mixtures of experts
    (`qwen3moe`) have all four, and `d_ff` is unused. Inconsistent values raise pydantic's ValidationError;
    the readers turn it into one WorkloadError that names file and key.
    """

    name: str = Field(min_length=1)
    architecture: Architecture
    layers: Positive
    d_model: Positive
    d_ff: Positive
    heads: Positive
    kv_heads: Positive
    head_dim: Positive
    vocab: Positive
    tied_embeddings: bool
    rms_eps: PositiveReal
    rope_theta: PositiveReal
    rope_scaling: Llama3RopeScaling | None = None
    qk_norm: bool = False
    qkv_bias: bool = False
    experts: Count = 0
    experts_per_token: Count = 0
    d_expert: Count = 0
    norm_topk_prob: bool = False
    max_position: Positive

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        if self.head_dim % 2:
            raise ValueError(f"head_dim ({self.head_dim}) must be even: rotary positions turn pairs")
        if self.is_moe:
            if not 1 <= self.experts_per_token <= self.experts:
                raise ValueError(
                    f"experts_per_token is {self.experts_per_token}; accepted: 1..{self.experts}"
                )
            if not self.d_expert:
                raise ValueError("d_expert is 0; a mixture of experts needs the width of an expert")
        elif self.experts_per_token or self.d_expert or self.architecture == "qwen3moe":
            raise ValueError("experts is 0; a mixture of experts needs the number of experts")
        return self

    @property
    def is_moe(self) -> bool:
        """Whether the feed-forward part is a mixture of experts."""
        return self.experts > 0

    @property
    def q_dim(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Width of all key (or value) heads together."""
        return self.kv_heads * self.head_dim

    @property
    def parameters(self) -> int:
        """Number of weights; a tied embedding counts once."""
        attention = 2 * self.q_dim * self.d_model + 2 * self.kv_dim * self.d_model
        attention += (self.q_dim + 2 * self.kv_dim) * self.qkv_bias + 2 * self.head_dim * self.qk_norm
        if self.is_moe:
            feed_forward = self.experts * (self.d_model + 3 * self.d_model * self.d_expert)
        else:
            feed_forward = 3 * self.d_model * self.d_ff
        embeddings = self.vocab * self.d_model * (1 if self.tied_embeddings else 2)
        return self.layers * (attention + feed_forward + 2 * self.d_model) + self.d_model + embeddings

    @classmethod
    def from_hf_json(cls, path: Path | str) -> ModelConfig:
        """Read a Hugging Face `config.json`; WorkloadError names the file, the key, and what is accepted."""
        from smesim.workload.huggingface import read_config_json

        return read_config_json(Path(path))

    @classmethod
    def from_gguf(cls, path: Path | str) -> ModelConfig:
        """Read the metadata of a GGUF file; WorkloadError as for `from_hf_json`."""
        from smesim.workload.gguf_metadata import read_gguf

        return read_gguf(Path(path))
