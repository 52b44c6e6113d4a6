"""The other pictures: points under roofs, predicted against measured, what ideas save, maps of a what-if.

No figure says what the background is, so each can be read in a dark and in a light theme. Every axis has its unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from dashboards.palette import BANDS, MEASURED, MODES, NEUTRAL, PREDICTED, ROOFS
from smesim.trace import Comparison
from smesim.trace import figures as comparison_figures
from smesim.trace.figures import plotly
from smesim.workflow import Roofs

LAYOUT: dict[str, Any] = {
    "margin": {"l": 10, "r": 44, "t": 30, "b": 40},
    "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    "modebar": {"orientation": "v", "bgcolor": "rgba(0,0,0,0)", "color": NEUTRAL, "activecolor": PREDICTED},
}
"""Of every picture: the legend above it, the buttons beside it."""

_DECADES = {"type": "log", "dtick": 1}


def _empty(height: int = 480) -> Any:
    figure = plotly("graph_objects").Figure()
    figure.update_layout(**LAYOUT, height=height)
    return figure


def roofline(found: Roofs, table: pd.DataFrame) -> Any:
    """Every site as a point at its intensity under the roof that its mode can reach; the roofs as lines.

    A point is drawn at the best rate of its mode; where the mode's agents lack its dtype it is drawn under the cores'.
    """
    figure = _empty()
    points = table[(table["GFLOP"] > 0) & np.isfinite(table["FLOP/B"])]
    shown = points["FLOP/B"]
    low, high = (float(shown.min()), float(shown.max())) if len(points) else (1.0, 1.0)
    able = {name: roof for name, roof in found.roofs.items() if found.linear_dtype in roof.dtypes}
    ridges = [roof.ridge_flop_per_byte(found.linear_dtype) for roof in able.values()]
    intensities = np.geomspace(min([low, *ridges]) / 3, max([high, *ridges]) * 3, 200)
    for name, roof in able.items():
        mode, dash = ROOFS[name]
        figure.add_scatter(
            x=intensities,
            y=[roof.attainable_flop_per_s(found.linear_dtype, float(i)) / 1e9 for i in intensities],
            mode="lines", line={"color": MODES[mode][0], "dash": dash}, name=f"roof of {name} ({found.linear_dtype})",
            hovertemplate="%{x:.3g} FLOP/B: %{y:.4g} GFLOP/s<extra>" + name + "</extra>",
        )  # fmt: skip
    for mode, (colour, symbol) in MODES.items():
        of_mode = points[points["mode"] == mode]
        if of_mode.empty:
            continue
        roof_name = next(name for name, (reached_by, _) in ROOFS.items() if reached_by == mode)
        roof_name = roof_name if roof_name in found.roofs else "cores"
        rates = of_mode[f"{roof_name}, GFLOP/s"].fillna(of_mode["cores, GFLOP/s"])
        bounds = of_mode[f"{roof_name}, bound"].where(of_mode[f"{roof_name}, bound"] != "", of_mode["cores, bound"])
        figure.add_scatter(
            x=of_mode["FLOP/B"], y=rates, mode="markers", name=f"planned {mode}",
            marker={"color": colour, "symbol": symbol, "size": 11, "line": {"width": 1, "color": NEUTRAL}},
            customdata=np.stack([of_mode["site"], of_mode["shape"], bounds, of_mode["count"]], axis=-1),
            hovertemplate="<b>%{customdata[0]}</b> x %{customdata[3]}<br>%{customdata[1]}<br>%{x:.4g} FLOP/B,"
            " at best %{y:.4g} GFLOP/s<br>bound by %{customdata[2]}<extra>" + mode + "</extra>",
        )  # fmt: skip
    figure.update_xaxes(**_DECADES, title="arithmetic intensity, FLOP/B")
    figure.update_yaxes(**_DECADES, title="attainable rate, GFLOP/s")
    return figure


_NAMED_FROM_PERCENT = 10.0
"""Sites that take less of their phase lie too close to each other to be named."""


def scatter(table: pd.DataFrame) -> Any:
    """Predicted against measured time of every site, with bands of 10 and 20 %."""
    figure = _empty()
    known = table[(table["predicted, ms"] > 0) & (table["measured, ms"] > 0)]
    times = known[["predicted, ms", "measured, ms"]].to_numpy()
    ends = np.array([times.min() / 2, times.max() * 2]) if len(known) else np.array([0.1, 10.0])
    for width, opacity in ((0.2, 0.15), (0.1, 0.3)):
        figure.add_scatter(
            x=np.r_[ends, ends[::-1]], y=np.r_[ends * (1 + width), ends[::-1] * (1 - width)], fill="toself",
            mode="none", fillcolor=BANDS, opacity=opacity, name=f"within {width:.0%}", hoverinfo="skip",
        )  # fmt: skip
    figure.add_scatter(x=ends, y=ends, mode="lines", line={"color": NEUTRAL}, showlegend=False, hoverinfo="skip")
    for mode, of_mode in known.groupby("mode", sort=False):
        colour, symbol = MODES.get(str(mode), (PREDICTED, "circle-open"))
        named = of_mode["share of its phase, %"] >= _NAMED_FROM_PERCENT
        figure.add_scatter(
            x=of_mode["measured, ms"], y=of_mode["predicted, ms"], mode="markers+text",
            text=of_mode["site"].where(named, ""), textposition="top left", customdata=of_mode["site"],
            marker={"color": colour, "symbol": symbol, "size": 10, "line": {"width": 1, "color": NEUTRAL}},
            error_x={"type": "data", "array": of_mode["spread, ms"].fillna(0.0) / 2, "color": NEUTRAL},
            name=f"a site, {str(mode) or 'no plan'}",
            hovertemplate="%{customdata}<br>measured %{x:.4g} ms<br>predicted %{y:.4g} ms<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(**_DECADES, title="measured, ms", range=np.log10(ends).tolist())
    figure.update_yaxes(**_DECADES, title="predicted, ms", range=np.log10(ends).tolist())
    return figure


def bars(table: pd.DataFrame) -> Any:
    """Predicted and measured time of every site side by side, with the spread of the measured."""
    figure = _empty()
    figure.add_bar(y=table["site"], x=table["predicted, ms"], name="predicted", orientation="h", marker_color=PREDICTED)
    figure.add_bar(
        y=table["site"], x=table["measured, ms"], name="measured", orientation="h",
        marker={"color": MEASURED, "pattern": {"shape": "/"}},
        error_x={"type": "data", "array": table["spread, ms"].fillna(0.0) / 2},
    )  # fmt: skip
    figure.update_layout(height=160 + 34 * len(table), barmode="group")
    figure.update_xaxes(title="time of all layers, ms")
    figure.update_yaxes(autorange="reversed")
    return figure


def error_budget(comparison: Comparison, sites: pd.DataFrame) -> Any:
    """What the difference of each of some sites is made of, on no background of its own."""
    figure = comparison_figures.error_budget(replace(comparison, sites=sites.assign(site=sites["label"])))
    figure.update_layout(template=None, **LAYOUT)
    return figure


def waterfall(table: pd.DataFrame) -> Any:
    """Each idea's saving, from cores only down to what is left; measured times as marks beside."""
    figure = _empty()
    saved = table["saves, ms"].to_list()
    figure.add_waterfall(
        x=[*table["idea"], "all of them"],
        y=[table["predicted, ms"].iloc[0], *(-value for value in saved[1:]), 0.0],
        measure=["absolute", *["relative"] * (len(table) - 1), "total"],
        decreasing={"marker": {"color": MODES["cooperative"][0]}},
        increasing={"marker": {"color": MODES["matrix"][0]}},
        totals={"marker": {"color": PREDICTED}},
        name="predicted",
        hovertemplate="%{x}: %{y:.4g} ms<extra></extra>",
    )
    if "measured, ms" in table:
        figure.add_scatter(
            x=table["idea"], y=table["measured, ms"], mode="markers", name="measured",
            marker={"color": MEASURED, "symbol": "x", "size": 12},
            error_y={"type": "data", "array": table["spread, ms"].astype(float).fillna(0.0) / 2},
        )  # fmt: skip
    figure.update_yaxes(title="time, ms")
    return figure


