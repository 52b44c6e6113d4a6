"""Work for a process of its own, in a module that such a process imports quickly."""

from __future__ import annotations

import time
from collections.abc import Callable

from smesim.errors import SmesimError


def slow(text: str, progress: Callable[[str, float], None]) -> str:
    """Ends, refuses, dies or hangs, by what it is told."""
    progress("begun", 0.5)
    if text == "refuse":
        raise SmesimError("refused; accepted: something else")
    while text == "hang":
        time.sleep(0.01)
    if text == "die":
        raise SystemExit(3)
    return text.upper()
