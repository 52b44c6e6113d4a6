"""The sweep file: what every question has in common, what varies, and what is wanted.

    schema_version = 1
    name = "gemm"
    columns = ["time_s", "mode"]                 # default: all
    conditions = ["tokens * batch <= 4096"]      # points that do not hold are not asked

    [base]                                       # of all questions
    model = "llama-3.2-3b"
    phase = "prefill"
    planner = "roofline"

    [questions.projection]                       # optional: several questions, each with keys of its own
    site = "q_proj"

    [axes]                                       # every combination; the first varies slowest
    chip = ["apple-m4", "phone-d9500"]
    tokens = { log = [1, 4096], count = 13 }
    batch = { range = [1, 9], step = 4 }
    "threads,weights" = [[2, "f32"], [4, "bf16"]]        # keys that vary together
    "chip.memory.bandwidth_bytes_per_s" = { sample = [50e9, 105e9], scale = "log" }

    [sample]                                     # how the axes that are sampled are drawn, together
    method = "sobol"
    count = 64

The keys of a question are those of `smesim plan` (`KEYS`), and `chip.` or `model.` with the way to a number of the chip
file or the model's configuration; a list on that way is entered by the name or place of an entry. Whole ends of a range
or a sample give whole numbers.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from smesim.errors import SmesimError, SweepError
from smesim.files import first_validation_problem, read_text
from smesim.sweep.conditions import Condition

Number = int | float
Value = bool | int | float | str | tuple[str, ...]

KEYS: dict[str, type] = {
    "model": str,
    "chip": str,
    "phase": str,
    "tokens": int,
    "context": int,
    "past": int,
    "batch": int,
    "layers": int,
    "last_layer_rows": str,
    "weights": str,
    "site": str,
    "planner": str,
    "threads": int,
    "layout_reuse": str,
    "overlap": bool,
    "force": str,
    "without": tuple,
}
"""What a question may say, and as what. `tokens`, `context`, `past` and `batch` complete or override the phase; `site`
asks for one operator by itself; `without` lists effects that are off."""
CHANGES = ("chip.", "model.")
"""How keys begin that change a number of the chip or of the model."""

_Steps = Annotated[tuple[Value | tuple[Value, ...], ...], Field(min_length=1)]
_Pair = Annotated[tuple[Number, Number], Field(strict=False)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=64)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Span(_Part):
    """Values between two ends: `range` in equal steps, `log` in equal ratios, `sample` drawn (see `Sample`)."""

    range: _Pair | None = None
    log: _Pair | None = None
    sample: _Pair | None = None
    step: Number | None = Field(default=None, gt=0)
    count: int | None = Field(default=None, ge=1, le=1_000_000)
    scale: Literal["linear", "log"] | None = None

    @property
    def ends(self) -> tuple[Number, Number]:
        ends = self.range or self.log or self.sample
        assert ends is not None
        return ends

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return all(isinstance(end, int) for end in self.ends)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [name for name in ("range", "log", "sample") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"{', '.join(given) or 'none'} given; accepted: one of range, log, sample")
        low, high = self.ends
        if low > high:
            raise ValueError(f"{given[0]} from {low} to {high}; accepted: the smaller end first")
        if (given == ["log"] or self.scale == "log") and low <= 0:
            raise ValueError(f"{given[0]} from {low} in equal ratios; accepted: ends above 0")
        one, counted = (self.step is None) != (self.count is None), self.count is not None and self.step is None
        fitting = {"range": one, "log": counted}
        if not fitting.get(given[0], self.step is None and self.count is None):
            wanted = {"range": "either step or count", "log": "count", "sample": "neither, [sample] has a count"}
            raise ValueError(f"step {self.step}, count {self.count} with {given[0]}; accepted: {wanted[given[0]]}")
        if self.scale is not None and given != ["sample"]:
            raise ValueError(f"scale with {given[0]}; accepted: with sample")
        return self


def _form(axis: Any) -> str:
    return "list" if isinstance(axis, tuple) else "span"


_Axis = Annotated[Annotated[_Steps, Tag("list")] | Annotated[Span, Tag("span")], Discriminator(_form)]


class Sample(_Part):
    """How sampled axes are drawn: all of them together, so many times. Sobol's sequence fills their space evenly."""

    method: Literal["random", "sobol"] = "sobol"
    count: int = Field(ge=1, le=10_000_000)
    seed: int = Field(default=0, ge=0)


class Sweep(_Part):
    """One sweep file."""

    schema_version: Literal[1]
    name: _Name
    description: str = ""
    base: dict[str, Value] = Field(default_factory=dict)
    questions: dict[_Name, dict[str, Value]] = Field(default_factory=dict)
    axes: dict[str, _Axis] = Field(default_factory=dict)
    sample: Sample | None = None
    conditions: Annotated[tuple[str, ...], Field(strict=False)] = ()
    columns: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @model_validator(mode="before")
    @classmethod
    def _lists_of_names(cls, data: Any) -> Any:
        """TOML's arrays in [base] and [questions] are tuples here."""
        if isinstance(data, dict):
            data = dict(data)
            if isinstance(data.get("base"), dict):
                data["base"] = _tuples(data["base"])
            if isinstance(data.get("questions"), dict):
                data["questions"] = {n: _tuples(q) if isinstance(q, dict) else q for n, q in data["questions"].items()}
            if isinstance(data.get("axes"), dict):
                data["axes"] = _tuples(data["axes"])
        return data

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys that any question says, in the file's order."""
        found = dict.fromkeys(self.base)
        for question in self.questions.values():
            found |= dict.fromkeys(question)
        for names in self.axes:
            found |= dict.fromkeys(axis_keys(names))
        return tuple(found)


