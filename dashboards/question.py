"""What a view is about, as the address bar holds it: which model does what, on which chip, planned how.

A shared address is read as any other input: what is missing is the default, and what is wrong is an error that says
what would be accepted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from smesim.cli_dashboard import FILES_DEFAULT, FILES_VARIABLE
from smesim.errors import SmesimError
from smesim.hwmodel import library
from smesim.workload import Phase, catalog

PLANNERS = ("roofline", "cpu_only", "matrix_only")
SEARCHING_PLANNERS = ("search", "oracle")
"""They simulate many plans before they have one: their work is asked for on the page of plans."""
EVERY_PLANNER = (*PLANNERS, *SEARCHING_PLANNERS)
WEIGHTS = ("f32", "bf16", "q8_0", "q4_0", "q4_1")
MOST_TOKENS = 8192
MOST_BATCH = 16


@dataclass(frozen=True)
class Question:
    """One model's phase on one chip; `layers` 0 takes all, `threads` 0 all cores, `forced` is as `--force` has it."""

    model: str = "llama-3.2-3b"
    phase: str = "prefill"
    tokens: int = 128
    batch: int = 1
    weights: str = "f32"
    chip: str = "apple-m4"
    planner: str = "roofline"
    layers: int = 0
    threads: int = 0
    forced: str = ""

    def as_phase(self) -> Phase:
        if self.phase == "decode":
            return Phase.decode(self.tokens, batch=self.batch)
        return Phase.prefill(self.tokens, batch=self.batch)

    def parameters(self) -> dict[str, str]:
        """Those of its values that are not the default, as the address bar has them."""
        return {f.name: str(getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != f.default}


def from_parameters(parameters: Mapping[str, str], chips: tuple[str, ...] = ()) -> Question:
    """The question in an address; `chips` are known beside the presets. SmesimError for a value that is refused."""
    accepted = {
        "model": catalog.names(), "phase": ("prefill", "decode"), "weights": WEIGHTS, "planner": EVERY_PLANNER,
        "chip": (*library.names(), *chips),
    }  # fmt: skip
    ranges = {"tokens": (1, MOST_TOKENS), "batch": (1, MOST_BATCH), "layers": (0, 1000), "threads": (0, 65536)}
    values: dict[str, str | int] = {}
    for name, text in parameters.items():
        if name in accepted:
            if text not in accepted[name]:
                raise SmesimError(f"address: {name}={text!r}; accepted: {', '.join(accepted[name])}")
            values[name] = text
        elif name in ranges:
            low, high = ranges[name]
            if not (text.isascii() and text.isdigit() and len(text) < 9 and low <= int(text) <= high):
                raise SmesimError(f"address: {name}={text!r}; accepted: whole numbers from {low} to {high}")
            values[name] = int(text)
        elif name == "forced":
            values[name] = text
    return Question(**values)  # type: ignore[arg-type]


def files_folder() -> Path:
    """The folder that files are opened from; nothing outside it is read."""
    return Path(os.environ.get(FILES_VARIABLE, FILES_DEFAULT))
