"""A session: a model in memory, its KV cache, and the tokens that come out.

    session = Session.open(Path("model.gguf"), chip, context=1024)
    for token in session.generate(session.tokenizer.encode("The capital of France is"), most=32):
        print(session.tokenizer.decode([token]))

Every step is a Program that the native runtime executes. Plans are made once and reused: one for each size of a piece
of prompt (`CHUNKS`), one for each span of decode lengths (`decode_span`); a program is moved to where the sequence
stands (`smesim.plan.moving`). All programs share the weights, the KV cache and the threads.

A prompt is read in pieces of at most `chunk` tokens; the last one is filled up to the next size there is. What is
computed for the filling is overwritten by the tokens that come there later, before anything attends to it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smesim.errors import DeviceError, PlanError, WorkloadError
from smesim.exec.arena import Arena
from smesim.exec.device import Device
from smesim.exec.executor import NativeExecutor, RunTimes
from smesim.exec.loading import Conversion, computed_dtypes, conversions, load_weights
from smesim.exec.memory import MemoryBill
from smesim.exec.sampling import Sampler, Sampling
from smesim.exec.tensors import Tensors
from smesim.exec.weight_cache import Entry, WeightCache
from smesim.hwmodel.chip import Chip
from smesim.plan.buffers import ROPE_TABLES
from smesim.plan.moving import MovingProgram
from smesim.plan.planners import PLANNERS
from smesim.plan.program import BufferRole
from smesim.plan.schema import Plan
from smesim.workload.checkpoint import Checkpoint
from smesim.workload.dtypes import DType
from smesim.workload.graph import DTypes, build_graph
from smesim.workload.phase import Phase

CHUNKS = (1, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Sizes of a piece of prompt that there are plans for; a piece is filled up by at most half."""
DEFAULT_CONTEXT = 2048
FIRST_SPAN = 64
ENDED = -1
"""In the place of a token of a sequence that has ended before others of its batch."""
_SHARED = (BufferRole.WEIGHT, BufferRole.KV, BufferRole.TABLE)

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Step:
    """One program that was run: where the sequence stood, how many tokens it took, and its times."""

    past: int
    tokens: int
    moving: MovingProgram
    times: RunTimes

    @property
    def plan(self) -> Plan:
        """What was run, as a plan of the phase at that place."""
        return self.moving.plan_at(self.past)


@dataclass
class Timings:
    """Where the time of a session went, in seconds."""

    load_s: float = 0.0
    planning_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    prefill_tokens: int = 0
    decode_tokens: int = 0
    packed_before: bool = False
    """Whether the weights came packed from the disk."""
    restoring_s: float = 0.0
    """Taking a KV cache from a file."""
    first_token_s: float = 0.0
    """From asking `generate` for tokens to the first one, planning included."""


@dataclass(frozen=True)
class _Ready:
    """A program with its buffers, on threads that wait."""

    moving: MovingProgram
    tensors: Tensors
    run: Callable[[], RunTimes]
    tokens: npt.NDArray[np.int32]
    logits: npt.NDArray[np.float32]


def decode_span(context: int) -> int:
    """The decode length that a step at this one is planned for: the largest power of two from 64 on that is no longer,
    or 1. Attention's past is divided as that length suits."""
    span = 1
    while max(FIRST_SPAN, 2 * span) <= context:
        span = max(FIRST_SPAN, 2 * span)
    return span


