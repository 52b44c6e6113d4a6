"""Predicted vs measured: how far each operator is off, and what the difference is made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from dashboards import figures, opening, palette, tables, work
from dashboards.question import Question, files_folder
from dashboards.views import address, parts
from smesim.plan.schema import Plan
from smesim.trace import Comparison
from smesim.units import format_seconds


def page(question: Question) -> None:
    folder = files_folder()
    studies = opening.studies_by_folder(folder)
    if not studies:
        st.info(
            f"No comparison in {folder}. 'smesim demo' makes one, 'smesim compare --out {folder}/NAME' others;"
            " 'smesim dashboard --files FOLDER' looks elsewhere."
        )
        return
    study_at, phases_at, kinds_at, modes_at = st.columns(4)
    named = {name: folder.name if name == "." else name for name in studies}
    of_phase = studies[address.choice(study_at, "Comparison", list(studies), "study", title=named.__getitem__)]
    phases = address.choices(phases_at, "Phases", sorted(of_phase), "phases") or sorted(of_phase)
    comparisons = [work.comparison_in(folder, of_phase[phase]) for phase in phases]
    _totals(comparisons)
    sites = tables.sites_of(comparisons, [_modes(folder, of_phase[phase]) for phase in phases])
    for at, label, name, column in (
        (kinds_at, "Kinds", "kinds", "op_kind"), (modes_at, "Modes", "modes", "mode"),
    ):  # fmt: skip
        wanted = address.choices(at, label, sorted(set(sites[column]) - {""}), name)
        sites = sites[sites[column].isin(wanted)] if wanted else sites
    if sites.empty:
        st.info("No operator is of those kinds and modes.")
        return
    table = tables.sites_table(sites)
    parts.picture(figures.scatter(table), "predicted-measured")
    st.subheader("Operator by operator")
    parts.picture(figures.bars(table), "operators")
    st.subheader("What the difference is made of")
    parts.picture(figures.error_budget(comparisons[0], sites), "error-budget")
    parts.table(table, "predicted-measured")


def _totals(comparisons: Sequence[Comparison]) -> None:
    """Each phase's prediction, and below it what was measured."""
    for at, comparison in zip(st.columns(max(3, len(comparisons))), comparisons, strict=False):
        meta, total = comparison.measured.meta, comparison.total
        at.metric(
            f"{meta.phase}, {palette.mark('simulated')}", format_seconds(total.predicted_s),
            f"{total.error:+.1%} of {format_seconds(total.measured_s)}"
            f" ({palette.trace_mark(meta.source, meta.stand_in)})",
            delta_color="off", delta_arrow="off",
        )  # fmt: skip
    meta = comparisons[0].measured.meta
    st.caption(f"{meta.model}, {meta.layers} layers, {meta.runs} runs, on {meta.machine}")


def _modes(folder: Path, predicted: str) -> dict[str, str]:
    """The mode of each site, from the plan beside a study's traces if there is one."""
    path = opening.plan_beside(folder / predicted)
    plan = work.file_in(folder, str(path.relative_to(folder))) if path.is_file() else None
    return {entry.site: entry.mode for entry in plan.operators} if isinstance(plan, Plan) else {}
