"""What if the chip were another one: numbers of a chip that can be changed, and what a change does.

An edited number is a guess, and says so: it gets that provenance with the value that it stood for as its reason. An
edited chip is checked as a chip file is, by the same code and with the same errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from smesim import workflow
from smesim.errors import SmesimError
from smesim.hwmodel import library
from smesim.hwmodel.chip import Chip, MatrixUnit
from smesim.hwmodel.quantity import Quantity
from smesim.plan.schema import Plan
from smesim.workload import DType, ModelConfig, Phase

Path = tuple[str | int, ...]
_COUNT = "count"
_PHASE = "phase"


@dataclass(frozen=True)
class Knob:
    """One number of a chip that can be changed. Counts have the unit "" and the provenance of their structure."""

    path: Path
    label: str
    value: float
    unit: str
    provenance: str

    @property
    def is_count(self) -> bool:
        return not self.unit


def knobs(chip: Chip) -> tuple[Knob, ...]:
    """What the page offers: units, vector length, rates, accumulators, bandwidths, cores, cost of switching modes."""
    found = [_knob(("memory", "bandwidth_bytes_per_s"), "DRAM bandwidth", chip.memory.bandwidth_bytes_per_s)]
    for i, cluster in enumerate(chip.clusters):
        at: Path = ("clusters", i)
        name = cluster.name
        found.append(Knob((*at, "core_count"), f"{name}: cores", cluster.core_count, "", cluster.structure.provenance))
        found += [
            _knob((*at, "core", "flop_per_s", dtype), f"{name}: a core's rate in {dtype}", rate)
            for dtype, rate in cluster.core.flop_per_s.items()
        ]
        for j, unit in enumerate(cluster.matrix_units):
            found += _unit_knobs(unit, (*at, "matrix_units", j), f"{name} {unit.name}")
    return tuple(found)


def phase_knobs(phase: Phase) -> tuple[Knob, ...]:
    """Numbers of the question that a map can go over as well."""
    length = phase.tokens if phase.kind == "prefill" else phase.context
    words = "Prompt, tokens" if phase.kind == "prefill" else "Context, tokens"
    return (
        Knob((_PHASE, "tokens"), words, length, "", "derived"),
        Knob((_PHASE, "batch"), "Batch, sequences", phase.batch, "", "derived"),
    )


def asked_phase(phase: Phase, changes: Mapping[Path, float]) -> Phase:
    """The phase with the length and batch that changes name."""
    length, batch = (int(changes.get(knob.path, knob.value)) for knob in phase_knobs(phase))
    return Phase.prefill(length, batch=batch) if phase.kind == "prefill" else Phase.decode(length, batch=batch)


def _unit_knobs(unit: MatrixUnit, at: Path, name: str) -> list[Knob]:
    structure = unit.structure.provenance
    found = [Knob((*at, _COUNT), f"{name}: units", unit.count, "", structure)]
    if unit.svl_bits is not None:
        found.append(Knob((*at, "svl_bits"), f"{name}: streaming vector length in bits", unit.svl_bits, "", structure))
    numbered: list[tuple[str, str, Mapping[Any, Quantity]]] = [
        ("flop_per_s", "rate in", unit.flop_per_s),
        ("accumulators", "accumulators for the full rate in", unit.accumulators),
        ("load_bytes_per_s", "loads from", unit.load_bytes_per_s),
        ("store_bytes_per_s", "stores to", unit.store_bytes_per_s),
    ]
    for field, words, values in numbered:
        found += [_knob((*at, field, str(key)), f"{name}: {words} {key}", q) for key, q in values.items()]
    found.append(_knob((*at, "mode_switch_s"), f"{name}: switching modes", unit.mode_switch_s))
    found.append(_knob((*at, "useful_drivers"), f"{name}: drivers that help", unit.useful_drivers))
    return found


def _knob(path: Path, label: str, quantity: Quantity) -> Knob:
    return Knob(path, label, quantity.value, quantity.unit, quantity.provenance)


def edited(chip: Chip, changes: Mapping[Path, float]) -> Chip:
    """The chip with other numbers, under another name; the same chip if nothing differs. ChipError as of a file."""
    known = {knob.path: knob for knob in knobs(chip)}
    changed = {path: value for path, value in changes.items() if value != known[path].value}
    if not changed:
        return chip
    table: dict[str, Any] = chip.model_dump(mode="json", exclude_defaults=True)
    for path, value in changed.items():
        _set(table, path, value, known[path])
    if ("memory", "bandwidth_bytes_per_s") in changed:
        # What the data sheet says of the real memory does not bound that of another one.
        table["memory"].pop("spec_bandwidth_bytes_per_s", None)
    table["name"] = f"{chip.name}-edited"
    return library.loads(library.dump_table(table), where="edited chip")


def _set(table: dict[str, Any], path: Path, value: float, knob: Knob) -> None:
    holder: Any = table
    for step in path[:-1]:
        holder = holder[step]
    if knob.is_count:
        holder[path[-1]] = int(value)
        return
    holder[path[-1]] = {
        "value": float(value),
        "unit": knob.unit,
        "provenance": "guessed",
        "source": "edited in the dashboard",
        "reason": f"what if it were not {knob.value:g} {knob.unit} ({knob.provenance})",
    }


def as_text(changes: Mapping[Path, float]) -> str:
    """Changes as the address bar holds them: memory.bandwidth_bytes_per_s=2e+11;clusters.0.core_count=8."""
    return ";".join(f"{'.'.join(map(str, path))}={value!r}" for path, value in changes.items())


def from_text(text: str, chip: Chip) -> dict[Path, float]:
    """The inverse of `as_text`; SmesimError for what is no number of the chip."""
    by_name = {".".join(map(str, knob.path)): knob.path for knob in knobs(chip)}
    changes: dict[Path, float] = {}
    for item in filter(None, text.split(";")):
        name, _, value = item.partition("=")
        try:
            changes[by_name[name]] = float(value)
        except (KeyError, ValueError):
            known = ", ".join(list(by_name)[:4])
            raise SmesimError(f"address: edits has {item!r}; accepted: NUMBER=VALUE, of {known}, ...") from None
    return changes


@dataclass(frozen=True)
class Effect:
    """What a phase takes on two chips, and which modes change: site, mode before, mode after."""

    phase: str
    preset_s: float
    edited_s: float
    modes: tuple[tuple[str, str, str], ...]

    @property
    def speed_up(self) -> float:
        return self.preset_s / self.edited_s


def effect(plans: tuple[Plan, Plan], seconds: tuple[float, float]) -> Effect:
    """What a change does, from the plan and the time of a phase on the preset and on the chip as edited."""
    pairs = zip(plans[0].operators, plans[1].operators, strict=True)
    modes = tuple((one.site, one.mode, other.mode) for one, other in pairs if one.mode != other.mode)
    return Effect(plans[0].phase, *seconds, modes)


@dataclass(frozen=True)
class Map:
    """Times over two knobs: `seconds` has a row for each value of `y`; NaN where no such chip can be."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    seconds: npt.NDArray[np.float64]


