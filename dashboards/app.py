"""The dashboard as Streamlit runs it: `smesim dashboard`, or `streamlit run dashboards/app.py` from a checkout."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import streamlit as st

from dashboards.question import Question
from dashboards.views import (
    ablation,
    files,
    overview,
    parts,
    plan,
    predicted_measured,
    roofline,
    scenarios,
    timeline,
    validation,
    what_if,
)
from smesim.errors import SmesimError

PAGES: dict[str, tuple[str, Callable[[Question], None]]] = {
    "overview": ("Overview", overview.page),
    "roofline": ("Roofline", roofline.page),
    "plan": ("Plan", plan.page),
    "timeline": ("Timeline", timeline.page),
    "predicted-measured": ("Predicted vs measured", predicted_measured.page),
    "what-if": ("What if", what_if.page),
    "ablation": ("Ablation", ablation.page),
    "validation": ("Validation", validation.page),
    "scenarios": ("Scenarios", scenarios.page),
    "files": ("Your files", files.page),
}
"""By the name in the address: the title, and what draws the page."""


def show(name: str, question: Question) -> None:
    """One page. What a user can cause is said on it, in the words of the command line."""
    title, draw = PAGES[name]
    st.title(title)
    try:
        draw(question)
    except SmesimError as error:
        st.error(str(error))


def main() -> None:
    st.set_page_config(page_title="smesim", layout="wide")
    question = parts.ask()
    pages = [
        st.Page(partial(show, name, question), title=title, url_path=name, default=name == "overview")
        for name, (title, _) in PAGES.items()
    ]
    st.navigation(pages).run()


if __name__ == "__main__":
    main()
