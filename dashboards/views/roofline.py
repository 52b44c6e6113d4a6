"""Roofline: how fast each operator could be at best, on cores, matrix units and both, and what bounds it."""

from __future__ import annotations

import streamlit as st

from dashboards import figures, tables, work
from dashboards.question import Question
from dashboards.views import parts
from smesim import workflow
from smesim.units import format_seconds


def page(question: Question) -> None:
    chip = work.chip_of(question)
    graph, plan = work.graph_of(question), work.plan_of(question, chip)
    found = workflow.roofs(graph, chip)
    table = tables.roofline_table(found, graph, plan)
    for column, name in zip(st.columns(len(found.roofs)), found.roofs, strict=True):
        total_s = found.total_s(name)
        column.metric(f"At best, {name}", "no " + found.linear_dtype if total_s is None else format_seconds(total_s))
    parts.origin(tables.marks_of(chip))
    parts.picture(figures.roofline(found, table), "roofline")
    parts.table(table, "roofline")
