"""Sessions: what comes out is what a reference model computes, wherever pieces and spans begin and end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from smesim.errors import DeviceError, SmesimError, WorkloadError
from smesim.exec.executor import NativeExecutor
from smesim.exec.kv_file import restore_kv, save_kv
from smesim.exec.sampling import Sampler, Sampling
from smesim.exec.session import CHUNKS, Session, decode_span
from smesim.exec.tensors import Tensors
from smesim.plan.lower import lower
from smesim.plan.moving import MovingProgram
from smesim.plan.program import TaskKind
from smesim.plan.schema import Plan
from smesim.workload import DType, ModelConfig, Phase, build_graph
from smesim.workload.checkpoint import Checkpoint
from smesim.workload.make_weights import make_weights
from tests.exec.native_models import CHIP, CORES, DEVICE, Cut, cut_plan, little, little_moe, make_case
from tests.oracles.reference_model import Shapes, forward

CONTEXT = 80
MODELS = {
    "llama": (little(vocab=300, kv_heads=1, heads=4, rope_scaling=None), DType.F32),
    "qwen2": (little(vocab=300, architecture="qwen2", qkv_bias=True, tied_embeddings=False), DType.F32),
    "qwen3": (little(vocab=300, architecture="qwen3", qk_norm=True), DType.F32),
    "qwen3moe": (little_moe(vocab=300, experts=33, d_expert=24, tied_embeddings=False), DType.F32),
    "llama, bf16": (little(vocab=300, head_dim=16, layers=2), DType.BF16),
    "llama, KV in f16": (little(vocab=300, kv_heads=1, heads=4, head_dim=32), DType.F32),
    "llama, KV in q8_0": (little(vocab=300, kv_heads=1, heads=4, head_dim=32), DType.F32),
}
TOLERANCE = {
    (DType.F32, DType.F32): 1e-4, (DType.BF16, DType.F32): 2e-2, (DType.F32, DType.F16): 2e-3,
    (DType.F32, DType.Q8_0): 3e-2,
}  # fmt: skip
"""By the formats of weights and of the KV cache; the reference keeps keys and values as they are."""


def open_session(path: Path, **options: Any) -> Session:
    return Session.open(path, CHIP, **({"context": CONTEXT, "chunk": 32, "threads": CORES} | options))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "made.gguf"
    make_weights(MODELS["llama"][0], "f32", path)
    return path


class Reference:
    """The reference model over one sequence, piece by piece."""

    def __init__(self, checkpoint: Checkpoint, bf16: bool) -> None:
        model = self.model = checkpoint.model
        scaling = None if model.rope_scaling is None else model.rope_scaling.model_dump()
        self.shapes = Shapes(
            model.layers, model.heads, model.kv_heads, model.head_dim, model.rms_eps, model.rope_theta, scaling,
            model.tied_embeddings, model.norm_topk_prob, model.experts_per_token,
        )  # fmt: skip
        self.bf16 = bf16
        self.weights = {}
        for name, spec in build_graph(model, Phase.decode(1)).tensors.items():
            if spec.role == "weight":
                weight = checkpoint.weight(name, spec.shape)
                self.weights[name] = weight.floats(0, weight.n_rows).reshape(spec.shape)
        empty = np.zeros((1, model.kv_heads, 0, model.head_dim), np.float32)
        self.k, self.v = [empty] * model.layers, [empty] * model.layers

    def read(self, tokens: NDArray[np.integer]) -> NDArray[np.float64]:
        result = forward(self.shapes, self.weights, tokens[None, :], self.k, self.v, bf16=self.bf16)
        self.k, self.v = ([cache.value for cache in caches] for caches in (result.k_caches, result.v_caches))
        return result.logits.value[0]


@pytest.mark.parametrize("name", MODELS)
def test_a_prompt_in_pieces_and_decode_steps_give_the_logits_of_the_reference(tmp_path: Path, name: str) -> None:
    """57 tokens as 32 + 25, the second piece filled up to 32; and steps from one span of decode lengths to the next."""
    model, weights = MODELS[name]
    path = tmp_path / "made.gguf"
    make_weights(model, str(weights), path)
    kv = DType(name.partition("KV in ")[2] or "f32")
    session, reference = open_session(path, kv=kv), Reference(Checkpoint.open(path), weights is DType.BF16)
    assert session.dtypes.weights is weights
    tokens = np.random.default_rng(2).integers(0, model.vocab, CONTEXT)
    found, expected, begin = [session.prefill(tokens[None, :57])[0]], [], 0
    for end in (32, 57):
        expected, begin = [reference.read(tokens[begin:end])], end
    for at in range(57, 68):
        found.append(session.decode(tokens[at : at + 1])[0])
        expected.append(reference.read(tokens[at : at + 1]))
    off = np.linalg.norm(np.array(found) - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert off.max() < TOLERANCE[weights, kv]
    assert (off.max() > 1e-5) == (kv is not DType.F32), "what is kept in fewer bits is not all that there was"
    assert session.past == 68
    session.reset(57)
    again = session.decode(tokens[57:58])[0]
    assert (again == found[1]).all(), "the same plan, the same bits"


def test_experts_in_bf16_are_computed_as_they_are_stored(tmp_path: Path) -> None:
    make_weights(MODELS["qwen3moe"][0], "bf16", tmp_path / "made.gguf")
    session = open_session(tmp_path / "made.gguf")
    assert (session.dtypes.weights, session.conversions) == (DType.BF16, ())
    for name in ("gate", "down"):
        found = session.kv.read(f"layers.0.{name}_experts.weight")
        weight = session.checkpoint.weight(f"layers.0.{name}_experts.weight", found.shape)
        each = weight.tensors[0].n_rows
        stored = [weight.floats(first, first + each) for first in range(0, weight.n_rows, each)]
        np.testing.assert_array_equal(found.reshape(-1, found.shape[-1]), np.concatenate(stored))
    assert len(list(session.generate([1, 2, 3], 3))) == 3


@pytest.mark.parametrize("split", [1, 3])
def test_a_program_that_was_moved_computes_what_one_made_for_that_place_does(split: int) -> None:
    """With the past of attention divided, and not; bit for bit, but for the room in the KV cache."""
    model = little(layers=2, kv_heads=1)
    moving = MovingProgram(divided(model, Phase.decode(48), split), CONTEXT)
    arrays = make_case(model, Phase.decode(CONTEXT), Cut(), seed=4).arrays
    for context in (48, 61, 75):
        plan = divided(model, Phase.decode(context), split)
        there = lower(plan)
        own = {name: a[:, :, : context - 1] if name.endswith("cache") else a for name, a in arrays.items()}
        expected = Tensors.from_arrays(there, model, DEVICE, own)
        NativeExecutor(DEVICE).stopwatch(there, expected)()
        moving.move(context - 1)
        tensors = Tensors.from_arrays(moving.program, model, DEVICE, arrays)
        NativeExecutor(DEVICE).stopwatch(moving.program, tensors)()
        name = next(name for name in there.buffer_names if name.startswith("lm_head.out["))
        assert (tensors.read(name) == expected.read(name)).all()
        assert (moving.program.tasks["kind"] == TaskKind.ATTENTION_PART).any() == (split > 1)


def divided(model: ModelConfig, phase: Phase, split: int) -> Plan:
    plan = cut_plan(model, phase, Cut())
    entries = (e.model_copy(update={"past_split": split}) if e.kind == "attention" else e for e in plan.operators)
    return plan.model_copy(update={"operators": tuple(entries)})


def test_sequences_of_a_batch_do_not_know_of_each_other(made: Path) -> None:
    one, two = open_session(made), open_session(made, batch=2)
    tokens = np.random.default_rng(3).integers(0, 300, (2, 9))
    apart = []
    for sequence in tokens:
        one.reset()
        apart.append([one.prefill(sequence[None, :8])[0], one.decode(sequence[8:])[0]])
    together = [two.prefill(tokens[:, :8]), two.decode(tokens[:, 8])]
    assert np.allclose(np.array(apart).swapaxes(0, 1), together, rtol=1e-4, atol=1e-5)


def test_generation_is_greedy_or_drawn_and_ends_where_it_must(made: Path) -> None:
    session = open_session(made)
    greedy = list(session.generate([5, 6, 7], 6))
    session.reset()
    logits = session.prefill(np.array([[5, 6, 7, *greedy[:3]]]))
    assert int(np.argmax(logits)) == greedy[3]
    drawn = []
    for seed in (1, 1, 2):
        session.reset()
        drawn.append(list(session.generate([5, 6, 7], 6, Sampling(temperature=2.0, seed=seed))))
    assert drawn[0] == drawn[1] != drawn[2]
    session.reset()
    assert list(session.generate([5, 6, 7], 6, stop=(greedy[2],))) == greedy[: greedy.index(greedy[2])]
    session.reset()
    assert len(list(session.generate(range(CONTEXT - 2), 9))) == 3, "two that are read, and the last that is not"


def test_samples_follow_the_distribution_that_is_asked_for() -> None:
    logits = np.log(np.array([[0.1, 0.4, 0.2, 0.3]], np.float32))
    for sampling, expected in (
        (Sampling(temperature=1.0), [0.1, 0.4, 0.2, 0.3]),
        (Sampling(temperature=1.0, top_k=2), [0, 4 / 7, 0, 3 / 7]),
        (Sampling(temperature=1.0, top_p=0.6), [0, 4 / 7, 0, 3 / 7]),
        (Sampling(temperature=0.5), np.array([1, 16, 4, 9]) / 30),
        (Sampling(), [0, 1, 0, 0]),
    ):
        sampler = Sampler(sampling)
        drawn = [int(sampler.draw(logits)[0]) for _ in range(2000)]
        assert np.abs(np.bincount(drawn, minlength=4) / 2000 - expected).max() < 0.05


def test_what_a_session_refuses(made: Path, tmp_path: Path) -> None:
    session = open_session(made)
    for tokens, message in (
        (np.zeros((1, CONTEXT + 1), int), "81 tokens behind 0 are more than the context of 80"),
        (np.array([[0, 300]]), r"tokens 0..300; accepted: 0..299"),
        (np.zeros((2, 3), int), r"tokens of shape \(2, 3\); accepted: \(1, 1 or more\)"),
    ):
        with pytest.raises(WorkloadError, match=message):
            session.prefill(tokens)
    with pytest.raises(WorkloadError, match=r"reset to 4 tokens; accepted: 0..0"):
        session.reset(4)
    with pytest.raises(WorkloadError, match=r"context is 9999; accepted for made: 1..4096"):
        open_session(made, context=9999)
    for bad in ({"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}, {"seed": -1}):
        with pytest.raises(SmesimError, match=f"{next(iter(bad))} is .*; accepted"):
            Sampling(**bad)
    whole = made.read_bytes()  # the last tensor is the gain of the last norm, filled up by 12 bytes
    (tmp_path / "nan.gguf").write_bytes(whole[:-20] + np.float32("nan").tobytes() + whole[-16:])
    with pytest.raises(DeviceError, match="the logits behind 1 tokens are not finite"):
        open_session(tmp_path / "nan.gguf").prefill(np.array([[1]]))


@pytest.mark.parametrize("kv", [DType.F16, DType.Q8_0])
def test_a_kv_cache_of_fewer_bits_is_saved_as_it_is(tmp_path: Path, kv: DType) -> None:
    model, path = tmp_path / "made.gguf", tmp_path / "cache.safetensors"
    make_weights(MODELS["llama, KV in f16"][0], "f32", model)
    first, second = open_session(model, kv=kv), open_session(model, kv=kv)
    list(first.generate(range(20), 4))
    save_kv(first, path)
    restore_kv(second, path)
    for name in ("layers.0.k_cache", "layers.0.v_cache"):
        np.testing.assert_array_equal(second.kv.read(name)[:, :23], first.kv.read(name)[:, :23])
    assert first.kv.read(name).any()
    assert (second.decode(np.array([7])) == first.decode(np.array([7]))).all()
    with pytest.raises(WorkloadError, match="in other formats"):
        restore_kv(open_session(model, kv=DType.F32 if kv is DType.Q8_0 else DType.Q8_0), path)


def test_a_kv_cache_that_was_saved_saves_reading_its_tokens_again(made: Path, tmp_path: Path) -> None:
    prompt, path = list(range(20)), tmp_path / "cache.safetensors"
    first, second = open_session(made), open_session(made, context=60)
    whole = list(first.generate(prompt, 4))
    save_kv(first, path)
    assert restore_kv(second, path) == first.past == 23
    assert list(second.generate(prompt, 4)) == whole
    assert second.timings.prefill_tokens == 1, "the last one, for its logits"
    assert list(second.generate([*prompt[:10], 99], 1))
    assert second.timings.prefill_tokens == 2, "the one that differs"

    other = tmp_path / "other.gguf"
    make_weights(MODELS["llama"][0], "f32", other, seed=1)
    damaged = bytearray(path.read_bytes())
    damaged[-9] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(damaged)
    safetensors_of_nothing = (2).to_bytes(8, "little") + b"{}"
    (tmp_path / "foreign.safetensors").write_bytes(safetensors_of_nothing)
    for session, name, message in (
        (open_session(other), "cache", "was saved from another model"),
        (open_session(made, weights=DType.BF16), "cache", "was saved from another model"),
        (second, "damaged", "its bytes are not those that were saved"),
        (second, "foreign", "has form None"),
        (open_session(made, context=22), "cache", r"has tokens of shape \(1, 23\); accepted: \(1, 1..22\)"),
        (open_session(made, batch=2), "cache", r"accepted: \(2, 1..80\)"),
    ):
        with pytest.raises(WorkloadError, match=message):
            restore_kv(session, tmp_path / f"{name}.safetensors")
        assert session.past == (second.past if session is second else 0)


def test_pieces_and_spans_are_few_and_close() -> None:
    for tokens in range(1, CHUNKS[-1] + 1):
        size = next(chunk for chunk in CHUNKS if chunk >= tokens)
        assert size <= max(8, 2 * tokens)
    spans = [decode_span(context) for context in range(1, 5000)]
    assert all(span <= context and (context < 64 or 2 * span > context) for context, span in enumerate(spans, 1))
    assert len(set(spans)) == 8
