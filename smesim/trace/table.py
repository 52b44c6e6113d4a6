"""A comparison as a table in the terminal: one row an operator, the total last."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from smesim.trace.compare import Comparison, ComparisonReport, Timing, WholePart
from smesim.trace.text import (
    DOUBTFUL_ERROR,
    PROBLEM_ERROR,
    format_error,
    format_layers,
    format_measured_ms,
    format_ms,
    format_share,
    statistics_lines,
)


def _coloured(error: float) -> str:
    text = format_error(error)
    if math.isnan(error) or abs(error) <= DOUBTFUL_ERROR:
        return text
    return f"[{'red' if abs(error) > PROBLEM_ERROR else 'yellow'}]{text}[/]"


def _cells(timing: Timing) -> tuple[str, str, str]:
    measured = format_measured_ms(timing.measured_s, timing.spread_s)
    return format_ms(timing.predicted_s), measured, _coloured(timing.error)


def comparison_table(comparison: Comparison) -> Table:
    """Operator (all layers of a site together), predicted, measured with spread, error, share, bound; then
    the total."""
    meta = comparison.measured.meta
    runs = f"median of {meta.runs} runs ± interquartile range" if meta.runs > 1 else "one run"
    table = Table(
        title=f"{meta.model}, {meta.phase}, {format_layers(meta.layers)} ({runs})", title_justify="left"
    )
    table.add_column("operator")
    for heading in ("predicted ms", "measured ms", "error", "of total"):
        table.add_column(heading, justify="right")
    table.add_column("bound by")
    for row in comparison.rows:
        table.add_row(row.name, *_cells(row.timing), format_share(row.share), row.bound)
    table.add_section()
    table.add_row("total", *_cells(comparison.total))
    return table


def whole_table(whole: Sequence[WholePart]) -> Table:
    """The parts of a whole run: all pieces of the prompt, all decode steps, and both."""
    table = Table(title="the whole run, one program after another", title_justify="left")
    table.add_column("part")
    for heading in ("predicted ms", "measured ms", "error", "tokens/s"):
        table.add_column(heading, justify="right")
    for part in whole:
        table.add_row(part.name, *_cells(part.timing), f"{part.tokens / part.timing.measured_s:.1f}")
    return table


def print_report(report: ComparisonReport, first_line: str, console: Console) -> None:
    """Print `first_line` (the machine, and what a comparison on it shows), then each phase's table and statistics,
    and what a whole run took."""
    console.print(first_line, highlight=False, markup=False)
    for comparison in report.phases:
        console.print(comparison_table(comparison))
        for line in statistics_lines(comparison):
            console.print(line, highlight=False, markup=False)
    if report.whole:
        console.print(whole_table(report.whole))