@dataclass
class Session:
    """Prefill and decode of one or more sequences of equal length. Make one with `Session.open`."""

    checkpoint: Checkpoint
    chip: Chip
    executor: NativeExecutor
    context: int
    batch: int
    chunk: int
    threads: int | None
    planner_name: str
    dtypes: DTypes
    past: int = 0
    history: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty((1, 0), np.int32))
    """The tokens in the KV cache, shape (batch, past)."""
    conversions: tuple[Conversion, ...] = ()
    bill: MemoryBill | None = None
    timings: Timings = field(default_factory=Timings)
    record: list[Step] | None = None
    """Every step is added here, if it is a list."""
    _ready: dict[tuple[int, ...], _Ready] = field(default_factory=dict)
    _team: Any = None
    _first: Tensors | None = None
    _entry: Entry | None = None
    _keeping: threading.Thread | None = None
    _arena: Arena = field(default_factory=Arena)

    @classmethod
    def open(
        cls, path: Path | str | Checkpoint, chip: Chip, *, device: Device | None = None, isa: str | None = None,
        context: int | None = None, batch: int = 1, chunk: int = CHUNKS[-1], threads: int | None = None,
        planner_name: str = "cpu_only", weights: DType | None = None, kv: DType = DType.F32,
        cache: WeightCache | None = None, progress: Progress | None = None,
    ) -> Session:  # fmt: skip
        """Plan the first program, check that all fits into memory, and load the weights.

        `chip` is what plans are made for; `context` the most positions (default: 2048, or what the model has if that
        is less); `weights` the format that they are computed in (default: `computed_dtypes`), `kv` that of the KV
        cache: f32, f16 or q8_0. Packed weights are taken from `cache`, or kept there, if it is given. Raises
        WorkloadError for a file that is not right, PlanError for formats without plans, DeviceError where memory or
        kernels lack.
        """
        begin = time.perf_counter()
        checkpoint = path if isinstance(path, Checkpoint) else Checkpoint.open(path)
        model = checkpoint.model
        context = min(DEFAULT_CONTEXT, model.max_position) if context is None else context
        if not 1 <= context <= model.max_position:
            raise WorkloadError(f"context is {context}; accepted for {model.name}: 1..{model.max_position}")
        if planner_name not in PLANNERS:
            raise PlanError(f"planner {planner_name!r} asked for; accepted for a session: {', '.join(PLANNERS)}")
        if chunk not in CHUNKS:
            raise WorkloadError(f"chunk is {chunk}; accepted: {', '.join(map(str, CHUNKS))}")
        dtypes = replace(computed_dtypes(checkpoint) if weights is None else DTypes(weights=weights), kv=kv)
        if threads is None:
            threads = min(chip.core_count, len((device or Device.here()).cores))
        executor = NativeExecutor(device or Device.here(), isa)
        session = cls(checkpoint, chip, executor, context, batch, chunk, threads, planner_name, dtypes)
        session.history = np.empty((batch, 0), np.int32)
        session._load(cache, progress)
        session.timings.load_s = time.perf_counter() - begin - session.timings.planning_s
        return session

    # -- what comes out ----------------------------------------------------------------------------------------------

    def generate(
        self, prompt: Sequence[int], most: int, sampling: Sampling | None = None, stop: Sequence[int] = ()
    ) -> Iterator[int]:
        """Tokens behind a prompt, one by one, of the one sequence; ends behind `most`, at the end of the context, or
        before a token of `stop`. As much of the prompt as the KV cache begins with is not read again."""
        for tokens in self.continuations(prompt, most, sampling, stop):
            yield int(tokens[0])

    def continuations(
        self, prompt: Sequence[int], most: int, sampling: Sampling | None = None, stop: Sequence[int] = ()
    ) -> Iterator[npt.NDArray[np.int32]]:
        """The same of every sequence of the batch behind one prompt: a token of each, shape (batch,), and `ENDED` of
        those that have come to a token of `stop`; ends when all have."""
        begin = time.perf_counter()
        sampler = Sampler(sampling or Sampling())
        tokens = np.tile(np.asarray(prompt, np.int32), (self.batch, 1))
        self.keep_common(tokens)
        logits = self.prefill(tokens[:, self.past :])
        goes_on = np.ones(self.batch, bool)
        for produced in range(most):
            drawn = sampler.draw(logits)
            if not produced:
                self.timings.first_token_s = time.perf_counter() - begin
            goes_on &= ~np.isin(drawn, stop)
            if not goes_on.any():
                return
            yield np.where(goes_on, drawn, np.int32(ENDED))
            if produced + 1 == most or self.past >= self.context:
                return
            logits = self.decode(drawn)

    def prefill(self, tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Read a prompt of each sequence, shape (batch, tokens); returns the logits of the last tokens (batch, vocab).

        It continues what is in the KV cache; `reset` forgets that.
        """
        tokens = self._checked(tokens)
        logits = None
        for begin in range(0, tokens.shape[1], self.chunk):
            piece = tokens[:, begin : begin + self.chunk]
            logits, spent_s = self._step(self._prefill_program(piece.shape[1], self.past), piece)
            self.timings.prefill_tokens += piece.size
            self.timings.prefill_s += spent_s
        assert logits is not None
        return logits

    def prefill_plans(self, past: int, tokens: int) -> list[Plan]:
        """The plans by which a prompt of so many tokens would be read behind `past` ones, piece by piece."""
        places = [(past + begin, min(self.chunk, tokens - begin)) for begin in range(0, tokens, self.chunk)]
        return [self._prefill_program(size, at).moving.plan_at(at) for at, size in places]

    def decode(self, tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """One more token of each sequence, shape (batch,); returns the logits behind it (batch, vocab)."""
        column = self._checked(np.asarray(tokens)[:, None])
        logits, spent_s = self._step(self._decode_program(self.past + 1), column)
        self.timings.decode_tokens += column.size
        self.timings.decode_s += spent_s
        return logits

    def reset(self, past: int = 0) -> None:
        """Forget all tokens behind the first `past` ones."""
        if not 0 <= past <= self.past:
            raise WorkloadError(f"reset to {past} tokens; accepted: 0..{self.past}")
        self.past = past
        self.history = self.history[:, :past]

    def keep_common(self, tokens: npt.NDArray[np.int32]) -> None:
        """Forget what the KV cache has beyond the beginning that these tokens, shape (batch, tokens), share with it.

        The last of them is left to be read, for its logits."""
        length = min(self.past, tokens.shape[1] - 1)
        differs = (self.history[:, :length] != tokens[:, :length]).any(axis=0)
        self.reset(int(np.argmax(differs)) if differs.any() else max(length, 0))

    @property
    def positions(self) -> int:
        """Room in the KV caches: the context, and what fills up a last piece at its end."""
        sizes = [size for size in CHUNKS if size <= self.chunk]
        return self.context + max((after - size - 1 for size, after in pairwise(sizes)), default=0)

    @property
    def kv(self) -> Tensors:
        """Where the keys and values of all programs are."""
        assert self._first is not None
        return self._first

    @property
    def notices(self) -> tuple[str, ...]:
        """What became of packed weights on disk so far, where that is not what was asked for."""
        return () if self._entry is None else tuple(self._entry.notices)

    def settle(self) -> None:
        """Wait until packed weights are on the disk, which goes on beside the first steps and takes some of the
        machine. The interpreter does so before it ends."""
        if self._keeping is not None:
            self._keeping.join()

    # -- steps -------------------------------------------------------------------------------------------------------

    def _checked(self, tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        if tokens.ndim != 2 or tokens.shape[0] != self.batch or not tokens.shape[1]:
            raise WorkloadError(
                f"tokens of shape {tokens.shape}; accepted: ({self.batch}, 1 or more), as many for each sequence"
            )
        if self.past + tokens.shape[1] > self.context:
            raise WorkloadError(
                f"{tokens.shape[1]} tokens behind {self.past} are more than the context of {self.context};"
                " accepted: fewer, or a session with a longer --context"
            )
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.checkpoint.model.vocab:
            raise WorkloadError(f"tokens {low}..{high}; accepted: 0..{self.checkpoint.model.vocab - 1}")
        return tokens.astype(np.int32, copy=False)

    def _step(self, ready: _Ready, tokens: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.float32], float]:
        """Logits, and the seconds that the step took."""
        begin = time.perf_counter()
        count = tokens.shape[1]
        ready.moving.move(self.past, count)
        ready.tokens.reshape(self.batch, -1)[:, :count] = tokens
        times = ready.run()
        if not np.isfinite(ready.logits).all():
            raise DeviceError(f"the logits behind {self.past + count} tokens are not finite")
        if self.record is not None:
            self.record.append(Step(self.past, count, ready.moving, times))
        self.past += count
        self.history = np.concatenate([self.history.reshape(self.batch, -1), tokens], axis=1)
        return ready.logits.copy(), time.perf_counter() - begin

    def _prefill_program(self, tokens: int, past: int) -> _Ready:
        """What reads a piece of a prompt; of the next size that there are plans for."""
        size = next(chunk for chunk in CHUNKS if chunk >= tokens)
        if size == 1:
            return self._decode_program(past + 1)
        size = min(size, self.checkpoint.model.max_position)
        ready = self._program(Phase.prefill(size, 0, self.batch), (size,))
        if ready.moving.is_fixed and past:
            return self._program(Phase.prefill(size, past, self.batch), (size, past))
        return ready

    def _decode_program(self, context: int) -> _Ready:
        span = decode_span(context)
        return self._program(Phase.decode(span, self.batch), (0, span))

    def _program(self, phase: Phase, key: tuple[int, ...]) -> _Ready:
        """The program of a phase, planned at its first use."""
        if key not in self._ready:
            begin = time.perf_counter()
            moving = self._planned(phase)
            self._ready[key] = self._made_ready(
                moving, Tensors(moving.program, self.executor.device, self._first, _SHARED, self._arena)
            )
            self.timings.planning_s += time.perf_counter() - begin
        return self._ready[key]

    def _made_ready(self, moving: MovingProgram, tensors: Tensors) -> _Ready:
        program = moving.program
        if self._team is None:
            self._team = self.executor.team(program)
        logits = next(n for n in program.buffer_names if n.startswith("lm_head.out["))
        return _Ready(
            moving,
            tensors,
            self.executor.stopwatch(program, tensors, self._team),
            tensors.arrays[program.buffer_index("tokens")].view(np.int32),
            tensors.arrays[program.buffer_index(logits)].view(np.float32).reshape(self.batch, -1),
        )

    def _planned(self, phase: Phase) -> MovingProgram:
        model = self.checkpoint.model
        graph = build_graph(model, phase, self.dtypes, routed=model.is_moe)
        plan = PLANNERS[self.planner_name](graph, self.chip, self.threads)
        return MovingProgram(plan, self.positions)

    def _load(self, cache: WeightCache | None, progress: Progress | None) -> None:
        begin = time.perf_counter()
        moving = self._planned(Phase.decode(1, self.batch))
        program, graph, device = moving.program, moving.plan.graph(), self.executor.device
        self.bill = self.executor.check(program)
        self.timings.planning_s += time.perf_counter() - begin
        self.conversions = conversions(program, graph, self.checkpoint)
        entry = None if cache is None else cache.entry(self.checkpoint, program, graph, device)
        packed = None if entry is None else entry.mapped()
        self._first = tensors = Tensors(program, device, given=packed)
        self._ready[0, 1] = self._made_ready(moving, tensors)
        for name in ROPE_TABLES:
            tensors.fill_rope(program.buffer_index(name), self.checkpoint.model)
        filled, total = 0, max(1, self.bill.weights_bytes)

        def report(n_bytes: int) -> None:
            nonlocal filled
            filled += n_bytes
            if progress is not None:
                progress("loading", min(1.0, filled / total))

        if packed is None:
            load_weights(program, graph, tensors, self.checkpoint, device, report)
            if entry is not None:
                arrays = dict(zip(program.buffer_names, tensors.arrays, strict=True))
                self._keeping = threading.Thread(target=entry.keep, args=(arrays,), name="keep packed weights")
                self._keeping.start()
        self.timings.packed_before = packed is not None
        self._entry = entry
