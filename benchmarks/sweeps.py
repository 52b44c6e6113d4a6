"""How many points a second a sweep answers: operators, whole models, two processes against one, and Dask beside them.

    python benchmarks/sweeps.py                    # about two minutes on two cores
    python benchmarks/sweeps.py --points 100000    # of the sweep of operators: the whole way, files included

Every sweep is run as `smesim sweep` runs it, into a folder that is thrown away. Points that ask the same of a process
(`k_proj` and `v_proj`, planners that decide alike) are simulated once, so the rate depends on how much a sweep repeats.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

from smesim.sweep import Executor, Inputs, Points, Sweep, in_processes, on_cluster, parse_sweep, run

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
threads = [2, 4]
tokens = { log = [1, 512], count = %d }
"""
STEPS_PER_TOKEN_COUNT = 4 * 4 * 7 * 2 * 2
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=4000, help="about so many points of single operators")
    parser.add_argument("--whole", type=int, default=16, help="points of whole models")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    operators = parse_sweep(OPERATORS % max(1, arguments.points // STEPS_PER_TOKEN_COUNT), "operators")
    whole = parse_sweep(WHOLE % arguments.whole, "whole")
    count = Points(operators).count
    one_s, two_s, on_dask_s = timed(operators, in_processes(1)), timed(operators, in_processes(2)), dask_s(operators, 2)
    whole_s = timed(whole, in_processes(1))
    figures = {
        "operator_points": count,
        "operator_points_per_s_1_process": count / one_s,
        "operator_points_per_s_2_processes": count / two_s,
        "speed_up_2_processes": one_s / two_s,
        "dask_against_processes": on_dask_s / two_s,
        "whole_model_points_per_s_1_process": Points(whole).count / whole_s,
        "largest_process_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "largest_child_bytes": 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
    }
    lines = [f"{name}: {value:.4g}" for name, value in figures.items()]
    print(json.dumps(figures) if arguments.json else "\n".join(lines))


if __name__ == "__main__":
    main()