def axis_keys(names: str) -> tuple[str, ...]:
    """The keys of an axis: one, or several with commas between."""
    return tuple(name.strip() for name in names.split(","))


def listed_steps(names: str, values: Sequence[Any]) -> list[dict[str, Value]]:
    """What each step of an axis with a list of values sets."""
    keys = axis_keys(names)
    steps = []
    for entry in values:
        together = (entry,) if len(keys) == 1 else entry
        if not isinstance(together, tuple) or len(together) != len(keys):
            raise _EntryError(("axes", names), f"{entry!r} given; accepted: a list of {len(keys)} values")
        steps.append(dict(zip(keys, together, strict=True)))
    return steps


def load_sweep(path: Path) -> Sweep:
    """Read a sweep file; SweepError with file, line and key."""
    return parse_sweep(read_text(path, SweepError, "a sweep in TOML"), str(path))


def parse_sweep(text: str, where: str) -> Sweep:
    """The sweep in the text of a file; `where` names it in errors."""
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SweepError(f"{where}: not TOML: {error}") from None
    try:
        sweep = Sweep.model_validate(data)
        _check(sweep)
    except ValidationError as error:
        place = tuple(str(part) for part in error.errors()[0]["loc"])
        raise SweepError(f"{where}{line_of(text, place)}: {first_validation_problem(error)}") from None
    except _EntryError as error:
        raise SweepError(f"{where}{line_of(text, error.place)}: {error}") from None
    return sweep


class _EntryError(SmesimError):
    """A problem at a place in the file, before the line is known."""

    def __init__(self, place: tuple[str, ...], problem: str) -> None:
        super().__init__(f"{'.'.join(place)}: {problem}")
        self.place = place


def _check(sweep: Sweep) -> None:
    """What one field alone does not show: keys and their types, joint axes, samples, conditions."""
    for table, entries in (("base", sweep.base), *((f"questions.{n}", q) for n, q in sweep.questions.items())):
        for key, value in entries.items():
            _check_value((*table.split("."), key), key, value)
    varied: set[str] = set()
    for names, axis in sweep.axes.items():
        place = ("axes", names)
        keys = axis_keys(names)
        if twice := varied.intersection(keys):
            raise _EntryError(place, f"{twice.pop()} varies on two axes; accepted: each key on one")
        varied.update(keys)
        if isinstance(axis, Span):
            if len(keys) > 1:
                raise _EntryError(place, "a range for several keys; accepted: a list of lists of values")
            if axis.sample is not None and sweep.sample is None:
                raise _EntryError(place, "is sampled; accepted: with a table [sample] that has a count")
            _check_value(place, keys[0], axis.ends[0] if axis.whole else float(axis.ends[0]))
            continue
        for step in listed_steps(names, axis):
            for key, value in step.items():
                _check_value(place, key, value)
    known = {*sweep.keys, "question", *KEYS}
    for i, text in enumerate(sweep.conditions):
        try:
            unknown = sorted(Condition(text).names - known)
        except SweepError as error:
            raise _EntryError(("conditions", str(i)), str(error)) from None
        if unknown:
            raise _EntryError(("conditions", str(i)), f"unknown key {unknown[0]!r}; accepted: {', '.join(known)}")


def _check_value(place: tuple[str, ...], key: str, value: Any) -> None:
    if key.startswith(CHANGES):
        return
    if key not in KEYS:
        raise _EntryError(place, f"unknown key {key!r}; accepted: {', '.join(KEYS)}, chip.... and model....")
    kind = KEYS[key]
    if type(value) is not kind:
        names = {tuple: "a list of names", str: "a text", int: "a whole number", bool: "true or false"}
        raise _EntryError(place, f"{value!r} given; accepted: {names[kind]}")


def _tuples(value: Any) -> Any:
    """Lists as tuples at every depth of plain values; a Span's table stays one."""
    if isinstance(value, dict):
        return {key: _tuples(each) for key, each in value.items()}
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value


_HEADER = re.compile(r"^\s*\[\[?\s*([^\]]+?)\s*\]")
_ENTRY = re.compile(r"""^\s*("[^"]*"|'[^']*'|[\w-]+)\s*=""")


def line_of(text: str, place: tuple[str, ...]) -> str:
    """", line N" of the entry in a TOML text that holds a place, as far down as lines tell; "" if none does."""
    best, line = 0, 0
    table: tuple[str, ...] = ()
    for number, content in enumerate(text.splitlines(), 1):
        path = table
        if header := _HEADER.match(content):
            path = table = tuple(part.strip("\"' ") for part in header[1].split("."))
        elif entry := _ENTRY.match(content):
            path = (*table, entry[1].strip("\"'"))
        else:
            continue
        if len(path) > best and path == place[: len(path)]:
            best, line = len(path), number
    return f", line {line}" if line else ""
