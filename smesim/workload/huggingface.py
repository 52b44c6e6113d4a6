"""Read a model's shapes from a Hugging Face `config.json`.

The keys are those of transformers' LlamaConfig, Qwen2Config, Qwen3Config and Qwen3MoeConfig. Few may be
absent, and then mean what those classes take: `num_key_value_heads` (Llama: one per query head), `head_dim`
(hidden_size / num_attention_heads; Qwen3: 128), `tie_word_embeddings` (false), `rope_theta` (10000),
`rope_scaling` (none). What asks for operators that this package does not compute (sliding windows, other
biases, ...) is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from smesim.errors import WorkloadError
from smesim.files import first_validation_problem, read_text
from smesim.workload.config import Architecture, ModelConfig

_ARCHITECTURES: dict[str, Architecture] = {
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3moe",
}
_QWEN3_HEAD_DIM = 128  # transformers, Qwen3Config: head_dim defaults to 128
_REQUIRED = object()

# ModelConfig's field, and the key of config.json that holds it.
_KEYS = {
    "layers": "num_hidden_layers",
    "d_model": "hidden_size",
    "d_ff": "intermediate_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "vocab": "vocab_size",
    "tied_embeddings": "tie_word_embeddings",
    "rms_eps": "rms_norm_eps",
    "rope_theta": "rope_theta",
    "rope_scaling": "rope_scaling",
    "experts": "num_experts",
    "experts_per_token": "num_experts_per_tok",
    "d_expert": "moe_intermediate_size",
    "norm_topk_prob": "norm_topk_prob",
    "max_position": "max_position_embeddings",
}
# Keys that, at another value, ask for operators that are not modelled.
_ONLY_ACCEPTED: dict[str, object] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}


_ALSO = {"experts": "num_local_experts"}
"""Keys that transformers 5 writes where it read another."""


def read_config_json(path: Path) -> ModelConfig:
    """Read a `config.json`. The model is named after its folder. Raises WorkloadError."""
    text = read_text(path, WorkloadError, "a Hugging Face config.json")
    try:
        keys = json.loads(text)
    except json.JSONDecodeError as error:
        raise WorkloadError(
            f"{path}: line {error.lineno}, column {error.colno}: not JSON ({error.msg}); "
            "expected a whole Hugging Face config.json"
        ) from None
    except (ValueError, RecursionError) as error:
        raise WorkloadError(
            f"{path}: unreadable JSON ({error}); expected a Hugging Face config.json"
        ) from None
    if not isinstance(keys, dict):
        given = type(keys).__name__
        raise WorkloadError(f"{path}: holds a {given}; expected the object of a Hugging Face config.json")
    return config_from_keys(keys, str(path), path.resolve().parent.name or path.stem)


def config_from_keys(keys: Mapping[str, Any], where: str, name: str) -> ModelConfig:
    """The model that the keys of a config.json describe; `where` begins every error message."""
    for key in _non_finite_keys(keys):
        raise WorkloadError(f"{where}: {key} is not a finite number; accepted: finite numbers")
    architecture = _architecture(keys, where)
    for key, accepted in _ONLY_ACCEPTED.items():
        if keys.get(key) not in (None, accepted):
            raise WorkloadError(f"{where}: {key} is {keys[key]!r}; accepted: {json.dumps(accepted)}")
    try:
        return ModelConfig.model_validate(_fields(keys, architecture, where, name))
    except ValidationError as error:
        problem = first_validation_problem(error)
        field, colon, rest = problem.partition(":")
        raise WorkloadError(f"{where}: {_KEYS.get(field, field)}{colon}{rest}") from None


def _fields(keys: Mapping[str, Any], architecture: Architecture, where: str, name: str) -> dict[str, Any]:
    def get(field: str, default: object = _REQUIRED) -> Any:
        value = keys.get(_KEYS[field], keys.get(_ALSO.get(field, "")))
        if value is not None:
            return value
        if default is _REQUIRED:
            raise WorkloadError(f"{where}: {_KEYS[field]} is missing; a {keys['architectures'][0]} needs it")
        return default

    heads = get("heads")
    fields = {
        "name": name,
        "architecture": architecture,
        "layers": get("layers"),
        "d_model": get("d_model"),
        "d_ff": get("d_ff"),
        "heads": heads,
        "kv_heads": get("kv_heads", heads if architecture == "llama" else _REQUIRED),
        "vocab": get("vocab"),
        "tied_embeddings": get("tied_embeddings", False),
        "rms_eps": get("rms_eps"),
        "max_position": get("max_position"),
        "qk_norm": architecture in ("qwen3", "qwen3moe"),
        "qkv_bias": architecture == "qwen2",
        **_rope(keys, where),
    }
    head_dim = get("head_dim", _QWEN3_HEAD_DIM if architecture == "qwen3" else None)
    fields["head_dim"] = _split_evenly(fields["d_model"], heads, where) if head_dim is None else head_dim
    if architecture == "qwen3moe":
        for field in ("experts", "experts_per_token", "d_expert"):
            fields[field] = get(field)
        fields["norm_topk_prob"] = get("norm_topk_prob", False)
    return fields


def _architecture(keys: Mapping[str, Any], where: str) -> Architecture:
    given = keys.get("architectures")
    accepted = ", ".join(_ARCHITECTURES)
    if not isinstance(given, list) or not given:
        raise WorkloadError(f"{where}: architectures is {given!r}; accepted: a list with one of {accepted}")
    if not isinstance(given[0], str) or given[0] not in _ARCHITECTURES:
        raise WorkloadError(f"{where}: architectures names {given[0]!r}; accepted: {accepted}")
    return _ARCHITECTURES[given[0]]


def _split_evenly(d_model: object, heads: object, where: str) -> int:
    if not isinstance(d_model, int) or not isinstance(heads, int) or heads < 1 or d_model % heads:
        raise WorkloadError(
            f"{where}: head_dim is missing and hidden_size ({d_model!r}) is no multiple of "
            f"num_attention_heads ({heads!r}); give head_dim"
        )
    return d_model // heads


def _rope(keys: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`rope_theta` and `rope_scaling`, or the `rope_parameters` that hold both since transformers 5."""
    merged = keys.get("rope_parameters")
    theta, scaling, key = keys.get("rope_theta"), keys.get("rope_scaling"), "rope_scaling"
    if merged is not None:
        theta = merged.get("rope_theta", theta) if isinstance(merged, dict) else theta
        scaling, key = merged, "rope_parameters"
    return {
        "rope_theta": 10000.0 if theta is None else theta,
        "rope_scaling": _scaling(scaling, f"{where}: {key}"),
    }


def _scaling(scaling: object, where: str) -> dict[str, Any] | None:
    if scaling is None:
        return None
    if not isinstance(scaling, dict):
        raise WorkloadError(f"{where} is {scaling!r}; accepted: null, or an object with rope_type llama3")
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise WorkloadError(f"{where}.rope_type is {kind!r}; accepted: llama3, default")
    names = {
        "factor": "factor",
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
        "original_max_position": "original_max_position_embeddings",
    }
    for key in names.values():
        if scaling.get(key) is None:
            raise WorkloadError(f"{where}.{key} is missing; rope_type llama3 needs it")
    return {field: scaling[key] for field, key in names.items()}


def _non_finite_keys(keys: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in keys.items():
        if isinstance(value, float) and not math.isfinite(value):
            yield prefix + key
        elif isinstance(value, dict):
            yield from _non_finite_keys(value, f"{prefix}{key}.")
