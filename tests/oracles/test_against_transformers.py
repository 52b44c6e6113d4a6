"""Whole models against Hugging Face transformers: made-up little ones of each architecture, saved by transformers
itself and read back by a session, compared logit by logit over a prompt in pieces and 16 decode steps.

Needs the extra `oracle` (torch, transformers), which `make oracle` installs; elsewhere these tests are skipped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from smesim.exec.session import Session
from tests.sim.chips import two_core_chip

torch = pytest.importorskip("torch", reason="needs the extra oracle; 'make oracle' installs it")
transformers = pytest.importorskip("transformers", reason="needs the extra oracle; 'make oracle' installs it")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

PROMPT, DECODED = 21, 16
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
PLAIN = {"rope_type": "default", "rope_theta": 1e4}
WIDTHS: dict[str, Any] = {
    "vocab_size": 131, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
EXPERTS = {
    "tie_word_embeddings": False, "head_dim": 16, "rope_parameters": PLAIN, "num_experts": 9, "num_experts_per_tok": 3,
    "moe_intermediate_size": 40,
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, tied, scaled": ("Llama", {"tie_word_embeddings": True, "rope_parameters": LLAMA3}),
    "llama, untied": ("Llama", {"tie_word_embeddings": False, "rope_parameters": PLAIN}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True, "rope_parameters": PLAIN}),
    "qwen3": ("Qwen3", {"tie_word_embeddings": False, "head_dim": 16, "rope_parameters": PLAIN}),
    "qwen3moe, normalised": ("Qwen3Moe", {**EXPERTS, "norm_topk_prob": True}),
    "qwen3moe, not normalised": ("Qwen3Moe", {**EXPERTS, "norm_topk_prob": False}),
}


def saved_model(folder: Path, kind: str, changes: dict[str, Any], dtype: str) -> Any:
    """A model with drawn weights, in two shards or more; as f32 numbers, whatever they are saved as."""
    torch.manual_seed(7)
    config = getattr(transformers, f"{kind}Config")(**(WIDTHS | changes), initializer_range=0.1)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    for name, parameter in model.named_parameters():
        if name.endswith(("norm.weight", "bias")):
            parameter.data += 0.1 * torch.randn_like(parameter)
    model = model.to(getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size="60KB")
    return model.float().eval()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", MODELS)
def test_a_session_has_the_logits_of_transformers(tmp_path: Path, name: str, dtype: str) -> None:
    kind, changes = MODELS[name]
    model = saved_model(tmp_path, kind, changes, dtype)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    tokens = np.random.default_rng(5).integers(0, WIDTHS["vocab_size"], (1, PROMPT + DECODED))
    with torch.no_grad():
        expected: NDArray[np.float32] = model(torch.from_numpy(tokens)).logits[0].numpy()
    session = Session.open(tmp_path, two_core_chip(), context=PROMPT + DECODED, chunk=16, threads=2)
    found = [session.prefill(tokens[:, :PROMPT])[0]]
    found += [session.decode(tokens[:, PROMPT + i])[0] for i in range(DECODED)]
    wanted = expected[PROMPT - 1 :]
    off = np.linalg.norm(np.array(found) - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
    assert off.max() < TOLERANCE[dtype]
