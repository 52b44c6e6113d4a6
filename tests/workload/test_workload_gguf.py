import numpy as np
import pytest
from workload_models import tiny, tiny_moe

from smesim.errors import WorkloadError
from smesim.workload import ModelConfig, catalog
from smesim.workload.rope import llama3_divisors

gguf = pytest.importorskip("gguf", reason="needs the extra llm")


def write_gguf(path, config, changes=(), tensors=(), without_tensors=()):
    """A GGUF file with the metadata of `config` and no weights but those that carry metadata."""
    values = {
        "block_count": config.layers, "embedding_length": config.d_model, "feed_forward_length": config.d_ff,
        "attention.head_count": config.heads, "attention.head_count_kv": config.kv_heads,
        "attention.key_length": config.head_dim, "rope.freq_base": config.rope_theta,
        "attention.layer_norm_rms_epsilon": config.rms_eps, "context_length": config.max_position,
    }  # fmt: skip
    if config.is_moe:
        values |= {
            "expert_count": config.experts, "expert_used_count": config.experts_per_token,
            "expert_feed_forward_length": config.d_expert,
        }  # fmt: skip
    values |= dict(changes)
    writer = gguf.GGUFWriter(path, config.architecture)
    for key, value in values.items():
        name = f"{config.architecture}.{key}"
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        elif value is not None:
            writer.add_uint32(name, value)
    arrays = {"token_embd.weight": np.zeros((config.vocab, config.d_model), np.float16)} | dict(tensors)
    if not config.tied_embeddings:
        arrays["output.weight"] = np.zeros((config.vocab, config.d_model), np.float16)
    for name, array in arrays.items():
        if name not in without_tensors:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    "config",
    [
        tiny(name="model"),
        tiny(name="model", tied_embeddings=False),
        tiny(name="model", architecture="qwen2", qkv_bias=True),
        tiny(name="model", architecture="qwen3", qk_norm=True),
        tiny_moe(name="model"),
    ],
    ids=lambda config: config.architecture,
)
def test_gguf_metadata_give_the_config_they_were_written_from(tmp_path, config):
    path = write_gguf(tmp_path / "model.gguf", config)
    assert ModelConfig.from_gguf(path) == config
    assert catalog.load(path) == config


def test_gguf_keys_that_may_be_absent(tmp_path):
    config = tiny(d_model=128, rope_theta=1e4)
    absent = {"attention.head_count_kv": None, "attention.key_length": None, "rope.freq_base": None}
    read_back = ModelConfig.from_gguf(write_gguf(tmp_path / "a.gguf", config, absent))
    assert (read_back.kv_heads, read_back.head_dim, read_back.rope_theta) == (4, 32, 1e4)


def test_gguf_holds_llama3_scaling_as_a_table(tmp_path):
    scaling = catalog.load("llama-3.2-3b").rope_scaling
    config = tiny(name="scaled", head_dim=64, rope_theta=5e5, rope_scaling=scaling)
    table = np.array(llama3_divisors(64, 5e5, scaling), np.float32)
    path = write_gguf(tmp_path / "scaled.gguf", config, tensors={"rope_freqs.weight": table})
    assert ModelConfig.from_gguf(path) == config


def test_gguf_value_per_layer_is_accepted_where_all_agree(tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", tiny(), {"attention.head_count_kv": [2, 2]})
    assert ModelConfig.from_gguf(path) == tiny()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"changes": {"block_count": None}}, "llama.block_count is missing"),
        ({"changes": {"block_count": 0}}, "llama.block_count: .*greater than or equal to 1"),
        ({"changes": {"embedding_length": "wide"}}, "llama.embedding_length: .*valid integer"),
        ({"changes": {"attention.head_count": 3}}, r"heads \(3\) must be a multiple of kv_heads"),
        (
            {"changes": {"attention.head_count": 5, "attention.key_length": None}},
            "attention.key_length is missing",
        ),
        ({"changes": {"attention.head_count_kv": [2, 1]}}, "attention.head_count_kv differs between layers"),
        ({"changes": {"attention.layer_norm_rms_epsilon": float("nan")}}, "rms_epsilon: .*finite"),
        ({"changes": {"expert_count": 8}}, "expert_count is not 0"),
        ({"changes": {"attention.sliding_window": 512}}, "sliding_window is not 0"),
        ({"changes": {"rope.scaling.type": "yarn"}}, "rope.scaling.type is 'yarn'; accepted: none"),
        ({"without_tensors": ["token_embd.weight"]}, "token_embd.weight is missing"),
        ({"tensors": {"blk.0.attn_q.bias": np.zeros(4, np.float32)}}, "biases are accepted in qwen2"),
        (
            {"tensors": {"rope_freqs.weight": np.full(16, 7, np.float32)}},
            "rope_freqs.weight is not Llama 3's",
        ),
        (
            {"tensors": {"rope_freqs.weight": np.full(16, np.nan, np.float32)}},
            "rope_freqs.weight is not Llama 3's",
        ),
    ],
)
def test_bad_gguf_metadata_are_one_line_that_names_file_and_key(tmp_path, options, message):
    path = write_gguf(tmp_path / "bad.gguf", tiny(), **options)
    with pytest.raises(WorkloadError, match=message) as error:
        ModelConfig.from_gguf(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_gguf_of_another_architecture(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "gpt2")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(
        WorkloadError, match=r"general.architecture is 'gpt2'; accepted: llama, qwen2, qwen3, qwen3moe"
    ):
        ModelConfig.from_gguf(tmp_path / "other.gguf")


@pytest.mark.parametrize("kept", [0, 3, 10, 30, 100, 300, 500, 650])
def test_a_truncated_gguf_is_an_error(tmp_path, kept):
    data = write_gguf(tmp_path / "whole.gguf", tiny()).read_bytes()
    assert kept < len(data)
    path = tmp_path / "part.gguf"
    path.write_bytes(data[:kept])
    with pytest.raises(WorkloadError, match=r"part\.gguf: (not a whole GGUF file|.*missing)"):
        ModelConfig.from_gguf(path)


def test_text_is_not_gguf(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_text("{}" * 100)
    with pytest.raises(WorkloadError, match="not a whole GGUF file"):
        ModelConfig.from_gguf(path)
