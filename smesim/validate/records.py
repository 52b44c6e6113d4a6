"""Published measurements: the file's schema, and the question that a record asks without the answer it holds.

A file is a JSON list of records. `split` says what a record is for: `calibration` (parameters may be fitted to it),
`acceptance` (published claims, never fitted) or `context` (facts that a preset may hold). A record's id without its
number names its **block**: all rows of one table or figure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from smesim.errors import SmesimError
from smesim.files import read_text

BUNDLED = "published_measurements.json"
_READINGS = ("p50_ms", "min_ms", "best_unroll", "size_is", "best_over", "instr_per_cycle", "note", "fig", "weight_GiB")
"""Entries of `shape_params` that are readings or remarks: no part of a question."""


class RecordsError(SmesimError):
    """A file of measurements that cannot be read; the message says where and what is accepted."""


class PublishedRecord(BaseModel):
    """One published number, with its source."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+-\d+$")]
    chip: str
    unit: str
    metric: str
    dtype: str
    value: float | None
    unit_of_value: str
    shape_params: dict[str, Any]
    threads: Annotated[int, Field(ge=1)] | None
    source: Annotated[str, Field(min_length=1)]
    quote_or_location: str | None
    confidence: str
    kind: str
    split: Literal["calibration", "context", "acceptance"]

    @property
    def block(self) -> str:
        return block_of(self.id)

    def question(self) -> Question:
        """What the record asks: all but its value and readings that give it away."""
        shape = {name: value for name, value in self.shape_params.items() if name not in _READINGS}
        return Question(
            self.block, self.chip, self.unit, self.metric, self.dtype, self.unit_of_value, self.threads, shape
        )


@dataclass(frozen=True)
class Question:
    """A record without its answer. `shape` holds its shape parameters, `unit` what computes ("SME-only (KleidiAI)")."""

    block: str
    chip: str
    unit: str
    metric: str
    dtype: str
    unit_of_value: str
    threads: int | None
    shape: Mapping[str, Any] = field(default_factory=dict)

    def number(self, name: str) -> int:
        """An integer of the shape; KeyError where the record has none."""
        return int(self.shape[name])

    def key(self, *, without_threads: bool = False, without_unit: bool = False) -> tuple[object, ...]:
        """What it is equal in to the other records of its series."""
        shape = tuple(sorted((name, json.dumps(value)) for name, value in self.shape.items()))
        threads = None if without_threads else self.threads
        unit = "" if without_unit else self.unit
        return self.block, self.chip, unit, self.metric, self.dtype, shape, threads


def block_of(record_id: str) -> str:
    """The block that a record belongs to: its id without the number."""
    return record_id.rpartition("-")[0]


_RECORDS = TypeAdapter(list[PublishedRecord])


def load(path: Path | None = None) -> tuple[PublishedRecord, ...]:
    """The records of a file, of the project's own if none is given; RecordsError names record and key."""
    if path is None:
        text = (resources.files("smesim.validate") / "data" / BUNDLED).read_text(encoding="utf-8")
        where = BUNDLED
    else:
        text, where = read_text(path, RecordsError, "a JSON list of published measurements"), str(path)
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise RecordsError(f"{where}: not JSON ({error}); accepted: a list of records") from None
    if not isinstance(raw, list):
        raise RecordsError(f"{where}: a JSON {type(raw).__name__} given; accepted: a list of records")
    try:
        records = _RECORDS.validate_python(raw)
    except ValidationError as error:
        raise RecordsError(f"{where}: {_explain(raw, error)}") from None
    seen: set[str] = set()
    for record in records:
        if record.id in seen:
            raise RecordsError(f"{where}: id {record.id!r} given twice; accepted: each id once")
        seen.add(record.id)
    return tuple(records)


def _explain(raw: list[Any], error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    index, *key = first["loc"]
    entry = raw[int(index)]
    name = entry.get("id", f"record {index}") if isinstance(entry, dict) else f"record {index}"
    return f"{name}: {'.'.join(map(str, key)) or 'the record'}: {first['msg']}"


def blocks_of(records: tuple[PublishedRecord, ...]) -> Iterator[str]:
    """The blocks there are, in the file's order."""
    yield from dict.fromkeys(record.block for record in records)
