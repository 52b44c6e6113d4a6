"""What two plans do differently: one line for each thing that differs, in words that both files use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from smesim.plan.schema import OperatorPlan, Plan


@dataclass(frozen=True)
class Difference:
    """One value that differs: of the whole plan (`site` is "") or of the entry of a site; None where there is none."""

    site: str
    field: str
    first: str | None
    second: str | None


def plan_differences(first: Plan, second: Plan) -> tuple[Difference, ...]:
    """All that differs between two plans, that of the whole first, then site by site. Reasons are not compared."""
    found = _fields("", _whole(first), _whole(second))
    sites = dict.fromkeys([entry.site for plan in (first, second) for entry in plan.operators])
    entries = [{entry.site: entry for entry in plan.operators} for plan in (first, second)]
    for site in sites:
        one, other = (known.get(site) for known in entries)
        found += _fields(site, _entry(one), _entry(other))
    return tuple(found)


def _fields(site: str, first: dict[str, str], second: dict[str, str]) -> list[Difference]:
    names = dict.fromkeys([*first, *second])
    return [
        Difference(site, name, first.get(name), second.get(name))
        for name in names
        if first.get(name) != second.get(name)
    ]


def _whole(plan: Plan) -> dict[str, str]:
    fields = plan.model_dump(mode="json", exclude={"model", "workers", "operators", "schema_version"})
    workers = {f"worker {i}": f"{w.role} on core {w.core}" for i, w in enumerate(plan.workers)}
    units = {f"worker {i}": f", unit {w.unit}" for i, w in enumerate(plan.workers) if w.unit is not None}
    named = {name: text + units.get(name, "") for name, text in workers.items()}
    return {"model": plan.model.name} | {name: str(value) for name, value in fields.items()} | named


def _entry(entry: OperatorPlan | None) -> dict[str, str]:
    if entry is None:
        return {}
    fields = entry.model_dump(mode="json", exclude={"site", "reason"}, exclude_none=True)
    fields["tile"] = f"{entry.tile.m} x {entry.tile.n}"
    fields["workers"], fields["packers"] = _numbers(entry.workers), _numbers(entry.packers) or "its workers"
    fields["shares"] = _runs(f"{share:g}" for share in entry.shares) or "even"
    if entry.pipeline is not None:
        fields["pipeline"] = ", ".join(f"{name} {value}" for name, value in fields["pipeline"].items())
    return {name: str(value) for name, value in fields.items()}


def _numbers(numbers: Sequence[int]) -> str:
    """Numbers, those that follow one another as a range: "0, 4, 1-3"."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in ranges)


def _runs(texts: Iterable[str]) -> str:
    """Texts, equal ones that follow one another as one: "95, 16, 3 x 4"."""
    runs = [(text, sum(1 for _ in run)) for text, run in groupby(texts)]
    return ", ".join(f"{count} x {text}" if count > 1 else text for text, count in runs)
