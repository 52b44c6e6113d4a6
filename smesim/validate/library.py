"""Where adapters find chips and engines: the presets, or presets with some of their numbers replaced for a fit.

A number is named by its document and path: `chip:apple-m4/clusters.0.matrix_units.0.sharing.kept`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from smesim.engines.profile import EngineProfile, profile_of
from smesim.engines.profile import load_document as engine_document
from smesim.hwmodel import library as chips
from smesim.hwmodel.chip import Chip
from smesim.sim.effects import ALL_EFFECTS

Values = Mapping[str, float]
"""Numbers by document and path."""


class Library:
    """Chips and engines by name, each read once; `values` replace numbers of them, `effects` are what is modelled."""

    def __init__(self, values: Values | None = None, effects: frozenset[str] = ALL_EFFECTS) -> None:
        self._values = dict(values or {})
        self.effects = effects
        self._chips: dict[str, Chip] = {}
        self._engines: dict[str, EngineProfile] = {}
        self.memo: dict[object, Any] = {}

    def chip(self, name: str) -> Chip:
        """A preset, with the values that were given for it."""
        if name not in self._chips:
            own = self._own(f"chip:{name}/")
            chip, document = _preset(name)
            self._chips[name] = Chip.model_validate(replaced(document, own)) if own else chip
        return self._chips[name]

    def engine(self, name: str) -> EngineProfile:
        """An engine's profile, with the values that were given for it."""
        if name not in self._engines:
            document = replaced(engine_document(name), self._own(f"engine:{name}/"))
            base = self.engine(document["base"]) if "base" in document else None
            self._engines[name] = profile_of(document, base)
        return self._engines[name]

    def documents(self) -> dict[str, dict[str, Any]]:
        """The files that answers were made with so far, as nested tables, by "chip:NAME" or "engine:NAME"."""
        read = {f"chip:{name}": chip_document(chip) for name, chip in self._chips.items()}
        return read | {
            f"engine:{name}": replaced(engine_document(name), self._own(f"engine:{name}/")) for name in self._engines
        }

    def _own(self, document: str) -> dict[str, float]:
        return {key.removeprefix(document): value for key, value in self._values.items() if key.startswith(document)}


@cache
def _preset(name: str) -> tuple[Chip, dict[str, Any]]:
    """A preset and its tables, read once for all libraries."""
    chip = chips.load(name)
    return chip, chip_document(chip)


def chip_document(chip: Chip) -> dict[str, Any]:
    """A chip as the nested tables of its file."""
    return chip.model_dump(mode="json", exclude_defaults=True)


def replaced(document: dict[str, Any], values: Mapping[str, float]) -> dict[str, Any]:
    """A copy of nested tables in which the quantities at some paths ("a.0.b") have other values."""
    if not values:
        return document
    heads: dict[str, dict[str, float]] = {}
    for path, value in values.items():
        head, _, rest = path.partition(".")
        heads.setdefault(head, {})[rest] = value
    nested: Any = document
    copy: Any = list(nested) if isinstance(nested, list) else dict(nested)
    for head, inner in heads.items():
        at: Any = int(head) if isinstance(copy, list) else head
        if "" in inner:
            copy[at] = {**copy[at], "value": inner[""]}
        else:
            copy[at] = replaced(copy[at], inner)
    result: dict[str, Any] = copy
    return result
