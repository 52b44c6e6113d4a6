"""The scenario file: a question about published systems or chips, what was published, and what is asked of whom.

    schema_version = 1
    name = "kleidiai-m4-pro"
    title = "llama.cpp with KleidiAI on an M4 Pro"
    question = "Why is it slower with four threads than with two?"
    method = "How it is predicted, and what is assumed."
    chips = ["apple-m4-pro"]
    models = ["llama-3.2-1b"]
    phases = ["prefill:512"]
    engines = ["llama-cpp-sme", "llama-cpp-hybrid"]
    threads = [1, 2, 4, 6, 8]

    [published.gain]                          # a claim, with its figures ...
    says = "GEMM over Accelerate"
    statistic = "range"
    low = 1.42
    high = 1.67
    source = "arXiv:2606.16332"

    [published.panels]                        # ... or with those of records of `smesim validate`
    says = "panels of 64 columns against 512"
    records = ["m1panel-0001", "m1panel-0006"]

    [levers.memory]                           # what is varied to see when a claim would be met
    says = "bandwidth of the memory"
    published = "gain"
    paths = ["memory.bandwidth_bytes_per_s"]
    factors = [1.0, 2.0, 4.0]

Names of chips, models, engines, planners, effects, formats and records are checked when the file is read. What a
scenario's script needs besides stands in `[numbers]`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from smesim.engines import profile as engines
from smesim.engines.formats import FORMATS
from smesim.errors import ScenarioError, SmesimError
from smesim.files import first_validation_problem, read_text
from smesim.hwmodel import library as chips
from smesim.plan.planners import PLANNERS
from smesim.sim.effects import EFFECTS
from smesim.sweep.schema import line_of
from smesim.validate import records
from smesim.validate.records import PublishedRecord
from smesim.workload import Phase, catalog

Statistic = Literal["range", "maximum", "value", "ratio"]
_Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
_Names = Annotated[tuple[str, ...], Field(strict=False)]
_Counts = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False)]
_Factors = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(strict=False, min_length=2)]
_Number = float | Annotated[tuple[float, ...], Field(strict=False)]
TOLERANCE = 0.15
"""How far a prediction may be from one published value: the median that products and models are held to."""


@cache
def record_of(name: str) -> PublishedRecord | None:
    """A published record by its id, None where there is none."""
    return _all_records().get(name)


@cache
def _all_records() -> dict[str, PublishedRecord]:
    return {record.id: record for record in records.load()}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Published(_Part):
    """What somebody published: a range, a maximum ("up to"), or a value that a prediction should hit.

    `records` names published measurements, whose values, unit and sources are then taken; a `ratio` is the first over
    the second of two.
    """

    says: _Text
    statistic: Statistic = "value"
    low: float | None = None
    high: float | None = None
    unit: str = "x"
    source: str = ""
    records: _Names = ()
    tolerance: Annotated[float, Field(gt=0)] = TOLERANCE

    @model_validator(mode="before")
    @classmethod
    def _in_the_unit_of_its_records(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "unit" in given or given.get("statistic") == "ratio":
            return given
        units = {record.unit_of_value for name in given.get("records", ()) if (record := record_of(name)) is not None}
        return given | {"unit": units.pop()} if len(units) == 1 else given

    @model_validator(mode="after")
    def _has_figures(self) -> Self:
        unknown = [name for name in self.records if record_of(name) is None]
        if unknown:
            raise ValueError(f"record {unknown[0]!r} given; accepted: ids of the records of 'smesim validate'")
        if self.records and (self.low is not None or self.high is not None or self.source):
            raise ValueError("records and figures given; accepted: records, or low, high and source")
        if not self.records and (self.high is None or not self.source):
            raise ValueError("no figures given; accepted: records, or high (and low) with a source")
        if self.statistic == "ratio" and len(self.records) != 2:
            raise ValueError(f"a ratio of {len(self.records)} records given; accepted: two, first over second")
        if not self.records and self.statistic == "range" and self.low is None:
            raise ValueError("a range without low given; accepted: low and high")
        return self

    @property
    def values(self) -> tuple[float, ...]:
        """All published figures."""
        found = [record_of(name) for name in self.records]
        read = [r.value for r in found if r is not None and r.value is not None]
        if self.statistic == "ratio":
            return (read[0] / read[1],)
        given = [value for value in (self.low, self.high) if value is not None]
        return tuple(read or given)

    @property
    def band(self) -> tuple[float, float]:
        """The least and the largest figure."""
        return min(self.values), max(self.values)

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the figures are from."""
        found = [record_of(name) for name in self.records]
        return tuple(dict.fromkeys(r.source for r in found if r is not None)) or (self.source,)


