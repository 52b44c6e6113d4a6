"""How many points a second a sweep answers: operators, whole models, two processes against one, and Dask beside them.

    python benchmarks/sweeps.py                    # about two minutes on two cores
    python benchmarks/sweeps.py --points 100000    # of the sweep of operators: the whole way, files included
    python benchmarks/sweeps.py --interrupt        # and what is lost when all of it is killed half way

What many machines would give is a projection. One process hands chunks out and writes what comes back, and one, Dask's
scheduler, passes them on; either may be what limits a large cluster. So it is the least of three rates: of the workers,
each as fast as one here; of the scheduler, which takes the time of an empty task for each chunk; and of the process
that reads rows and writes files. Networks and disks are taken to be as quick as this machine with itself.

Every sweep is run as `smesim sweep` runs it, into a folder that is thrown away. Points that ask the same of a process
(`k_proj` and `v_proj`, planners that decide alike) are simulated once, so the rate depends on how much a sweep repeats.
"""

import argparse
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from smesim.sweep import COLUMNS, Executor, Inputs, Points, Sweep, in_processes, on_cluster, parse_sweep, run
from smesim.sweep.run import MOST_IN_CHUNK
from smesim.sweep.store import Packer, Store
from smesim.sweep.workers import Worker

OPERATORS = """
schema_version = 1
name = "operators"
[base]
phase = "prefill"
[axes]
model = ["smollm2-135m", "llama-3.2-1b", "llama-3.2-3b", "qwen3-4b"]
chip = ["apple-m4", "apple-m4-pro", "phone-d9500", "server-lx2"]
site = ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj", "attention"]
planner = ["cpu_only", "roofline"]
threads = [%s]
tokens = { log = [1, 512], count = %d }
"""
WHOLE = """
schema_version = 1
name = "whole"
[base]
model = "llama-3.2-3b"
chip = "apple-m4"
phase = "prefill:512"
planner = "roofline"
[axes]
"chip.memory.bandwidth_bytes_per_s" = { range = [60e9, 110e9], count = %d }
"""


def operators_of(points: int) -> str:
    """A sweep of single operators with at least so many points, if there are that many: of prompts up to 512 tokens,
    and of more teams where there are not enough lengths."""
    for threads in ("2, 4", "2, 3, 4, 6", "2, 3, 4, 5, 6, 7, 8"):
        for count in range(1, 257):
            text = OPERATORS % (threads, count)
            if Points(parse_sweep(text, "operators")).count >= points:
                return text
    return text


def timed(sweep: Sweep, executor: Executor) -> float:
    """Wall seconds of a whole sweep, from reading its chips to the last file."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        run(sweep, Inputs.of(sweep), Path(folder), executor=executor)
        return time.perf_counter() - begin


def dask_s(sweep: Sweep, workers: int) -> float:
    """The same on a Dask cluster of this machine that is up already."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        return timed(sweep, on_cluster(cluster.scheduler_address))


EMPTY_TASKS = 2000
WRITTEN = 20
MANY_WORKERS = 1000


def scheduler_s(workers: int) -> float:
    """Seconds that Dask's scheduler and its client take for a task in which nothing happens."""
    from distributed import Client, LocalCluster, wait

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        wait(client.map(abs, range(100), pure=False))
        begin = time.perf_counter()
        wait(client.map(abs, range(EMPTY_TASKS), pure=False))
        return (time.perf_counter() - begin) / EMPTY_TASKS


def writer_s(sweep: Sweep) -> float:
    """Seconds a point that the process which writes takes for the packet of a full chunk."""
    worker = Worker(sweep, Inputs.of(sweep))
    rows = [worker.row(point) for point in Points(sweep).between(0, 50)]
    packet = Packer(sweep, tuple(COLUMNS)).packet((rows * MOST_IN_CHUNK)[:MOST_IN_CHUNK])
    came = pickle.dumps(packet)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder), sweep)
        begin = time.perf_counter()
        for i in range(WRITTEN):
            store.write("base", (i * MOST_IN_CHUNK, (i + 1) * MOST_IN_CHUNK), pickle.loads(came).content)
        return (time.perf_counter() - begin) / WRITTEN / MOST_IN_CHUNK


def interrupted_share(text: str, seconds: float) -> float:
    """What a sweep by two processes takes longer, as a part of its `seconds`, if all are killed (kill -9) when half of
    it is on disk and it is resumed: the work that was lost, and a second start."""
    count = Points(parse_sweep(text, "operators")).count
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "sweep.toml", Path(folder) / "out"
        file.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "smesim", "sweep", str(file), "--workers", "2", "--out", str(out), "--resume"]
        begin = time.perf_counter()
        with subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL) as killed:
            while sum(end - first for first, end in map(numbers_of, out.glob("points/*/part-*"))) < count / 2:
                time.sleep(0.01)
            os.killpg(killed.pid, signal.SIGKILL)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return (time.perf_counter() - begin) / seconds - 1


def numbers_of(part: Path) -> tuple[int, int]:
    first, end = part.stem.removeprefix("part-").split("-")
    return int(first), int(end)


def projected(points_per_s: float, task_s: float, row_s: float) -> dict[str, float]:
    """Points a second of so many workers in full chunks, and what each of the serial stages could do."""
    stages = {
        "workers": MANY_WORKERS * points_per_s,
        "scheduler": MOST_IN_CHUNK / task_s,
        "writer": 1 / row_s,
    }
    found = {f"projected_points_per_s_of_{name}": rate for name, rate in stages.items()}
    return {**found, f"projected_points_per_s_{MANY_WORKERS}_workers": min(stages.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--interrupt", action="store_true", help="kill a sweep half way, and resume it")
    parser.add_argument("--points", type=int, default=20_000, help="about so many points of single operators")
    parser.add_argument("--whole", type=int, default=16, help="points of whole models")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    text = operators_of(arguments.points)
    operators = parse_sweep(text, "operators")
    whole = parse_sweep(WHOLE % arguments.whole, "whole")
    count = Points(operators).count
    one_s, two_s, on_dask_s = timed(operators, in_processes(1)), timed(operators, in_processes(2)), dask_s(operators, 2)
    whole_s = timed(whole, in_processes(1))
    task_s, row_s = scheduler_s(2), writer_s(operators)
    figures = {
        "operator_points": count,
        "operator_points_per_s_1_process": count / one_s,
        "operator_points_per_s_2_processes": count / two_s,
        "speed_up_2_processes": one_s / two_s,
        "dask_against_processes": on_dask_s / two_s,
        "whole_model_points_per_s_1_process": Points(whole).count / whole_s,
        "scheduler_s_per_task": task_s,
        "writer_s_per_point": row_s,
        **projected(count / one_s, task_s, row_s),
        "largest_process_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "largest_child_bytes": 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
    }
    if arguments.interrupt:
        figures["interrupted_share_longer"] = interrupted_share(text, two_s)
    lines = [f"{name}: {value:.4g}" for name, value in figures.items()]
    print(json.dumps(figures) if arguments.json else "\n".join(lines))


if __name__ == "__main__":
    main()
