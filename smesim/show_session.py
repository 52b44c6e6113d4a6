"""What a session shows while it runs, and the account that it gives of itself at the end."""

from __future__ import annotations

import csv
import json as json_module
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from rich.console import Console

from smesim import model_runs, show, workflow
from smesim.errors import SmesimError
from smesim.exec.kv_file import predicted_restoring_s
from smesim.exec.loading import computed_dtypes
from smesim.exec.sampling import Sampling
from smesim.exec.session import Session
from smesim.exec.weight_cache import WeightCache
from smesim.plan.formats import product_format
from smesim.units import format_bytes
from smesim.workload import DType
from smesim.workload.checkpoint import Checkpoint
from smesim.workload.tokenizer import Tokenizer


def opened(
    model: Path, chip: str, planner: str, threads: int | None, weights: str | None, kv: str, context: int | None,
    packed: str, json: bool,
) -> tuple[Session, Tokenizer]:  # fmt: skip
    """A session with a model's weights in memory; what was converted is said on standard error, or in the JSON."""
    cache = packed_weights(packed)
    checkpoint = Checkpoint.open(model)
    tokenizer = Tokenizer.of(checkpoint)
    computed = None if weights is None else product_format(DType.parse(weights)).dtype
    with show.progress() as report:
        described = workflow.resolve_chip(chip, report, computed or computed_dtypes(checkpoint).weights)
        session = Session.open(
            checkpoint, described, planner_name=planner, threads=threads, context=context, weights=computed,
            kv=DType.parse(kv), cache=cache, progress=report,
        )  # fmt: skip
    if json:  # times are asked for
        session.settle()
    else:
        _notices(list(map(str, session.conversions)))
    return session, tokenizer


def packed_weights(how: str) -> WeightCache | None:
    """Where packed weights are kept between runs, None for "off"; "verify" hashes them whole before they are used."""
    if how not in PACKED:
        raise SmesimError(f"--packed is {how!r}; accepted: {', '.join(PACKED)}")
    limit = os.environ.get(LIMIT_VARIABLE, str(PACKED_BYTES))
    if not (limit.isascii() and limit.isdigit()):
        raise SmesimError(f"{LIMIT_VARIABLE} is {limit!r}; accepted: a number of bytes")
    if how == "off" or not int(limit):
        return None
    return WeightCache(workflow.kept_files() / "weights", int(limit), verify=how == "verify")


def _notices(lines: Sequence[str]) -> None:
    console = Console(stderr=True, highlight=False)
    for line in lines:
        console.print(f"note: {line}", markup=False, soft_wrap=True)


def generation(
    session: Session, tokenizer: Tokenizer, prompt: str, tokens: Sequence[int], most: int, sampling: Sampling,
    json: bool, out: TextIO,
) -> None:  # fmt: skip
    """Write the text as it comes, and on standard error what it took; as JSON all at the end, on `out`.

    Ctrl-C ends the text; what there is of it stands, and the account too.
    """
    text, made, interrupted = "", [], False
    stream = tokenizer.stream()
    restored = session.past
    try:
        for token in session.generate(tokens, most, sampling, tokenizer.stop):
            made.append(token)
            piece = stream(token)
            text += piece
            if not json:
                out.write(piece)
                out.flush()
    except KeyboardInterrupt:
        interrupted = True
    times = session.timings
    if json:
        facts = {
            "model": session.checkpoint.model.name, "weights": str(session.dtypes.weights),
            "head": str(session.dtypes.last_product), "kv": str(session.dtypes.kv), "prompt": prompt, "text": text,
            "prompt_tokens": list(tokens), "tokens": made, "interrupted": interrupted, "sampling": asdict(sampling),
            "planner": session.planner_name, "conversions": [str(c) for c in session.conversions],
            "notices": list(session.notices), "timings": asdict(times), "restored_tokens": restored,
        }  # fmt: skip
        if made:
            facts["first_token"] = _first_token(session, len(tokens), restored)
        out.write(json_module.dumps(facts, indent=1) + "\n")
    else:
        out.write("\n")
        session.settle()
        _notices(session.notices)
        Console(stderr=True, highlight=False).print(account(session), markup=False)
    if interrupted:
        raise KeyboardInterrupt


