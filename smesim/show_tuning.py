"""What `smesim tune` prints and draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smesim.plan.diff import plan_differences
from smesim.plan.tune import Tuned
from smesim.show import print_json, print_line, print_table
from smesim.trace.figures import plotly
from smesim.units import format_seconds


def tuned(found: Tuned, out: Path | None, json: bool) -> None:
    """How much was won, by which changes, and after how many trials."""
    differences = plan_differences(found.start, found.plan)
    how = {
        change.site: [d for d in differences if d.site == change.site and d.field not in ("kernel", "rhs_layout")]
        for change in found.changes
    }
    if json:
        print_json(_record(found, out, how))
        return
    plan, won = found.plan, found.start_s / found.seconds
    print_line(
        f"{plan.model.name}, {plan.phase} on {plan.chip}: {format_seconds(found.seconds)} instead of"
        f" {format_seconds(found.start_s)} by roofline, {won:.3f}x, after {len(found.curve)} trials"
    )
    rows = [
        [
            change.site,
            "; ".join(f"{d.field}: {d.first} -> {d.second}" for d in how[change.site]),
            format_seconds(change.saved_s),
        ]
        for change in found.changes
    ]
    print_table("what was changed, and what the whole would take longer without it", ["site", "change", "saved"], rows)
    improving = [trial for trial in found.curve if trial.seconds == trial.best_s]
    steps = [[str(trial.number), format_seconds(trial.best_s)] for trial in improving]
    print_table("trials that were the best so far", ["trial", "time"], steps)
    if out is not None:
        print_line(f"plan in {out}")


def _record(found: Tuned, out: Path | None, how: dict[str, list[Any]]) -> dict[str, Any]:
    return {
        "model": found.plan.model.name,
        "phase": found.plan.phase,
        "chip": found.plan.chip,
        "plan": None if out is None else str(out),
        "seconds": found.seconds,
        "start_s": found.start_s,
        "changes": [
            {
                "site": change.site,
                "saved_s": change.saved_s,
                "fields": {d.field: [d.first, d.second] for d in how[change.site]},
            }
            for change in found.changes
        ],
        "curve": [{"trial": t.number, "seconds": t.seconds, "best_s": t.best_s} for t in found.curve],
    }


def curve(found: Tuned) -> str:
    """An HTML page with the time of each trial and the best until then."""
    graph_objects = plotly("graph_objects")
    figure = graph_objects.Figure()
    ran = [trial for trial in found.curve if trial.seconds is not None]
    figure.add_scatter(x=[t.number for t in ran], y=[t.seconds for t in ran], name="trial", mode="markers")
    numbers, best = [t.number for t in found.curve], [t.best_s for t in found.curve]
    figure.add_scatter(x=numbers, y=best, name="best so far", mode="lines", line_shape="hv")
    plan = found.plan
    figure.update_layout(
        title=f"{plan.model.name}, {plan.phase} on {plan.chip}", xaxis_title="trial", yaxis_title="seconds"
    )
    return str(figure.to_html(include_plotlyjs=True))
