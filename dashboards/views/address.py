"""Controls whose values the address bar holds, so that a view can be passed on.

Streamlit forgets what a control said when another page is opened, and clears the address; so each value is also kept
for the visit. An address is input like any other: a value that is not accepted is said to be so, and the default taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

WIDGET = "at-"
"""What the keys of controls with an address begin with; the rest is the name in the address."""

ON = "yes"


def show(values: dict[str, str | None]) -> None:
    """Put values into the address bar; None takes one out."""
    for name, value in values.items():
        if value is None:
            st.query_params.pop(name, None)
        elif st.query_params.get(name) != value:
            st.query_params[name] = value


def asked(name: str) -> str | None:
    """What the address says under a name, or what was said there earlier in this visit."""
    kept: str | None = _kept().get(name)
    return st.query_params.get(name, kept)


def keep(name: str, value: str | None) -> None:
    """Remember a value under a name, in the address and for the visit; None is the default and is not written."""
    _kept()[name] = value
    show({name: value})


def ask_for(values: dict[str, str | None]) -> None:
    """Have controls say something else from the next run on: what the address would have them say; None the default."""
    for name, value in values.items():
        keep(name, value)
        for key in [key for key in st.session_state if str(key).partition("|")[0] == WIDGET + name]:
            del st.session_state[key]


def choice(at: Any, label: str, options: Sequence[str], name: str, *, default: str = "", title: Any = str) -> str:
    """One of some options, the first if no default is named; `title` says how each is shown."""
    default = default or options[0]
    key = WIDGET + name
    if key not in st.session_state:
        given = asked(name) or default
        if given not in options:
            _refuse(name, given, ", ".join(options))
        st.session_state[key] = given
    if st.session_state[key] not in options:  # of something else there was more to choose from
        st.session_state[key] = default
    chosen: str = at.selectbox(label, options, key=key, format_func=title)
    keep(name, None if chosen == default else chosen)
    return chosen


def choices(at: Any, label: str, options: Sequence[str], name: str) -> list[str]:
    """Any of some options; none of them means that all are wanted."""
    key = WIDGET + name
    if key not in st.session_state:
        given = [part for part in (asked(name) or "").split(",") if part]
        if unknown := [part for part in given if part not in options]:
            _refuse(name, ",".join(unknown), ", ".join(options))
        st.session_state[key] = given
    if any(part not in options for part in st.session_state[key]):
        st.session_state[key] = [part for part in st.session_state[key] if part in options]
    chosen: list[str] = at.multiselect(label, options, key=key, placeholder="all")
    keep(name, ",".join(chosen) or None)
    return chosen


def number(
    at: Any, label: str, lowest: float, highest: float, default: float, name: str, *, form: str | None = None,
    explained: str | None = None, of: str = "",
) -> Any:  # fmt: skip
    """A number in a range, whole if the range's ends are; `form` says how it is shown. `of` says what it is a number
    of: of something else it begins with what the address says, or the default, again."""
    key = f"{WIDGET}{name}|{of}"
    if key not in st.session_state:
        st.session_state[key] = _number(name, lowest, highest, default)
    if not lowest <= st.session_state[key] <= highest:
        st.session_state[key] = min(max(st.session_state[key], lowest), highest)
    value = at.number_input(label, lowest, highest, key=key, format=form, help=explained)
    keep(name, None if value == default else str(value))
    return value


def switch(at: Any, label: str, name: str, *, explained: str | None = None) -> bool:
    """On or off, off if the address does not say that it is on."""
    key = WIDGET + name
    if key not in st.session_state:
        given = asked(name)
        if given not in (None, ON):
            _refuse(name, str(given), ON)
        st.session_state[key] = given == ON
    chosen: bool = at.toggle(label, key=key, help=explained)
    keep(name, ON if chosen else None)
    return chosen


def _number(name: str, lowest: float, highest: float, default: float) -> float:
    kind, text = type(lowest), asked(name)
    if text is None:
        return default
    try:
        value = kind(text)
        if lowest <= value <= highest:
            return value
    except ValueError:
        pass
    _refuse(name, text, f"{'whole ' if kind is int else ''}numbers from {lowest:g} to {highest:g}")
    return default


def _refuse(name: str, given: str, accepted: str) -> None:
    st.warning(f"address: {name}={given!r}; accepted: {accepted}")


def _kept() -> dict[str, str | None]:
    found: dict[str, str | None] = st.session_state.setdefault("kept", {})
    return found
