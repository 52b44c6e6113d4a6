"""Timeline: workers, units and links over time, prediction above measurement, from a whole phase down to a tile."""

from __future__ import annotations

import json

import pandas as pd
import streamlit as st

from dashboards import gantt, opening, palette, work
from dashboards.question import Question, files_folder
from dashboards.views import parts
from smesim.trace import Trace
from smesim.trace.figures import MAX_DRAWN_TASKS
from smesim.trace.perfetto import perfetto_document

_ASKED = "the prediction for the question beside"


def page(question: Question) -> None:
    traces = _traces(question)
    end_ms = max(float(trace.makespans_s().max()) for trace in traces.values()) * 1e3
    about = "; ".join(
        f"{side}: {trace.meta.model}, {trace.meta.phase}, {trace.meta.layers} layers on {trace.meta.machine}"
        f" ({palette.trace_mark(trace.meta.source, trace.meta.stand_in)})"
        for side, trace in traces.items()
    )
    st.caption(about)
    chosen = _window(end_ms)
    window_s = chosen[0] / 1e3, chosen[1] / 1e3
    first = next(iter(traces.values()))
    drawn, singly = gantt.drawn_tasks(first, window_s, MAX_DRAWN_TASKS // len(traces))
    if not singly:
        st.info("More tasks than can be drawn: neighbours of one operator are one. A shorter time shows every task.")
    known = first.run(0)["task"]
    task = int(
        st.number_input("Task to look at (its number is on the drawing; -1: none)", -1, int(known.max()), -1)
    )
    selected = task if (known == task).any() else None
    parts.picture(gantt.figure(traces, window_s, selected=selected), "timeline")
    if selected is not None:
        _task(traces, selected)
    elif task >= 0:
        st.warning(f"no task {task}; accepted: one that is drawn, as {int(drawn['task'].iloc[0])}")
    # Both are made when they are asked for: of a long run they take longer than everything else here.
    measured = traces.get("measured")
    st.download_button(
        "Perfetto", lambda: json.dumps(perfetto_document(first, measured)), "perfetto.json", "application/json"
    )
    st.download_button("CSV", lambda: first.tasks.to_csv(index=False), "tasks.csv", "text/csv")


def _traces(question: Question) -> dict[str, Trace]:
    """What is looked at: the question's prediction, a study of the folder, or a trace that was opened."""
    folder = files_folder()
    own = {name: content for name, content in work.opened().items() if isinstance(content, Trace)}
    source = st.selectbox("Look at", [_ASKED, *opening.studies_in(folder), *own], key="timeline-source")
    if source in own:
        return {own[source].meta.source: own[source]}
    if source != _ASKED:
        predicted, measured = work.study_in(folder, source)
        return {"predicted": predicted, "measured": measured}
    chip = work.chip_of(question)
    return {"predicted": work.prediction_of(work.plan_of(question, chip), chip)}


def _window(end_ms: float) -> tuple[float, float]:
    """The stretch of time to draw, ms; the address has it."""
    begin_at, end_at = st.columns(2)
    asked = [_number(st.query_params.get(name)) for name in ("from-ms", "to-ms")]
    begin = begin_at.number_input("From, ms", 0.0, None, min(asked[0] or 0.0, end_ms), format="%.4f")
    end = end_at.number_input("To, ms", 0.0, None, min(asked[1] or end_ms, end_ms), format="%.4f")
    whole = begin <= 0.0 and end >= end_ms
    parts.show_in_address(
        {"from-ms": None if whole else f"{begin:.6g}", "to-ms": None if whole else f"{end:.6g}"}
    )
    if begin >= end:
        st.warning(f"from {begin:g} ms to {end:g} ms is no time; the whole run is shown")
        return 0.0, end_ms
    return begin, min(end, end_ms)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0.0 <= value < float("inf") else None


def _task(traces: dict[str, Trace], task: int) -> None:
    """The facts of a task on each side, side by side."""
    facts = {side: gantt.task_facts(trace, task) for side, trace in traces.items()}
    names = dict.fromkeys(name for known in facts.values() for name in known)
    frame = pd.DataFrame(
        {"what": list(names)} | {side: [_shown(known.get(name)) for name in names] for side, known in facts.items()}
    )
    parts.table(frame, "task")


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
