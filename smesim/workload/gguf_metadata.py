"""Read a model's shapes from a GGUF file: its metadata and the list of its tensors, not the weights.

Keys are those of llama.cpp's `gguf-py/gguf/constants.py`, prefixed with the architecture
("qwen3.block_count"). Three things are not keys but tensors: a model without `output.weight` has tied
embeddings, the vocabulary is the height of `token_embd.weight`, and Llama 3's rotary scaling is a table of
divisors, `rope_freqs.weight`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import numpy as np
from pydantic import ValidationError

from smesim.errors import WorkloadError
from smesim.files import first_validation_problem
from smesim.workload.config import Architecture, Llama3RopeScaling, ModelConfig
from smesim.workload.gguf_file import GgufFile
from smesim.workload.rope import llama3_divisors

# Llama 3.1 and 3.2 differ in `factor` alone; see config.json of meta-llama/Llama-3.1-8B and Llama-3.2-3B.
_LLAMA3_LOW, _LLAMA3_HIGH, _LLAMA3_ORIGINAL = 1.0, 4.0, 8192
_DIVISOR_TOLERANCE = 1e-3

KEYS = {
    "layers": "block_count",
    "d_model": "embedding_length",
    "d_ff": "feed_forward_length",
    "heads": "attention.head_count",
    "kv_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "rms_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "experts": "expert_count",
    "experts_per_token": "expert_used_count",
    "d_expert": "expert_feed_forward_length",
    "max_position": "context_length",
}
_REQUIRED = ("layers", "d_model", "d_ff", "heads", "rms_eps", "max_position")
_REQUIRED_OF_EXPERTS = ("experts", "experts_per_token", "d_expert")


def read_gguf(path: Path) -> ModelConfig:
    """Read a GGUF file of architecture llama, qwen2, qwen3 or qwen3moe. The model is named after the file.

    Raises WorkloadError naming file, key, and what is accepted.
    """
    return config_of(GgufFile.read(path))


def config_of(file: GgufFile) -> ModelConfig:
    """The model that the header of a file describes."""
    return _Metadata(file).config(file.path.stem)


class _Metadata:
    """The keys and tensors of one open file, with errors that name them."""

    def __init__(self, file: GgufFile) -> None:
        self.where = str(file.path)
        self.fields = file.metadata
        self.tensors = file.tensors
        given = self._value("general.architecture")
        accepted = get_args(Architecture)
        if given not in accepted:
            raise WorkloadError(
                f"{self.where}: general.architecture is {given!r}; accepted: {', '.join(accepted)}"
            )
        self.architecture: Architecture = given

    def config(self, name: str) -> ModelConfig:
        self._refuse_what_is_not_modelled()
        fields: dict[str, Any] = {
            "name": name,
            "architecture": self.architecture,
            "vocab": self._vocab(),
            "tied_embeddings": "output.weight" not in self.tensors,
            "qk_norm": self.architecture in ("qwen3", "qwen3moe"),
            "qkv_bias": self.architecture == "qwen2",
            "rope_theta": 10000.0,
        }
        for field, key in KEYS.items():
            value = self._value(f"{self.architecture}.{key}", None)
            if value is not None:
                fields[field] = value
        is_moe = self.architecture == "qwen3moe"
        fields["norm_topk_prob"] = is_moe  # llama.cpp, src/models/qwen3moe.cpp: always normalised
        for field in _REQUIRED + (_REQUIRED_OF_EXPERTS if is_moe else ()):
            if field not in fields:
                raise WorkloadError(f"{self.where}: {self.architecture}.{KEYS[field]} is missing")
        fields.setdefault("kv_heads", fields["heads"])
        if "head_dim" not in fields:
            fields["head_dim"] = self._split_evenly(fields["d_model"], fields["heads"])
        try:
            config = ModelConfig.model_validate(fields)
        except ValidationError as error:
            field, colon, rest = first_validation_problem(error).partition(":")
            key = f"{self.architecture}.{KEYS[field]}" if field in KEYS else field
            raise WorkloadError(f"{self.where}: {key}{colon}{rest}") from None
        return config.model_copy(update={"rope_scaling": self._rope_scaling(config)})

    def _value(self, key: str, *default: Any) -> Any:
        value = self.fields.get(key)
        if value is None:
            if default:
                return default[0]
            raise WorkloadError(f"{self.where}: {key} is missing; expected the metadata of a language model")
        if isinstance(value, list):
            if len(set(value)) != 1:
                raise WorkloadError(
                    f"{self.where}: {key} differs between layers; accepted: one value for all"
                )
            value = value[0]
        return _as_written(value) if isinstance(value, float) else value

    def _vocab(self) -> int:
        table = self.tensors.get("token_embd.weight")
        if table is None:
            raise WorkloadError(
                f"{self.where}: tensor token_embd.weight is missing; expected a file with the model's weights"
            )
        return table.n_rows

    def _split_evenly(self, d_model: Any, heads: Any) -> int:
        if not isinstance(d_model, int) or not isinstance(heads, int) or heads < 1 or d_model % heads:
            raise WorkloadError(
                f"{self.where}: {self.architecture}.attention.key_length is missing and embedding_length "
                f"({d_model!r}) is no multiple of attention.head_count ({heads!r})"
            )
        return d_model // heads

    def _refuse_what_is_not_modelled(self) -> None:
        prefix = self.architecture
        if prefix != "qwen3moe" and self._value(f"{prefix}.expert_count", 0):
            raise WorkloadError(
                f"{self.where}: {prefix}.expert_count is not 0; experts are accepted in qwen3moe"
            )
        if self._value(f"{prefix}.attention.sliding_window", 0):
            raise WorkloadError(f"{self.where}: {prefix}.attention.sliding_window is not 0; accepted: 0")
        scaling = self._value(f"{prefix}.rope.scaling.type", "none")
        if scaling != "none":
            raise WorkloadError(f"{self.where}: {prefix}.rope.scaling.type is {scaling!r}; accepted: none")
        if prefix != "qwen2" and "blk.0.attn_q.bias" in self.tensors:
            raise WorkloadError(f"{self.where}: tensor blk.0.attn_q.bias; biases are accepted in qwen2")

    def _rope_scaling(self, config: ModelConfig) -> Llama3RopeScaling | None:
        table = self.tensors.get("rope_freqs.weight")
        if table is None:
            return None
        divisors = table.floats().astype(np.float64).ravel()
        factor = float(divisors.max(initial=1.0))
        if math.isfinite(factor):
            scaling = Llama3RopeScaling(
                factor=factor,
                low_freq_factor=_LLAMA3_LOW,
                high_freq_factor=_LLAMA3_HIGH,
                original_max_position=_LLAMA3_ORIGINAL,
            )
            expected = llama3_divisors(config.head_dim, config.rope_theta, scaling)
            if len(divisors) == len(expected) and np.allclose(divisors, expected, rtol=_DIVISOR_TOLERANCE):
                return scaling
        raise WorkloadError(
            f"{self.where}: tensor rope_freqs.weight is not Llama 3's; accepted: none, or the table for "
            f"low_freq_factor {_LLAMA3_LOW}, high_freq_factor {_LLAMA3_HIGH}, length {_LLAMA3_ORIGINAL}"
        )


def _as_written(value: float) -> float:
    """The shortest decimal of a 32-bit float, which is what GGUF keeps: 1e-05, not 9.99999974e-06."""
    with np.errstate(over="ignore"):
        single = np.float32(value)
    return float(str(single)) if float(single) == value else value
