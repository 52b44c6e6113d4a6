"""What all pages are made of: the question beside them, pictures, tables to download, work that takes a while."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from dashboards import work
from dashboards.jobs import Job
from dashboards.question import EVERY_PLANNER, MOST_BATCH, MOST_TOKENS, WEIGHTS, Question, from_parameters
from dashboards.views import address
from smesim.errors import SmesimError
from smesim.hwmodel import library
from smesim.workload import catalog

_LENGTHS = tuple(2**i for i in range(MOST_TOKENS.bit_length()))
_POLL_S = 0.5
_UNWANTED = ["lasso2d", "sendChartToCloud"]
"""Buttons of plotly.js that do nothing here, or would send what is shown to another machine."""


def ask() -> Question:
    """The question beside every page; the address bar has it, and gives it to whoever opens a shared address."""
    chips = work.own_chips()
    state = st.session_state
    if "asked" not in state:
        try:
            first = from_parameters(st.query_params.to_dict(), chips)
        except SmesimError as error:
            st.sidebar.error(str(error))
            first = Question()
        state["asked"] = first
    # Streamlit forgets what a widget held when another page is opened without it; the question is kept beside.
    for field in fields(Question):
        state.setdefault(f"ask-{field.name}", getattr(state["asked"], field.name))
    with st.sidebar:
        chip = st.selectbox("Chip", (*library.names(), *chips), key="ask-chip")
        model = st.selectbox("Model", catalog.names(), key="ask-model")
        phase = st.radio("Phase", ("prefill", "decode"), key="ask-phase", horizontal=True)
        lengths = sorted({*_LENGTHS, state["ask-tokens"]})
        label = "Prompt, tokens" if phase == "prefill" else "Context, tokens"
        tokens = st.select_slider(label, lengths, key="ask-tokens")
        batch = st.select_slider("Batch, sequences", range(1, MOST_BATCH + 1), key="ask-batch")
        left, right = st.columns(2)
        weights = left.selectbox("Weights", WEIGHTS, key="ask-weights")
        planner = right.selectbox("Planner", EVERY_PLANNER, key="ask-planner")
        most_layers = catalog.load(model).layers
        state["ask-layers"] = min(state["ask-layers"], most_layers)
        left, right = st.columns(2)
        layers = left.number_input("Layers (0: all)", 0, most_layers, key="ask-layers")
        threads = right.number_input("Threads (0: all)", 0, 65536, key="ask-threads")
    question = Question(
        model, phase, tokens, batch, weights, chip, planner, layers, threads, state["ask-forced"]
    )  # fmt: skip
    state["asked"] = question
    address.show({field.name: None for field in fields(question)} | dict(question.parameters()))
    return question


def config(name: str) -> dict[str, Any]:
    """How figures are handled in the browser: the camera in the corner saves one as PNG under that name."""
    camera = {"format": "png", "filename": name, "scale": 2}
    return {
        "displaylogo": False, "displayModeBar": True, "scrollZoom": True, "toImageButtonOptions": camera,
        "modeBarButtonsToRemove": _UNWANTED,
    }  # fmt: skip


def picture(figure: Any, name: str) -> None:
    """A figure; the camera in its corner saves it as PNG under that name."""
    st.plotly_chart(figure, width="stretch", config=config(name), key=f"picture-{name}")


def table(frame: pd.DataFrame, name: str) -> None:
    """A table, and the same as CSV, with all digits."""
    numbers: list[Hashable] = [name for name in frame.columns if frame[name].dtype.kind == "f"]
    shown: Any = frame.style.format(_number, subset=numbers)
    st.dataframe(shown, width="stretch", hide_index=True)
    st.download_button("CSV", frame.to_csv(index=False), f"{name}.csv", "text/csv", key=f"csv-{name}")


def _number(value: object) -> str:
    if not isinstance(value, float) or np.isnan(value):
        return "-"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e12 else f"{value:.4g}"


def long_work(name: str, content: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of work in a process of its own, or None while there is none.

    `content` says what the work is about; its result is kept by it, for whoever asks the same. The button starts it,
    and then cancels it.
    """
    key = f"{name}: {content}"
    if (result := work.results().get(key)) is not None:
        return result
    jobs: dict[str, Job] = st.session_state.setdefault("jobs", {})
    job = jobs.get(key)
    if job is not None and job.status == "running":
        _watch(name, key)
        return None
    if job is not None:
        st.warning(job.error or f"{name}: cancelled")
    if st.button(f"Run: {name}", key=f"run-{name}", type="primary"):
        for other in jobs.values():
            other.cancel()
        jobs[key] = Job(function, *arguments)
        st.rerun()
    return None


@st.fragment(run_every=_POLL_S)
def _watch(name: str, key: str) -> None:
    job: Job = st.session_state["jobs"][key]
    job.poll()
    if job.status == "running":
        st.progress(min(max(job.share, 0.0), 1.0), f"{name}: {job.what}")
        if st.button("Cancel", key=f"cancel-{key}"):
            job.cancel()
    if job.status == "done":
        work.keep_result(key, job.result)
    if job.status != "running":
        st.rerun()


def origin(marks: tuple[str, ...]) -> None:
    """Where the numbers of what follows come from."""
    st.caption("Numbers of this chip: " + ", ".join(marks) + ". Times: △ predicted.")
