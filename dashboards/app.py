"""The dashboard as Streamlit runs it: `smesim dashboard`, or `streamlit run dashboards/app.py` from a checkout.

Run by Python itself it starts that server, with the same options. What pages need is loaded by then, so that who opens
the first one does not wait for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import streamlit as st
from streamlit import runtime
from streamlit.web import cli

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

# Streamlit shows strings that stand by themselves in this file, so its names are explained in comments.

# By the name in the address: the title, and what draws the page.
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

# Less air than Streamlit's own, so that a picture is seen whole at 1280 x 800.
STYLE = """<style>
.stMainBlockContainer { padding: 3.5rem 2rem 2rem; }
.stMainBlockContainer h1 { font-size: 1.8rem; padding: 0 0 0.5rem; }
.stMainBlockContainer h3 { font-size: 1.2rem; padding: 0.5rem 0 0; }
[data-testid="stMetricValue"] { font-size: 1.6rem; }
[data-testid="stSidebarHeader"] { height: 2.5rem; margin: 0; }
[data-testid="stSidebarUserContent"] { padding-top: 0; }
</style>"""


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
    st.html(STYLE)
    question = parts.ask()
    pages = [
        st.Page(partial(show, name, question), title=title, url_path=name, default=name == "overview")
        for name, (title, _) in PAGES.items()
    ]
    st.navigation(pages, position="top").run()


def serve() -> None:
    """The server of this file; ends with the process."""
    sys.argv = ["streamlit", "run", __file__, *sys.argv[1:]]
    cli.main()


if __name__ == "__main__":
    if runtime.exists():
        main()
    else:
        serve()
