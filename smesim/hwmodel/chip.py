"""What a chip is made of: clusters of cores, matrix units, caches, memory, and what synchronising costs.

A **cluster** is a group of equal cores that share a cache level; a chip may have `count` equal clusters of
one description. A **matrix unit** belongs to its cluster (Apple, Arm C1: shared by the cluster's cores) or to
each core (`scope = "core"`: Intel AMX, LX2). A thread on a core *drives* a unit; data reach the unit through
memory only. A unit of kind "stand-in" is no such unit: it is the core itself with wider kernels, on a machine that has
none. A **level** is a place where data can be: the caches of a cluster in the file's order, nearest
first, and last "DRAM".

Every fact is a `Quantity`; counts and geometry (`core_count`, `svl_bits`, tile shapes) are plain integers
whose evidence is the `structure` entry beside them. The fields, with units and meaning, are listed in
`docs/chips.md`.

Cores are numbered through the whole chip, in the file's order: cluster by cluster, copy by copy. So are
matrix units. `Chip.instances` and `Chip.unit_instances` give that numbering.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from smesim.hwmodel.checks import among, ascending, steps_take_time, unique
from smesim.hwmodel.instructions import Instruction, Sharing
from smesim.hwmodel.quantity import (
    Bytes,
    BytesPerS,
    Cycles,
    Evidence,
    Factor,
    FlopPerS,
    Hertz,
    Quantity,
    Record,
    Seconds,
    Threads,
    Tiles,
)
from smesim.hwmodel.stream_model import StreamModel

DRAM = "DRAM"
"""The name of the last level of every chip."""

SCHEMA_VERSION = 1

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_+-]*$", max_length=64)]
Count = Annotated[int, Field(ge=1, le=65536)]
DTypeName = Literal["f64", "f32", "f16", "bf16", "s8", "q8_0", "q4_0", "q4_1"]
"""Types that arithmetic is done in; quantised formats are stored in blocks and computed in one of these."""

UnitKind = Literal["sme1", "sme2", "apple-amx", "intel-amx", "stand-in"]

_SME_INPUT_BITS: dict[str, int] = {"f64": 64, "f32": 32, "f16": 16, "bf16": 16, "s8": 8}
_SME_ACCUMULATOR_BITS: dict[str, int] = {"f64": 64, "f32": 32, "f16": 32, "bf16": 32, "s8": 32}


class FactorPoint(Record):
    """A rate multiplier seen with so many threads on one unit, or so many busy cores or units of one kind."""

    threads: Count
    factor: Factor


def factor_at(points: Sequence[FactorPoint], threads: int) -> float:
    """The factor at `threads`: linear between the points, 1 at one thread, the last point's beyond it."""
    known = sorted(({1: 1.0} | {point.threads: point.factor.value for point in points}).items())
    for (low, low_factor), (high, high_factor) in pairwise(known):
        if threads < high:
            return low_factor + (high_factor - low_factor) * (threads - low) / (high - low)
    return known[-1][1]


class KernelModel(Record):
    """The fitted coefficients of one kernel's cost function; `hwmodel.cost` says which it reads."""

    name: Name
    isa: Name
    parameters: Annotated[dict[Name, Quantity], Field(min_length=1), AfterValidator(steps_take_time)]


class CoreSpec(Record):
    """One core's vector pipes and what it can draw from each level."""

    name: Name
    isa: Name
    clock_hz: Hertz
    flop_per_s: dict[DTypeName, FlopPerS] = Field(min_length=1)
    load_bytes_per_s: dict[Name, BytesPerS]
    kernels: Annotated[tuple[KernelModel, ...], Field(strict=False)] = ()
    background_clock_hz: Hertz | None = None
    instructions: dict[Name, Instruction] = Field(default_factory=dict)


class TileShape(Record):
    """One accumulator tile: `rows` x `columns` sums, each of `depth` products an instruction."""

    rows: Count
    columns: Count
    depth: Count


