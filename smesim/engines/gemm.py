"""One product by an engine: C[m, n] = A[m, k] B[k, n], on matrix units or on cores.

What a call does is what its time is made of. It may pack operands that do not fit in the cache, at so many seconds a
byte; B's rows are `n` elements apart, and where that distance is a multiple of a cache way few sets hold them all, so
packing them misses. Then blocks of accumulators run over the depth: edges cost whole tiles, and each block pays for
loading and storing its sums. On several units the columns are divided; each unit has a share, or draws panels from one
counter.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from smesim.engines.lowering import Chunk, Cost, Lowered, Stage, Thread, lower_stages
from smesim.engines.profile import CoreKernel, EngineProfile, MatrixKernel, number
from smesim.hwmodel.chip import DRAM, Chip, DTypeName, UnitInstance, factor_at
from smesim.hwmodel.product_cost import DEFAULT_MR
from smesim.plan.program import TaskKind

PAGE_BYTES = 16384  # of macOS on these chips
WAY_BYTES = 16384  # 128 KiB of L1 in 8 ways (Apple M1 to M4)
FEW_SETS = 8  # rows on fewer places of a way than this evict each other while a panel is packed
TILES = 4
STORED_BYTES = 4.5 / 8  # a weight that is written out in another format lies in memory in four bits with its scale
DEFAULT_WEIGHTS_PER_CYCLE = 8.0  # guessed of engines whose decode was never published
WIDE_FLOP_PER_CYCLE = 27.0  # f32 of a core with four pipes, at the clock it holds; a narrower one unpacks slower
ELEMENT_BYTES: dict[DTypeName, int] = {"f64": 8, "f32": 4, "f16": 2, "bf16": 2, "s8": 1}


@dataclass(frozen=True)
class Product:
    """Shape of a product, and how its right operand is given: transposed, or packed before the call."""

    m: int
    n: int
    k: int
    transposed: bool = False
    packed: bool = False

    def columns(self, n: int) -> Product:
        """So many of its columns."""
        return Product(self.m, n, self.k, self.transposed, self.packed)

    @property
    def flop(self) -> float:
        return 2.0 * self.m * self.n * self.k


def rows_alias(row_bytes: int) -> float:
    """1 where rows at this distance fall on at most FEW_SETS places of a cache way, and less where on more."""
    places = WAY_BYTES // math.gcd(row_bytes, WAY_BYTES)
    return min(1.0, FEW_SETS / places)


class UnitKernel:
    """Times of one engine's kernel on one matrix unit."""

    def __init__(self, kernel: MatrixKernel, chip: Chip, instance: UnitInstance, effects: Collection[str]) -> None:
        self.kernel, self.effects = kernel, frozenset(effects)
        self._unit, unit = instance.unit, instance.unit
        self._tile = unit.tile(kernel.arithmetic)
        efficiency = kernel.efficiency.value if "kernel_efficiency" in self.effects else 1.0
        self._flop_per_s = unit.flop_per_s[kernel.arithmetic].value * efficiency
        self.element_bytes = self._bytes = ELEMENT_BYTES[kernel.arithmetic]
        levels = chip.levels(instance.cluster.cluster.name)
        nearest = next(level for level in levels if level in unit.load_bytes_per_s)
        self.cache_bytes = 0.0
        if nearest != DRAM:
            self.cache_bytes = chip.cache(nearest, instance.cluster.cluster.name).size_bytes.value

    def inner_s(self, product: Product, stride: int | None = None) -> float:
        """Blocks of four tiles over the whole depth; `stride` is the row length of B where it is read in place."""
        tile, kernel = self._tile, self.kernel
        rows, columns = (2, 2) if product.m > tile.rows else (1, TILES)
        if "edge_tiles" in self.effects:
            high, wide = product.m / (rows * tile.rows), product.n / (columns * tile.columns)
            blocks = float(math.ceil(high) * math.ceil(wide))
        else:
            blocks = product.m * product.n / (TILES * tile.rows * tile.columns)
        steps = math.ceil(product.k / tile.depth)
        overhead = number(kernel.tile_steps) if "tile_overhead" in self.effects else 0.0
        flop = 2.0 * TILES * tile.rows * tile.columns * tile.depth
        seconds = blocks * (steps + overhead) * flop / self._flop_per_s
        if kernel.generate is not None:
            height = rows * tile.rows if "edge_tiles" in self.effects else product.m
            seconds += math.ceil(product.m / height) * product.n * product.k * kernel.generate.value
        if kernel.paged is not None and not product.packed:
            row_bytes = (stride or product.n) * self._bytes
            seconds += product.flop * kernel.paged.value * min(1.0, row_bytes / PAGE_BYTES)
        if kernel.reload is not None and product.n * product.k * self._bytes > self.cache_bytes:
            passes = math.ceil(product.m / (rows * tile.rows))
            seconds += passes * product.n * product.k * self._bytes * kernel.reload.value
        return seconds

    def pack_s(self, product: Product, stride: int | None = None) -> float:
        """Bringing both operands into the kernel's layout, those of them that do not fit in the cache as they are."""
        if product.packed or "operand_traffic" not in self.effects:
            return 0.0
        rhs, lhs = (each * product.k * self._bytes for each in (product.n, product.m))
        whole = (stride or product.n) * product.k * self._bytes
        rhs_rate = number(self.kernel.pack_rhs)
        if product.transposed:
            rhs_rate = number(self.kernel.transposed_rhs, rhs_rate)
        else:
            rhs_rate += number(self.kernel.aliased) * rows_alias((stride or product.n) * self._bytes)
        seconds = rhs * rhs_rate if whole > self.cache_bytes else 0.0
        return seconds + (lhs * number(self.kernel.pack_lhs) if lhs > self.cache_bytes else 0.0)

    def is_vector(self, product: Product) -> bool:
        """Whether so few rows go the way of a vector."""
        return self.kernel.vector is not None and product.m <= self.kernel.vector_rows

    def vector_s(self, product: Product) -> float:
        """Over the weights once, without tiles."""
        return product.n * product.k * self._bytes * number(self.kernel.vector)

    def dram_bytes(self, product: Product) -> float:
        """What has to come from memory: operands that the cache cannot keep from call to call."""
        weight_bytes = self._bytes if self.kernel.generate is None else STORED_BYTES
        operands = (product.n * product.k * weight_bytes, product.m * product.k * self._bytes)
        return float(sum(n_bytes for n_bytes in operands if n_bytes > self.cache_bytes))


