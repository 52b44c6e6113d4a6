"""Answering a sweep on a cluster that Dask runs: the same workers and chunks, one task a chunk.

    run(sweep, inputs, out, executor=on_cluster("tcp://10.0.0.1:8786"))

Chips and models travel once to each machine. A few chunks for each thread are under way and no more, so that neither
the scheduler nor this process has to remember the whole sweep. A chunk whose worker is lost is given to another by
Dask; when Dask gives up, or the scheduler is lost, the sweep ends with an error, what is on disk stays, and it can be
resumed on the same cluster, another, or none. The machines need smesim, and nothing of the folder for results: rows
come back to the process that started the sweep, which writes them.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

from smesim.errors import SweepError
from smesim.sweep.inputs import Inputs
from smesim.sweep.schema import Sweep
from smesim.sweep.store import Chunk
from smesim.sweep.workers import CHUNKS_AHEAD, Executor, Rows, Worker

CONNECT_S = 30.0
"""How long to wait for a scheduler, and for its first worker."""
LOOK_S = 5.0
"""How often to ask how many threads the cluster has: workers come and go."""
RETRIES = 2


def on_cluster(address: str | None = None, scheduler_file: Path | None = None) -> Executor:
    """The workers of a Dask cluster, by its scheduler's address or by the file that it wrote."""

    def answered(sweep: Sweep, inputs: Inputs, chunks: list[Chunk]) -> Iterator[tuple[Chunk, Rows]]:
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


def _by_client(client: Any, sweep: Sweep, inputs: Inputs, chunks: list[Chunk]) -> Iterator[tuple[Chunk, Rows]]:
    distributed = _distributed()
    # A task and not scattered data: what only lost workers had is made again.
    shared = client.submit(_shared, sweep, inputs, pure=False)
    fingerprint = inputs.fingerprint(sweep)
    left = list(reversed(chunks))
    under_way: dict[Any, Chunk] = {}
    done = distributed.as_completed(loop=client.loop)
    threads, looked = 1, -LOOK_S

    def hand_out() -> None:
        nonlocal threads, looked
        if time.monotonic() - looked > LOOK_S:
            threads, looked = max(1, sum(client.nthreads().values())), time.monotonic()
        while left and len(under_way) < CHUNKS_AHEAD * threads:
            chunk = left.pop()
            future = client.submit(_rows, shared, fingerprint, chunk, pure=False, retries=RETRIES)
            under_way[future] = chunk
            done.add(future)

    hand_out()
    while under_way:
        future = next(done)
        chunk = under_way.pop(future)
        try:
            rows = future.result()
        except distributed.KilledWorker as error:
            raise SweepError(f"points {chunk[0]}..{chunk[1] - 1}: {error}; accepted: --resume") from None
        hand_out()
        yield chunk, rows


def _shared(sweep: Sweep, inputs: Inputs) -> tuple[Sweep, Inputs]:
    return sweep, inputs


_of_thread = threading.local()
"""The worker that a thread of a Dask worker had last, with the fingerprint of what it works at."""


def _rows(shared: tuple[Sweep, Inputs], fingerprint: str, chunk: Chunk) -> Rows:
    if getattr(_of_thread, "fingerprint", None) != fingerprint:
        _of_thread.worker, _of_thread.fingerprint = Worker(*shared), fingerprint
    worker: Worker = _of_thread.worker
    return worker.rows(chunk)
