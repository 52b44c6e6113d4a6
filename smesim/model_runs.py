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
import numpy.typing as npt

from smesim import __version__
from smesim.exec.cpu_time import CpuTime
from smesim.exec.kv_file import predicted_restoring_s, restore_kv, save_kv
from smesim.exec.probe.drift import chip_of_now
from smesim.exec.probe.yardstick import Yardstick
from smesim.exec.session import Session, Step
from smesim.hwmodel.chip import Chip
from smesim.plan.lower import lower
from smesim.plan.program import TaskKind
from smesim.sim import SimExecutor
from smesim.trace import Timing, WholePart, compare
from smesim.workflow import Study, is_this_machine, predict

SIMULATED_STEPS = 3
"""Of the decode steps of one plan: the first, the last, and the one in the middle."""
Progress = Callable[[str, float], None]


@dataclass
class BenchRow:
    """One test, with the field names of llama-bench where it has them; `avg_ts` are tokens a second.

    `drift` says what the machine gave meanwhile, against what it gave at the probe; the prediction counts on it.
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
    drift: str
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


def yardstick_beside(session: Session) -> Yardstick | None:
    """What says between the runs of a session how far the machine has drifted; None for a chip that is another."""
    if not is_this_machine(session.chip):
        return None
    assert session.threads is not None
    return Yardstick(session.executor.device, session.chip, session.threads)


class _Drift:
    """What the machine gives while a session runs: looks at a yardstick, if there is one, before and behind runs."""

    def __init__(self, session: Session, yardstick: Yardstick | None) -> None:
        self._session, self._yardstick = session, yardstick

    def look(self) -> None:
        if self._yardstick is not None:
            self._yardstick.look()

    def chip_of(self, run_s: Sequence[float]) -> tuple[Chip, str]:
        """The session's chip as it was during these runs, and a note on what that changed."""
        chip = self._session.chip
        if self._yardstick is None:
            return chip, ""
        return chip_of_now(chip, self._yardstick.take(run_s), self._session.threads or 1)


def bench(
    session: Session, prompts: Iterable[int], generated: Iterable[int], repeats: int, progress: Progress | None = None,
    restored: Path | None = None, yardstick: Yardstick | None = None,
) -> list[BenchRow]:  # fmt: skip
    """A row for each length of prompt and each number of decode steps, in that order. Each test runs once uncounted.

    With a yardstick, predictions are for the machine as it was meanwhile.
    With a file `restored`, which is written, a prompt has another row: all of it but the last token comes from there.
    """
    rows, drift = [], _Drift(session, yardstick)
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
            drift.look()
            if repeat:
                samples.append(ns)
            if progress is not None:
                progress(f"{n_prompt} + {n_gen} tokens", (done + repeat / (repeats + 1)) / len(tests))
        foreign = before.foreign_share(CpuTime.now())
        steps, session.record = session.record or [], None
        chip, note = drift.chip_of([1e-9 * ns for ns in samples])
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
                predicted_ns=round(1e9 * (predicted_s(steps, chip) + restoring_s)),
                drift=note,
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


def compare_run(
    session: Session, prompt_tokens: int, generate: int, *, repeats: int = 3, seed: int = 0,
    yardstick: Yardstick | None = None, progress: Progress | None = None,
) -> Study:  # fmt: skip
    """A whole run of a model, predicted and measured: a comparison for each piece of the prompt, and one for the
    decode steps of each plan, whose runs are the steps; and what all of them add up to.

    All is run once uncounted before. With a yardstick, predictions are for the machine as it was meanwhile.
    """
    drift, counted, spent = _Drift(session, yardstick), [], []
    before = CpuTime.now()
    for repeat in range(repeats + 1):
        if repeat == 1:
            before = CpuTime.now()
        session.record = []
        times = _timed_run(session, prompt_tokens, generate, seed)
        drift.look()
        if repeat:
            counted.append(session.record)
            spent.append(times)
        if progress is not None:
            progress(f"{prompt_tokens} + {generate} tokens", repeat / repeats)
    foreign = before.foreign_share(CpuTime.now())
    session.record = None
    chip, note = drift.chip_of([sum(times) for times in spent])
    plans, comparisons = [], []
    for alike in zip(*map(grouped, counted), strict=True):
        middle = alike[0][len(alike[0]) // 2]
        program, runs = lower(middle.plan), [step.times for steps in alike for step in steps]
        measured = session.executor.trace(program, middle.plan, runs, foreign)
        plans.append(middle.plan)
        comparisons.append(compare(predict(middle.plan, chip, program=program, note=note), measured))
    whole = _whole(counted[0], spent, chip, prompt_tokens)
    return Study(session.chip, tuple(plans), (chip,) * len(plans), tuple(comparisons), whole)


def _whole(
    steps: Sequence[Step], spent: Sequence[tuple[float, float]], chip: Chip, prompt_tokens: int
) -> tuple[WholePart, ...]:
    """Prompt, decode steps and both; measured with what lies between programs, but without planning them."""
    tokens = sum(step.tokens for step in steps)
    begin = next((i for i, step in enumerate(steps) if step.past >= prompt_tokens), len(steps))
    predicted = [predicted_s(part, chip) if part else 0.0 for part in (steps[:begin], steps[begin:])]
    measured = np.array(spent)

    def part(name: str, count: int, predicted_s: float, measured_s: npt.NDArray[np.float64]) -> WholePart:
        low, middle, high = np.percentile(measured_s, (25, 50, 75)).tolist()
        spread_s = high - low if len(measured_s) > 1 else float("nan")
        return WholePart(name, count, Timing(predicted_s, middle, spread_s, predicted_s / middle - 1.0))

    parts = [part("prompt", prompt_tokens, predicted[0], measured[:, 0])]
    if steps[begin:]:
        parts.append(part("decode", tokens - prompt_tokens, predicted[1], measured[:, 1]))
        parts.append(part("both", tokens, sum(predicted), measured.sum(axis=1)))
    return tuple(parts)


def _timed_run(session: Session, prompt_tokens: int, generate: int, seed: int) -> tuple[float, float]:
    """Seconds of a prompt and of so many greedy steps behind it, without planning."""
    session.reset()
    times = session.timings
    before = times.prefill_s, times.decode_s
    tokens = np.random.default_rng(seed).integers(0, session.checkpoint.model.vocab, (session.batch, prompt_tokens))
    logits = session.prefill(tokens)
    for _ in range(generate):
        logits = session.decode(np.argmax(logits, axis=1))
    return times.prefill_s - before[0], times.decode_s - before[1]