class Lever(_Part):
    """Numbers of a chip that are multiplied by `factors`, to see what a published figure would need."""

    says: _Text
    published: _Text
    paths: Annotated[tuple[_Text, ...], Field(strict=False, min_length=1)]
    factors: _Factors

    @model_validator(mode="after")
    def _around_one(self) -> Self:
        if 1.0 not in self.factors or list(self.factors) != sorted(set(self.factors)):
            raise ValueError(f"factors {list(self.factors)} given; accepted: ascending, and 1 among them")
        return self


class Scenario(_Part):
    """One scenario file."""

    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", max_length=64)]
    title: _Text
    question: _Text
    method: _Text
    chips: _Names = ()
    models: _Names = ()
    phases: _Names = ()
    sites: _Names = ()
    planners: _Names = ()
    engines: _Names = ()
    weights: _Names = ()
    threads: _Counts = ()
    effects: _Names = ()
    published: dict[str, Published] = Field(default_factory=dict)
    levers: dict[str, Lever] = Field(default_factory=dict)
    numbers: dict[str, _Number] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        for key, known in _known().items():
            for name in getattr(self, key):
                if name not in known:
                    raise ValueError(f"{key}: {name!r} given; accepted: {', '.join(known)}")
        for text in self.phases:
            try:
                Phase.parse(text)
            except SmesimError as error:
                raise ValueError(f"phases: {error}") from None
        for name, lever in self.levers.items():
            if lever.published not in self.published:
                raise ValueError(f"levers.{name}: published = {lever.published!r} given; accepted: {_listed(self)}")
        return self

    def number(self, name: str) -> float:
        """A single number of `[numbers]`; ScenarioError where the file lacks it."""
        value = self.numbers.get(name)
        if not isinstance(value, float):
            raise ScenarioError(f"scenario {self.name}: numbers.{name} is {value!r}; accepted: a number")
        return value

    def series(self, name: str) -> tuple[float, ...]:
        """A list of `[numbers]`; ScenarioError where the file lacks it."""
        value = self.numbers.get(name)
        if not isinstance(value, tuple):
            raise ScenarioError(f"scenario {self.name}: numbers.{name} is {value!r}; accepted: a list of numbers")
        return value

    def narrowed(self, key: str, names: Collection[str]) -> Scenario:
        """The scenario with some of the entries of one list only; ScenarioError for others than it has."""
        lists = tuple(k for k, v in self if isinstance(v, tuple) and v)
        if key not in lists:
            raise ScenarioError(f"scenario {self.name}: key {key!r} given; accepted: {', '.join(lists)}")
        have = getattr(self, key)
        for name in names:
            if name not in map(str, have):
                raise ScenarioError(f"scenario {self.name}: {key} {name!r}; accepted: {', '.join(map(str, have))}")
        return self.model_copy(update={key: tuple(entry for entry in have if str(entry) in names)})


def _listed(scenario: Scenario) -> str:
    return ", ".join(scenario.published) or "none, [published] is empty"


def _known() -> dict[str, tuple[str, ...]]:
    return {
        "chips": chips.names(),
        "models": catalog.names(),
        "planners": tuple(PLANNERS),
        "engines": engines.names(),
        "weights": tuple(dict.fromkeys(("f32", "bf16", "q8_0", "q4_0", *FORMATS))),
        "effects": tuple(EFFECTS),
    }


def parse_scenario(text: str, where: str) -> Scenario:
    """The scenario in the text of a file; ScenarioError with file, line and key."""
    try:
        data: Any = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ScenarioError(f"{where}: not TOML: {error}") from None
    if isinstance(data.get("numbers"), dict):
        data["numbers"] = {name: _floats(value) for name, value in data["numbers"].items()}
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = tuple(str(part) for part in first["loc"])
        if first["type"] == "value_error":
            problem = f"{'.'.join(place)}: {first['ctx']['error']}" if place else str(first["ctx"]["error"])
            place = place or (problem.partition(":")[0],)
        else:
            problem = first_validation_problem(error)
        raise ScenarioError(f"{where}{line_of(text, place)}: {problem}") from None


def _floats(value: Any) -> Any:
    """Whole numbers of a file as the floats that they stand for."""
    if isinstance(value, list):
        return [_floats(each) for each in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def load_scenario(path: Path) -> Scenario:
    """Read a scenario file; ScenarioError with file, line and key."""
    scenario = parse_scenario(read_text(path, ScenarioError, "a scenario in TOML"), str(path))
    if scenario.name != path.stem:
        raise ScenarioError(f"{path}: name = {scenario.name!r} given; accepted: {path.stem!r}, as the file is called")
    return scenario