def on_units(
    profile: EngineProfile, kernel_name: str, chip: Chip, units: Sequence[int], product: Product,
    effects: Collection[str], panel: int | None = None, crowded: bool = False,
) -> Lowered:  # fmt: skip
    """A product whose columns are divided over units, equally or (with `panel` columns each) drawn from a counter.

    A unit that is named several times is driven by as many threads, which share its rate. Where an engine's threads
    take turns on a unit (`crowded`) it loses the share `switch` of it.
    """
    kernel = profile.matrix[kernel_name]
    kernels = [UnitKernel(kernel, chip, chip.unit_instances[unit], effects) for unit in units]
    turns = [list(units[:i]).count(u) for i, u in enumerate(units)]
    threads = [
        Thread(chip.unit_instances[u].cores[turn % len(chip.unit_instances[u].cores)], f"u{u}", u)
        for u, turn in zip(units, turns, strict=True)
    ]
    call_s = number(kernel.call_s) if "dispatch" in effects else 0.0
    pairs = list(zip(threads, kernels, strict=True))
    shape = (product.m, product.n, product.k)
    if panel is not None:
        chunks = []
        for width in _panels(product.n, panel):
            part = product.columns(width)
            costs = {t.kind: Cost(_whole_s(k, part, product.n), on_unit=True) for t, k in pairs}
            chunks.append(Chunk(costs))
        stages = [Stage("gemm", TaskKind.GEMM, chunks, *shape)]
    else:
        share = product.columns(math.ceil(product.n / len(units)))
        call, gemm = [], []
        for i, (t, k) in enumerate(pairs):
            # Weights that were packed before stream by while they are multiplied, others while they are packed.
            streamed = (0.0, k.dram_bytes(share)) if product.packed else (k.dram_bytes(share), 0.0)
            packing = Cost(k.pack_s(share, product.n), streamed[0], call_s, on_unit=True)
            call.append(Chunk({t.kind: packing}, i))
            gemm.append(Chunk({t.kind: Cost(_inner_s(k, share, product.n), streamed[1], on_unit=True)}, i))
        stages = [Stage("call", TaskKind.PACK_LHS, call), Stage("gemm", TaskKind.GEMM, gemm, *shape)]
    rate = 1.0 - number(kernel.switch) if crowded and "oversubscription" in effects else 1.0
    return lower_stages(chip, threads, stages, profile.name, rate, "shared_unit" in effects)


def _inner_s(kernel: UnitKernel, product: Product, stride: int) -> float:
    return kernel.vector_s(product) if kernel.is_vector(product) else kernel.inner_s(product, stride)


def _whole_s(kernel: UnitKernel, product: Product, stride: int) -> float:
    return kernel.pack_s(product, stride) + _inner_s(kernel, product, stride)


