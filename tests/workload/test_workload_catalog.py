import json

import pytest
from workload_models import tiny

from smesim.errors import WorkloadError
from smesim.workload import Phase, Role, build_graph, catalog

# Parameters exactly as the shapes give them; each rounds to what the authors state.
EXACT = {
    "llama-2-7b": 6_738_415_616,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-235b-a22b": 235_093_634_560,
    "qwen3-30b-a3b": 30_532_122_624,
    "smollm2-135m": 134_515_008,
    "tinyllama-1.1b": 1_100_048_384,
}


def test_names_are_those_promised_and_sorted():
    assert set(catalog.names()) == set(EXACT)
    assert list(catalog.names()) == sorted(catalog.names())


@pytest.mark.parametrize("name", sorted(EXACT))
def test_parameters_are_those_published(name):
    config = catalog.load(name)
    assert config.name == name
    assert config.parameters == EXACT[name]
    assert config.parameters == pytest.approx(catalog.published_parameters(name), rel=0.015)
    assert catalog.source(name).startswith("https://huggingface.co/")


def test_one_token_uses_as_many_parameters_as_the_name_of_the_mixture_says():
    config = catalog.load("qwen3-30b-a3b")
    graph = build_graph(config, Phase.decode(1))
    used = graph.total_read_bytes(Role.WEIGHT) / 4 + (config.vocab - 1) * config.d_model
    assert used == pytest.approx(3.3e9, rel=0.02)  # model card: 3.3B activated


def test_names_ignore_case():
    assert catalog.load("Qwen3-4B") == catalog.load("qwen3-4b")


def test_an_unknown_name_lists_the_names_and_the_closest():
    with pytest.raises(
        WorkloadError, match=r"unknown model 'llama3.2-3b' \(did you mean llama-3.2-3b\?\)"
    ) as error:
        catalog.load("llama3.2-3b")
    for name in catalog.names():
        assert name in str(error.value)
    with pytest.raises(WorkloadError, match="unknown model 'gpt-5'"):
        catalog.source("gpt-5")


def test_a_folder_and_a_file_are_read_like_a_name(tmp_path):
    folder = tmp_path / "my-model"
    folder.mkdir()
    config = tiny()
    keys = {
        "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 160,
        "tie_word_embeddings": True, "rms_norm_eps": 1e-5, "max_position_embeddings": 1 << 20,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(keys))
    expected = config.model_copy(update={"name": "my-model"})
    assert catalog.load(str(folder)) == catalog.load(folder / "config.json") == expected
    (tmp_path / "empty").mkdir()
    with pytest.raises(WorkloadError, match=r"empty.config\.json: No such file or directory"):
        catalog.load(tmp_path / "empty")
    with pytest.raises(WorkloadError, match=r"nowhere\.gguf: No such file or directory"):
        catalog.load(tmp_path / "nowhere.gguf")
