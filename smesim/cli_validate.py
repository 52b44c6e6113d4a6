"""The commands that hold predictions against published measurements, and fit what is free to them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smesim.cli_options import JsonFlag

DataOption = Annotated[
    Path | None, typer.Option("--data", help="A JSON file of records; default: those smesim carries.")
]
BlockOption = Annotated[list[str] | None, typer.Option("--block", "-b", help="Only this block; may be repeated.")]


def validate(
    data: DataOption = None,
    block: BlockOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the page, the plots and the JSON.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option("--without", help="Switch an effect off; may be repeated.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Predict published measurements, and show how far off the predictions are."""
    from smesim import show
    from smesim.sim.effects import without as all_but
    from smesim.validate import records, report, run

    known = records.load(data)
    with show.progress() as bar:
        validation = run.validate(known, block or (), all_but(without or ()), bar)
    if out is not None:
        report.write(validation, out)
    if json:
        show.print_json(run.as_json(validation))
        return
    show.print_table(
        "Predicted against published", report.shown_columns(), [report.shown_row(b) for b in validation.blocks]
    )
    for line in report.summary_lines(validation):
        print(line)
    if out is not None:
        print(f"Written to {out}.")


def fit(
    preset: Annotated[
        str | None,
        typer.Option("--preset", "-p", help="Only the numbers of this chip or engine; default: all that are free."),
    ] = None,
    data: DataOption = None,
    block: BlockOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the chip and engine files as fitted.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Fit the free numbers of chips and engines to calibration rows, with cross-validation inside each block."""
    from smesim import show
    from smesim.validate import fit_report, fitting, records

    known = records.load(data)
    chosen = fit_report.chosen_records(known, block or ())
    only = () if preset is None else (f"chip:{preset}", f"engine:{preset}")
    with show.progress() as bar:
        fitted = fitting.fit(chosen, only, lambda what: bar(what, 0.5))
    if out is not None:
        fit_report.write(fitted, out)
    if json:
        show.print_json(fit_report.as_json(fitted, chosen))
        return
    show.print_table("Fitted", ("number", "before", "fitted", "low", "high"), fit_report.parameter_rows(fitted))
    show.print_table(
        "Errors",
        ("block", "rows", "median", "p90", "cv median", "cv p90", "cv worst"),
        fit_report.error_rows(fitted, chosen),
    )
