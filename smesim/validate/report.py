"""Artefacts of a validation: one HTML page with a plot for each block, JSON, and the page of the documentation.

The documentation page has five headings: where the model is right, where it is wrong, why, how far to trust it, how to
reproduce. Figures and tables are generated; the reasons are written here, next to what they explain.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path

from smesim.files import write_atomically
from smesim.trace.figures import BLUE, VERMILION, plotly
from smesim.validate.run import Validation, as_json
from smesim.validate.statistics import BlockStatistics, ClassStatistics

GOOD, POOR = 0.10, 0.30
"""Median errors at which a block counts as right, and as wrong."""

KINDS = {
    "microbench": "Loops without memory, and streams",
    "kernel": "Products of matrices",
    "llm": "Prefill and decode of models",
}
WHY = (
    "**Kernels of two operations have two numbers each.** An engine's product is an efficiency, a cost a block of"
    " accumulators and a cost of packing a byte. Libraries that choose among several kernels by shape (BNNS with few"
    " rows, Accelerate with 64 columns) do not fit into that; those rows are the worst of `m1probe`.",
    "**Cache sets.** Whether rows of the right operand fall on few sets is a step here (8 places of a 16 KiB way); in"
    " the world it is a slope. `m1-12` and `m1gemm` show it, and two rows of `m1-12` give two numbers for one shape.",
    "**Large working sets of stores.** A matrix unit's stores beyond the L2 are held back in ways that a cache with"
    " random replacement and a port do not have: `m4mem`, stores of 1.5 to 6 MB by one and three threads.",
    "**A turbo that is not described.** Sums over clusters run at less than their parts where a power limit binds"
    " (`cpufp`, 8 P + 4 E cores of an M2 Max: 12 % below its eight P cores alone).",
    "**Chips of which nothing but a model's speed is published** (`armcpu`, `sgl`) have guessed caches and bandwidths;"
    " their errors are those of the guess. Kernels that use matrix instructions of a core are not told from others, so"
    " a CIX P1 is predicted too slow in prompts.",
    "**Memory that gives way slowly.** What a cluster draws from DRAM is a hard cap here; on a DGX Spark two cores a"
    " cluster draw 37 GB/s and four 45. So decode of a small model there is best with four threads, not eight.",
    "**Builds differ in how threads meet.** llama.cpp of PR 8672 pays some microseconds for each thread behind each"
    " node, the build beside T-MAC does not; `lc8672` with eight threads is the worst of its block when left out.",
    "**Operands of many rows on AMX.** With 64 rows a codebook's kernel on one thread is held back by loading the other"
    " operand (`m1cb`, M = 64), which has no model.",
    "**MLX computes on the GPU**, which is not modelled; what is published of it here are bandwidths of whole chips."
    " On its CPU device its products are those of Accelerate (profile `mlx-cpu`); no row is there to hold it against.",
    "**What a record does not say.** Lengths of prompts of `adl` and `dgx` are assumed; a run on all cores of a busy"
    " machine measures the machine's other work (`stalled_s` of a profile is that).",
)


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


COLUMNS = (
    "block", "rows", "left out", "ratio", "median", "p90", "worst", "bias", "cv median", "cv p90", "cv worst", "tau",
    "best",
)  # fmt: skip


SHOWN = (0, 1, 2, 4, 6, 8, 10, 11, 12)
"""Columns that fit on a screen."""


def shown_columns() -> tuple[str, ...]:
    return tuple(COLUMNS[i] for i in SHOWN)


def shown_row(block: BlockStatistics) -> tuple[str, ...]:
    """One block as a row of the table on screen."""
    cells = row(block)
    return tuple(cells[i] for i in SHOWN)


def row(block: BlockStatistics) -> tuple[str, ...]:
    """One block as a row of the table."""
    good, of = block.best_named
    return (
        block.block, str(block.count), str(block.not_modelled), number(block.geometric_mean_ratio),
        percent(block.median_error), percent(block.p90_error), percent(block.worst_error), percent(block.bias),
        percent(block.crossed_median_error), percent(block.crossed_p90_error), percent(block.crossed_worst_error),
        number(block.tau), f"{good} of {of}" if of else "-",
    )  # fmt: skip


def summary_lines(validation: Validation) -> tuple[str, ...]:
    """What the summary says, in sentences."""
    s = validation.summary
    return (
        f"{s.records} records in {s.blocks} blocks; of {s.calibration} calibration rows {s.not_modelled}"
        f" ({percent(s.not_modelled_share)}) are not modelled.",
        f"Median error over all calibration rows {percent(s.median_error)}; the median of the blocks' medians, every"
        f" block alike, {percent(s.median_of_medians)}; mean bias {percent(s.mean_bias)}.",
        f"Mean Kendall tau of series over threads {number(s.mean_tau)}; the best configuration is named in"
        f" {s.best_named} of {s.contests}.",
    )


def write(validation: Validation, folder: Path) -> tuple[Path, ...]:
    """Write the page, the JSON and the documentation page into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "index.html": html(validation),
        "validation.json": json.dumps(as_json(validation), indent=1, allow_nan=False) + "\n",
        "validation.md": markdown(validation),
    }
    for name, text in files.items():
        write_atomically(folder / name, text)
    return tuple(folder / name for name in files)