def heat_map(values_ms: np.ndarray, x: Sequence[float], y: Sequence[float], x_title: str, y_title: str) -> Any:
    """Times in ms over two numbers of a chip; `values_ms` has a row for each of `y`."""
    figure = _empty()
    figure.add_heatmap(
        z=values_ms, x=[f"{value:g}" for value in x], y=[f"{value:g}" for value in y], colorscale="Cividis",
        text=[[f"{value:.4g}" for value in row] for row in values_ms], texttemplate="%{text}",
        colorbar={"title": "ms"},
        hovertemplate=x_title + " %{x}<br>" + y_title + " %{y}<br>%{z:.4g} ms<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title=x_title, type="category")
    figure.update_yaxes(title=y_title, type="category")
    return figure


def published(rows: pd.DataFrame, unit: str) -> Any:
    """Predicted against published values of one block, on logarithmic axes."""
    figure = _empty()
    known = rows[(rows["predicted"] > 0) & (rows["published"] > 0)]
    ends = [float(known["published"].min()), float(known["published"].max())] if len(known) else [1.0, 1.0]
    figure.add_scatter(x=ends, y=ends, mode="lines", line={"color": NEUTRAL}, name="equal", hoverinfo="skip")
    figure.add_scatter(
        x=known["published"], y=known["predicted"], mode="markers", name="rows", text=known["id"],
        marker={"color": PREDICTED, "line": {"width": 1, "color": NEUTRAL}},
        hovertemplate="%{text}: published %{x:.4g}, predicted %{y:.4g} " + unit + "<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(type="log", title=f"published, {unit}", exponentformat="power", nticks=8)
    figure.update_yaxes(type="log", title=f"predicted, {unit}", exponentformat="power", nticks=8)
    return figure
