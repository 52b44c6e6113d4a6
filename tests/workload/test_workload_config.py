import json

import pytest
from workload_models import tiny

from smesim.errors import WorkloadError
from smesim.workload import ModelConfig, catalog

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "hidden_size": 128,
    "intermediate_size": 96,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 160, "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5, "rope_theta": 10000, "max_position_embeddings": 4096, "hidden_act": "silu",
    "attention_bias": False, "torch_dtype": "bfloat16", "rope_scaling": None,
}  # fmt: skip
LLAMA3_SCALING = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
MOE = LLAMA | {
    "architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8, "num_experts_per_tok": 2,
    "moe_intermediate_size": 32, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
}  # fmt: skip


def read(folder, keys):
    path = folder / "config.json"
    path.write_text(keys if isinstance(keys, str) else json.dumps(keys))
    return ModelConfig.from_hf_json(path)


def test_a_llama_config(tmp_path):
    config = read(tmp_path, LLAMA)
    assert config == tiny(name=tmp_path.name, d_model=128, head_dim=32, max_position=4096)


def test_what_may_be_absent(tmp_path):
    optional = ("num_key_value_heads", "tie_word_embeddings", "rope_theta", "rope_scaling", "hidden_act")
    config = read(tmp_path, {key: value for key, value in LLAMA.items() if key not in optional})
    assert (config.kv_heads, config.head_dim, config.tied_embeddings) == (4, 32, False)
    assert (config.rope_theta, config.rope_scaling) == (10000, None)


def test_qwen2_has_biases_and_qwen3_has_norms_of_heads(tmp_path):
    qwen2 = read(tmp_path, LLAMA | {"architectures": ["Qwen2ForCausalLM"]})
    assert (qwen2.qkv_bias, qwen2.qk_norm) == (True, False)
    qwen3 = read(tmp_path, LLAMA | {"architectures": ["Qwen3ForCausalLM"]})
    assert (qwen3.qkv_bias, qwen3.qk_norm, qwen3.head_dim) == (False, True, 128)


def test_a_mixture_of_experts(tmp_path):
    config = read(tmp_path, MOE)
    assert (config.experts, config.experts_per_token, config.d_expert, config.norm_topk_prob) == (
        8,
        2,
        32,
        True,
    )
    assert config.is_moe
    assert config.parameters == read(tmp_path, MOE | {"intermediate_size": 999}).parameters


def test_rope_scaling_in_its_old_and_new_place(tmp_path):
    old = read(tmp_path, LLAMA | {"rope_scaling": LLAMA3_SCALING, "rope_theta": 500000.0})
    new_keys = LLAMA | {"rope_parameters": LLAMA3_SCALING | {"rope_theta": 500000.0}}
    del new_keys["rope_theta"]
    assert read(tmp_path, new_keys) == old
    assert old.rope_theta == 500000
    assert old.rope_scaling.factor == 8
    plain = read(tmp_path, LLAMA | {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}})
    assert (plain.rope_theta, plain.rope_scaling) == (5e5, None)