def _first_token(session: Session, n_prompt: int, restored: int) -> dict[str, float]:
    """Seconds to the first token, measured and predicted, taking `restored` tokens from a file among them; and
    predicted without."""
    read = session.timings.prefill_tokens
    restoring_s = predicted_restoring_s(session, restored) if restored else 0.0
    whole_s = model_runs.predicted_prefill_s(session, 0, n_prompt)
    read_s = whole_s if read == n_prompt else model_runs.predicted_prefill_s(session, n_prompt - read, read)
    return {
        "measured_s": session.timings.first_token_s + session.timings.restoring_s,
        "restoring_s": session.timings.restoring_s, "predicted_restoring_s": restoring_s,
        "predicted_s": read_s + restoring_s, "predicted_without_cache_s": whole_s,
    }  # fmt: skip


def account(session: Session) -> str:
    """Where the time and the memory of a session went, in one line."""
    times, bill = session.timings, session.bill
    parts = [f"load {times.load_s:.2f} s{' of packed weights' if times.packed_before else ''}"]
    for what, tokens, seconds in (
        ("prompt", times.prefill_tokens, times.prefill_s),
        ("generated", times.decode_tokens, times.decode_s),
    ):
        if tokens:
            parts.append(f"{what}: {tokens} tokens in {seconds:.2f} s, {tokens / seconds:.1f} tokens/s")
    parts.append(f"planning {times.planning_s:.2f} s")
    if bill is not None:
        parts.append(f"memory {format_bytes(bill.total_bytes)}")
    return "; ".join(parts)


def weights_written(path: Path, json: bool) -> None:
    """What a file of made-up weights has become."""
    model, n_bytes = Checkpoint.open(path).model, path.stat().st_size
    if json:
        facts = {"file": str(path), "bytes": n_bytes, "layers": model.layers, "parameters": model.parameters}
        print(json_module.dumps(facts, indent=1))
        return
    console = Console(highlight=False)
    console.print(f"{path}: {model.layers} layers, {model.parameters / 1e6:,.0f} M weights, {format_bytes(n_bytes)}")


OUTPUTS = ("md", "json", "jsonl", "csv")
PACKED = ("keep", "verify", "off")
LIMIT_VARIABLE = "SMESIM_PACKED_BYTES"
PACKED_BYTES = 20_000_000_000
"""What packed weights on disk take at most, if nobody says otherwise: two or three models of this machine's size."""


def bench(
    model: Path, prompts: Sequence[int], generated: Sequence[int], threads: Sequence[int | None], repeats: int,
    output: str, chip: str, planner: str, weights: str | None, kv: str, packed: str,
    restored: bool, out: TextIO,
) -> None:  # fmt: skip
    """Run a bench for each number of threads, and write all its rows in one form."""
    if output not in OUTPUTS:
        raise SmesimError(f"--output is {output!r}; accepted: {', '.join(OUTPUTS)}")
    checkpoint, cache = Checkpoint.open(model), packed_weights(packed)
    context = max([*prompts, *generated], default=0)
    if not context:
        raise SmesimError("-p and -n ask for no test; accepted: a number above 0 in one of them")
    computed = None if weights is None else product_format(DType.parse(weights)).dtype
    rows: list[dict[str, object]] = []
    for count in threads:
        with show.progress() as report:
            described = workflow.resolve_chip(chip, report, computed or computed_dtypes(checkpoint).weights)
            session = Session.open(
                checkpoint, described, planner_name=planner, threads=count, context=context, weights=computed,
                kv=DType.parse(kv), cache=cache, progress=report,
            )  # fmt: skip
            session.settle()
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "cache.safetensors" if restored else None
                found = model_runs.bench(session, prompts, generated, repeats, report, file)
            rows += [row.as_dict() for row in found]
        _notices(session.notices)
        del session  # its weights go before those of the next are loaded
    match output:
        case "json":
            out.write(json_module.dumps(rows, indent=1) + "\n")
        case "jsonl":
            out.writelines(json_module.dumps(row) + "\n" for row in rows)
        case "csv":
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        case _:
            out.write("\n".join(_markdown(rows)) + "\n")


def _markdown(rows: Sequence[dict[str, object]]) -> list[str]:
    lines = ["| model | size | threads | test | t/s | predicted t/s |", "| --- | --: | --: | --: | --: | --: |"]
    for row in rows:
        test = f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}"
        test += " restored" if row["restored_tokens"] else ""
        lines.append(
            f"| {row['model_type']} | {format_bytes(int(str(row['model_size'])))} | {row['n_threads']} | {test}"
            f" | {row['avg_ts']:.2f} ± {row['stddev_ts']:.2f} | {row['predicted_ts']:.2f} |"
        )
    return lines
