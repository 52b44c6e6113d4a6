"""The command that searches for a plan by trials."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smesim.cli_options import (
    ChipOption,
    JsonFlag,
    LayersOption,
    ModelOption,
    PhaseOption,
    ThreadsOption,
    WeightsOption,
    parse_weights,
)


def tune(
    model: ModelOption,
    phase: PhaseOption,
    chip: ChipOption,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Plan file to write.")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials in all, those in the journal counted.")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the search.")] = 0,
    journal: Annotated[
        Path | None, typer.Option(help="File that keeps trials: to go on, and for several processes to share.")
    ] = None,
    sites: Annotated[
        str | None, typer.Option(help="Operators that may change, with commas; default: all that can.")
    ] = None,
    measured: Annotated[bool, typer.Option("--measured", help="Run each trial on this machine (--chip host).")] = False,
    repeats: Annotated[int, typer.Option("--repeats", "-r", min=1, help="Counted runs of a measured trial.")] = 5,
    html: Annotated[Path | None, typer.Option(help="File for the curve of the search.")] = None,
    threads: ThreadsOption = None,
    layers: LayersOption = None,
    weights: WeightsOption = "f32",
    json: JsonFlag = False,
) -> None:
    """Search for a plan by trials of tile shapes, modes, ratios, depths and workers, simulated or measured here."""
    from smesim import show, show_tuning, workflow
    from smesim.files import check_writable, write_atomically
    from smesim.tuning import tune_phase
    from smesim.workload import Phase, catalog

    numbers = parse_weights(weights)
    for file in (out, html):
        if file is not None:
            check_writable(file)
    with show.progress() as report:
        described = workflow.resolve_chip(chip, report, numbers)
        tuned = tune_phase(
            catalog.load(model), Phase.parse(phase), described, threads=threads, layers=layers, weights=numbers,
            sites=[site.strip() for site in sites.split(",")] if sites else None, trials=trials, seed=seed,
            journal=journal, measured=measured, repeats=repeats, progress=report,
        )  # fmt: skip
    if out is not None:
        tuned.plan.save(out)
    if html is not None:
        write_atomically(html, show_tuning.curve(tuned))
    show_tuning.tuned(tuned, out, json)
