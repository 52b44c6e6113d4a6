"""One colour for each role, everywhere, and one mark for each way in which a number can have been got.

The colours are Okabe and Ito's, which people with any common colour blindness can tell apart, and which can be seen on
white and on black. Where a colour carries meaning a symbol or a word carries it too. A guess never looks like a
measurement: their marks differ in shape, and the word stands beside the mark.
"""

from __future__ import annotations

from smesim.trace.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, YELLOW
from smesim.trace.report import PROVENANCE

MODES: dict[str, tuple[str, str]] = {
    "cpu": (BLUE, "circle"),
    "matrix": (VERMILION, "square"),
    "cooperative": (GREEN, "diamond"),
}
"""Colour and symbol of what computes an operator; roofs have the colours of the modes that reach them."""

ROOFS = {"cores": ("cpu", "solid"), "matrix": ("matrix", "dash"), "both": ("cooperative", "dot")}
"""For each roof the mode that can reach it, and how its line is drawn."""

KINDS: dict[str, str] = {
    "linear": BLUE,
    "grouped_linear": SKY,
    "attention": ORANGE,
    "rms_norm": GREEN,
    "swiglu": PURPLE,
    "rope": VERMILION,
    "add": YELLOW,
}
"""Of operator kinds on a timeline; the others take little time and are grey."""

PREDICTED, MEASURED = SKY, ORANGE
BANDS = GREEN
NEUTRAL = GREY

MARKS: dict[str, str] = {
    **{name: f"{sign} {name.replace('_', ' ')}" for name, (sign, _) in PROVENANCE.items()},
    "simulated": "△ predicted",
    "stand-in": "⇄ stand-in",
    "emulated": "◇ emulated",
}
"""The signs of provenances are those of the HTML report."""


def mark(provenance: str) -> str:
    """How a number's origin is shown. KeyError for one that has no mark: it must not look like another."""
    return MARKS[provenance]


def trace_mark(source: str, stand_in: bool) -> str:
    """How the origin of a trace's times is shown."""
    return f"{mark(source)}, {mark('stand-in')}" if stand_in else mark(source)
