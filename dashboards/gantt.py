"""The timeline: what every worker did, prediction above measurement on one time axis, and what the links carried.

A browser draws some 20,000 separate lines smoothly, with WebGL. So of the time that is looked at all tasks are drawn
if there are no more than that; else tasks of one operator that follow each other on a worker are drawn as one, until
one looks closer. Granted bandwidth changes more often than a screen has columns: it is drawn as its mean over each of
a fixed number of equal stretches of time, which keeps its area.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dashboards.palette import KINDS, NEUTRAL
from smesim.trace import Trace
from smesim.trace.figures import MAX_DRAWN_TASKS, merged, plotly, segments

LINK_STRETCHES = 800
LANE_PX, LINK_PX, MARGIN_PX = 26, 70, 150
_COLUMNS = ["task", "op", "op_name", "op_kind", "kind", "worker", "start_s", "end_s"]


def drawn_tasks(trace: Trace, window_s: tuple[float, float], most: int = MAX_DRAWN_TASKS) -> tuple[pd.DataFrame, bool]:
    """The median run's tasks that touch a stretch of time, and whether each is drawn by itself.

    Above `most` they are merged; `task` is then the first of each.
    """
    tasks = trace.run(trace.middle_runs()[0])[_COLUMNS]
    inside = tasks[(tasks["end_s"] > window_s[0]) & (tasks["start_s"] < window_s[1])]
    inside = inside.sort_values(["worker", "start_s", "end_s"], kind="stable").reset_index(drop=True)
    if len(inside) <= most:
        return inside, True
    return merged(inside), False


def mean_granted(
    links: pd.DataFrame, link: str, window_s: tuple[float, float], stretches: int
) -> npt.NDArray[np.float64]:
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
    fullest = used.groupby(trace.links["link"].astype(str)).max().sort_values(ascending=False, kind="stable")
    return tuple(map(str, fullest.index[:most]))


def figure(
    traces: Mapping[str, Trace], window_s: tuple[float, float] | None = None, *, selected: int | None = None,
    links: int = 2, most: int = MAX_DRAWN_TASKS,
) -> Any:  # fmt: skip
    """Lanes of workers, of each named trace below those of the one before, and the busiest links of the first.

    `selected` is a task that is framed in every trace. Without a window everything is shown.
    """
    first = next(iter(traces.values()))
    window_s = window_s or (0.0, max(float(trace.makespans_s().max()) for trace in traces.values()))
    lanes = [f"{side} {label}" for side, trace in traces.items() for label in trace.meta.workers]
    shown_links = busiest_links(first, links)
    heights = [LANE_PX * len(lanes), *([LINK_PX] * len(shown_links))]
    drawing = plotly("subplots").make_subplots(
        rows=len(heights), shared_xaxes=True, row_heights=heights, vertical_spacing=0.03
    )
    slices = _all_slices(traces, window_s, most)
    time_of_kind = (slices["end_s"] - slices["start_s"]).groupby(slices["op_kind"]).sum()
    kinds = map(str, time_of_kind.sort_values(ascending=False, kind="stable").index)
    for position, kind in enumerate(kinds):
        colour = KINDS[position] if position < len(KINDS) else NEUTRAL
        _draw_kind(drawing, slices[slices["op_kind"] == kind], kind, colour)
    chosen = slices[slices["task"] == selected] if selected is not None else slices[:0]
    for start_s, end_s, lane in chosen[["start_s", "end_s", "lane"]].to_numpy(dtype=np.float64).tolist():
        drawing.add_shape(
            type="rect", x0=start_s * 1e3, x1=end_s * 1e3, y0=lane - 0.48, y1=lane + 0.48,
            line={"color": NEUTRAL, "width": 3},
        )  # fmt: skip
    for position, link in enumerate(shown_links):
        _draw_link(drawing, first, link, window_s, position + 2)
    drawing.update_layout(
        height=MARGIN_PX + sum(heights), margin={"l": 10, "r": 10, "t": 30, "b": 40}, hovermode="closest",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"}, dragmode="zoom",
    )  # fmt: skip
    drawing.update_yaxes(
        row=1, tickvals=list(range(len(lanes))), ticktext=lanes, range=[len(lanes) - 0.4, -0.6], zeroline=False,
        fixedrange=True, title="worker",
    )  # fmt: skip
    drawing.update_xaxes(range=[1e3 * edge for edge in window_s])
    drawing.update_xaxes(row=len(heights), title="time since the start of the run, ms")
    return drawing


def _all_slices(traces: Mapping[str, Trace], window_s: tuple[float, float], most: int) -> pd.DataFrame:
    """The drawn tasks of all traces, with the lane that each is in."""
    parts, first_lane = [], 0
    for side, trace in traces.items():
        part, _ = drawn_tasks(trace, window_s, most // len(traces))
        text = part.astype({"op_name": object, "op_kind": object, "kind": object})
        lane = first_lane + part["worker"].to_numpy(dtype=np.int64)
        parts.append(text.assign(lane=lane, side=side))
        first_lane += len(trace.meta.workers)
    return pd.concat(parts, ignore_index=True)


def _draw_kind(drawing: Any, slices: pd.DataFrame, kind: str, colour: str) -> None:
    lane = slices["lane"].to_numpy(dtype=np.float64)
    words = (
        slices["op_name"].astype(str) + ", " + slices["kind"].astype(str) + ", task " + slices["task"].astype(str)
        + "<br>" + ((slices["end_s"] - slices["start_s"]) * 1e6).map("{:.2f} µs, ".format) + slices["side"]
    ).to_numpy()  # fmt: skip
    drawing.add_scattergl(
        x=segments(slices["start_s"].to_numpy() * 1e3, slices["end_s"].to_numpy() * 1e3, np.nan),
        y=segments(lane, lane, np.nan),
        text=segments(words, words, ""),
        mode="lines",
        name=kind,
        line={"width": LANE_PX - 8, "color": colour},
        hovertemplate="%{text}<br>at %{x:.4f} ms<extra>" + kind + "</extra>",
        row=1,
        col=1,
    )


def _draw_link(drawing: Any, trace: Trace, link: str, window_s: tuple[float, float], row: int) -> None:
    edges = np.linspace(*window_s, LINK_STRETCHES + 1)
    granted = mean_granted(trace.links, link, window_s, LINK_STRETCHES) / 1e9
    capacity = float(trace.links.loc[trace.links["link"] == link, "capacity_bytes_per_s"].max()) / 1e9
    drawing.add_scatter(
        x=edges[:-1] * 1e3, y=granted, mode="lines", line={"width": 0, "shape": "hv", "color": NEUTRAL},
        fill="tozeroy", name=link, showlegend=False, row=row, col=1,
        hovertemplate="%{y:.3g} GB/s at %{x:.4f} ms<extra>" + link + "</extra>",
    )  # fmt: skip
    drawing.add_hline(y=capacity, line={"color": NEUTRAL, "width": 1, "dash": "dash"}, row=row, col=1)
    drawing.update_yaxes(row=row, title=f"{link}<br>GB/s", range=[0, capacity * 1.05], fixedrange=True)


def task_facts(trace: Trace, task: int) -> dict[str, str | float | int | None]:
    """What one task of the median run was: its times in µs, what they are made of, and what it waited for.

    `waited for` is the last to end of the tasks that it depends on; None where the trace knows of none.
    """
    tasks = trace.run(trace.middle_runs()[0]).set_index("task")
    row: dict[Any, Any] = tasks.loc[task].to_dict()
    before = trace.dependencies.loc[trace.dependencies["successor"] == task, "predecessor"]
    before = before[before.isin(tasks.index)]
    last = tasks.loc[before, "end_s"].idxmax() if len(before) else None
    spans = {f"{part}, µs": float(row[f"{part}_s"]) * 1e6 for part in ("compute", "transfer", "overhead")}
    return {
        "operator": str(row["op_name"]),
        "kind": str(row["kind"]),
        "worker": trace.meta.workers[int(row["worker"])],
        "start, ms": float(row["start_s"]) * 1e3,
        "duration, µs": float(row["end_s"] - row["start_s"]) * 1e6,
        "ready before its start by, µs": float(row["start_s"] - row["ready_s"]) * 1e6,
        **{name: value for name, value in spans.items() if np.isfinite(value)},
        "bound": str(row["bound"]) or None,
        "FLOP": int(row["flop"]),
        "bytes": int(row["bytes"]),
        "waited for": None if last is None else f"task {last}, {tasks.loc[last, 'op_name']}",
    }
