"""The commands that ask many questions at once, and read what came out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smesim.cli_options import JsonFlag
from smesim.errors import SmesimError

if TYPE_CHECKING:
    import pandas as pd

ColumnsOption = Annotated[str | None, typer.Option(help="Columns to show, with commas; default: all that vary.")]


def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A sweep file: what is asked, and what varies.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the results.")] = None,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="Processes that answer points.")] = 1,
    cluster: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Instead of processes: the Dask cluster of this scheduler.")
    ] = None,
    scheduler_file: Annotated[
        Path | None, typer.Option(help="Instead of processes: the Dask cluster whose scheduler wrote this file.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the last run of this sweep ended.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many points there are, and what they will take.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Predict every point of a grid of chips, models, phases, formats and plans; one row each, in Parquet files."""
    from dataclasses import asdict

    from smesim import show, workflow
    from smesim.sweep import Inputs, estimate, in_processes, load_sweep, on_cluster, run
    from smesim.units import format_bytes, format_seconds

    asked = load_sweep(file)
    with show.progress() as report:
        inputs = Inputs.of(asked, lambda name: workflow.resolve_chip(name, report))
    if dry_run:
        expected = estimate(asked, inputs, workers)
        if json:
            show.print_json(asdict(expected))
            return
        show.print_line(f"{expected.points:,} points, {expected.excluded:,} excluded by conditions")
        each = format_seconds(expected.seconds_per_point)
        show.print_line(f"{each} a point, so about {format_seconds(expected.seconds)} with {workers} workers")
        show.print_line(f"{format_bytes(expected.disk_bytes)} on disk")
        return
    if out is None:
        raise SmesimError("a sweep has no place for its results; accepted: --out FOLDER, or --dry-run")
    if cluster is not None and scheduler_file is not None:
        raise SmesimError("--cluster and --scheduler-file given; accepted: one of them")
    on_this_machine = cluster is None and scheduler_file is None
    executor = in_processes(workers) if on_this_machine else on_cluster(cluster, scheduler_file)
    with show.progress() as report:
        done = run(asked, inputs, out, executor=executor, resume=resume, progress=report)
    if json:
        show.print_json({"out": str(out), **asdict(done)})
        return
    before = f", {done.done_before:,} were there" if done.done_before else ""
    rate = f" ({done.answered / done.seconds:,.0f} a second)" if done.answered else ""
    show.print_line(f"{done.answered:,} points in {format_seconds(done.seconds)}{rate}{before}; results in {out}")
    if done.failed:
        show.print_line(f"{done.failed:,} have no answer, such as")
        for failure in done.failures:
            inputs_shown = ", ".join(f"{key}={value}" for key, value in failure.values.items())
            show.print_line(f"  point {failure.point} ({inputs_shown}): {failure.error}")


def results(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that 'smesim sweep' wrote to.")],
    query: Annotated[str | None, typer.Option("--query", "-q", help="Only rows for which this holds.")] = None,
    best: Annotated[
        str | None, typer.Option(metavar="KEYS:COLUMN", help="Of each group of equal keys the row with least (-most).")
    ] = None,
    pareto: Annotated[
        str | None, typer.Option(metavar="COLUMNS", help="Only rows that none beats in these (-: more is better).")
    ] = None,
    pivot: Annotated[
        str | None, typer.Option(metavar="ROWS,COLUMNS,VALUE", help="One column over two others, as a table.")
    ] = None,
    columns: ColumnsOption = None,
    sort: Annotated[str | None, typer.Option(help="Column to sort by; -COLUMN from the largest.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows of a table that are shown.")] = 50,
    csv: Annotated[Path | None, typer.Option(help="Write all rows to this file.")] = None,
    plot: Annotated[
        str | None, typer.Option(metavar="X,Y[,COLOUR]", help="Draw one column over another; with --html.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="File for the plot.")] = None,
    json: JsonFlag = False,
) -> None:
    """Filter, group, pivot and draw the results of a sweep."""
    from smesim import show
    from smesim.files import write_atomically
    from smesim.sweep import results as reading

    frame = reading.read_results(folder)
    if query is not None:
        frame = reading.matching(frame, query)
    if best is not None:
        keys, colon, column = best.partition(":")
        if not colon:
            raise SmesimError(f"--best {best!r}; accepted: KEYS:COLUMN, as in chip,tokens:time_s")
        frame = reading.best_of(frame, _list(keys), column)
    if pareto is not None:
        frame = reading.pareto_front(frame, _list(pareto))
    if sort is not None:
        reading.check_columns(frame, [sort.removeprefix("-")])
        frame = frame.sort_values(sort.removeprefix("-"), ascending=not sort.startswith("-"), kind="stable")
    if plot is not None or html is not None:
        axes = _list(plot or "")
        if html is None or len(axes) not in (2, 3):
            raise SmesimError(f"--plot {plot!r} with --html {html}; accepted: X,Y or X,Y,COLOUR, and a file")
        page = reading.plotted(frame, axes[0], axes[1], axes[2] if axes[2:] else None, folder.name)
        write_atomically(html, page)
    if pivot is not None:
        names = _list(pivot)
        if len(names) != 3:
            raise SmesimError(f"--pivot {pivot!r}; accepted: ROWS,COLUMNS,VALUE, as in tokens,chip,time_s")
        frame = reading.pivoted(frame, *names)
    elif columns is not None:
        reading.check_columns(frame, _list(columns))
        frame = frame[_list(columns)]
    if csv is not None:
        write_atomically(csv, frame.to_csv(index=False))
    if json:
        show.print_json(_records(frame))
        return
    shown = _varying(frame) if columns is None and pivot is None else frame
    rows = [[_text(value) for value in row] for row in shown.head(limit).itertuples(index=False)]
    show.print_table(f"{folder.name}: {len(frame):,} rows", [str(name) for name in shown.columns], rows)
    if len(frame) > limit:
        show.print_line(f"{len(frame) - limit:,} more; --limit shows more, --csv writes all")


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _varying(frame: pd.DataFrame) -> pd.DataFrame:
    """Without what is the same in all rows, and without hashes."""
    same = [name for name in frame.columns if len(frame) > 1 and frame[name].nunique(dropna=False) == 1]
    return frame.drop(columns=[*same, *({"inputs"} & set(frame.columns))])


def _records(frame: pd.DataFrame) -> list[dict[str, object]]:
    known = frame.astype(object).where(frame.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in known.to_dict("records")]


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return "" if value is None else str(value)
