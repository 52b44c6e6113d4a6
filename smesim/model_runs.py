"""Whole models run with their weights, and what was predicted for the same steps.

A bench has the tests of llama-bench, with its names: a prompt of so many tokens from an empty cache, or so many decode
steps, each repeated. Every step of a session is a program, and its plan at the place where the sequence stood is
predicted as any other; decode steps of one plan differ by the keys they attend to, so a few of them are simulated, and
those between lie on the line between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from smesim import __version__
from smesim.exec.cpu_time import CpuTime
from smesim.exec.device import Device
from smesim.exec.kv_file import predicted_restoring_s, restore_kv, save_kv
from smesim.exec.loading import computed_dtypes
from smesim.exec.session import Session, Step
from smesim.hwmodel.chip import Chip
from smesim.plan.lower import lower
from smesim.plan.program import TaskKind
from smesim.sim import SimExecutor
from smesim.trace import compare
from smesim.workflow import Study
from smesim.workload import DType
from smesim.workload.checkpoint import Checkpoint

SIMULATED_STEPS = 3
"""Of the decode steps of one plan: the first, the last, and the one in the middle."""
Progress = Callable[[str, float], None]


@dataclass
class BenchRow:
    """One test, with the field names of llama-bench where it has them; `avg_ts` are tokens a second.

    `kernels` says of each kind of task how many ran, for how long, added up over the workers, and on which instruction
    sets.
    """

    model_filename: str
    model_type: str
    model_size: int
    model_n_params: int
    n_threads: int
    n_prompt: int
    n_gen: int
    n_batch: int
    type_k: str
    type_v: str
    restored_tokens: int
    cpu_info: str
    plans: list[str]
    predicted_ns: int
    samples_ns: list[int]
    kernels: dict[str, dict[str, int | str]]
    foreign_load: float | None
    backends: str = "CPU"
    build_commit: str = __version__
    test_time: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))

    def as_dict(self) -> dict[str, object]:
        """All fields, with averages and deviations."""
        tokens = self.n_prompt + self.n_gen
        rates = [1e9 * tokens / ns for ns in self.samples_ns]
        return asdict(self) | {
            "avg_ns": round(float(np.mean(self.samples_ns))), "stddev_ns": round(_deviation(self.samples_ns)),
            "avg_ts": float(np.mean(rates)), "stddev_ts": _deviation(rates), "samples_ts": rates,
            "predicted_ts": 1e9 * tokens / self.predicted_ns,
        }  # fmt: skip


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def bench(
    session: Session, prompts: Iterable[int], generated: Iterable[int], repeats: int, progress: Progress | None = None,
    restored: Path | None = None,
) -> list[BenchRow]:  # fmt: skip
    """A row for each length of prompt and each number of decode steps, in that order. Each test runs once uncounted.

    With a file `restored`, which is written, a prompt has another row: all of it but the last token comes from there.
    """
    rows = []
    tests = [(tokens, 0, kept) for tokens in prompts for kept in ((False, True) if restored else (False,))]
    tests += [(0, steps, False) for steps in generated]
    for done, (n_prompt, n_gen, kept) in enumerate(tests):
        file = restored if kept else None
        if file is not None:
            save_kv(session, file)  # of the test before, which is of the same prompt
        samples: list[int] = []
        before = CpuTime.now()
        for repeat in range(repeats + 1):
            session.record = []
            ns = _timed(session, n_prompt, n_gen, file)
            if repeat:
                samples.append(ns)
            if progress is not None:
                progress(f"{n_prompt} + {n_gen} tokens", (done + repeat / (repeats + 1)) / len(tests))
        foreign = before.foreign_share(CpuTime.now())
        steps, session.record = session.record or [], None
        model = session.checkpoint.model
        restoring_s = predicted_restoring_s(session, n_prompt) if kept else 0.0
        rows.append(
            BenchRow(
                model_filename=str(session.checkpoint.path),
                model_type=f"{model.architecture} {model.name} {session.dtypes.weights}",
                model_size=sum(t.raw.nbytes for t in session.checkpoint.tensors.values()),
                model_n_params=model.parameters,
                n_threads=len(steps[0].moving.plan.workers),
                n_prompt=n_prompt,
                n_gen=n_gen,
                n_batch=session.chunk,
                type_k=str(session.dtypes.kv),
                type_v=str(session.dtypes.kv),
                restored_tokens=n_prompt - 1 if kept else 0,
                cpu_info=session.executor.device.processor,
                plans=sorted({step.moving.plan.fingerprint() for step in steps}),
                predicted_ns=round(1e9 * (predicted_s(steps, session.chip) + restoring_s)),
                samples_ns=samples,
                kernels=kernels_of(session, steps),
                foreign_load=foreign,
            )
        )
    return rows


def _timed(session: Session, n_prompt: int, n_gen: int, restored: Path | None) -> int:
    """Nanoseconds of one test; tokens are drawn, for what they are does not change the work."""
    tokens = np.random.default_rng(0).integers(0, session.checkpoint.model.vocab, (session.batch, n_prompt + n_gen))
    session.reset()
    before = session.timings.planning_s
    begin = CpuTime.now().wall_s
    if restored is not None:
        restore_kv(session, restored)
        session.keep_common(tokens.astype(np.int32))
    if n_prompt:
        session.prefill(tokens[:, session.past :])
    for step in range(n_gen):
        session.decode(tokens[:, step])
    return round(1e9 * (CpuTime.now().wall_s - begin - (session.timings.planning_s - before)))


def predicted_s(steps: Sequence[Step], chip: Chip) -> float:
    """What the steps of a session are predicted to take on a chip."""
    simulator, total = SimExecutor(chip), 0.0
    for alike in grouped(steps):
        pasts = np.array([step.past for step in alike])
        chosen = np.unique(np.linspace(0, len(alike) - 1, SIMULATED_STEPS).round().astype(int))
        at = [simulator.seconds(lower(alike[i].plan)) for i in chosen]
        total += float(np.interp(pasts, pasts[chosen], at).sum())
    return total


def predicted_prefill_s(session: Session, past: int, tokens: int) -> float:
    """What reading a prompt of so many tokens behind `past` ones is predicted to take."""
    simulator = SimExecutor(session.chip)
    plans = session.prefill_plans(past, tokens)
    return sum(float(np.nanmax(simulator.timeline(lower(plan)).end_s)) for plan in plans)


def grouped(steps: Sequence[Step]) -> list[list[Step]]:
    """Steps in the order in which they were made, those of one plan that follow one another together; pieces of a
    prompt stay alone."""
    groups: list[list[Step]] = []
    for step in steps:
        if groups and step.moving is groups[-1][0].moving and step.moving.phase.kind == "decode":
            groups[-1].append(step)
        else:
            groups.append([step])
    return groups


def kernels_of(session: Session, steps: Sequence[Step]) -> dict[str, dict[str, int | str]]:
    """By kind of task: how many ran, nanoseconds of all workers, and the instruction sets of that kind of operator."""
    found: dict[str, dict[str, int | str]] = {}
    for alike in grouped(steps):
        program = alike[0].moving.program
        sets = session.executor.kernels_that_ran(program, [step.times for step in alike])
        kinds = program.tasks["kind"]
        for kind in np.unique(kinds[kinds != TaskKind.JOIN]).tolist():
            of_kind = kinds == kind
            ns = sum(int((step.times.end_ns - step.times.start_ns)[of_kind].sum()) for step in alike)
            isas = {sets[program.op_kinds[op]] for op in np.unique(program.tasks["op"][of_kind]).tolist()}
            entry = found.setdefault(TaskKind(kind).name.lower(), {"count": 0, "ns": 0, "isa": ""})
            entry["count"] = int(entry["count"]) + int(of_kind.sum()) * len(alike)
            entry["ns"] = int(entry["ns"]) + ns
            entry["isa"] = "+".join(sorted({*str(entry["isa"]).split("+"), *isas} - {""}))
    return found


def format_of(path: Path) -> DType:
    """The format that most weights of a model file are computed in."""
    return computed_dtypes(Checkpoint.open(path)).weights


def compare_run(
    path: Path, chip: Chip, prompt_tokens: int, generate: int, *, planner_name: str = "cpu_only",
    threads: int | None = None, progress: Progress | None = None,
) -> Study:  # fmt: skip
    """A whole run of a model file, predicted and measured: a comparison for each piece of the prompt, and one for the
    decode steps of each plan, whose runs are the steps. Each program runs once uncounted before."""
    Device.here().refuse_if_emulated("a comparison of predicted and measured times")
    session = Session.open(
        path, chip, context=prompt_tokens + generate, threads=threads, planner_name=planner_name, progress=progress
    )
    _timed_run(session, prompt_tokens, generate)
    session.record = []
    before = CpuTime.now()
    _timed_run(session, prompt_tokens, generate)
    foreign = before.foreign_share(CpuTime.now())
    steps, session.record = session.record, None
    plans, comparisons = [], []
    for alike in grouped(steps):
        middle = alike[len(alike) // 2]
        program, runs = lower(middle.plan), [step.times for step in alike]
        measured = session.executor.trace(program, middle.plan, runs, foreign)
        predicted = SimExecutor(session.chip).run(program, middle.plan)
        plans.append(middle.plan)
        comparisons.append(compare(predicted, measured))
    return Study(session.chip, tuple(plans), (session.chip,) * len(plans), tuple(comparisons))


def _timed_run(session: Session, prompt_tokens: int, generate: int) -> None:
    session.reset()
    tokens = np.random.default_rng(0).integers(0, session.checkpoint.model.vocab, (session.batch, prompt_tokens))
    logits = session.prefill(tokens)
    for _ in range(generate):
        logits = session.decode(np.argmax(logits, axis=1))
