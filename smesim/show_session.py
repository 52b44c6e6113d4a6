"""What a session shows while it runs, and the account that it gives of itself at the end."""

from __future__ import annotations

import csv
import json as json_module
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from rich.console import Console

from smesim import model_runs, show, workflow
from smesim.errors import SmesimError
from smesim.exec.device import Device
from smesim.exec.kv_file import predicted_restoring_s
from smesim.exec.loading import computed_dtypes
from smesim.exec.sampling import Sampling
from smesim.exec.session import ENDED, Progress, Session
from smesim.exec.weight_cache import WeightCache
from smesim.plan.formats import product_format
from smesim.units import format_bytes
from smesim.workload import DType
from smesim.workload.checkpoint import Checkpoint
from smesim.workload.tokenizer import Tokenizer


@dataclass(frozen=True)
class Asked:
    """How a model is to be run, in the words of the command line."""

    chip: str
    planner: str
    weights: str | None
    kv: str
    packed: str
    predicts: bool = True
    """Whether times are to be predicted; else a probe of this machine need not know what is only good for that."""

    def session(
        self, checkpoint: Checkpoint, threads: int | None, context: int | None, progress: Progress, batch: int = 1
    ) -> Session:
        """A session with a model's weights in memory. SmesimError for what cannot be done."""
        cache, kv = packed_weights(self.packed), DType.parse(self.kv)
        computed = None if self.weights is None else product_format(DType.parse(self.weights)).dtype
        dtype = computed or computed_dtypes(checkpoint).weights
        chip = workflow.resolve_chip(self.chip, progress, dtype, self.predicts)
        return Session.open(
            checkpoint, chip, planner_name=self.planner, threads=threads, context=context, weights=computed, kv=kv,
            cache=cache, progress=progress, batch=batch,
        )  # fmt: skip


def opened(
    model: Path, asked: Asked, threads: int | None, context: int | None, batch: int, json: bool
) -> tuple[Session, Tokenizer]:
    """A session for text; what was converted is said on standard error, or in the JSON."""
    checkpoint = Checkpoint.open(model)
    tokenizer = Tokenizer.of(checkpoint)
    with show.progress() as report:
        session = asked.session(checkpoint, threads, context, report, batch)
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
    """Write the text as it comes, and on standard error what it took; as JSON all at the end, on `out`. Texts of
    several sequences come one behind another at the end, and as JSON in lists.

    Ctrl-C ends the text; what there is of it stands, and the account too.
    """
    streams = [tokenizer.stream() for _ in range(session.batch)]
    texts, made = [""] * session.batch, [list[int]() for _ in streams]
    is_streamed, interrupted, restored = not json and session.batch == 1, False, session.past
    try:
        for drawn in session.continuations(tokens, most, sampling, tokenizer.stop):
            for sequence in np.flatnonzero(drawn != ENDED).tolist():
                token = int(drawn[sequence])
                made[sequence].append(token)
                piece = streams[sequence](token)
                texts[sequence] += piece
                if is_streamed:
                    out.write(piece)
                    out.flush()
    except KeyboardInterrupt:
        interrupted = True
    times = session.timings
    if json:
        facts = {
            "model": session.checkpoint.model.name, "weights": str(session.dtypes.weights),
            "head": str(session.dtypes.last_product), "kv": str(session.dtypes.kv), "prompt": prompt,
            "text": texts[0], "prompt_tokens": list(tokens), "tokens": made[0], "interrupted": interrupted,
            "sampling": asdict(sampling),
            "planner": session.planner_name, "conversions": [str(c) for c in session.conversions],
            "notices": list(session.notices), "timings": asdict(times), "restored_tokens": restored,
        }  # fmt: skip
        if session.batch > 1:
            facts |= {"text": texts, "tokens": made}
        if any(made):
            facts["first_token"] = _first_token(session, len(tokens), restored)
        out.write(json_module.dumps(facts, indent=1) + "\n")
    else:
        out.write("\n" if is_streamed else "".join(f"--- {i}\n{text}\n" for i, text in enumerate(texts, 1)))
        session.settle()
        _notices(session.notices)
        Console(stderr=True, highlight=False).print(account(session), markup=False)
    if interrupted:
        raise KeyboardInterrupt


def _first_token(session: Session, n_prompt: int, restored: int) -> dict[str, float]:
    """Seconds to the first token, measured and predicted, taking `restored` tokens from a file among them; and
    predicted without."""
    read = session.timings.prefill_tokens // session.batch
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
COMPARED_RUNS = 3
"""Of a whole run, unless asked for otherwise: it has every decode step as a run already."""
PACKED = ("keep", "verify", "off")
LIMIT_VARIABLE = "SMESIM_PACKED_BYTES"
PACKED_BYTES = 20_000_000_000
"""What packed weights on disk take at most, if nobody says otherwise: two or three models of this machine's size."""


def bench(
    model: Path, asked: Asked, prompts: Sequence[int], generated: Sequence[int], threads: Sequence[int | None],
    repeats: int, output: str, restored: bool, refresh: bool, out: TextIO,
) -> None:  # fmt: skip
    """Run a bench for each number of threads, and write all its rows in one form."""
    if output not in OUTPUTS:
        raise SmesimError(f"--output is {output!r}; accepted: {', '.join(OUTPUTS)}")
    checkpoint, context = Checkpoint.open(model), max([*prompts, *generated], default=0)
    if not context:
        raise SmesimError("-p and -n ask for no test; accepted: a number above 0 in one of them")
    rows: list[dict[str, object]] = []
    for count in threads:
        with show.progress() as report:
            session = asked.session(checkpoint, count, context, report)
            session.settle()
            yardstick = model_runs.yardstick_beside(session) if refresh else None
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "cache.safetensors" if restored else None
                found = model_runs.bench(session, prompts, generated, repeats, report, file, yardstick)
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
            writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
        case _:
            out.write("\n".join(_markdown(rows)) + "\n")


def _cell(value: object) -> object:
    """What stands in a cell; lists and objects in JSON's words."""
    return json_module.dumps(value) if isinstance(value, dict | list) else value


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


def compared(
    model: Path, asked: Asked, threads: int | None, prompt_tokens: int, generate: int, repeats: int | None, seed: int,
    refresh: bool,
) -> workflow.Study:  # fmt: skip
    """A whole run of a model file, beside its prediction."""
    Device.here().refuse_if_emulated("a comparison of predicted and measured times")
    checkpoint = Checkpoint.open(model)
    with show.progress() as report:
        session = asked.session(checkpoint, threads, prompt_tokens + generate, report)
        session.settle()
        _notices([*map(str, session.conversions), *session.notices])
        return model_runs.compare_run(
            session, prompt_tokens, generate, repeats=repeats or COMPARED_RUNS, seed=seed,
            yardstick=model_runs.yardstick_beside(session) if refresh else None, progress=report,
        )  # fmt: skip
