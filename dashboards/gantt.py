"""The timeline: what every worker did, prediction above measurement on one time axis, and what the links carried.

A browser draws a few thousand lines at once without WebGL, and some 20,000 smoothly with it; but to set WebGL up takes
a good part of a second, and more where there is no graphics processor. So of the time that is looked at all tasks are
drawn if there are only a few thousand; else tasks of one operator that follow each other on a worker are drawn as one,
until one looks closer or asks for every task. What is said of a task when one points at it is sent for as many spots as
a pointer can tell apart, not for every task. Granted bandwidth changes more often than a screen has columns: it is
drawn as its mean over each of a fixed number of equal stretches of time, which keeps its area.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dashboards.figures import LAYOUT
from dashboards.palette import KINDS, NEUTRAL
from smesim.trace import Trace
from smesim.trace.figures import merged, plotly, segments

LINK_STRETCHES = 800
MOST_PLAIN = 4000
"""Slices that are drawn without WebGL."""
MOST_SPOTS, MOST_PLAIN_SPOTS = 4000, 600
"""Places at which a task can be pointed at, over all lanes; a pointer hits what is within some ten pixels."""
MOST_SPOTS_A_LANE = 200
OTHERS = "others"
LANE_PX, LINK_PX, MARGIN_PX = 26, 70, 130
NARROWEST_LANE_PX, TALLEST_PX = 9, 620
_COLUMNS = ["task", "op", "op_name", "op_kind", "kind", "worker", "start_s", "end_s"]

Window = tuple[float, float]


@dataclass(frozen=True)
class Drawn:
    """What is drawn of some traces: `slices` has a row for each task, or for neighbours of one operator where not all
    are drawn `singly`, with its `side`, the `lane` that it lies in and its `legend`; `lanes` are named from the top."""

    slices: pd.DataFrame
    lanes: tuple[str, ...]
    singly: bool
    window_s: Window

    @property
    def plainly(self) -> bool:
        """Whether there is so little that it takes no WebGL."""
        return len(self.slices) <= MOST_PLAIN


def end_s(traces: Iterable[Trace]) -> float:
    """When the last of their median runs ended."""
    return max(float(trace.makespans_s()[trace.middle_runs()[0]]) for trace in traces)


def drawn(traces: Mapping[str, Trace], window_s: Window | None = None, most: int = MOST_PLAIN) -> Drawn:
    """The tasks of each trace's median run that touch a stretch of time, of the whole run if none is named.

    If there are more than `most`, all are merged with their neighbours; `task` is then the first of each. Who asks for
    every task says MAX_DRAWN_TASKS.
    """
    window_s = window_s or (0.0, end_s(traces.values()))
    parts, lanes = [], list[str]()
    for trace in traces.values():
        tasks = trace.run(trace.middle_runs()[0])[_COLUMNS]
        inside = tasks[(tasks["end_s"] > window_s[0]) & (tasks["start_s"] < window_s[1])]
        order = np.lexsort((inside["end_s"], inside["start_s"], inside["worker"]))
        parts.append(inside.iloc[order].reset_index(drop=True))
    singly = sum(map(len, parts)) <= most
    for i, (side, trace) in enumerate(traces.items()):
        part = parts[i] if singly else merged(parts[i])
        text = part.astype({"op_name": object, "op_kind": object, "kind": object})
        legend = text["op_kind"].where(text["op_kind"].isin(list(KINDS)), OTHERS)
        parts[i] = text.assign(lane=len(lanes) + part["worker"].to_numpy(dtype=np.int64), side=side, legend=legend)
        lanes += [f"{side} {label}" if len(traces) > 1 else label for label in trace.meta.workers]
    return Drawn(pd.concat(parts, ignore_index=True), tuple(lanes), singly, window_s)


def mean_granted(links: pd.DataFrame, link: str, window_s: Window, stretches: int) -> npt.NDArray[np.float64]:
    """What a link granted on average, bytes/s, in each of so many equal stretches of a window.

    The last rate of a link holds on; before its first row nothing flows.
    """
    of_link = links[links["link"] == link]
    starts = of_link["start_s"].to_numpy(dtype=np.float64)
    rates = of_link["granted_bytes_per_s"].to_numpy(dtype=np.float64)
    carried = np.r_[0.0, np.cumsum(rates[:-1] * np.diff(starts))]
    edges = np.linspace(*window_s, stretches + 1)
    last = np.searchsorted(starts, edges, side="right") - 1
    known = np.maximum(last, 0)
    bytes_until = np.where(last >= 0, carried[known] + rates[known] * (edges - starts[known]), 0.0)
    return np.asarray(np.diff(bytes_until) / np.diff(edges), dtype=np.float64)


def busiest_links(trace: Trace, most: int) -> tuple[str, ...]:
    """The links that were nearest to full at some time, fullest first."""
    if trace.links.empty:
        return ()
    used = trace.links["granted_bytes_per_s"] / trace.links["capacity_bytes_per_s"]
    fullest = used.groupby(trace.links["link"], observed=True).max().sort_values(ascending=False, kind="stable")
    return tuple(map(str, fullest.index[:most]))


def spots(shown: Drawn) -> pd.DataFrame:
    """Where one can point at a slice: `at_s` and the columns of the slice that lies there.

    These are the middles of the columns of a grid, and where slices are few the middle of each slice too.
    """
    begin_s, until_s = shown.window_s
    most = MOST_PLAIN_SPOTS if shown.plainly else MOST_SPOTS
    columns = max(1, min(MOST_SPOTS_A_LANE, most // max(1, len(shown.lanes))))
    at_s = begin_s + (np.arange(columns) + 0.5) * (until_s - begin_s) / columns
    slices = shown.slices
    rows, times = [], []
    for lane in range(len(shown.lanes)):
        of_lane = np.flatnonzero(slices["lane"].to_numpy() == lane)
        starts, ends = (slices[name].to_numpy()[of_lane] for name in ("start_s", "end_s"))
        last = np.searchsorted(starts, at_s, side="right") - 1
        hit = (last >= 0) & (at_s < ends[last]) if len(of_lane) else np.zeros(columns, bool)
        rows.append(of_lane[last[hit]])
        times.append(at_s[hit])
    if len(slices) <= most:
        rows.append(np.arange(len(slices)))
        seen = np.clip(slices[["start_s", "end_s"]].to_numpy(), begin_s, until_s)
        times.append(seen.mean(axis=1))
    return slices.iloc[np.concatenate(rows)].assign(at_s=np.concatenate(times))


def figure(
    traces: Mapping[str, Trace], shown: Drawn, *, framed: Mapping[str, Sequence[int]] | None = None, links: int = 2
) -> Any:
    """Lanes of workers, of each named trace below those of the one before, and the busiest links of the first.

    A drag zooms where every task is there to be seen; else it selects the stretch of time that is to be drawn anew.
    `framed` are tasks of each side that get a frame, the first a solid and the others a dotted one.
    """
    first = next(iter(traces.values()))
    shown_links = busiest_links(first, links)
    lane_px = max(NARROWEST_LANE_PX, min(LANE_PX, TALLEST_PX // len(shown.lanes)))
    heights = [lane_px * len(shown.lanes), *([LINK_PX] * len(shown_links))]
    drawing = plotly("subplots").make_subplots(
        rows=len(heights), shared_xaxes=True, row_heights=heights, vertical_spacing=0.03
    )
    slices, places = shown.slices, spots(shown)
    for kind in (*KINDS, OTHERS):
        if len(of_kind := slices[slices["legend"] == kind]):
            _draw_kind(drawing, of_kind, kind, lane_px, shown.plainly)
    _draw_spots(drawing, places, shown)
    for side, tasks in (framed or {}).items():
        for position, task in enumerate(tasks):
            of_task = slices[(slices["side"] == side) & (slices["task"] == task)]
            _frame(drawing, of_task, "solid" if position == 0 else "dot")
    for position, link in enumerate(shown_links):
        _draw_link(drawing, first, link, shown.window_s, position + 2)
    drawing.update_layout(
        **LAYOUT, height=MARGIN_PX + sum(heights), hovermode="closest", selectdirection="h", clickmode="event+select",
        dragmode="zoom" if shown.singly else "select",
    )  # fmt: skip
    # Lanes lie at 0, -1, -2, ...: plotly.js 3 draws WebGL lines in the wrong place on an axis that is reversed.
    drawing.update_yaxes(
        row=1, tickvals=[-i for i in range(len(shown.lanes))], ticktext=shown.lanes,
        range=[0.4 - len(shown.lanes), 0.6], zeroline=False, fixedrange=True, title="worker",
        tickfont={"size": min(12, lane_px)},
    )  # fmt: skip
    drawing.update_xaxes(range=[1e3 * edge for edge in shown.window_s])
    drawing.update_xaxes(row=len(heights), title="time since the start of the run, ms")
    return drawing


def _draw_kind(drawing: Any, slices: pd.DataFrame, kind: str, lane_px: int, plainly: bool) -> None:
    """All slices of a kind: with WebGL as lines, else as one area of many rectangles, since every line that stands by
    itself would be an element of the page."""
    lane, color = -slices["lane"].to_numpy(dtype=np.float64), KINDS.get(kind, NEUTRAL)
    start_ms, end_ms = slices["start_s"].to_numpy() * 1e3, slices["end_s"].to_numpy() * 1e3
    bar_px = max(4, lane_px - 8)
    if plainly:
        half, gap = bar_px / lane_px / 2, np.full(len(slices), np.nan)
        drawing.add_scatter(
            x=np.c_[start_ms, end_ms, end_ms, start_ms, gap].ravel(),
            y=np.c_[lane - half, lane - half, lane + half, lane + half, gap].ravel(),
            mode="none", fill="toself", fillcolor=color, name=kind, hoverinfo="skip", row=1, col=1,
        )  # fmt: skip
        return
    drawing.add_scattergl(
        x=segments(start_ms, end_ms, np.nan), y=segments(lane, lane, np.nan), mode="lines",
        line={"width": bar_px, "color": color}, name=kind, hoverinfo="skip", row=1, col=1,
    )  # fmt: skip


def _draw_spots(drawing: Any, places: pd.DataFrame, shown: Drawn) -> None:
    """What cannot be seen, but says what lies there, and can be clicked."""
    micros = (places["end_s"] - places["start_s"]) * 1e6
    said = np.empty((len(places), 6), dtype=object)
    said[:, 0], said[:, 1], said[:, 2], said[:, 5] = (places[name] for name in ("task", "op_name", "kind", "side"))
    said[:, 3], said[:, 4] = micros.round(3), (places["start_s"] * 1e3).round(6)
    hidden = {"marker": {"opacity": 0}}
    add = drawing.add_scatter if shown.plainly else drawing.add_scattergl
    add(
        x=places["at_s"].to_numpy() * 1e3,
        y=-places["lane"].to_numpy(dtype=np.float64),
        customdata=said,
        mode="markers",
        marker={"opacity": 0, "size": 8, "color": NEUTRAL},
        selected=hidden,
        unselected=hidden,
        showlegend=False,
        hovertemplate="<b>%{customdata[1]}</b>, %{customdata[2]}<br>task %{customdata[0]}"
        + ("" if shown.singly else " and its neighbours")
        + "<br>%{customdata[3]:.2f} µs from %{customdata[4]:.4f} ms<extra>%{customdata[5]}</extra>",
        row=1,
        col=1,
    )


def _frame(drawing: Any, slices: pd.DataFrame, dash: str) -> None:
    for start, end, lane in slices[["start_s", "end_s", "lane"]].to_numpy(dtype=np.float64).tolist():
        drawing.add_shape(
            type="rect", x0=start * 1e3, x1=end * 1e3, y0=-lane - 0.48, y1=-lane + 0.48,
            line={"color": NEUTRAL, "width": 3, "dash": dash},
        )  # fmt: skip


def _draw_link(drawing: Any, trace: Trace, link: str, window_s: Window, row: int) -> None:
    edges = np.linspace(*window_s, LINK_STRETCHES + 1)
    granted = mean_granted(trace.links, link, window_s, LINK_STRETCHES) / 1e9
    capacity = float(trace.links.loc[trace.links["link"] == link, "capacity_bytes_per_s"].max()) / 1e9
    drawing.add_scatter(
        x=edges[:-1] * 1e3, y=granted, mode="lines", line={"width": 0, "shape": "hv", "color": NEUTRAL},
        fill="tozeroy", name=link, showlegend=False, row=row, col=1,
        hovertemplate="%{y:.3g} GB/s at %{x:.4f} ms<extra>" + link + "</extra>",
    )  # fmt: skip
    drawing.add_hline(
        y=capacity, line={"color": NEUTRAL, "width": 1, "dash": "dash"}, row=row, col=1,
        annotation={"text": f"{link}, granted of {capacity:.4g} GB/s", "x": 0.5, "xanchor": "center"},
    )  # fmt: skip
    drawing.update_yaxes(row=row, title="GB/s", range=[0, capacity * 1.4], nticks=4, fixedrange=True)


@dataclass(frozen=True)
class Looked:
    """What someone did to the drawing: a task that was clicked, or a stretch of time, ms, that was dragged over."""

    task: int | None = None
    window_ms: Window | None = None


def looked(selection: Mapping[str, Any]) -> Looked:
    """What a selection in the browser means. A drag over less than nothing is none; a drag says no task."""
    for box in selection.get("box", ()):
        ends = sorted(float(edge) for edge in box.get("x", ()))
        if len(ends) == 2 and ends[0] < ends[1]:
            return Looked(window_ms=(max(0.0, ends[0]), ends[1]))
    for point in selection.get("points", ()):
        if (said := point.get("customdata")) is not None and len(said):
            return Looked(task=int(said[0]))
    return Looked()
