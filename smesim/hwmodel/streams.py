"""What loops over a working set draw: loads, stores or copies by threads on matrix units, from caches and memory.

Four mechanisms make the curve.

* **Ports.** A unit's port carries what one driving thread can ask for, and with several drivers what the port is wide.
  A copy's loads and stores use it side by side, but for the share `copy_exposed` of the shorter of the two.
* **Restarts.** Each pass over the working set costs `restart_s`, of a thread's time and of the port's; small sets are
  passed over often.
* **Replacement.** A cyclic loop over W bytes hits in a cache of C bytes with random replacement with a probability h
  that solves h = exp(-(1 - h) W / C): a line survives a pass if none of the (1 - h) W / C lines replaced meanwhile was
  it. For W <= C all hits, and beyond it falls steeply but not at once. Of its cluster's cache a loop can keep
  `cache_share`.
* **Memory.** What misses comes over the unit's own DRAM cap, one thread's loads and stores share that thread's cap, and
  all units share the chip's, of which stores get at most `memory.store_bandwidth_bytes_per_s`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from smesim.errors import ChipError
from smesim.hwmodel.chip import DRAM, Chip, UnitInstance

Stream = Literal["load", "store", "copy"]


def hit_share(working_set_bytes: float, cache_bytes: float) -> float:
    """Share of a cyclic loop's accesses that hit in a cache with random replacement."""
    pressure = working_set_bytes / cache_bytes
    if pressure <= 1.0:
        return 1.0
    low, high = 0.0, 1.0 - 1e-9  # h = 1 always solves the equation; what is wanted is the root below it
    for _ in range(60):
        middle = (low + high) / 2
        if math.exp(-(1.0 - middle) * pressure) > middle:
            low = middle
        else:
            high = middle
    return low


@dataclass(frozen=True)
class _Side:
    """Bytes per second that a unit moves when all hits and when all misses, and the share that hits."""

    near: float
    far: float
    hits: float

    def at(self, far: float) -> float:
        return 1.0 / (self.hits / self.near + (1.0 - self.hits) / far)


def stream_bytes_per_s(chip: Chip, drivers: Mapping[int, int], stream: Stream, working_set_bytes: float) -> float:
    """Bytes per second that all threads together move; a copy counts what it reads and what it writes.

    `drivers` are the threads on each unit by its number, each with a working set of its own (a copy's holds source and
    target). ChipError for a unit without a model of its streams.
    """
    sides = [
        _side(chip, chip.unit_instances[unit], count, stream, working_set_bytes)
        for unit, count in drivers.items()
        if count
    ]
    far = sum(side.far for side in sides)
    limit = chip.memory.bandwidth_bytes_per_s.value
    stores = chip.memory.store_bandwidth_bytes_per_s
    if stores is not None and stream != "load":
        limit = min(limit, stores.value * (1 if stream == "store" else 2))
    scale = min(1.0, limit / far)
    return sum(side.at(side.far * scale) for side in sides)


def _side(chip: Chip, instance: UnitInstance, threads: int, stream: Stream, working_set_bytes: float) -> _Side:
    unit, model = instance.unit, instance.unit.streams
    if model is None:
        raise ChipError(f"{chip.name}: unit {instance.name} has no 'streams'; accepted: a unit that was measured so")
    nearest = next(level for level in chip.levels(instance.cluster.cluster.name) if level in unit.load_bytes_per_s)
    cache = chip.cache(nearest, instance.cluster.cluster.name).size_bytes.value * model.cache_share.value
    load, loads = unit.load_bytes_per_s[nearest].value, unit.multi_driver_load_bytes_per_s[nearest].value
    store, stores = unit.store_bytes_per_s[nearest].value, model.multi_driver_store_bytes_per_s.value
    single = _both(load, store, stream, model.copy_exposed.value)
    port = _both(loads, stores, stream, model.copy_exposed.value) if threads > 1 else single
    restart_s = model.restart_s.value if stream != "load" else 0.0
    alone, together = (
        n_bytes / (n_bytes / rate + restart_s)
        for n_bytes, rate in ((working_set_bytes, single), (threads * working_set_bytes, port))
    )
    reads, writes = unit.load_bytes_per_s[DRAM].value, unit.store_bytes_per_s[DRAM].value
    far = {"load": reads, "store": writes, "copy": min(threads * reads, 2.0 * min(reads, writes))}[stream]
    return _Side(min(threads * alone, together), far, hit_share(threads * working_set_bytes, cache))


def _both(load: float, store: float, stream: Stream, exposed: float) -> float:
    if stream != "copy":
        return load if stream == "load" else store
    reading_s, writing_s = 0.5 / load, 0.5 / store
    return 1.0 / (max(reading_s, writing_s) + exposed * min(reading_s, writing_s))