def _panels(columns: int, width: int) -> list[int]:
    return [min(width, columns - begin) for begin in range(0, columns, width)]


def on_cores(
    profile: EngineProfile, kernel_name: str, chip: Chip, cores: Sequence[int], product: Product,
    effects: Collection[str],
) -> Lowered:  # fmt: skip
    """A product whose columns are divided equally over cores; chunks are drawn where the engine draws. Of several cores
    the first does it alone where waking the others costs more than they save."""
    kernel = profile.core[kernel_name]
    if kernel.fork_s is not None and len(cores) > 1:
        alone, together = (
            _on_all(profile, kernel, chip, some, product, effects, fork_s)
            for some, fork_s in ((cores[:1], 0.0), (cores, kernel.fork_s.value if "dispatch" in effects else 0.0))
        )
        return min(alone, together, key=lambda lowered: lowered.seconds(0.0))
    return _on_all(profile, kernel, chip, cores, product, effects, 0.0)


def _on_all(
    profile: EngineProfile, kernel: CoreKernel, chip: Chip, cores: Sequence[int], product: Product,
    effects: Collection[str], fork_s: float,
) -> Lowered:  # fmt: skip
    threads = [Thread(core, chip.instance_of(core).name) for core in cores]
    busy = {t.kind: sum(other.kind == t.kind for other in threads) for t in threads}
    per_thread = max(1, profile.chunks_per_thread)
    width = math.ceil(product.n / (len(cores) * per_thread))
    chunks = []
    for position, columns in enumerate(_panels(product.n, width)):
        part = product.columns(columns)
        costs = {t.kind: Cost(core_gemm_s(kernel, chip, t.core, busy[t.kind], part, effects)) for t in threads}
        chunks.append(Chunk(costs, None if profile.chunks_per_thread else position % len(cores)))
    fork = Stage("fork", TaskKind.PACK_LHS, [Chunk({threads[0].kind: Cost(0.0, serial_s=fork_s)}, 0)])
    stages = [*([fork] if fork_s else []), Stage("gemm", TaskKind.GEMM, chunks)]
    return lower_stages(chip, threads, stages, profile.name)


def core_flop_per_s(kernel: CoreKernel, chip: Chip, core: int, busy: int, effects: Collection[str]) -> float:
    """What a core's kernel reaches while so many cores of its cluster work."""
    cluster = chip.instance_of(core).cluster
    rates = cluster.core.flop_per_s
    peak = rates[kernel.arithmetic].value if kernel.arithmetic in rates else rates["f32"].value
    if kernel.instruction is not None and kernel.instruction in cluster.core.instructions:
        peak = cluster.core.instructions[kernel.instruction].flop_per_s(cluster.core.clock_hz.value)
    many = factor_at(cluster.multi_core_factors, busy) if "multi_core" in effects else 1.0
    return peak * many * (kernel.gemm.value if "kernel_efficiency" in effects else 1.0)


def core_weights_per_s(kernel: CoreKernel, chip: Chip, core: int, bits: float = STORED_BYTES * 8) -> float:
    """Weights of so many bits that a core unpacks and multiplies with a vector."""
    per_cycle = number(kernel.gemv, DEFAULT_WEIGHTS_PER_CYCLE)
    if kernel.gemv_bits is not None:
        per_cycle = kernel.gemv_bits.value / bits
    return per_cycle * wide_cycles_per_s(chip, core)


def wide_cycles_per_s(chip: Chip, core: int) -> float:
    """A core's clock, as if it were slower by what its vectors lack to four pipes: how fast it is beside others."""
    spec = chip.instance_of(core).cluster.core
    width = spec.flop_per_s["f32"].value / spec.clock_hz.value / WIDE_FLOP_PER_CYCLE
    return spec.clock_hz.value * min(1.0, width)


def core_gemm_s(
    kernel: CoreKernel, chip: Chip, core: int, busy: int, product: Product, effects: Collection[str]
) -> float:  # fmt: skip
    """Micro-tiles of a core: rows that do not fill one cost as if they did."""
    if product.m == 1 and kernel.gemv is not None:
        return product.n * product.k / core_weights_per_s(kernel, chip, core) + number(kernel.call_s)
    rows = (
        math.ceil(product.m / DEFAULT_MR) * DEFAULT_MR
        if "edge_tiles" in effects and product.m < DEFAULT_MR
        else product.m
    )
    depth = product.k + (number(kernel.tile_steps) if "tile_overhead" in effects else 0.0)
    call_s = number(kernel.call_s) if "dispatch" in effects else 0.0
    return 2.0 * rows * product.n * depth / core_flop_per_s(kernel, chip, core, busy, effects) + call_s
