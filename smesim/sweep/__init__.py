"""Sweeps: one question, asked of a hundred thousand chips, models, phases, formats and plans.

A sweep is a TOML file (`schema`): what all questions have in common, and axes along which they differ. Its points are
numbered (`points`), and a point's number and the file are all that it takes to answer it: `answer` builds the graph,
plans and simulates, and the result depends on neither where nor in which order that happens. `run` hands chunks of
points to processes (`workers`) or to a Dask cluster (`cluster`), `store` keeps one row a point in Parquet files that
are there whole or not at all, `results` reads them.

    sweep = load_sweep(Path("scenarios/gemm-sweep.toml"))
    run(sweep, Inputs.of(sweep), Path("out/gemm"), workers=2)
    frame = read_results(Path("out/gemm"))
"""

from smesim.sweep.answer import COLUMNS, Solver
from smesim.sweep.cluster import on_cluster
from smesim.sweep.inputs import Inputs
from smesim.sweep.points import Point, Points
from smesim.sweep.results import pareto_front, read_results
from smesim.sweep.run import Summary, estimate, run
from smesim.sweep.schema import Sweep, load_sweep, parse_sweep
from smesim.sweep.workers import Executor, in_processes

__all__ = [
    "COLUMNS",
    "Executor",
    "Inputs",
    "Point",
    "Points",
    "Solver",
    "Summary",
    "Sweep",
    "estimate",
    "in_processes",
    "load_sweep",
    "on_cluster",
    "pareto_front",
    "parse_sweep",
    "read_results",
    "run",
]
