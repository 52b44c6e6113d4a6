"""Plan: how every operator is divided, why, and what else was looked at; force a mode, and set two planners apart."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from dashboards import tables, work
from dashboards.palette import mark
from dashboards.question import EVERY_PLANNER, SEARCHING_PLANNERS, Question
from dashboards.views import address, parts
from smesim.hwmodel.chip import Chip
from smesim.plan.diff import plan_differences
from smesim.plan.planners import parse_forced
from smesim.plan.schema import Plan
from smesim.units import format_seconds

_MODES = ("cpu", "matrix", "cooperative")


def page(question: Question) -> None:
    chip = work.chip_of(question)
    free = replace(question, forced="")
    _force(free)
    plan = _plan(question, chip)
    if plan is None:
        return
    now_s = work.seconds_of(plan, chip)
    shown, beside = st.columns(2)
    shown.metric(f"{plan.phase}, {mark('simulated')}", format_seconds(now_s))
    if question.forced and question.planner not in SEARCHING_PLANNERS:
        free_s = work.seconds_of(work.plan_of(free, chip), chip)
        change = f"{now_s / free_s - 1:+.1%} by what is forced"
        beside.metric("Without what is forced", format_seconds(free_s), change, "inverse")
    parts.origin(tables.marks_of(chip))
    parts.table(tables.plan_table(plan), "plan")
    st.download_button("JSON plan", plan.to_json(), "plan.json", "application/json")

    st.subheader("Against another planner")
    others = [name for name in EVERY_PLANNER if name != question.planner]
    other = address.choice(st, "The other planner", others, "other")
    second = _plan(replace(free, planner=other), chip)
    if second is None:
        return
    other_s = work.seconds_of(second, chip)
    st.write(
        f"{plan.planner} {format_seconds(now_s)}, {other} {format_seconds(other_s)}"
        f" ({other_s / now_s - 1:+.1%}; {mark('simulated')})."
    )
    differences = plan_differences(plan, second)
    if differences:
        parts.table(tables.differences_table(differences, plan.planner, other), "plan-diff")
    else:
        st.write("They make the same plan.")


def _plan(question: Question, chip: Chip) -> Plan | None:
    """The plan of a question, made in a process of its own where that takes long; None until it is there."""
    if question.planner not in SEARCHING_PLANNERS:
        return work.plan_of(question, chip)
    made: Plan | None = parts.long_work(
        work.planning(question), work.planning_content(question, chip), work.planner_call(question), chip
    )
    return made


def _force(free: Question) -> None:
    """What makes the plan give a site a mode; forced modes are part of the question, so every page has them."""
    forced = parse_forced(st.session_state["ask-forced"] or None)
    sites = list(work.graph_of(free).sites)
    site_at, mode_at, force_at, reset_at = st.columns([3, 2, 1, 1], vertical_alignment="bottom")
    site = address.choice(site_at, "Operator", sites, "site")
    mode = address.choice(mode_at, "Mode", _MODES, "mode")
    if force_at.button("Force", key="force", width="stretch"):
        wanted: dict[str, str] = {name: m for name, m in forced.items() if name in sites} | {site: mode}
        st.session_state["ask-forced"] = ",".join(f"{name}={m}" for name, m in wanted.items())
        st.rerun()
    if reset_at.button("Reset", key="force-reset", disabled=not forced, width="stretch"):
        st.session_state["ask-forced"] = ""
        st.rerun()
    if forced:
        st.caption("Forced: " + ", ".join(f"{name} to {m}" for name, m in forced.items()))