class MatrixUnit(Record):
    """A matrix unit: an array of multiply-adders that accumulate into tiles."""

    name: Name
    kind: UnitKind
    isa: Name | None = None
    structure: Evidence
    scope: Literal["cluster", "core"] = "cluster"
    count: Count = 1
    driver_clusters: Annotated[tuple[Name, ...], Field(strict=False)] = ()
    svl_bits: int | None = Field(default=None, ge=128, le=2048, multiple_of=128)
    tiles: dict[DTypeName, TileShape] = Field(default_factory=dict)
    clock_hz: Hertz
    flop_per_s: dict[DTypeName, FlopPerS] = Field(min_length=1)
    vector_flop_per_s: dict[DTypeName, FlopPerS] = Field(default_factory=dict)
    streaming_vector_flop_per_s: dict[DTypeName, FlopPerS] = Field(default_factory=dict)
    accumulators: dict[DTypeName, Tiles] = Field(default_factory=dict)
    latency_cycles: dict[DTypeName, Cycles] = Field(default_factory=dict)
    type_switch_cycles: Cycles | None = None
    load_bytes_per_s: dict[Name, BytesPerS]
    multi_driver_load_bytes_per_s: dict[Name, BytesPerS] = Field(default_factory=dict)
    store_bytes_per_s: dict[Name, BytesPerS]
    mode_switch_s: Seconds
    useful_drivers: Threads
    streams: StreamModel | None = None
    instructions: dict[Name, Instruction] = Field(default_factory=dict)
    sharing: Sharing | None = None
    oversubscription: Annotated[tuple[FactorPoint, ...], Field(strict=False)] = ()
    multi_unit_factors: Annotated[tuple[FactorPoint, ...], Field(strict=False)] = ()
    kernels: Annotated[tuple[KernelModel, ...], Field(strict=False)] = ()

    @property
    def is_stand_in(self) -> bool:
        """Whether it is no matrix unit, but its core with wider kernels."""
        return self.kind == "stand-in"

    def rate_flop_per_s(self, dtype: DTypeName, tiles_in_flight: int) -> float:
        """Rate with so many independent tiles: full from `accumulators` on, in proportion below."""
        return self.flop_per_s[dtype].value * min(1.0, tiles_in_flight / self.accumulators[dtype].value)

    def tile(self, dtype: DTypeName) -> TileShape:
        """Accumulator tile for operands of `dtype`.

        On SME it follows from the vector length: SVL / accumulator bits on a side, and as many products per
        sum as operands fit into one accumulator lane (Arm ARM, FMOPA and SMOPA).
        """
        if self.svl_bits is None:
            return self.tiles[dtype]
        side = self.svl_bits // _SME_ACCUMULATOR_BITS[dtype]
        return TileShape(
            rows=side, columns=side, depth=_SME_ACCUMULATOR_BITS[dtype] // _SME_INPUT_BITS[dtype]
        )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind in ("sme1", "sme2"):
            if self.svl_bits is None or self.svl_bits & (self.svl_bits - 1):
                raise ValueError(
                    f"svl_bits = {self.svl_bits} given for kind {self.kind!r};"
                    " accepted: a power of two from 128 to 2048"
                )
            if self.tiles:
                raise ValueError(f"tiles given for kind {self.kind!r}; accepted: none, svl_bits decides them")
        else:
            if self.svl_bits is not None:
                raise ValueError(f"svl_bits given for kind {self.kind!r}; accepted: tiles instead")
            _same_keys("tiles", self.tiles, self.flop_per_s)
        if self.is_stand_in:
            self._check_stand_in()
        else:
            _same_keys("accumulators", self.accumulators, self.flop_per_s)
            _same_keys("latency_cycles", self.latency_cycles, self.flop_per_s)
        ascending("oversubscription", [point.threads for point in self.oversubscription])
        ascending("multi_unit_factors", [point.threads for point in self.multi_unit_factors])
        return self

    def _check_stand_in(self) -> None:
        """A stand-in is its core with other kernels; they say what it costs, and whose they are."""
        if self.scope != "core" or self.isa is None or "f32" not in self.flop_per_s:
            raise ValueError(
                f"scope {self.scope!r}, isa {self.isa!r} and rates of {', '.join(self.flop_per_s)} given for kind"
                " 'stand-in'; accepted: scope 'core', the isa of its kernels, and a rate of f32 among others"
            )
        if self.accumulators or self.latency_cycles:
            raise ValueError("accumulators or latency_cycles given for kind 'stand-in'; accepted: none")