CLASS_COLUMNS = (
    "class", "rows", "left out", "median", "p90", "worst", "cv median", "cv p90", "cv worst", "worst block, cv median",
)  # fmt: skip


def class_row(statistics: ClassStatistics) -> tuple[str, ...]:
    """The calibration rows of one kind as a row of the table of classes."""
    c = statistics
    return (
        KINDS[c.kind], str(c.rows), str(c.not_modelled), percent(c.median_error), percent(c.p90_error),
        percent(c.worst_error), percent(c.crossed_median_error), percent(c.crossed_p90_error),
        percent(c.crossed_worst_error),
        "-" if c.worst_block is None else f"{c.worst_block} {percent(c.worst_block_median)}",
    )  # fmt: skip


CLASSES_SHOWN = (1, 2, 3, 6, 7, 8)


def shown_class_columns() -> tuple[str, ...]:
    return ("class", *(CLASS_COLUMNS[i] for i in CLASSES_SHOWN))


def shown_class_row(statistics: ClassStatistics) -> tuple[str, ...]:
    """The calibration rows of one kind as a row of the table on screen."""
    cells = class_row(statistics)
    return (statistics.kind, *(cells[i] for i in CLASSES_SHOWN))


def _classes(validation: Validation) -> list[str]:
    lines = [f"| {' | '.join(CLASS_COLUMNS)} |", "|" + "---|" * len(CLASS_COLUMNS)]
    return lines + [f"| {' | '.join(class_row(c))} |" for c in validation.summary.classes]


def _table(blocks: Sequence[BlockStatistics]) -> list[str]:
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    return lines + [f"| {' | '.join((f'`{cells[0]}`', *cells[1:]))} |" for cells in map(row, blocks)]


