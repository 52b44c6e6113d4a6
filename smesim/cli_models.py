"""The commands that run whole models with their weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from smesim.cli_options import (
    ChipOption,
    JsonFlag,
    LayersOption,
    ModelOption,
    PlannerOption,
    RefreshOption,
    RepeatsOption,
    SeedOption,
    ThreadsOption,
)

FileOption = Annotated[
    Path, typer.Option("--model", "-m", help="A .gguf file, or a folder with config.json and safetensors.")
]
ComputedOption = Annotated[
    str | None, typer.Option("--weights", help="Format to compute in; default: the file's, or the next that is there.")
]
KvOption = Annotated[str, typer.Option("--kv", help="Format of the KV cache: f32, f16 or q8_0.")]
PackedOption = Annotated[
    str, typer.Option("--packed", help="Packed weights on disk: keep (and use), verify (hash all before use), or off.")
]
ContextOption = Annotated[int | None, typer.Option(min=1, help="Positions in the KV cache; default: up to 2048.")]


def generate(
    model: FileOption,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What to continue, or with --chat to answer.")],
    max_tokens: Annotated[int, typer.Option("--max-tokens", "-n", min=1, help="Most tokens to generate.")] = 128,
    chat: Annotated[bool, typer.Option("--chat", help="Put the prompt into the model's chat template.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draws.")] = 0,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Draw from so many of the likeliest; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw from the fewest that have this probability.")] = 1.0,
    chip: ChipOption = "host",
    planner: PlannerOption = "cpu_only",
    threads: ThreadsOption = None,
    weights: ComputedOption = None,
    kv: KvOption = "f32",
    context: ContextOption = None,
    batch: Annotated[
        int, typer.Option("--batch", "-b", min=1, help="So many continuations at once, each with draws of its own.")
    ] = 1,
    packed: PackedOption = "keep",
    kv_cache: Annotated[
        Path | None, typer.Option(help="Take what the prompt begins with from this file, and keep all in it.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Continue a text with a model's own weights, token by token as they come."""
    from smesim import show_session
    from smesim.exec.sampling import Sampling
    from smesim.files import check_writable

    sampling = Sampling(temperature, top_k, top_p, seed)
    if kv_cache is not None:
        check_writable(kv_cache)
    asked = show_session.Asked(chip, planner, weights, kv, packed, predicts=False)
    session, tokenizer = show_session.opened(model, asked, threads, context, batch, json)
    text = tokenizer.chat([{"role": "user", "content": prompt}]) if chat else prompt
    tokens = tokenizer.encode(text, begin=not chat)
    if not tokens:
        tokens = [tokenizer.stop[0]] if tokenizer.bos is None else [tokenizer.bos]
    if kv_cache is not None and kv_cache.exists():
        from smesim.exec.kv_file import restore_kv

        restore_kv(session, kv_cache)
    show_session.generation(session, tokenizer, prompt, tokens, max_tokens, sampling, json, sys.stdout)
    if kv_cache is not None:
        from smesim.exec.kv_file import save_kv

        save_kv(session, kv_cache)


def make_weights(
    model: ModelOption,
    stored: Annotated[str, typer.Option("--format", "-f", help="Format: f32, f16, bf16, q8_0, q4_0 or q4_1.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="GGUF file to write.")],
    layers: LayersOption = None,
    seed: SeedOption = 0,
    json: JsonFlag = False,
) -> None:
    """Write made-up weights of a model's shapes as a GGUF file, to race engines on without a download."""
    from smesim import show_session
    from smesim.files import check_writable
    from smesim.workload import catalog
    from smesim.workload.make_weights import make_weights

    check_writable(out)
    make_weights(catalog.load(model), stored, out, layers=layers, seed=seed)
    show_session.weights_written(out, json)


def bench(
    model: Annotated[Path, typer.Argument(metavar="FILE", help="A .gguf file, or a folder with safetensors.")],
    prompts: Annotated[str, typer.Option("--prompt-tokens", "-p", help="Lengths of prompts, e.g. 128,512.")] = "512",
    generated: Annotated[str, typer.Option("--generate", "-n", help="Numbers of decode steps, e.g. 32.")] = "32",
    threads: Annotated[str | None, typer.Option("--threads", "-t", help="Workers, e.g. 1,2; default: all.")] = None,
    repeats: RepeatsOption = 3,
    output: Annotated[str, typer.Option("--output", "-o", help="md, json, jsonl or csv.")] = "md",
    chip: ChipOption = "host",
    planner: PlannerOption = "cpu_only",
    weights: ComputedOption = None,
    kv: KvOption = "f32",
    packed: PackedOption = "keep",
    restored: Annotated[
        bool, typer.Option("--restored", help="Time each prompt again, its KV cache taken from a file.")
    ] = False,
    refresh: RefreshOption = True,
) -> None:
    """Time prompts and decode steps as llama-bench does, with its field names, beside what was predicted."""
    from smesim import show_session

    counts = [None] if threads is None else _numbers("-t", threads)
    lengths, steps = _numbers("-p", prompts), _numbers("-n", generated)
    asked = show_session.Asked(chip, planner, weights, kv, packed)
    show_session.bench(model, asked, lengths, steps, counts, repeats, output, restored, refresh, sys.stdout)


def _numbers(option: str, text: str) -> list[int]:
    """Whole numbers from "1,2"; none at all from "0"."""
    from smesim.errors import SmesimError

    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and len(word) < 8 for word in words):
        raise SmesimError(f"{option} is {text!r}; accepted: whole numbers, as 128,512")
    return [int(word) for word in words if int(word)]
