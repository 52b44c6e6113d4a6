"""The report: a comparison as one HTML page that works without a network.

It reads like a page of a lab book. First what was asked, what was predicted and what was measured, and how
far to trust it, with the provenance of every hardware number behind the prediction; then, for each phase, the
table and three pictures (see `smesim.trace.figures`). Plotly's script is in the page, once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal

from smesim.files import write_atomically
from smesim.trace import figures
from smesim.trace.compare import Comparison, ComparisonReport, Timing
from smesim.trace.schema import Trace
from smesim.trace.text import (
    PROBLEM_ERROR,
    format_error,
    format_layers,
    format_measured_ms,
    format_ms,
    format_share,
    statistics_lines,
)

ProvenanceKind = Literal["measured", "fitted", "data_sheet", "derived", "guessed"]

PROVENANCE: dict[str, tuple[str, str]] = {
    "measured": ("●", "measured on the chip that it describes"),
    "fitted": ("◐", "fitted to measurements"),
    "data_sheet": ("▤", "from a data sheet"),
    "derived": ("→", "derived from other numbers"),
    "guessed": ("?", "guessed: nobody has measured it"),
}
"""The sign and the words of each provenance. A guess differs from a measurement in sign, colour and frame."""

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 1180px;
  margin: 0 auto; padding: 24px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { margin: 40px 0 8px; border-top: 2px solid #1a1a1a; padding-top:
12px; } h3 { margin: 24px 0 4px; font-size: 16px; } .first { background: #f3f3f3; border-left: 4px solid
#0072B2; padding: 8px 12px; margin: 12px 0; } dl { display: grid; grid-template-columns: 170px 1fr; gap: 4px
16px; } dt { font-weight: 600; } dd { margin: 0; } table { border-collapse: collapse; font-variant-numeric:
tabular-nums; } th, td { padding: 3px 12px; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child, td.text, th.text { text-align: left; } tr.total td { border-top: 2px solid
#1a1a1a;
  font-weight: 600; } td.beyond { font-weight: 700; color: #A64000; } td.beyond::after { content: " !"; }
.provenance { display: inline-block; padding: 0 8px; border-radius: 10px; border: 1px solid #009E73;
margin-right: 6px; } .provenance.fitted { border-color: #0072B2; } .provenance.data_sheet { border-color:
#56B4E9; } .provenance.derived { border-color: #999; } .provenance.guessed { border: 2px dashed #D55E00;
color: #A64000; } details { margin: 8px 0; } summary { cursor: pointer; }
"""


@dataclass(frozen=True)
class HardwareNumber:
    """One number of the chip file that the prediction rests on, as text."""

    quantity: str
    value: str
    provenance: ProvenanceKind
    source: str


@dataclass(frozen=True)
class LabEntry:
    """What the page says before the results; plain text, from whoever asked."""

    title: str
    first_line: str
    """The machine, whether it has SME, and what a comparison on it therefore shows."""
    asked: str
    trust: tuple[str, ...] = ()
    """What limits the result, in sentences; the page adds what the traces themselves say."""
    numbers: tuple[HardwareNumber, ...] = ()


def write_report(report: ComparisonReport, entry: LabEntry, path: Path | str) -> None:
    """Write the page, whole or not at all. Raises TraceError if plotly is not installed."""
    write_atomically(Path(path), render_report(report, entry))


def render_report(report: ComparisonReport, entry: LabEntry) -> str:
    """The page as text. The same report and entry give the same text."""
    script = figures.plotly("offline").get_plotlyjs()
    phases = "".join(_phase(comparison, number) for number, comparison in enumerate(report.phases))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(entry.title)}</title>\n'
        f"<style>{_STYLE}</style>\n<script>{script}</script></head>\n<body>\n"
        f'<h1>{escape(entry.title)}</h1>\n<p class="first">{escape(entry.first_line)}</p>\n'
        f"{_definitions(_summary(report, entry))}{_numbers(entry.numbers)}{phases}</body></html>\n"
    )


def _summary(report: ComparisonReport, entry: LabEntry) -> list[tuple[str, str]]:
    predicted = "; ".join(f"{c.phase} in {format_ms(c.total.predicted_s)} ms" for c in report.phases)
    measured = "; ".join(
        f"{c.phase} in {format_measured_ms(c.total.measured_s, c.total.spread_s)} ms "
        f"(prediction {format_error(c.total.error)})"
        for c in report.phases
    )
    return [
        ("What was asked", entry.asked),
        (
            "What was predicted",
            f"{predicted}. Chip file: {_distinct(c.predicted.meta.chip for c in report.phases)}.",
        ),
        ("What was measured", f"{measured}. Median of the runs ± interquartile range."),
        *([("The whole run", _whole(report))] if report.whole else []),
        ("Machine", report.machine),
        *(("How far to trust it", line) for line in (*entry.trust, *_trust(report))),
    ]


def _whole(report: ComparisonReport) -> str:
    return "; ".join(
        f"{part.name}: {format_ms(part.timing.predicted_s)} ms predicted, "
        f"{format_measured_ms(part.timing.measured_s, part.timing.spread_s)} ms measured "
        f"({format_error(part.timing.error)})"
        for part in report.whole
    )


