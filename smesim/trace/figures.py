"""The three pictures of a comparison, as plotly figures.

- the timeline: what each worker did, the prediction above the measurement on one time axis;
- the scatter: predicted against measured time of every operator, with bands of 10 % and 20 %;
- the error budget: what the difference of each operator is made of.

Colours are Okabe and Ito's, which people with any common colour blindness can tell apart
(jfly.uni-koeln.de/color); where a colour carries meaning, a symbol or a word carries it too.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smesim.errors import TraceError
from smesim.trace.compare import PARTS, Comparison
from smesim.trace.schema import Trace

BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, YELLOW = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
)
GREY = "#999999"
_KIND_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, YELLOW)
_PART_COLOURS = dict(zip(PARTS, (BLUE, ORANGE, PURPLE, GREY), strict=True))
_PART_PATTERNS = dict(zip(PARTS, ("", "/", "x", "."), strict=True))
_BOUND_STYLES = {
    "compute": (BLUE, "circle"),
    "bandwidth": (ORANGE, "square"),
    "overhead": (PURPLE, "diamond"),
    "wait": (GREY, "x"),
}
MAX_DRAWN_TASKS = 20_000
"""Above this number of slices a browser gets slow; tasks of one operator that follow each other become
one."""

_LAYOUT: dict[str, Any] = {
    "template": "plotly_white",
    "font": {"family": "system-ui, sans-serif", "size": 13},
    "margin": {"l": 130, "r": 20, "t": 30, "b": 50},
    "hoverlabel": {"align": "left"},
    "showlegend": True,
}


def plotly(module: str) -> Any:
    """A module of plotly, imported only when a picture is drawn. Raises TraceError if it is not installed."""
    try:
        return importlib.import_module(f"plotly.{module}")
    except ImportError:
        raise TraceError("the HTML report needs plotly: pip install 'smesim[dashboard]'") from None


def _slices(trace: Trace) -> pd.DataFrame:
    """op_name, op_kind, worker, start_s, end_s of the median run, in order on each worker."""
    tasks = trace.run(trace.middle_runs()[0]).sort_values(["worker", "start_s", "end_s"], kind="stable")
    return tasks[["op", "op_name", "op_kind", "worker", "start_s", "end_s"]].reset_index(drop=True)


def merged(slices: pd.DataFrame) -> pd.DataFrame:
    """Neighbouring slices of one operator on one worker as one, gaps between them included."""
    op, worker = slices["op"].to_numpy(), slices["worker"].to_numpy()
    begins = np.r_[True, (op[1:] != op[:-1]) | (worker[1:] != worker[:-1])]
    merged = slices[begins].reset_index(drop=True)
    merged["end_s"] = slices["end_s"].to_numpy()[np.r_[begins[1:], True]]
    return merged


def segments(start: NDArray[Any], end: NDArray[Any], gap: object) -> NDArray[Any]:
    """start, end, gap, start, end, gap...: many separate line segments in one plotly trace."""
    flat = np.empty(3 * len(start), dtype=np.result_type(start) if isinstance(gap, float) else object)
    flat[0::3], flat[1::3], flat[2::3] = start, end, gap
    return flat


def timeline(comparison: Comparison, max_drawn_tasks: int = MAX_DRAWN_TASKS) -> Any:
    """Gantt chart, one lane a worker, predicted lanes above measured ones; one colour an operator kind."""
    drawn = [("predicted", comparison.predicted), ("measured", comparison.measured)]
    parts = [_slices(trace) for _, trace in drawn]
    if sum(len(part) for part in parts) > max_drawn_tasks:
        parts = [merged(part) for part in parts]
    lanes: list[str] = []
    for part, (side, trace) in zip(parts, drawn, strict=True):
        part["lane"] = len(lanes) + part["worker"].to_numpy(dtype=np.int64)
        lanes += [f"{side} {label}" for label in trace.meta.workers]
    slices = pd.concat(
        [part.astype({"op_name": object, "op_kind": object}) for part in parts], ignore_index=True
    )
    time_of_kind = (slices["end_s"] - slices["start_s"]).groupby(slices["op_kind"]).sum()
    kinds = [str(kind) for kind in time_of_kind.sort_values(ascending=False, kind="stable").index]

    figure = plotly("graph_objects").Figure()
    for position, kind in enumerate(kinds):
        of_kind = slices[slices["op_kind"] == kind]
        lane = of_kind["lane"].to_numpy(dtype=np.float64)
        names = of_kind["op_name"].to_numpy()
        figure.add_scatter(
            x=segments(of_kind["start_s"].to_numpy() * 1e3, of_kind["end_s"].to_numpy() * 1e3, np.nan),
            y=segments(lane, lane, np.nan),
            text=segments(names, names, ""),
            mode="lines",
            name=kind,
            line={"width": 20, "color": _KIND_COLOURS[position] if position < len(_KIND_COLOURS) else GREY},
            hovertemplate="%{text}<br>%{x:.4f} ms<extra>" + kind + "</extra>",
        )
    figure.update_layout(
        **_LAYOUT,
        height=140 + 34 * len(lanes),
        hovermode="closest",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        xaxis={"title": {"text": "time since the start of the run, ms"}, "exponentformat": "none"},
        yaxis={
            "tickvals": list(range(len(lanes))),
            "ticktext": lanes,
            "ticksuffix": " ",
            "range": [len(lanes) - 0.4, -0.6],
            "zeroline": False,
            "fixedrange": True,
        },
        dragmode="zoom",
    )
    figure.add_hline(y=len(comparison.predicted.meta.workers) - 0.5, line={"color": "black", "width": 1})
    return figure


def scatter(comparison: Comparison) -> Any:
    """Predicted against measured on log axes: small dots are single operators, labelled marks all layers of a
    site."""
    figure = plotly("graph_objects").Figure()
    sites = comparison.sites[(comparison.sites["predicted_s"] > 0) & (comparison.sites["measured_s"] > 0)]
    single = comparison.operators[
        (comparison.operators["predicted_s"] > 0) & (comparison.operators["measured_s"] > 0)
    ]
    times_ms = 1e3 * np.concatenate(
        [frame[name].to_numpy() for frame in (sites, single) for name in ("predicted_s", "measured_s")]
    )
    low, high = (float(times_ms.min()) / 2, float(times_ms.max()) * 2) if len(times_ms) else (0.1, 10.0)
    ends = np.array([low, high])
    for width, opacity in ((0.2, 0.10), (0.1, 0.18)):
        figure.add_scatter(
            x=np.r_[ends, ends[::-1]],
            y=np.r_[ends * (1 + width), ends[::-1] * (1 - width)],
            fill="toself",
            mode="none",
            fillcolor=f"rgba(0, 158, 115, {opacity})",
            name=f"within {width:.0%}",
            hoverinfo="skip",
        )
    figure.add_scatter(
        x=ends, y=ends, mode="lines", line={"color": GREY, "width": 1}, showlegend=False, hoverinfo="skip"
    )
    hover = "%{text}<br>measured %{x:.4f} ms<br>predicted %{y:.4f} ms"
    figure.add_scatter(
        x=single["measured_s"].to_numpy() * 1e3,
        y=single["predicted_s"].to_numpy() * 1e3,
        text=single["op_name"].astype(str).to_list(),
        mode="markers",
        marker={"size": 4, "color": GREY, "opacity": 0.6},
        name="one operator",
        hovertemplate=hover + "<extra></extra>",
    )
    for bound, (colour, symbol) in _BOUND_STYLES.items():
        of_bound = sites[sites["bound"] == bound]
        if of_bound.empty:
            continue
        figure.add_scatter(
            x=of_bound["measured_s"].to_numpy() * 1e3,
            y=of_bound["predicted_s"].to_numpy() * 1e3,
            error_x={
                "type": "data",
                "array": np.nan_to_num(of_bound["spread_s"].to_numpy()) * 500,
                "thickness": 1,
            },
            text=of_bound["site"].astype(str).to_list(),
            mode="markers+text",
            textposition="top left",
            textfont={"size": 10},
            marker={"size": 11, "color": colour, "symbol": symbol},
            name=f"all layers, bound by {bound}",
            hovertemplate=hover + "<extra></extra>",
        )
    log_range = [float(np.log10(low)), float(np.log10(high))]
    axis = {"type": "log", "range": log_range, "exponentformat": "none"}
    figure.update_layout(
        **_LAYOUT,
        height=520,
        xaxis={**axis, "title": {"text": "measured, ms"}},
        yaxis={**axis, "title": {"text": "predicted, ms"}},
    )
    return figure


def error_budget(comparison: Comparison) -> Any:
    """Stacked bars: measured minus predicted of each site, in ms, by what it is made of."""
    figure = plotly("graph_objects").Figure()
    sites = comparison.sites
    names = [*sites["site"].astype(str), "total"]
    for part in PARTS:
        values = sites[f"{part}_error_s"].to_numpy() * 1e3
        figure.add_bar(
            x=np.r_[values, values.sum()],
            y=names,
            orientation="h",
            name=part,
            marker={"color": _PART_COLOURS[part], "pattern": {"shape": _PART_PATTERNS[part]}},
            hovertemplate="%{y}: %{x:+.4f} ms<extra>" + part + "</extra>",
        )
    figure.update_layout(
        **_LAYOUT,
        height=160 + 22 * len(names),
        barmode="relative",
        xaxis={
            "title": {"text": "measured minus predicted, ms (right: slower than predicted)"},
            "exponentformat": "none",
        },
        yaxis={"autorange": "reversed"},
    )
    return figure
