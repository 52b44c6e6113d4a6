"""Who answers a sweep's points: a worker has the sweep, its chips and models, and is handed chunks of numbers.

An executor hands out chunks and gives back their rows as they are done. `in_processes` is the one for a machine: each
process gets chips and models once and then only pairs of numbers, from a stretch of its own. Whoever is through with
that helps the others, so slow points hold nobody up, and no more chunks are handed out than keep all busy, so memory
does not grow with the sweep. A process that dies (out of memory, kill -9) loses its chunks, which are done again; if
that happens to a chunk again and again, the sweep ends and can be resumed.
"""

from __future__ import annotations

import gc
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import pairwise
from multiprocessing import get_context
from typing import Any

from smesim.errors import SweepError
from smesim.sweep.answer import COLUMNS, Solver
from smesim.sweep.inputs import Inputs
from smesim.sweep.points import Point, Points
from smesim.sweep.schema import Sweep
from smesim.sweep.store import Chunk, Packer, Packet

Executor = Callable[[Sweep, Inputs, list[Chunk]], Iterator[tuple[Chunk, Packet]]]
"""Answers chunks of a sweep's points and gives back each with its packet, in the order in which they are done."""

CHUNKS_AHEAD = 2
"""Chunks under way for each process: one that it works at, one that waits."""
COLLECTED_AFTER = 50_000
"""Objects that a process makes before Python looks for circles among them."""
MOST_LOSSES = 3
"""Times that processes may die with a chunk."""


class Worker:
    """Answers chunks of a sweep, and keeps what the next one may need."""

    def __init__(self, sweep: Sweep, inputs: Inputs) -> None:
        self._points = Points(sweep)
        self._solver = Solver(inputs, sweep.columns)
        self._packer = Packer(sweep, sweep.columns or tuple(COLUMNS))

    def packet(self, chunk: Chunk) -> Packet:
        """The rows of a chunk: the same wherever and whenever it is done."""
        return self._packer.packet([self.row(point) for point in self._points.between(*chunk)])

    def row(self, point: Point) -> dict[str, Any]:
        """What is asked and what came out."""
        return {"point": point.number, **point.values, **self._solver.row(point)}


def in_processes(workers: int) -> Executor:
    """So many processes on this machine; for one worker this one."""

    def answered(sweep: Sweep, inputs: Inputs, chunks: list[Chunk]) -> Iterator[tuple[Chunk, Packet]]:
        count = min(workers, len(chunks))
        if count > 1:
            yield from _by_pool(sweep, inputs, chunks, count)
            return
        worker = Worker(sweep, inputs)
        with rarely_collected():
            for chunk in chunks:
                yield chunk, worker.packet(chunk)

    return answered


def _collect_rarely() -> None:
    """Has Python look for circles among objects less often, and not among those that there are."""
    gc.freeze()  # what was imported stays; there is no need to look through it again and again
    gc.set_threshold(COLLECTED_AFTER)  # nor, after every few points, through all that is kept between them


@contextmanager
def rarely_collected() -> Iterator[None]:
    """The same for as long as points are answered in a process that does other things as well."""
    before = gc.get_threshold()
    _collect_rarely()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


_of_process: list[Worker] = []
"""The worker of this process, if it is one of a pool's."""


def _start(sweep: Sweep, inputs: Inputs) -> None:
    _of_process[:] = [Worker(sweep, inputs)]
    _collect_rarely()


def _packet(chunk: Chunk) -> Packet:
    return _of_process[0].packet(chunk)


def _by_pool(sweep: Sweep, inputs: Inputs, chunks: list[Chunk], workers: int) -> Iterator[tuple[Chunk, Packet]]:
    team = _Team(sweep, inputs, chunks, workers)
    try:
        while team.hand_out():
            yield from team.done()
    finally:
        team.stop()


class Stretches:
    """Chunks that are left, a stretch of them for each that works: neighbours often ask for the same operators, and
    what one has worked out no other knows. Whoever is through with its own takes half of the longest that is left."""

    def __init__(self, chunks: Sequence[Chunk], hands: Sequence[Hashable]) -> None:
        bounds = [len(chunks) * i // len(hands) for i in range(len(hands) + 1)]
        parts = (deque(chunks[first:end]) for first, end in pairwise(bounds))
        self._left: dict[Hashable, deque[Chunk]] = dict(zip(hands, parts, strict=True))

    def __bool__(self) -> bool:
        return any(self._left.values())

    def next(self, hand: Hashable) -> Chunk | None:
        """The next chunk for one that works, who may have come only now; None if there is none."""
        own = self._left.setdefault(hand, deque())
        if not own:
            longest = max(self._left.values(), key=len)
            own.extendleft([longest.pop() for _ in range(-(-len(longest) // 2))])
        return own.popleft() if own else None

    def back(self, hand: Hashable, chunk: Chunk) -> None:
        """Takes back a chunk that was not done."""
        self._left[hand].appendleft(chunk)


class _Team:
    """Processes, each with a stretch of the chunks to itself."""

    def __init__(self, sweep: Sweep, inputs: Inputs, chunks: list[Chunk], workers: int) -> None:
        self._task = (sweep, inputs)
        self._left = Stretches(chunks, range(workers))
        self._processes = [self._process() for _ in range(workers)]
        self._under_way: dict[Future[Packet], tuple[int, Chunk]] = {}
        self._losses: Counter[Chunk] = Counter()

    def _process(self) -> ProcessPoolExecutor:
        # Threads of pyarrow and numpy do not survive a fork, so processes start afresh.
        return ProcessPoolExecutor(1, get_context("spawn"), _start, self._task)

    def hand_out(self) -> bool:
        """Keeps every process busy; False when all is done."""
        for number in range(len(self._processes)):
            ahead = sum(who == number for who, _ in self._under_way.values())
            for _ in range(CHUNKS_AHEAD - ahead):
                chunk = self._left.next(number)
                if chunk is None:
                    break
                try:
                    self._under_way[self._processes[number].submit(_packet, chunk)] = (number, chunk)
                except BrokenProcessPool:
                    self._left.back(number, chunk)
                    self._replace(number)
        return bool(self._under_way) or bool(self._left)

    def done(self) -> Iterator[tuple[Chunk, Packet]]:
        """The chunks that are done, at least one unless a process died."""
        for future in wait(self._under_way, return_when=FIRST_COMPLETED).done:
            if future not in self._under_way:
                continue  # it went with its process
            number, chunk = self._under_way[future]
            try:
                packet = future.result()
            except BrokenProcessPool:
                self._replace(number)
                continue
            del self._under_way[future]
            yield chunk, packet

    def _replace(self, number: int) -> None:
        """A new process for one that died; its chunks are done again, unless that has happened too often."""
        lost = {future: chunk for future, (who, chunk) in self._under_way.items() if who == number}
        for future, chunk in sorted(lost.items(), key=lambda item: item[1], reverse=True):
            del self._under_way[future]
            self._left.back(number, chunk)
            self._losses[chunk] += 1
            if self._losses[chunk] == MOST_LOSSES:
                first, end = chunk
                raise SweepError(
                    f"processes died {MOST_LOSSES} times at the points {first}..{end - 1} (out of memory?);"
                    " accepted: --resume, with fewer --workers"
                )
        self._processes[number].shutdown(wait=False)
        self._processes[number] = self._process()

    def stop(self) -> None:
        for process in self._processes:
            process.shutdown(cancel_futures=True)