def without(key):
    return {name: value for name, value in LLAMA.items() if name != key}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("", "line 1, column 1: not JSON"),
        ('{\n "hidden_size": 128,\n "num', "line 3, column 2: not JSON"),
        ("[" * 100_000, "unreadable JSON"),
        ('{"hidden_size": ' + "9" * 5000 + "}", "unreadable JSON"),
        ("[1, 2]", "holds a list; expected the object"),
        ({}, "architectures is None; accepted: a list with one of LlamaForCausalLM"),
        (
            LLAMA | {"architectures": "LlamaForCausalLM"},
            "architectures is 'LlamaForCausalLM'; accepted: a list",
        ),
        (
            LLAMA | {"architectures": ["GPT2LMHeadModel"]},
            "architectures names 'GPT2LMHeadModel'; accepted: Llama",
        ),
        (LLAMA | {"architectures": [3]}, "architectures names 3"),
        (without("hidden_size"), "hidden_size is missing; a LlamaForCausalLM needs it"),
        (without("rms_norm_eps"), "rms_norm_eps is missing"),
        (without("vocab_size"), "vocab_size is missing"),
        (LLAMA | {"num_hidden_layers": 0}, r"num_hidden_layers: .*greater than or equal to 1 \(given: 0\)"),
        (LLAMA | {"num_hidden_layers": True}, "num_hidden_layers: .*valid integer"),
        (LLAMA | {"hidden_size": 128.0}, "hidden_size|head_dim"),
        (LLAMA | {"hidden_size": "128"}, "head_dim is missing and hidden_size"),
        (LLAMA | {"vocab_size": 2**31}, "vocab_size: .*less than or equal to 2147483647"),
        (
            LLAMA | {"num_attention_heads": 3, "head_dim": 32},
            r"heads \(3\) must be a multiple of kv_heads \(2\)",
        ),
        (LLAMA | {"num_attention_heads": 6}, "no multiple of num_attention_heads"),
        (LLAMA | {"num_attention_heads": 0}, "no multiple of num_attention_heads"),
        (LLAMA | {"head_dim": 33}, r"head_dim \(33\) must be even"),
        (LLAMA | {"rms_norm_eps": float("nan")}, "rms_norm_eps is not a finite number"),
        (LLAMA | {"rope_theta": float("inf")}, "rope_theta is not a finite number"),
        (
            LLAMA | {"rope_scaling": LLAMA3_SCALING | {"factor": float("nan")}},
            "rope_scaling.factor is not a finite",
        ),
        (json.dumps(LLAMA).replace("10000", "1e999"), "rope_theta is not a finite number"),
        (LLAMA | {"rms_norm_eps": 0}, "rms_norm_eps: .*greater than 0"),
        (LLAMA | {"tie_word_embeddings": "yes"}, "tie_word_embeddings: .*valid boolean"),
        (LLAMA | {"rope_scaling": "llama3"}, "rope_scaling is 'llama3'; accepted: null"),
        (
            LLAMA | {"rope_scaling": {"rope_type": "yarn"}},
            "rope_scaling.rope_type is 'yarn'; accepted: llama3",
        ),
        (LLAMA | {"rope_scaling": {"rope_type": "llama3"}}, "rope_scaling.factor is missing"),
        (
            LLAMA | {"rope_scaling": LLAMA3_SCALING | {"high_freq_factor": 1.0}},
            "must be above low_freq_factor",
        ),
        (LLAMA | {"rope_parameters": 3}, "rope_parameters is 3"),
        (LLAMA | {"hidden_act": "gelu"}, "hidden_act is 'gelu'; accepted: \"silu\""),
        (LLAMA | {"attention_bias": True}, "attention_bias is True; accepted: false"),
        (LLAMA | {"mlp_bias": True}, "mlp_bias is True"),
        (LLAMA | {"use_sliding_window": True}, "use_sliding_window is True"),
        (MOE | {"mlp_only_layers": [0]}, r"mlp_only_layers is \[0\]; accepted: \[\]"),
        (MOE | {"decoder_sparse_step": 2}, "decoder_sparse_step is 2"),
        (MOE | {"num_experts": 0}, "experts is 0; a mixture of experts needs"),
        (MOE | {"num_experts_per_tok": 9}, "experts_per_token is 9; accepted: 1..8"),
        (MOE | {"moe_intermediate_size": 0}, "d_expert is 0"),
        (MOE | {"num_experts": None}, "num_experts is missing; a Qwen3MoeForCausalLM needs it"),
    ],
)
def test_a_bad_config_is_one_line_that_names_file_and_key(tmp_path, keys, message):
    with pytest.raises(WorkloadError, match=message) as error:
        read(tmp_path, keys)
    assert str(tmp_path / "config.json") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(WorkloadError, match="No such file or directory; expected a Hugging Face config"):
        ModelConfig.from_hf_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(WorkloadError, match="not text"):
        ModelConfig.from_hf_json(tmp_path / "config.json")
    with pytest.raises(WorkloadError, match="Is a directory"):
        ModelConfig.from_hf_json(tmp_path)


def test_a_config_read_back_equals_the_config_written():
    for name in catalog.names():
        config = catalog.load(name)
        assert ModelConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    "changes", [{"experts_per_token": 2}, {"d_expert": 32}, {"architecture": "qwen3moe"}, {"unknown": 1}]
)
def test_a_dense_model_has_no_expert_numbers(changes):
    with pytest.raises(ValueError, match=r"experts|unknown"):
        tiny(**changes)
