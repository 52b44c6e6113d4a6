"""Answering a sweep on a cluster that Dask runs: the same workers and chunks, one task a chunk.

    run(sweep, inputs, out, executor=on_cluster("tcp://10.0.0.1:8786"))

Chips and models travel once to each machine. Each thread has a stretch of neighbouring chunks, which have most in
common, and takes from another's when it is through with its own. A few chunks for each thread are under way and no
more, so that neither the scheduler nor this process has to remember the whole sweep. A chunk whose worker is lost is
given to another by Dask; when Dask gives up, or the scheduler is lost, the sweep ends with an error, what is on disk
stays, and it can be resumed on the same cluster, another, or none. The machines need smesim, and nothing of the folder
for results: packets of rows come back to the process that started the sweep, which writes them.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

from smesim.errors import SweepError
from smesim.sweep.inputs import Inputs
from smesim.sweep.schema import Sweep
from smesim.sweep.store import Chunk, Packet
from smesim.sweep.workers import CHUNKS_AHEAD, Executor, Stretches, Worker, rarely_collected

CONNECT_S = 30.0
"""How long to wait for a scheduler, and for its first worker."""
LOOK_S = 5.0
"""How often to ask how many threads the cluster has: workers come and go."""
RETRIES = 2


def on_cluster(address: str | None = None, scheduler_file: Path | None = None) -> Executor:
    """The workers of a Dask cluster, by its scheduler's address or by the file that it wrote."""

    def answered(sweep: Sweep, inputs: Inputs, chunks: list[Chunk]) -> Iterator[tuple[Chunk, Packet]]:
        client = _client(address, scheduler_file)
        try:
            yield from _by_client(client, sweep, inputs, chunks)
        except (OSError, CancelledError) as error:
            what = f"{type(error).__name__}: {error}".rstrip(": ")
            raise SweepError(f"the cluster was lost ({what}); accepted: --resume once there is one again") from None
        finally:
            client.close(timeout=LOOK_S)

    return answered


def _distributed() -> Any:
    try:
        return importlib.import_module("distributed")
    except ModuleNotFoundError:
        raise SweepError("a cluster needs Dask: pip install 'smesim[cluster]'") from None


def _client(address: str | None, scheduler_file: Path | None) -> Any:
    distributed = _distributed()
    where = address if scheduler_file is None else str(scheduler_file)
    if scheduler_file is not None and not scheduler_file.exists():
        raise SweepError(f"{scheduler_file}: no such file; accepted: what 'dask scheduler --scheduler-file' wrote")
    try:
        named = {"address": address} if scheduler_file is None else {"scheduler_file": str(scheduler_file)}
        client = distributed.Client(**named, timeout=CONNECT_S, set_as_default=False)
        client.wait_for_workers(1, timeout=CONNECT_S)
    except (OSError, ValueError, TimeoutError) as error:
        raise SweepError(f"no Dask cluster at {where} ({error}); accepted: the address of a scheduler") from None
    return client


def _by_client(client: Any, sweep: Sweep, inputs: Inputs, chunks: list[Chunk]) -> Iterator[tuple[Chunk, Packet]]:
    distributed = _distributed()
    # A task and not scattered data: what only lost workers had is made again.
    shared = client.submit(_shared, sweep, inputs, pure=False)
    fingerprint = inputs.fingerprint(sweep)
    hands = _hands(client)
    left, looked = Stretches(chunks, hands), time.monotonic()
    under_way: dict[Any, tuple[Hand, Chunk]] = {}
    done = distributed.as_completed(loop=client.loop)

    def hand_out() -> None:
        """Keeps every thread busy, those that came to the cluster since too."""
        nonlocal hands, looked
        if time.monotonic() - looked > LOOK_S:
            hands, looked = _hands(client) or hands, time.monotonic()
        ahead = Counter(hand for hand, _ in under_way.values())
        for hand in hands:
            for _ in range(CHUNKS_AHEAD - ahead[hand]):
                chunk = left.next(hand)
                if chunk is None:
                    return
                # That worker has answered the chunk's neighbours; if it is lost, another one does it.
                where = {"workers": [hand[0]], "allow_other_workers": True}
                future = client.submit(_packet, shared, fingerprint, chunk, pure=False, retries=RETRIES, **where)
                under_way[future] = (hand, chunk)
                done.add(future)

    hand_out()
    while under_way:
        future = next(done)
        _, chunk = under_way.pop(future)
        try:
            packet = future.result()
        except distributed.KilledWorker as error:
            raise SweepError(f"points {chunk[0]}..{chunk[1] - 1}: {error}; accepted: --resume") from None
        hand_out()
        yield chunk, packet


Hand = tuple[str, int]
"""A thread of the cluster: its worker's address, and which of the worker's threads it is."""


def _hands(client: Any) -> list[Hand]:
    return [(address, i) for address, threads in client.nthreads().items() for i in range(threads)]


def _shared(sweep: Sweep, inputs: Inputs) -> tuple[Sweep, Inputs]:
    return sweep, inputs


_of_thread = threading.local()
"""The worker that a thread of a Dask worker had last, with the fingerprint of what it works at."""


def _packet(shared: tuple[Sweep, Inputs], fingerprint: str, chunk: Chunk) -> Packet:
    if getattr(_of_thread, "fingerprint", None) != fingerprint:
        _of_thread.worker, _of_thread.fingerprint = Worker(*shared), fingerprint
    worker: Worker = _of_thread.worker
    with rarely_collected():
        return worker.packet(chunk)
