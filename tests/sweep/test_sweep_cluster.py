"""A sweep on a real Dask cluster on this machine: the same rows, whatever is killed on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from distributed import LocalCluster

from smesim.errors import SweepError
from smesim.sweep import Inputs, Sweep, cluster, on_cluster, parse_sweep, read_results, run
from smesim.sweep.store import Chunk, Packet

OPERATORS = """
schema_version = 1
name = "operators"
[base]
model = "smollm2-135m"
chip = "apple-m4"
phase = "prefill"
[axes]
site = ["k_proj", "q_proj"]
planner = ["cpu_only", "roofline"]
tokens = { range = [1, 6], step = 1 }
threads = [2, 99]
"""


@pytest.fixture(scope="module")
def asked() -> Sweep:
    return parse_sweep(OPERATORS, "operators.toml")


@pytest.fixture(scope="module")
def expected(asked: Sweep, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("local")
    run(asked, Inputs.of(asked), folder)
    return read_results(folder)


def two_workers() -> LocalCluster:
    return LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50)


class Disturbed:
    """An executor on a cluster that does something to it once some chunks are done."""

    def __init__(self, dask: LocalCluster, after: int, disturb: Any) -> None:
        self._dask, self._after, self._disturb = dask, after, disturb

    def __call__(self, sweep: Sweep, inputs: Inputs, chunks: list[Chunk]) -> Iterator[tuple[Chunk, Packet]]:
        for done, answered in enumerate(on_cluster(self._dask.scheduler_address)(sweep, inputs, chunks), 1):
            if done == self._after:
                self._disturb(self._dask)
            yield answered


def kill_a_worker(dask: LocalCluster) -> None:
    os.kill(dask.workers[0].pid, signal.SIGKILL)


def test_a_lost_worker_and_a_lost_cluster_cost_nothing_but_time(
    asked: Sweep, expected: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 10.0)
    inputs = Inputs.of(asked)
    with two_workers() as dask:
        done = run(asked, inputs, tmp_path / "killed", executor=Disturbed(dask, 1, kill_a_worker))
        assert (done.answered, done.failed) == (48, 24)
        pd.testing.assert_frame_equal(read_results(tmp_path / "killed"), expected)
        with pytest.raises(SweepError, match="--resume"):
            run(asked, inputs, tmp_path / "lost", executor=Disturbed(dask, 2, lambda dask: dask.close()))
    begun = len(read_results(tmp_path / "lost"))
    assert 0 < begun < 48
    with two_workers() as dask:
        done = run(asked, inputs, tmp_path / "lost", executor=on_cluster(dask.scheduler_address), resume=True)
    assert done.answered == 48 - begun
    pd.testing.assert_frame_equal(read_results(tmp_path / "lost"), expected)


def test_a_cluster_that_is_not_there_is_said_to_be_missing(
    asked: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 0.5)
    with pytest.raises(SweepError, match="no Dask cluster at tcp://127"):
        run(asked, Inputs.of(asked), tmp_path, executor=on_cluster("tcp://127.0.0.1:9"))
    with pytest.raises(SweepError, match="no such file"):
        run(asked, Inputs.of(asked), tmp_path, executor=on_cluster(None, tmp_path / "none.json"), resume=True)