def _distinct(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts))


def _trust(report: ComparisonReport) -> list[str]:
    """What the traces themselves say about the worth of their numbers."""
    lines: list[str] = []
    for comparison in report.phases:
        for trace in (comparison.predicted, comparison.measured):
            lines += [f"{trace.meta.source}, {trace.meta.phase}: {note}" for note in trace.meta.notes]
        lines.append(_load(comparison.measured))
        if comparison.measured.meta.stand_in:
            lines.append(
                f"{comparison.phase}: stand-in, wide vector kernels played the part of the matrix unit."
            )
    return list(dict.fromkeys(lines))


def _load(measured: Trace) -> str:
    load = measured.meta.foreign_load
    if load is None:
        return f"{measured.meta.phase}: whether other programs ran beside the measurement was not observed."
    return f"{measured.meta.phase}: other programs took {load:.0%} of the machine during the measurement."


def _definitions(rows: Sequence[tuple[str, str]]) -> str:
    parts: list[str] = []
    previous = ""
    for term, text in rows:
        parts.append(f"<dt>{escape(term) if term != previous else ''}</dt><dd>{escape(text)}</dd>")
        previous = term
    return f"<dl>{''.join(parts)}</dl>\n"


def _badge(kind: str, text: str) -> str:
    return f'<span class="provenance {kind}">{PROVENANCE[kind][0]} {escape(text)}</span>'


def _numbers(numbers: Sequence[HardwareNumber]) -> str:
    if not numbers:
        return ""
    counts = Counter[str](number.provenance for number in numbers)
    legend = "".join(
        _badge(kind, f"{words} ({counts[kind]})") for kind, (_, words) in PROVENANCE.items() if counts[kind]
    )
    rows = "".join(
        f'<tr><td>{escape(number.quantity)}</td><td>{escape(number.value)}</td><td class="text">'
        f"{_badge(number.provenance, number.provenance.replace('_', ' '))}</td>"
        f'<td class="text">{escape(number.source)}</td></tr>'
        for number in numbers
    )
    return (
        f"<h3>Where the hardware numbers come from</h3><p>{legend}</p>"
        f"<details><summary>All {len(numbers)} numbers</summary><table><tr><th>quantity</th><th>value</th>"
        f'<th class="text">provenance</th><th class="text">source</th></tr>{rows}</table></details>\n'
    )


def _phase(comparison: Comparison, number: int) -> str:
    meta = comparison.measured.meta
    kernels = ", ".join(f"{kind}: {isa}" for kind, isa in sorted(meta.kernels.items()))
    facts = [
        ("Model", f"{meta.model}, {format_layers(meta.layers)} really run, both predicted and measured"),
        ("Plan", f"planner {meta.planner}, {len(meta.workers)} workers ({', '.join(meta.workers)})"),
        ("Runs", f"{meta.runs}{f', {meta.created}' if meta.created else ''}"),
        *([("Kernels that ran", kernels)] if kernels else []),
    ]
    statistics = "".join(f"<p>{escape(line)}</p>" for line in statistics_lines(comparison))
    pictures = "".join(
        f"<h3>{escape(heading)}</h3>{_html(figure, f'phase-{number}-{name}')}"
        for name, heading, figure in (
            (
                "timeline",
                "Timeline: predicted above, the median measured run below",
                figures.timeline(comparison),
            ),
            ("scatter", "Predicted against measured", figures.scatter(comparison)),
            ("budget", "Error budget: what the difference is made of", figures.error_budget(comparison)),
        )
    )
    numbers = f"{_definitions(facts)}{_table(comparison)}{statistics}"
    return f"<h2>{escape(comparison.phase)}</h2>{numbers}{pictures}\n"


def _html(figure: object, identifier: str) -> str:
    text = figures.plotly("io").to_html(
        figure,
        include_plotlyjs=False,
        full_html=False,
        div_id=identifier,
        config={"displaylogo": False, "responsive": True},
    )
    return str(text)


def _table(comparison: Comparison) -> str:
    def line(name: str, timing: Timing, share: str, bound: str, style: str = "") -> str:
        beyond = ' class="beyond"' if abs(timing.error) > PROBLEM_ERROR else ""
        measured = format_measured_ms(timing.measured_s, timing.spread_s)
        return (
            f"<tr{style}><td>{escape(name)}</td><td>{format_ms(timing.predicted_s)}</td><td>{measured}</td>"
            f"<td{beyond}>{format_error(timing.error)}</td><td>{share}</td>"
            f'<td class="text">{escape(bound)}</td></tr>'
        )

    body = "".join(line(row.name, row.timing, format_share(row.share), row.bound) for row in comparison.rows)
    body += line("total", comparison.total, "", "", ' class="total"')
    return (
        "<table><tr><th>operator</th><th>predicted ms</th><th>measured ms ± spread</th><th>error</th>"
        f'<th>of total</th><th class="text">bound by</th></tr>{body}</table>'
    )
