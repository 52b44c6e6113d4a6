"""What pages ask for, remembered by content: the same question of an equal chip is worked out once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from dashboards import opening
from dashboards.question import PLANNERS, SEARCHING_PLANNERS, Question
from smesim import workflow
from smesim.errors import SmesimError
from smesim.hwmodel import library
from smesim.hwmodel.chip import Chip
from smesim.plan.planners import parse_forced
from smesim.plan.schema import Plan
from smesim.trace import Comparison, Trace, compare
from smesim.workload import DType, DTypes, OperatorGraph, build_graph, catalog

KEPT = 24
BY_CONTENT: dict[Any, Callable[[Any], Any]] = {Chip: library.fingerprint, Plan: Plan.fingerprint}
FILE = "file: "


def opened() -> dict[str, opening.Opened]:
    """What this visitor has opened, by name."""
    found: dict[str, opening.Opened] = st.session_state.setdefault("opened", {})
    return found


def own_chips() -> tuple[str, ...]:
    """Chips beside the presets: this machine as it was probed last, and those that were opened."""
    probed = [name for name in (workflow.HOST, workflow.HOST_STAND_IN) if workflow.host_chip_path(name).exists()]
    return (*probed, *(f"{FILE}{name}" for name, content in opened().items() if isinstance(content, Chip)))


def chip_of(question: Question) -> Chip:
    """The question's chip; nothing is probed for it."""
    name = question.chip
    if name.startswith(FILE):
        content = opened()[name.removeprefix(FILE)]
        assert isinstance(content, Chip)
        return content
    if name in (workflow.HOST, workflow.HOST_STAND_IN):
        return library.load(workflow.host_chip_path(name))
    return _preset(name)


@st.cache_resource(max_entries=KEPT)
def _preset(name: str) -> Chip:
    return library.load(name)


@st.cache_resource(max_entries=KEPT)
def graph_of(question: Question) -> OperatorGraph:
    return build_graph(
        catalog.load(question.model), question.as_phase(), DTypes(weights=DType.parse(question.weights)),
        layers=question.layers or None,
    )  # fmt: skip


@st.cache_resource
def results() -> dict[str, Any]:
    """What long work gave, by what it was about."""
    return {}


def keep_result(key: str, result: Any) -> None:
    """Keep what long work gave; of too many the oldest is dropped."""
    kept = results()
    kept[key] = result
    for oldest in list(kept)[:-KEPT]:
        kept.pop(oldest, None)


def plan_of(question: Question, chip: Chip) -> Plan:
    """The question's plan. SmesimError where making it takes long, and nobody has asked for that yet."""
    if question.planner not in SEARCHING_PLANNERS:
        return _plan(question, chip)
    made = results().get(f"{planning(question)}: {planning_content(question, chip)}")
    if not isinstance(made, Plan):
        raise SmesimError(
            f"planner {question.planner} takes a while: have the page 'Plan' make its plan first; without that are"
            f" accepted: {', '.join(PLANNERS)}"
        )
    return made


def planning(question: Question) -> str:
    """The name of the work that makes a plan."""
    return f"plan by {question.planner}"


def planning_content(question: Question, chip: Chip) -> str:
    """What that work is about."""
    return f"{library.fingerprint(chip)} {question}"


def planner_call(question: Question) -> Callable[..., Plan]:
    """What makes the question's plan of a chip; it can be handed to another process."""
    return partial(
        workflow.make_plan, catalog.load(question.model), question.as_phase(), planner_name=question.planner,
        threads=question.threads or None, layers=question.layers or None, weights=DType.parse(question.weights),
        forced=parse_forced(question.forced or None),
    )  # fmt: skip


@st.cache_resource(max_entries=KEPT, hash_funcs=BY_CONTENT)
def _plan(question: Question, chip: Chip) -> Plan:
    return planner_call(question)(chip)


@st.cache_resource(max_entries=KEPT, hash_funcs=BY_CONTENT)
def prediction_of(plan: Plan, chip: Chip) -> Trace:
    return workflow.predict(plan, chip)


@st.cache_resource(max_entries=KEPT, hash_funcs=BY_CONTENT)
def seconds_of(plan: Plan, chip: Chip) -> float:
    return workflow.simulated_s(plan, chip)


@st.cache_resource(max_entries=KEPT)
def file_at(path: Path, modified_ns: int) -> opening.Opened:
    """A file of the chosen folder; `modified_ns` makes a new content a new file."""
    return opening.open_file(path)


@st.cache_resource(max_entries=KEPT, show_spinner=False)
def upload(name: str, content: bytes) -> opening.Opened:
    return opening.open_bytes(name, content)


def file_in(folder: Path, name: str) -> opening.Opened:
    path = opening.inside(folder, name)
    return file_at(path, path.stat().st_mtime_ns if path.exists() else 0)


def study_in(folder: Path, predicted: str) -> tuple[Trace, Trace]:
    """A prediction and the measurement beside it."""
    measured = str(opening.measured_beside(Path(predicted)))
    traces = file_in(folder, predicted), file_in(folder, measured)
    assert isinstance(traces[0], Trace)
    assert isinstance(traces[1], Trace)
    return traces[0], traces[1]


def comparison_in(folder: Path, predicted: str) -> Comparison:
    return compare(*study_in(folder, predicted))
