"""What 'smesim plan --explain' prints: why operators run as they do, who packs what and why, what is saved, and the
memory bill by layout."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from smesim.plan.explain import APPENDED, SAVED, TASKS, WRITTEN, LayoutReport, Packing, by_site, total_seconds
from smesim.plan.schema import Plan
from smesim.units import format_bytes, format_seconds

_TITLES = {
    TASKS: "pack tasks",
    SAVED: "packings saved (bytes that they would have moved)",
    WRITTEN: "operators that write packed",
    APPENDED: "keys and values, packed as they are appended",
}


def as_json(plan: Plan, report: LayoutReport) -> dict[str, Any]:
    """Why operators run as they do, every packing, totals by layer and in all, and the memory bill; bytes, seconds."""
    layers = sorted({p.layer for p in report.packings if p.layer is not None})
    return {
        "choices": [
            {"site": entry.site, "mode": entry.mode, "pipeline": entry.pipeline is not None}
            | entry.reason.model_dump()
            for entry in plan.operators
            if entry.reason is not None
        ],
        "layout_reuse": report.layout_reuse,
        "packings": [asdict(packing) for packing in report.packings],
        "packed_once": [asdict(once) for once in report.once],
        "layers": [{"layer": layer, **_totals(report, layer)} for layer in layers],
        "total": _totals(report),
        "layout_bytes": report.layout_bytes,
        "weight_copies": report.weight_copies,
    }


def _totals(report: LayoutReport, layer: int | None = None) -> dict[str, Any]:
    return {how: _sum(report.of(how, layer)) for how in _TITLES}


def _sum(packings: Iterable[Packing]) -> dict[str, Any]:
    packings = tuple(packings)
    return {
        "operators": len(packings),
        "tasks": sum(p.tasks for p in packings),
        "n_bytes": sum(p.n_bytes for p in packings),
        "seconds": total_seconds(packings),
    }


def layouts(plan: Plan, report: LayoutReport, path: Path | None, json: bool) -> None:
    """The report on one plan, as tables or as JSON; `path` is where the plan was written."""
    if json:
        print(json_module.dumps(as_json(plan, report), indent=2, allow_nan=False))
        return
    console = Console()
    console.print(
        f"{plan.model.name}, {plan.phase}, {plan.layers} layers on {plan.chip}: layout_reuse {report.layout_reuse}",
        highlight=False,
    )
    console.print(_choices(plan))
    for how, title in _TITLES.items():
        if report.of(how):
            console.print(_table(report, how, title))
    for once in report.once:
        what = f"{once.what}: {once.tensors} tensors, {format_bytes(once.n_bytes)} as {once.layout}"
        console.print(what, highlight=False)
    bill = ", ".join(f"{layout} {format_bytes(n_bytes)}" for layout, n_bytes in report.layout_bytes.items())
    console.print(f"memory by layout: {bill}", highlight=False)
    console.print(f"weights take {report.weight_copies:.3f} of one copy", highlight=False)
    if path is not None:
        console.print(f"written to {path}", highlight=False)


def _choices(plan: Plan) -> Table:
    """What was chosen for each operator, and what it would have taken otherwise; estimates without packing."""
    table = Table(title="modes, and what the others were estimated to take", title_justify="left")
    for column in ("operator", "mode", "bound"):
        table.add_column(column, no_wrap=True)
    table.add_column("estimate", justify="right", no_wrap=True)
    table.add_column("otherwise")
    for entry in plan.operators:
        if entry.reason is not None:
            others = [f"{_mode(o.mode, o.pipeline)} {format_seconds(o.predicted_s)}" for o in entry.reason.runners_up]
            mode, estimate = _mode(entry.mode, entry.pipeline is not None), format_seconds(entry.reason.predicted_s)
            table.add_row(entry.site, mode, entry.reason.bound, estimate, ", ".join(others))
    return table


def _mode(mode: str, in_stages: bool) -> str:
    return f"{mode} in stages" if in_stages else mode


def _table(report: LayoutReport, how: str, title: str) -> Table:
    """A row for each site, whose operators do alike in all layers; then sums."""
    table = Table(title=title, title_justify="left")
    table.add_column("operator", no_wrap=True)
    for column in ("times", "tasks", "bytes", "predicted"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("what and why")
    for group in by_site(report.of(how)):
        first = group.first
        tensor = first.tensor.replace(f"layers.{first.layer}.", "")
        numbers = (str(group.count), str(group.tasks), format_bytes(group.n_bytes), _seconds(group.seconds))
        by = f" by {first.by}" if first.by else ""
        table.add_row(first.site, *numbers, f"{tensor} as {first.layout}{by}: {first.why}")
    table.add_section()
    for name, layer in (("first layer", 0), ("in all", None)):
        sums = _sum(report.of(how, layer))
        counts = (str(sums["operators"]), str(sums["tasks"]), format_bytes(sums["n_bytes"]))
        table.add_row(name, *counts, _seconds(sums["seconds"]), "")
    return table


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else format_seconds(seconds)
