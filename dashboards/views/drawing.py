"""A picture that stays where it is when what it shows changes.

`st.plotly_chart` takes a changed figure for another element and builds it anew, which takes a browser most of a second.
Here the element is kept, and plotly.js is told what it shows now (`Plotly.react`); `drawing.js` is the browser's half.
The browser gets plotly.js from the package `plotly`, as it is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.components.v1 import declare_component

from smesim.trace.figures import plotly

_HERE = Path(__file__).parent


@cache
def _plotly_js() -> str:
    """The address of plotly.js, seen from any page. A component of Streamlit is a folder that it serves."""
    folder = Path(plotly("offline").__file__).parents[1] / "package_data"
    return f"component/{declare_component('plotly_js', path=folder).name}/plotly.min.js"


def lasting(figure: Any, key: str, config: Mapping[str, Any], on_look: Callable[[], None]) -> None:
    """Show a plotly figure in the place of the one that was shown with this key.

    What someone clicks or drags over is then `st.session_state[key].looked`, as `{"points": [{"customdata"}, ...],
    "box": [{"x": (begin, end)}]}` of either one, and `on_look` is called.
    """
    mount = st.components.v2.component(
        "smesim_drawing", js=(_HERE / "drawing.js").read_text(encoding="utf-8"), isolate_styles=False
    )
    said = {"plotly": _plotly_js(), "figure": figure.to_json(), "config": dict(config)}
    mount(key=key, data=said, on_looked_change=on_look)