def markdown(validation: Validation) -> str:
    """The page of the documentation."""
    answered = [b for b in validation.blocks if b.median_error is not None]
    right = [b for b in answered if (b.crossed_median_error or b.median_error or 0.0) <= GOOD]
    wrong = [b for b in answered if (b.crossed_median_error or b.median_error or 0.0) >= POOR]
    lines = [
        "# Validation against published measurements", "",
        "Generated by `smesim validate --out validation/published`; every figure is in `validation.json` there.",
        'Errors are predicted / published - 1. "cv" is cross-validated: predicted by a fit to the other rows, made anew'
        " for each fifth of a block's rows. In the table of classes a row without fitted numbers counts as it is.",
        "",
        *summary_lines(validation), "",
        *_classes(validation), "",
        "## Where it is right", "",
        f"Blocks with a median error of at most {GOOD:.0%} (cross-validated where parameters were fitted):"
        f" {', '.join(f'`{b.block}`' for b in right)}.", "",
    ]  # fmt: skip
    for kind, title in KINDS.items():
        lines += [f"### {title}", "", *_table([b for b in answered if b.kind == kind]), ""]
    lines += [
        "## Where it is wrong", "",
        f"Blocks with a median error of {POOR:.0%} or more: {', '.join(f'`{b.block}`' for b in wrong) or 'none'}.", "",
        "The ten worst rows:", "", "| record | what | predicted | published | error |", "|---|---|---|---|---|",
    ]  # fmt: skip
    worst = sorted((a for a in validation.answers if a.error is not None), key=lambda a: -abs(a.error or 0.0))[:10]
    for a in worst:
        r = a.record
        lines.append(
            f"| `{r.id}` | {r.chip}, {r.unit}: {r.metric} | {a.predicted:.4g} | {r.value:.4g} {r.unit_of_value}"
            f" | {percent(a.error)} |"
        )
    lines += ["", "Series over threads in which the order is not that published:", ""]
    series = [(b, s) for b in answered for s in b.series if b.kind == "llm"]
    off = [(b, s) for b, s in series if s.tau < 0.8 or not s.best_is_named]
    lines += [
        f"- `{b.block}`, {s.name}: threads {', '.join(s.labels)};"
        f" predicted {', '.join(f'{v:.4g}' for v in s.predicted)}; published"
        f" {', '.join(f'{v:.4g}' for v in s.published)}; tau {s.tau:.2f}"
        for b, s in off
    ] or ["- none"]
    lines += ["", "## Why", "", *(f"- {reason}" for reason in WHY), "", "Not modelled:", "", *_reasons(validation), ""]
    kinds = {kind: [b for b in answered if b.kind == kind] for kind in KINDS}
    lines += ["## How far to trust it", ""]
    for kind, title in KINDS.items():
        medians = sorted(b.crossed_median_error or b.median_error or 0.0 for b in kinds[kind])
        worst_of = max((b.crossed_worst_error or b.worst_error or 0.0 for b in kinds[kind]), default=0.0)
        if medians:
            middle = medians[len(medians) // 2]
            lines.append(
                f"- {title}: typical block {percent(middle)}, worst block {percent(medians[-1])},"
                f" worst row {percent(worst_of)}."
            )
    good = sum(s.best_is_named for _, s in series)
    lines += [
        f"- Series over threads of models: {len(series)}, the best thread count named in {good}, tau of 0.8 or more in"
        f" {sum(s.tau >= 0.8 for _, s in series)}.",
        "- A number marked `fitted` in a preset or a profile was laid through the rows shown here; what it predicts for"
        " another chip or engine is an extrapolation.", "",
        "## How to reproduce", "", "```",
        "smesim validate                              # the table, from the records that smesim carries",
        "smesim validate --data FILE --block mpgemm   # another file of the same schema, one block",
        "smesim validate --out validation/published   # this page and its plots",
        "smesim fit --block m4mem                     # free parameters, with cross-validation (needs smesim[fit])",
        "```", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _reasons(validation: Validation) -> list[str]:
    reasons: Counter[tuple[str, str]] = Counter(
        (a.record.block, a.reason or "") for a in validation.answers if a.predicted is None
    )
    return [f"- `{block}` ({count}): {reason}" for (block, reason), count in sorted(reasons.items())]


def html(validation: Validation) -> str:
    """One page that works without a network. Raises TraceError if plotly is not installed."""
    script = plotly("offline").get_plotlyjs()
    table = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row(block)) + "</tr>" for block in validation.blocks
    )
    head = "".join(f"<th>{escape(column)}</th>" for column in COLUMNS)
    plots = "".join(_plot(validation, block) for block in validation.blocks if block.median_error is not None)
    lines = "".join(f"<p>{escape(line)}</p>" for line in summary_lines(validation))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Validation</title>\n'
        "<style>body{font:15px/1.5 system-ui,sans-serif;max-width:1180px;margin:0 auto;padding:24px}"
        "td,th{padding:2px 10px;text-align:right;border-bottom:1px solid #ddd}td:first-child{text-align:left}</style>\n"
        f"<script>{script}</script></head><body><h1>Predicted against published</h1>{lines}"
        f"<table><tr>{head}</tr>{table}</table>{plots}</body></html>\n"
    )


def _plot(validation: Validation, block: BlockStatistics) -> str:
    """Predicted against published of one block, on logarithmic axes, with the line of equality."""
    go = plotly("graph_objects")
    answers = [a for a in validation.of(block.block) if a.error is not None and (a.predicted or 0.0) > 0.0]
    published = [float(a.record.value or 0.0) for a in answers]
    ends = [min(published), max(published)]
    names = [f"{a.record.id}: {a.record.unit}, {a.record.metric}" for a in answers]
    figure = go.Figure(
        [
            go.Scatter(x=ends, y=ends, mode="lines", line={"color": VERMILION}, name="equal"),
            go.Scatter(
                x=published,
                y=[a.predicted for a in answers],
                mode="markers",
                text=names,
                marker={"color": BLUE},
                name="rows",
            ),
        ]
    )
    figure.update_layout(
        template="plotly_white", width=560, height=420, showlegend=False,
        xaxis={"type": "log", "title": f"published, {answers[0].record.unit_of_value}"},
        yaxis={"type": "log", "title": "predicted"},
    )  # fmt: skip
    body = figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"plot-{block.block}")
    return f"<h2>{escape(block.block)}</h2><p>{len(answers)} rows, median error {percent(block.median_error)}</p>{body}"
