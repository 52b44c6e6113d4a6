"""What if: change numbers of the chip, and see what prefill and decode take and which modes are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pandas as pd
import streamlit as st

from dashboards import figures, tables, what_if, work
from dashboards.palette import mark
from dashboards.question import PLANNERS, SEARCHING_PLANNERS, Question
from dashboards.views import address, parts
from smesim.errors import SmesimError
from smesim.hwmodel import library
from smesim.hwmodel.chip import Chip
from smesim.units import format_seconds
from smesim.workload import DType, catalog

_SMALLEST_STEP = 1e-7
"""Of a number that is zero: a tenth of a microsecond, since those that are zero are times."""
_SCALES = (0.5, 0.75, 1.0, 1.5, 2.0)
_COUNTS = (1, 2, 3, 4, 6)


def page(question: Question) -> None:
    chip = work.chip_of(question)
    knobs = {knob.label: knob for knob in what_if.knobs(chip)}
    # Those of another chip are not this one's, so they are remembered by chip.
    remembered = st.session_state.get(f"edits-{chip.name}", "")
    try:
        changes = what_if.from_text(st.query_params.get("edits", remembered), chip)
    except SmesimError as error:
        st.warning(str(error))
        changes = {}
    picked = [knob.label for knob in knobs.values() if knob.path in changes]
    labels_at, reset_at = st.columns([6, 1], vertical_alignment="bottom")
    # A chip of its own for the widgets: another chip's numbers are other widgets.
    key = f"edit-{chip.name}"
    st.session_state.setdefault(key, picked)
    labels = labels_at.multiselect("Numbers to change", list(knobs), key=key)
    reset_at.button("Reset", key="edit-reset", on_click=_reset, args=(key,), disabled=not labels, width="stretch")
    values: dict[what_if.Path, float] = {}
    columns = st.columns(3)
    for position, label in enumerate(labels):
        knob = knobs[label]
        unit = f", {knob.unit}" if knob.unit else ""
        words = f"{label}{unit} (preset: {knob.value:g}, {mark(knob.provenance)})"
        first = changes.get(knob.path, knob.value)
        key = f"edit-{chip.name}-{label}"
        column = columns[position % len(columns)]
        if knob.is_count:
            values[knob.path] = column.number_input(words, 1, None, int(first), key=key)
        else:
            step = knob.value / 10 or _SMALLEST_STEP
            values[knob.path] = column.number_input(words, 0.0, None, float(first), step, format="%.4g", key=key)
    st.session_state[f"edits-{chip.name}"] = what_if.as_text(values)
    address.show({"edits": what_if.as_text(values) or None})
    edited = what_if.edited(chip, values)
    if edited == chip:
        st.info("The chip is the preset so far.")
    else:
        st.caption(f"What was edited is {mark('guessed')}.")
        st.download_button("Chip file", library.dumps(edited), f"{edited.name}.toml", "application/toml")
    _effects(question, (chip, edited))
    _map(question, chip, [*knobs.values(), *what_if.phase_knobs(question.as_phase())])


def _reset(key: str) -> None:
    """The preset again: no number is changed, and what they were changed to is forgotten."""
    for name in [name for name in st.session_state if str(name).startswith(f"{key}-")]:
        del st.session_state[name]
    st.session_state[key] = []


def _effects(question: Question, chips: tuple[Chip, Chip]) -> None:
    """Prefill and decode on both chips, and the modes that change."""
    other = replace(question, phase="decode" if question.phase == "prefill" else "prefill")
    changed = chips[0] != chips[1]
    effects = [_effect(asked, chips) for asked in (question, other)]
    for column, found in zip(st.columns(2), effects, strict=True):
        column.metric(
            f"{found.phase}, {mark('simulated')}", format_seconds(found.edited_s),
            f"{found.speed_up:.2f} times as fast as the preset's {format_seconds(found.preset_s)}" if changed else None,
            delta_color="off", delta_arrow="off",
        )  # fmt: skip
    parts.origin(tables.marks_of(chips[1]))
    rows = [(found.phase, *modes) for found in effects for modes in found.modes]
    if rows:
        parts.table(pd.DataFrame(rows, columns=["phase", "site", "mode on the preset", "mode as edited"]), "modes")
    elif changed:
        st.write("No operator changes its mode.")


def _effect(question: Question, chips: tuple[Chip, Chip]) -> what_if.Effect:
    preset, edited = (work.plan_of(question, chip) for chip in chips)
    return what_if.effect((preset, edited), (work.seconds_of(preset, chips[0]), work.seconds_of(edited, chips[1])))


def _map(question: Question, chip: Chip, knobs: Sequence[what_if.Knob]) -> None:
    """A heat map of the asked phase over any two numbers."""
    st.subheader("Over two numbers")
    by_label = {knob.label: knob for knob in knobs}
    labels = list(by_label)
    x_at, y_at = st.columns(2)
    chosen = [
        by_label[address.choice(at, words, labels, words.lower(), default=labels[index])]
        for at, words, index in ((x_at, "Across", 0), (y_at, "Up", 1))
    ]
    if chosen[0] == chosen[1]:
        st.info("Choose two different numbers.")
        return
    axes = chosen[0].path, chosen[1].path
    values = _values(chosen[0]), _values(chosen[1])
    call = partial(what_if.grid, chip, axes, values, catalog.load(question.model), question.as_phase())
    layers = question.layers or None
    content = f"{library.fingerprint(chip)} {axes} {question}"
    if question.planner in SEARCHING_PLANNERS:
        st.info(f"A map makes many plans: choose one of {', '.join(PLANNERS)} beside.")
        return
    found = parts.long_work(
        "map", content, call, question.planner, DType.parse(question.weights), layers, question.threads or None
    )  # fmt: skip
    if found is not None:
        titles = [f"{knob.label}{f', {knob.unit}' if knob.unit else ''}" for knob in chosen]
        parts.picture(figures.heat_map(found.seconds * 1e3, found.x, found.y, *titles), "map")


def _values(knob: what_if.Knob) -> tuple[float, ...]:
    """What a number is varied over: parts and multiples of what it is, whole numbers of what is counted."""
    if knob.path[-1] == "svl_bits":
        return (128, 256, 512, 1024, 2048)
    return tuple(map(float, _COUNTS)) if knob.is_count else tuple(scale * knob.value for scale in _SCALES)