def grid(
    chip: Chip, axes: tuple[Path, Path], values: tuple[Sequence[float], Sequence[float]], model: ModelConfig,
    phase: Phase, planner: str, weights: DType, layers: int | None, threads: int | None = None,
    progress: Callable[[str, float], None] = lambda _what, _share: None,
) -> Map:  # fmt: skip
    """One phase on a chip for each pair of values of two knobs, of the chip or of the phase."""
    x_values, y_values = values
    seconds = np.full((len(y_values), len(x_values)), np.nan)
    for row, y in enumerate(y_values):
        for column, x in enumerate(x_values):
            done = row * len(x_values) + column
            progress(f"{done + 1} of {seconds.size}", done / seconds.size)
            changes = dict(zip(axes, (x, y), strict=True))
            try:
                other = edited(chip, {path: value for path, value in changes.items() if path[0] != _PHASE})
                plan = workflow.make_plan(
                    model, asked_phase(phase, changes), other, planner_name=planner, weights=weights, layers=layers,
                    threads=threads,
                )  # fmt: skip
            except SmesimError:
                continue  # no such chip, or none that the phase could be planned on: its cell stays empty
            seconds[row, column] = workflow.simulated_s(plan, other)
    return Map(tuple(x_values), tuple(y_values), seconds)
