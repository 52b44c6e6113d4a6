"""Predicted vs measured: how far each operator is off, and what the difference is made of."""

from __future__ import annotations

import streamlit as st

from dashboards import figures, opening, palette, tables, work
from dashboards.question import Question, files_folder
from dashboards.views import parts
from smesim.plan.schema import Plan
from smesim.units import format_seconds


def page(question: Question) -> None:
    folder = files_folder()
    studies = opening.studies_in(folder)
    if not studies:
        st.info(
            f"No comparison in {folder}. 'smesim demo' makes one, 'smesim compare --out {folder}/NAME' others;"
            " 'smesim dashboard --files FOLDER' looks elsewhere."
        )
        return
    study = st.selectbox("Comparison", studies, key="study")
    comparison = work.comparison_in(folder, study)
    meta = comparison.measured.meta
    total = comparison.total
    predicted_at, measured_at, error_at = st.columns(3)
    predicted_at.metric(f"Predicted ({palette.mark('simulated')})", format_seconds(total.predicted_s))
    measured_at.metric(
        f"Measured ({palette.trace_mark(meta.source, meta.stand_in)})", format_seconds(total.measured_s)
    )
    error_at.metric("Error", f"{total.error:+.1%}")
    st.caption(f"{meta.model}, {meta.phase}, {meta.layers} layers, {meta.runs} runs, on {meta.machine}")

    plan_file = opening.plan_beside(folder / study)
    plan = work.file_in(folder, str(plan_file.relative_to(folder))) if plan_file.is_file() else None
    modes = {entry.site: entry.mode for entry in plan.operators} if isinstance(plan, Plan) else None
    kinds_at, modes_at = st.columns(2)
    known = sorted(comparison.sites["op_kind"].astype(str).unique())
    kinds = kinds_at.multiselect("Kinds (none: all)", known, key="kinds")
    table = tables.sites_table(comparison, kinds, modes)
    if modes is not None:
        wanted = modes_at.multiselect("Modes (none: all)", sorted(set(modes.values())), key="modes")
        table = table[table["mode"].isin(wanted)] if wanted else table
    parts.picture(figures.scatter(table), "predicted-measured")
    parts.picture(figures.bars(table), "operators")
    st.subheader("What the difference is made of")
    parts.picture(figures.error_budget(comparison), "error-budget")
    parts.table(table, "predicted-measured")
