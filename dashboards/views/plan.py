"""Plan: how every operator is divided, why, and what else was looked at; force a mode, and set two planners apart."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from dashboards import tables, work
from dashboards.question import PLANNERS, Question
from dashboards.views import parts
from smesim.errors import SmesimError
from smesim.plan.diff import plan_differences
from smesim.plan.planners import parse_forced
from smesim.units import format_seconds

_MODES = ("cpu", "matrix", "cooperative")


def page(question: Question) -> None:
    chip = work.chip_of(question)
    free = replace(question, forced="")
    _force(free)
    try:
        plan = work.plan_of(question, chip)
    except SmesimError as error:
        st.error(str(error))
        return
    now_s, free_s = (work.seconds_of(work.plan_of(q, chip), chip) for q in (question, free))
    shown, beside = st.columns(2)
    shown.metric("Predicted", format_seconds(now_s))
    if question.forced:
        beside.metric("Without what is forced", format_seconds(free_s), f"{now_s / free_s - 1:+.1%}", "inverse")
    parts.origin(tables.marks_of(chip))
    parts.table(tables.plan_table(plan), "plan")
    st.download_button("JSON plan", plan.to_json(), "plan.json", "application/json")

    st.subheader("Against another planner")
    others = [name for name in PLANNERS if name != question.planner]
    other = st.selectbox("The other planner", others, key="other-planner")
    second = work.plan_of(replace(free, planner=other), chip)
    st.write(f"{plan.planner} {format_seconds(now_s)}, {other} {format_seconds(work.seconds_of(second, chip))}.")
    parts.table(tables.differences_table(plan_differences(plan, second), plan.planner, other), "plan-diff")


def _force(free: Question) -> None:
    """What makes the plan give a site a mode; forced modes are part of the question, so every page has them."""
    forced = parse_forced(st.session_state["ask-forced"] or None)
    sites = list(work.graph_of(free).sites)
    site_at, mode_at, force_at, reset_at = st.columns([3, 2, 1, 1], vertical_alignment="bottom")
    site = site_at.selectbox("Operator", sites, key="force-site")
    mode = mode_at.selectbox("Mode", _MODES, key="force-mode")
    if force_at.button("Force", key="force"):
        wanted: dict[str, str] = {name: m for name, m in forced.items() if name in sites} | {site: mode}
        st.session_state["ask-forced"] = ",".join(f"{name}={m}" for name, m in wanted.items())
        st.rerun()
    if reset_at.button("Reset", key="force-reset", disabled=not forced):
        st.session_state["ask-forced"] = ""
        st.rerun()
    if forced:
        st.caption("Forced: " + ", ".join(f"{name} to {m}" for name, m in forced.items()))
