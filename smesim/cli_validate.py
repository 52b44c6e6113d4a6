"""The commands that hold predictions against published measurements, and fit what is free to them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smesim.cli_options import ChipOption, JsonFlag, ModelOption

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
    show.print_table(
        "Calibration rows by class", report.shown_class_columns(),
        [report.shown_class_row(c) for c in validation.summary.classes],
    )  # fmt: skip
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
    only = fit_report.documents_of(preset)
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


def engines(json: JsonFlag = False) -> None:
    """List the published engines that have a profile: how each plans, and which formats its kernels take."""
    from smesim import show
    from smesim.engines import profile

    loaded = [profile.load(name) for name in profile.names()]
    if json:
        show.print_json([each.model_dump(mode="json", exclude_defaults=True) for each in loaded])
        return
    rows = []
    for each in loaded:
        alike = {format_ for format_, kernel in each.kernel_of.items() if kernel in each.core}
        rows.append((each.name, each.description, " ".join(each.matrix), " ".join(sorted({*each.core, *alike}))))
    show.print_table("Engines", ("name", "what", "on units", "on cores"), rows, text=4)


def advise(
    chip: ChipOption,
    model: ModelOption,
    quant: Annotated[str, typer.Option("--quant", "-q", help="Format of the weights: q4_0, q4_k, q6_k, q8_0 or f32.")],
    engine: Annotated[str, typer.Option("--engine", help="Whose settings: llama.cpp.")] = "llama.cpp",
    prompt: Annotated[int, typer.Option(min=2, help="Tokens of the prompt.")] = 512,
    context: Annotated[int, typer.Option(min=1, help="Context at which tokens are generated.")] = 512,
    json: JsonFlag = False,
) -> None:
    """Say how many threads to use, and how many of them on matrix units, for prompts and for generation."""
    from smesim import show, workflow
    from smesim.engines.advice import advise as advice
    from smesim.engines.formats import weight_format
    from smesim.workload import Phase, catalog

    described, config, weights = workflow.resolve_chip(chip), catalog.load(model), weight_format(quant.lower())
    settings = advice(described, config, weights, [Phase.prefill(prompt), Phase.decode(context)], engine)
    if json:
        show.print_json(
            {
                phase: [{**vars(setting), "environment": setting.environment} for setting in ranked]
                for phase, ranked in settings.items()
            }
        )
        return
    for phase, ranked in settings.items():
        rows = [
            (s.environment, s.computes, str(s.threads), str(s.on_units), f"{s.tokens_per_s:.1f}") for s in ranked[:5]
        ]
        columns = ("set", "computes on", "threads", "on units", "tokens/s")
        show.print_table(f"{config.name}, {weights.name}, {phase} on {described.name}: predicted", columns, rows)
