"""Scenarios: published systems and design questions, each with its verdict, its pictures and its page."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboards import scenarios
from dashboards.question import Question
from dashboards.views import address, parts
from smesim.scenarios import Findings, pages


def page(question: Question) -> None:
    known = scenarios.known()
    if not known:
        st.info("No scenarios here: they are files of a checkout, under scenarios/.")
        return
    parts.table(scenarios.overview(known), "scenarios")
    name = address.choice(st, "Scenario", list(known), "scenario", title=lambda name: known[name].title)
    st.markdown(known[name].question)
    kept = scenarios.kept(name)
    anew: Findings | None = parts.long_work("scenario", name, scenarios.run, name)
    found = anew or kept
    if found is None:
        st.info("No result is kept for this one; a run takes seconds to minutes.")
        return
    for verdict in found.verdicts:
        mark = pages.MARKS[verdict.met]
        st.write(f"**{mark}**: {verdict.says}" if mark else verdict.says)
    for i, chart in enumerate(found.charts, 1):
        parts.picture(pages.figure(chart), f"{name}-{i}")
    for i, table in enumerate(found.tables, 1):
        st.subheader(table.title)
        parts.table(pd.DataFrame(table.rows, columns=list(table.columns)), f"{name}-table-{i}")
    with st.expander("The page"):
        st.markdown(pages.markdown(known[name], found))
