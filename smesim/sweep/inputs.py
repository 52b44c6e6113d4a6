"""Inputs: the chips and models that a sweep names, read once and handed to every worker, and changes made to them.

What comes from files is read before anything is computed, so a wrong name ends a sweep at once and a file that changes
while it runs changes nothing. Together with the sweep file and the version of the model they are all that a result
depends on; `fingerprint` is one hash of all that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from smesim import __version__
from smesim.errors import SweepError
from smesim.files import first_validation_problem
from smesim.hwmodel import library
from smesim.hwmodel.chip import Chip
from smesim.hwmodel.kept import kept_with
from smesim.hwmodel.quantity import Quantity, Record
from smesim.sweep.points import Points
from smesim.sweep.schema import Sweep, Value
from smesim.workload import ModelConfig, catalog


@dataclass(frozen=True)
class Inputs:
    """Chips and models by the names that a sweep gives them."""

    chips: dict[str, Chip]
    models: dict[str, ModelConfig]

    @classmethod
    def of(cls, sweep: Sweep, load_chip: Callable[[str], Chip] = library.load) -> Inputs:
        """All that a sweep names; `load_chip` may know more names than the presets'. SmesimError for an unknown one."""
        points = Points(sweep)
        chips = {str(name): load_chip(str(name)) for name in points.all_values("chip")}
        models = {str(name): catalog.load(str(name)) for name in points.all_values("model")}
        for key, found in (("chip", chips), ("model", models)):
            if not found:
                raise SweepError(f"sweep {sweep.name} names no {key}; accepted: {key} in [base], [questions] or [axes]")
        return cls(chips, models)

    def fingerprint(self, sweep: Sweep) -> str:
        """SHA-256 of everything that the results of a sweep depend on."""
        content = {
            "version": __version__,
            "sweep": sweep.model_dump(mode="json", exclude={"description"}),
            "chips": {name: library.fingerprint(chip) for name, chip in self.chips.items()},
            "models": {name: model.model_dump(mode="json") for name, model in self.models.items()},
        }
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def changed_chip(chip: Chip, changes: tuple[tuple[str, Value], ...]) -> Chip:
    """A chip with some of its numbers replaced, marked as guessed; SweepError for a way that leads nowhere."""
    try:
        changed = chip
        for path, value in changes:
            changed = _with(changed, path.split("."), value)
        return changed
    except (LookupError, ValidationError):
        return _read_anew(chip, changes)


def _with(holder: Any, way: Sequence[str], value: Value) -> Any:
    """A part of a chip with the number at the end of a way replaced. Only what holds it is checked again: the rest is
    what it was. LookupError for all that is not as plain as that."""
    part, *rest = way
    if isinstance(holder, Record):
        content = {name: holder.__dict__[name] for name in type(holder).model_fields}
        content = {name: old for name, old in content.items() if old is not None}
        content[part] = _next(content[part], rest, value)
        return type(holder).model_validate(content)
    if isinstance(holder, dict):
        return holder | {part: _next(holder[part], rest, value)}
    if isinstance(holder, tuple):
        names = [getattr(entry, "name", None) for entry in holder]
        place = next((i for i, name in enumerate(names) if part in (str(i), name)), None)
        if place is not None:
            return (*holder[:place], _next(holder[place], rest, value), *holder[place + 1 :])
    raise LookupError(part)


def _next(old: Any, way: Sequence[str], value: Value) -> Any:
    if way:
        return _with(old, way, value)
    if isinstance(old, Quantity) and isinstance(value, int | float) and not isinstance(value, bool):
        return Quantity.model_validate(_guess(old.unit, value))
    if isinstance(old, Record | dict | tuple):
        raise LookupError(type(old).__name__)
    return value


def _guess(unit: str, value: float) -> dict[str, Any]:
    return {
        "value": float(value), "unit": unit, "provenance": "guessed", "source": "smesim sweep",
        "reason": "varied in a sweep",
    }  # fmt: skip


def _read_anew(chip: Chip, changes: tuple[tuple[str, Value], ...]) -> Chip:
    """The same by way of the chip's content as a file would have it: whatever is wrong is said as of a file."""
    text = kept_with(chip, "content", lambda: json.dumps(chip.model_dump(mode="json", exclude_none=True)))
    content = json.loads(text)
    for path, value in changes:
        _replace(content, path, value, f"chip {chip.name}")
    try:
        return Chip.model_validate(content)
    except ValidationError as error:
        raise SweepError(f"chip {chip.name} changed: {_problem(error)}") from None


def changed_model(model: ModelConfig, changes: tuple[tuple[str, Value], ...]) -> ModelConfig:
    """A model with some of its numbers replaced."""
    content = model.model_dump()
    for path, value in changes:
        _replace(content, path, value, f"model {model.name}")
    try:
        return ModelConfig.model_validate(content)
    except ValidationError as error:
        raise SweepError(f"model {model.name} changed: {_problem(error)}") from None


def _problem(error: ValidationError) -> str:
    """The first problem; of a rule that spans fields the rule's own words, since what was given is all there is."""
    first = error.errors()[0]
    return str(first["ctx"]["error"]) if first["type"] == "value_error" else first_validation_problem(error)


def _replace(content: Any, path: str, value: Value, what: str) -> None:
    """Puts a value at the end of a way; a number with evidence keeps its unit and becomes a guess."""
    *way, last = path.split(".")
    holder = content
    for part in way:
        holder = _entry(holder, part, path, what)
    old = _entry(holder, last, path, what)
    if isinstance(old, dict) and {"value", "provenance"} <= old.keys():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SweepError(f"{what}: {path} = {value!r} given; accepted: a number in {old.get('unit')}")
        new: Any = _guess(old["unit"], value)
    else:
        new = value
    if isinstance(holder, list):
        holder[holder.index(old)] = new
    else:
        holder[last] = new


def _entry(holder: Any, part: str, path: str, what: str) -> Any:
    """What lies one step further: by key, or of a list by an entry's name or its place."""
    if isinstance(holder, dict) and part in holder:
        return holder[part]
    if isinstance(holder, list):
        for place, entry in enumerate(holder):
            if part == str(place) or (isinstance(entry, dict) and entry.get("name") == part):
                return entry
    known: list[str] = []
    if isinstance(holder, dict):
        known = list(holder)
    elif isinstance(holder, list):
        known = [str(entry.get("name", i)) if isinstance(entry, dict) else str(i) for i, entry in enumerate(holder)]
    raise SweepError(f"{what}: no {part!r} on the way {path!r}; accepted there: {', '.join(known) or 'nothing'}")
