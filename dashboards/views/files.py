"""Your files: open a chip, plan, trace or validation, with the checks and the errors of the command line."""

from __future__ import annotations

import streamlit as st

from dashboards import opening, tables, work
from dashboards.published import Published, blocks_table
from dashboards.question import Question, files_folder
from dashboards.views import address, parts
from smesim.artefacts import chip_numbers
from smesim.errors import SmesimError
from smesim.hwmodel.chip import Chip
from smesim.plan.schema import Plan
from smesim.units import format_bytes


def page(question: Question) -> None:
    folder = files_folder()
    given = st.file_uploader(
        f"A chip (.toml), plan, trace or validation (.json), or trace (.csv), up to {format_bytes(opening.MOST_BYTES)}",
        type=None, key="upload",
    )  # fmt: skip
    if given is not None:
        try:
            work.opened()[opening.harmless_name(given.name)] = work.upload(given.name, given.getvalue())
        except SmesimError as error:
            st.error(str(error))
    names = opening.files_in(folder)
    if names:
        chosen_at, open_at = st.columns([4, 1], vertical_alignment="bottom")
        name = address.choice(chosen_at, f"Or a file in {folder}", names, "file")
        if open_at.button("Open", key="open"):
            work.opened()[name] = work.file_in(folder, name)
    for name, content in work.opened().items():
        st.subheader(name)
        _show(name, content)


def _show(name: str, content: opening.Opened) -> None:
    match content:
        case Chip():
            st.write(f"A chip, {content.name}: {content.description}. Choose it beside as '{work.FILE}{name}'.")
            parts.table(tables.shown_numbers(chip_numbers(content)), f"numbers-{name}")
        case Plan():
            st.write(f"A plan of {content.model.name}, {content.phase}, for {content.chip}, by {content.planner}.")
            parts.table(tables.plan_table(content), f"plan-{name}")
        case Published():
            parts.table(blocks_table(content), f"blocks-{name}")
        case _:
            meta = content.meta
            st.write(f"A trace of {meta.model}, {meta.phase} ({meta.source}); the timeline can show it.")
