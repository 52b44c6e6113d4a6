"""Timeline: workers, units and links over time, prediction above measurement, from a whole phase down to a tile."""

from __future__ import annotations

import json
from functools import partial

import pandas as pd
import streamlit as st

from dashboards import gantt, one_task, opening, palette, work
from dashboards.question import Question, files_folder
from dashboards.views import address, parts
from dashboards.views.drawing import lasting
from smesim.trace import Trace
from smesim.trace.figures import MAX_DRAWN_TASKS
from smesim.trace.perfetto import perfetto_document

_DRAWING = "timeline"
_ASKED = "the prediction for the question beside"
_NO_TASK = -1
_EVERY_TASK = (
    "Drag or turn the wheel to zoom; click a task to see what it waited for and is made of. The dashed box beside"
    " takes a stretch of time into the address."
)
_EVERY_HELP = f"up to {MAX_DRAWN_TASKS:,} tasks, drawn with WebGL"
_MERGED = "Neighbours of one operator are drawn as one. Drag over a stretch of time to see its tasks, or ask for all."


def page(question: Question) -> None:
    source, traces = _traces(question)
    about = "; ".join(
        f"{side}: {trace.meta.model}, {trace.meta.phase}, {trace.meta.layers} layers on {trace.meta.machine}"
        f" ({palette.trace_mark(trace.meta.source, trace.meta.stand_in)})"
        for side, trace in traces.items()
    )
    st.caption(about)
    end_ms = gantt.end_s(traces.values()) * 1e3
    window_s, task, most = _controls(traces, end_ms)
    shown = gantt.drawn(traces, window_s, most)
    first = next(iter(traces.values()))
    known = task is not None and bool((first.run(0)["task"] == task).any())
    framed = {side: _with_wait(trace, task) for side, trace in traces.items()} if task is not None and known else {}
    drawing = gantt.figure(traces, shown, framed=framed)
    # Who zoomed in stays where he is when a task is framed, but not when something else is drawn.
    drawing.update_layout(uirevision=f"{source} {question} {window_s} {most}")
    lasting(drawing, _DRAWING, parts.config("timeline"), partial(_look, end_ms))
    st.caption(_EVERY_TASK if shown.singly else _MERGED)
    if task is not None and known:
        _task(source, traces, task)
    elif task is not None:
        st.warning(f"no task {task}; accepted: one that is drawn, as {int(shown.slices['task'].iloc[0])}")
    # Both are made when they are asked for: of a long run they take longer than everything else here.
    measured = traces.get("measured")
    perfetto_at, csv_at, _ = st.columns([1, 2, 6])
    perfetto_at.download_button(
        "Perfetto", lambda: json.dumps(perfetto_document(first, measured)), "perfetto.json", "application/json"
    )
    csv_at.download_button("CSV of all tasks", lambda: _csv(traces), "tasks.csv", "text/csv")


def _traces(question: Question) -> tuple[str, dict[str, Trace]]:
    """What is looked at: the question's prediction, a study of the folder, or a trace that was opened."""
    folder = files_folder()
    own = {name: content for name, content in work.opened().items() if isinstance(content, Trace)}
    source = address.choice(st, "Look at", [_ASKED, *opening.studies_in(folder), *own], "look")
    if source in own:
        return source, {own[source].meta.source: own[source]}
    if source != _ASKED:
        predicted, measured = work.study_in(folder, source)
        return source, {"predicted": predicted, "measured": measured}
    chip = work.chip_of(question)
    return source, {"predicted": work.prediction_of(work.plan_of(question, chip), chip)}


def _controls(traces: dict[str, Trace], end_ms: float) -> tuple[gantt.Window, int | None, int]:
    """The stretch of time to draw, s, the task to look at, and the most tasks to draw singly; the address has all."""
    last_task = int(next(iter(traces.values())).run(0)["task"].max())
    from_at, to_at, task_at, every_at, whole_at = st.columns([3, 3, 3, 2, 2], vertical_alignment="bottom")
    run = str(end_ms)
    begin = address.number(from_at, "From, ms", 0.0, end_ms, 0.0, "from-ms", form="%.4f", of=run)
    end = address.number(to_at, "To, ms", 0.0, end_ms, end_ms, "to-ms", form="%.4f", of=run)
    task = address.number(task_at, "Task (-1: none)", _NO_TASK, last_task, _NO_TASK, "task")
    every = address.switch(every_at, "Every task", "every", explained=_EVERY_HELP)
    whole_at.button("Whole run", on_click=address.ask_for, args=({"from-ms": None, "to-ms": None},), key="whole")
    if begin >= end:
        st.warning(f"from {begin:g} ms to {end:g} ms is no time; the whole run is shown")
        begin, end = 0.0, end_ms
    most = MAX_DRAWN_TASKS if every else gantt.MOST_PLAIN
    return (begin / 1e3, end / 1e3), None if task == _NO_TASK else task, most


def _look(end_ms: float) -> None:
    """Take what was done to the drawing into the address."""
    looked = gantt.looked(st.session_state[_DRAWING].looked or {})
    if looked.window_ms is not None:
        begin, end = (round(edge, 6) for edge in looked.window_ms)
        address.ask_for({"from-ms": str(begin), "to-ms": str(end) if end < end_ms else None})
    elif looked.task is not None:
        address.ask_for({"task": str(looked.task)})


def _with_wait(trace: Trace, task: int) -> tuple[int, ...]:
    """A task, and the one that it waited for."""
    wait = one_task.last_wait(trace, task)
    return (task,) if wait is None else (task, wait.task)


def _task(source: str, traces: dict[str, Trace], task: int) -> None:
    """The facts of a task on each side, side by side, and what its error is made of where it was measured."""
    st.subheader(f"Task {task}")
    facts = {side: one_task.facts(trace, task) for side, trace in traces.items()}
    names = dict.fromkeys(name for known in facts.values() for name in known)
    frame = pd.DataFrame(
        {"what": list(names)} | {side: [_shown(known.get(name)) for name in names] for side, known in facts.items()}
    )
    facts_at, error_at = st.columns([3, 2])
    with facts_at:
        parts.table(frame, "task")
        st.caption("A solid frame is the task, a dotted one what it waited for.")
    if "measured" not in traces:
        return
    with error_at:
        split = one_task.error_split(work.comparison_in(files_folder(), source), task)
        parts.table(pd.DataFrame(split.items(), columns=["error of this task", "µs of its worker"]), "task-error")
        st.caption("Transfer and compute by what the prediction is bound by; wait is idle time that ended with it.")


def _shown(value: one_task.Fact) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _csv(traces: dict[str, Trace]) -> str:
    frames = [trace.tasks.assign(side=side) for side, trace in traces.items()]
    text: str = pd.concat(frames, ignore_index=True).to_csv(index=False)
    return text
