"""Ablation: what each idea is worth, step by step."""

from __future__ import annotations

from functools import partial

import streamlit as st

from dashboards import figures, tables, work
from dashboards.question import Question
from dashboards.views import address, parts
from smesim.ablation import ablate
from smesim.hwmodel import library
from smesim.workload import DType, catalog

_SHORTEST_S, _USUAL_S, _LONGEST_S = 1, 10, 120


def page(question: Question) -> None:
    chip = work.chip_of(question)
    label = "Time for the planner 'search', s"
    budget_s = address.number(st, label, _SHORTEST_S, _LONGEST_S, _USUAL_S, "budget")
    call = partial(
        ablate, threads=question.threads or None, layers=question.layers or None,
        weights=DType.parse(question.weights), budget_s=float(budget_s),
    )  # fmt: skip
    content = f"{library.fingerprint(chip)} {question} {budget_s}"
    steps = parts.long_work("ablation", content, call, catalog.load(question.model), question.as_phase(), chip)
    if steps is None:
        return
    table = tables.steps_table(steps)
    parts.origin(tables.marks_of(chip))
    parts.picture(figures.waterfall(table), "ablation")
    parts.table(table, "ablation")
