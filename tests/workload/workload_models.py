"""Small models of every architecture, for property tests."""

from hypothesis import strategies as st

from smesim.workload import ModelConfig, Phase


def tiny(**changes):
    """A dense Llama of two layers; `changes` replace fields."""
    fields = {
        "name": "tiny", "architecture": "llama", "layers": 2, "d_model": 64, "d_ff": 96, "heads": 4,
        "kv_heads": 2,
        "head_dim": 32, "vocab": 160, "tied_embeddings": True, "rms_eps": 1e-5, "rope_theta": 1e4,
        "max_position": 1 << 20,
    }  # fmt: skip
    return ModelConfig(**(fields | changes))


def tiny_moe(**changes):
    """A mixture of 8 experts, 2 per token."""
    fields = {
        "architecture": "qwen3moe", "qk_norm": True, "experts": 8, "experts_per_token": 2, "d_expert": 32,
        "norm_topk_prob": True, "tied_embeddings": False,
    }  # fmt: skip
    return tiny(**(fields | changes))


@st.composite
def models(draw):
    kv_heads = draw(st.integers(1, 3))
    sizes = {
        "layers": draw(st.integers(1, 3)),
        "d_model": 32 * draw(st.integers(1, 4)),
        "d_ff": 32 * draw(st.integers(1, 4)),
        "kv_heads": kv_heads,
        "heads": kv_heads * draw(st.integers(1, 3)),
        "head_dim": 32 * draw(st.integers(1, 2)),
        "vocab": draw(st.integers(1, 200)),
        "tied_embeddings": draw(st.booleans()),
    }
    architecture = draw(st.sampled_from(["llama", "qwen2", "qwen3", "qwen3moe"]))
    if architecture == "qwen3moe":
        experts = draw(st.integers(1, 8))
        per_token = draw(st.integers(1, experts))
        return tiny_moe(**sizes, experts=experts, experts_per_token=per_token)
    return tiny(
        **sizes, architecture=architecture, qkv_bias=architecture == "qwen2", qk_norm=architecture == "qwen3"
    )


@st.composite
def phases(draw, largest=40):
    batch = draw(st.integers(1, 3))
    if draw(st.booleans()):
        return Phase.decode(draw(st.integers(1, largest)), batch)
    return Phase.prefill(draw(st.integers(1, largest)), draw(st.integers(0, largest)), batch)
