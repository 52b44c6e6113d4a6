"""A hardware number, and where it comes from.

A model of a machine is only as good as its numbers, and a number is only as good as its origin. So a chip
holds no bare figure for a fact: it holds a `Quantity`, a value with its unit and its **provenance**:

| provenance | meaning |
|---|---|
| measured | read off a clock on that machine; `source` says by whom, `command`, `date`, `repeats` how |
| fitted | the coefficient of a curve laid through measurements |
| data_sheet | stated by the vendor |
| derived | arithmetic on sourced numbers; `reason` says which |
| guessed | nobody has published it; `reason` says why this value and no other |

A guess without a reason is refused, so "guessed" can never look like "measured".

    >>> Quantity(value=75e9, unit="B/s", provenance="measured", source="m4-sme-exploration @80ec71b4")

Fields that need a particular unit use the aliases at the end (`BytesPerS`, `FlopPerS`, ...): the unit is
checked when a chip file is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Provenance = Literal["measured", "fitted", "data_sheet", "derived", "guessed"]
PROVENANCES: tuple[Provenance, ...] = get_args(Provenance)

UNITS: tuple[str, ...] = (
    "1", "s", "Hz", "B", "B/s", "FLOP", "FLOP/s", "FLOP/B", "element/s", "s/element", "s/B", "s/FLOP",
    "cycles", "tiles", "threads",
)  # fmt: skip
"""Every unit a quantity may have. Decimal: 1 GB/s is 1e9 B/s. A multiply-add is 2 FLOP, of integers too.

A parameter of a kernel says in its name what it is counted per: `s_per_tile` has the unit "s".
"""


class Record(BaseModel):
    """Base of everything in a chip file: frozen, strict, finite, and unknown keys are refused by name."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            accepted = cls.model_fields
            for key in data:
                if key not in accepted:
                    raise ValueError(f"unknown key {key!r}; accepted: {', '.join(accepted)}")
        return data

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, with some fields replaced; what was worked out from the old ones and kept is worked out anew."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(copied).model_fields.keys():
            del copied.__dict__[name]
        return copied

    def __getstate__(self) -> dict[Any, Any]:
        """What goes to another process: the fields, and nothing of what was worked out from them and kept."""
        state = super().__getstate__()
        content = {name: value for name, value in state["__dict__"].items() if name in type(self).model_fields}
        return {**state, "__dict__": content}


class Evidence(Record):
    """Where a fact comes from."""

    provenance: Provenance
    source: str = Field(min_length=1, description="paper, repository @commit, data sheet, or the probe")
    reason: str | None = Field(
        default=None, min_length=1, description="the arithmetic of a derived, the why of a guessed fact"
    )
    command: str | None = Field(default=None, min_length=1, description="what was run to measure it")
    date: str | None = Field(
        default=None, pattern=r"^\d{4}-\d{2}-\d{2}([T ]\S+)?$", description="ISO date of the measurement"
    )
    repeats: int | None = Field(default=None, ge=1, description="how many repeats the value is the median of")

    @model_validator(mode="after")
    def _guesses_have_reasons(self) -> Self:
        if self.provenance == "guessed" and self.reason is None:
            raise ValueError("provenance 'guessed' without a reason; accepted: reason = \"why this value\"")
        return self


class Amount(Record):
    """A number with its unit."""

    value: float
    unit: str

    @model_validator(mode="after")
    def _known_unit(self) -> Self:
        if self.unit not in UNITS:
            raise ValueError(f"unit {self.unit!r} given; accepted: {', '.join(UNITS)}")
        return self


class Quantity(Evidence, Amount):
    """A value with its unit and its evidence.

    `spread` is the interquartile range over the repeats, in the unit of the value. `low` and `high` bracket a value
    that is not known well; they hold it between them. A `fitted` value with a bracket is free in later fits, between
    `low` and `high`; `prior` is what was believed before the first.
    """

    spread: float | None = Field(default=None, ge=0.0)
    low: float | None = None
    high: float | None = None
    prior: float | None = None

    @model_validator(mode="after")
    def _bracketed(self) -> Self:
        if self.low is not None and self.low > self.value:
            raise ValueError(
                f"low = {self.low:g} given for a value of {self.value:g}; accepted: low <= value"
            )
        if self.high is not None and self.high < self.value:
            raise ValueError(
                f"high = {self.high:g} given for a value of {self.value:g}; accepted: high >= value"
            )
        return self

    def __str__(self) -> str:
        unit = "" if self.unit == "1" else f" {self.unit}"
        return f"{self.value:g}{unit} ({self.provenance})"


def _checked(unit: str, *, zero_allowed: bool = False, at_most: float | None = None) -> AfterValidator:
    """Validator of one field's quantity: the unit, and the sign that makes sense for it."""

    def check(quantity: Quantity) -> Quantity:
        if quantity.unit != unit:
            raise ValueError(f"unit {quantity.unit!r} given; accepted: {unit!r}")
        if quantity.value < 0.0 or (quantity.value == 0.0 and not zero_allowed):
            raise ValueError(
                f"{quantity.value:g} given; accepted: {'zero or more' if zero_allowed else 'above zero'}"
            )
        if at_most is not None and quantity.value > at_most:
            raise ValueError(f"{quantity.value:g} given; accepted: at most {at_most:g}")
        return quantity

    return AfterValidator(check)


BytesPerS = Annotated[Quantity, _checked("B/s")]
FlopPerS = Annotated[Quantity, _checked("FLOP/s")]
Bytes = Annotated[Quantity, _checked("B")]
Hertz = Annotated[Quantity, _checked("Hz")]
Seconds = Annotated[Quantity, _checked("s", zero_allowed=True)]
Cycles = Annotated[Quantity, _checked("cycles", zero_allowed=True)]
Tiles = Annotated[Quantity, _checked("tiles")]
Threads = Annotated[Quantity, _checked("threads")]
Factor = Annotated[Quantity, _checked("1", at_most=2.0)]
"""A multiplier of a rate; above 1 is allowed (a measured oversubscription may gain), above 2 is a mistake."""