class Cluster(Record):
    """`count` equal groups of `core_count` equal cores, with the matrix units of each group."""

    name: Name
    structure: Evidence
    count: Count = 1
    core_count: Count
    core: CoreSpec
    multi_core_factors: Annotated[tuple[FactorPoint, ...], Field(strict=False)] = ()
    dram_bytes_per_s: BytesPerS | None = None
    matrix_units: Annotated[tuple[MatrixUnit, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        unique("matrix_units: name", [unit.name for unit in self.matrix_units])
        ascending("multi_core_factors", [point.threads for point in self.multi_core_factors])
        return self


class Cache(Record):
    """A cache level: one per core, one per cluster, or one for all the clusters it serves.

    `bandwidth_bytes_per_s` is what all its users together can draw from one such cache; absent, nothing but
    the caps of the agents limits them.
    """

    name: Name
    scope: Literal["core", "cluster", "chip"]
    clusters: Annotated[tuple[Name, ...], Field(strict=False)]
    size_bytes: Bytes
    bandwidth_bytes_per_s: BytesPerS | None = None


class Memory(Record):
    """DRAM: what the whole chip can sustain, what the data sheet says, and how much there is."""

    bandwidth_bytes_per_s: BytesPerS
    spec_bandwidth_bytes_per_s: BytesPerS | None = None
    store_bandwidth_bytes_per_s: BytesPerS | None = None
    capacity_bytes: Bytes


class Sync(Record):
    """Cost of handing out work: one task, waking all workers (fork), waiting for all of them (barrier)."""

    dispatch_s: Seconds
    barrier_s: Seconds
    fork_s: Seconds


@dataclass(frozen=True)
class ClusterInstance:
    """One physical cluster: "P", or "P0", "P1" where the description stands for several."""

    name: str
    cluster: Cluster
    first_core: int

    @property
    def cores(self) -> range:
        """The chip-wide numbers of its cores."""
        return range(self.first_core, self.first_core + self.cluster.core_count)


@dataclass(frozen=True)
class UnitInstance:
    """One physical matrix unit, such as "P.sme0"; threads on `cores` (chip-wide numbers) may drive it."""

    index: int
    name: str
    unit: MatrixUnit
    cluster: ClusterInstance
    cores: tuple[int, ...]


class Chip(Record):
    """One chip, as `hwmodel.library` reads it from TOML."""

    schema_version: Literal[1]
    name: Name
    description: str
    provenance_note: str
    host: bool = False
    machine: str | None = None
    memory: Memory
    sync: Sync
    caches: Annotated[tuple[Cache, ...], Field(strict=False)] = ()
    clusters: Annotated[tuple[Cluster, ...], Field(strict=False)]

    @cached_property
    def instances(self) -> tuple[ClusterInstance, ...]:
        """Physical clusters in numbering order."""
        found: list[ClusterInstance] = []
        first_core = 0
        for cluster in self.clusters:
            for copy in range(cluster.count):
                name = cluster.name if cluster.count == 1 else f"{cluster.name}{copy}"
                found.append(ClusterInstance(name, cluster, first_core))
                first_core += cluster.core_count
        return tuple(found)

    @cached_property
    def unit_instances(self) -> tuple[UnitInstance, ...]:
        """Physical matrix units in numbering order; their names are `<cluster>.<unit><number>`."""
        found: list[UnitInstance] = []
        for instance in self.instances:
            for unit in instance.cluster.matrix_units:
                shared = self._driver_cores(instance, unit)
                copies = unit.count if unit.scope == "cluster" else unit.count * instance.cluster.core_count
                for copy in range(copies):
                    own = (instance.first_core + copy // unit.count,)
                    cores = shared if unit.scope == "cluster" else own
                    name = f"{instance.name}.{unit.name}{copy}"
                    found.append(UnitInstance(len(found), name, unit, instance, cores))
        return tuple(found)

    def _driver_cores(self, instance: ClusterInstance, unit: MatrixUnit) -> tuple[int, ...]:
        if not unit.driver_clusters:
            return tuple(instance.cores)
        return tuple(c for i in self.instances if i.cluster.name in unit.driver_clusters for c in i.cores)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of all its numbers, see `hwmodel.library.fingerprint`."""
        content = json.dumps(self.model_dump(mode="json", exclude_none=True), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(content.encode("ascii")).hexdigest()

    @property
    def core_count(self) -> int:
        """Cores of the whole chip."""
        return sum(cluster.count * cluster.core_count for cluster in self.clusters)

    @property
    def has_stand_in(self) -> bool:
        """Whether one of its units is no matrix unit, but wider kernels of a core."""
        return any(unit.is_stand_in for cluster in self.clusters for unit in cluster.matrix_units)

    def has_fitted_products(self, dtype: str, in_models: bool = True) -> bool:
        """Whether every core and stand-in for a unit has kernels for products of a format, in models or at all."""
        engines: list[CoreSpec | MatrixUnit] = [cluster.core for cluster in self.clusters]
        engines += [unit for cluster in self.clusters for unit in cluster.matrix_units if unit.is_stand_in]
        name, known = (f"gemm_{dtype}", "s_per_streamed_byte") if in_models else (f"gemv_{dtype}", "s_per_element")
        return all(any(k.name == name and known in k.parameters for k in e.kernels) for e in engines)

    def instance_of(self, core: int) -> ClusterInstance:
        """The cluster that holds a chip-wide core number; IndexError when there is no such core."""
        for instance in self.instances:
            if core in instance.cores:
                return instance
        raise IndexError(f"core {core} of {self.name}: accepted 0..{self.core_count - 1}")

    def levels(self, cluster: str) -> tuple[str, ...]:
        """The levels that the named cluster (as described, not a copy of it) can draw from, nearest first."""
        return (*(cache.name for cache in self.caches if cluster in cache.clusters), DRAM)

    def cache(self, level: str, cluster: str) -> Cache:
        """The cache called `level` of the named cluster; KeyError when it has none."""
        for cache in self.caches:
            if cache.name == level and cluster in cache.clusters:
                return cache
        raise KeyError(f"{level} of cluster {cluster}: {self.name} has {', '.join(self.levels(cluster))}")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.clusters:
            raise ValueError("clusters: none given; accepted: at least one [[clusters]] table")
        known = [cluster.name for cluster in self.clusters]
        unique("clusters: name", [instance.name for instance in self.instances])
        unique("caches of scope 'chip': name", [c.name for c in self.caches if c.scope == "chip"])
        for i, cache in enumerate(self.caches):
            if cache.name == DRAM:
                raise ValueError(
                    f"caches[{i}].name: {DRAM!r} given, which is the memory; accepted: another name"
                )
            among(f"caches[{i}].clusters", cache.clusters, known)
        for i, cluster in enumerate(self.clusters):
            levels = self.levels(cluster.name)
            unique(f"caches of cluster {cluster.name!r}: name", list(levels))
            _levels(f"clusters[{i}].core.load_bytes_per_s", cluster.core.load_bytes_per_s, levels)
            for j, unit in enumerate(cluster.matrix_units):
                where = f"clusters[{i}].matrix_units[{j}]"
                among(f"{where}.driver_clusters", unit.driver_clusters, known)
                _levels(f"{where}.load_bytes_per_s", unit.load_bytes_per_s, levels)
                _levels(f"{where}.store_bytes_per_s", unit.store_bytes_per_s, levels)
                among(f"{where}.multi_driver_load_bytes_per_s", unit.multi_driver_load_bytes_per_s, levels)
        spec = self.memory.spec_bandwidth_bytes_per_s
        if spec is not None and spec.value < self.memory.bandwidth_bytes_per_s.value:
            raise ValueError(
                f"memory.bandwidth_bytes_per_s: {self.memory.bandwidth_bytes_per_s.value:g} given;"
                f" accepted: at most the data sheet's {spec.value:g}"
            )
        return self


def _levels(where: str, given: Mapping[str, Quantity], levels: tuple[str, ...]) -> None:
    among(where, given, levels)
    if DRAM not in given:
        raise ValueError(f"{where}: {DRAM} is missing; accepted: {DRAM}, and any of {', '.join(levels)}")


def _same_keys(where: str, given: Mapping[DTypeName, object], wanted: Mapping[DTypeName, object]) -> None:
    if set(given) != set(wanted):
        raise ValueError(
            f"{where}: {', '.join(given) or 'nothing'} given; accepted: one for each of {', '.join(wanted)}"
        )
