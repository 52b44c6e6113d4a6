"""What a task costs on a matrix unit: how long the unit is busy, what its driver does besides, and the operands' bytes.

A unit multiplies by outer products: one instruction adds a column of the left operand times a row of the right one to
a tile of sums. The kernels keep four tiles in flight, two below each other times two (or, for few rows, four beside
each other), so a block of rows and columns costs four outer products a step whether its edges are whole or not. A
unit has no first-level cache: every step fetches two columns and two rows through its port from the cache that its
cluster shares. When the sum is complete (or a block of the depth is), the tiles are stored slice by slice, and nothing
else happens meanwhile.

What a unit does badly stays on the core that drives it: softmax and all row by row work run on the core's own vectors,
outside streaming mode, and every change between the two costs a mode switch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from smesim.hwmodel.attention_blocks import BlockShape
from smesim.hwmodel.chip import Chip, DTypeName, MatrixUnit, TileShape, UnitInstance, factor_at
from smesim.hwmodel.cost import AttentionShape, CoreCosts, strip_heights

# Guessed: what a tuned kernel reaches of the rate at which a unit issues outer products, once edges and stores of
# tiles are counted. LIBXSMM's 1755 GFLOP/s of 2005 for f32 512x512x512 on an M4 (scalable.uni-jena.de/opt/sme) is
# 0.88; storing the tiles explains 0.04 of the rest.
GUESSED_UNIT_EFFICIENCY = 0.91

# Blocks of the kernels (native/kernels/sme).
TILES_IN_FLIGHT = 4
DEPTH_WORDS = 1024
ATTENTION_ROWS = 128
ATTENTION_KEYS = 256
WORD_BYTES = 4
SHAPES_KEPT = 4096
SWITCHES_A_LEAF = 2  # into streaming mode and out of it


class UnitWork(NamedTuple):
    """What one task asks for: `unit_s` of the unit, `core_s` of the core that drives it, before and between, and
    `operand_bytes` through the unit's port from the nearest cache."""

    unit_s: float
    core_s: float
    operand_bytes: float


Block = tuple[float, float, float]
"""Steps of four outer products, vectors that they load, and moves of a tile to memory or back."""


class _Steps:
    """The same of several blocks, added up."""

    __slots__ = ("moves", "steps", "vectors")

    def __init__(self) -> None:
        self.steps = self.vectors = self.moves = 0.0

    def add(self, block: Block, times: float = 1.0) -> None:
        steps, vectors, moves = block
        self.steps += steps * times
        self.vectors += vectors * times
        self.moves += moves * times


class UnitCosts:
    """Times of the kernels of one matrix unit, seconds, when one thread on a core with costs `core` drives it."""

    def __init__(self, chip: Chip, instance: UnitInstance, core: CoreCosts, effects: Collection[str]) -> None:
        self._unit: MatrixUnit = instance.unit
        self._core = core
        self._effects = frozenset(effects)
        self._tiles: dict[DTypeName, TileShape] = {}
        self._stages: dict[tuple[BlockShape, bool], UnitWork] = {}
        self._attentions: dict[AttentionShape, UnitWork] = {}
        unit = self._unit
        levels = chip.levels(instance.cluster.cluster.name)
        self._store_bytes_per_s = next(
            unit.store_bytes_per_s[level].value for level in levels if level in unit.store_bytes_per_s
        )
        self.nearest = next(level for level in levels if level in unit.load_bytes_per_s)
        self._efficiency = GUESSED_UNIT_EFFICIENCY if "kernel_efficiency" in self._effects else 1.0
        self._switch_s = unit.mode_switch_s.value * SWITCHES_A_LEAF if "mode_switch" in self._effects else 0.0

    def _tile(self, dtype: DTypeName) -> TileShape:
        if dtype not in self._tiles:
            self._tiles[dtype] = self._unit.tile(dtype)
        return self._tiles[dtype]

    def multiplies(self, dtype: str) -> bool:
        """Whether the unit has instructions for products in a format; where not, the core does them itself."""
        return dtype in self._unit.flop_per_s

    def columns_together(self, rows: int, dtype: DTypeName = "f32") -> int:
        """Columns that the tiles in flight cover side by side: two tiles, or four where there are few rows."""
        tile = self._tile(dtype)
        return (2 if rows > tile.rows else TILES_IN_FLIGHT) * tile.columns

    def rows_together(self, dtype: DTypeName = "f32") -> int:
        """Rows of a block of many: two tiles below each other."""
        return 2 * self._tile(dtype).rows

    def multiplies_vectors(self, dtype: str) -> bool:
        """Whether the unit has instructions for a matrix times one vector; where not, the core does that itself."""
        return self._unit.kind == "sme2" and dtype in self._unit.vector_flop_per_s

    @staticmethod
    def packs(dtype: str) -> bool:
        """Whether there are kernels that pack a left operand on the unit; where not, the core does that itself."""
        return dtype == "f32"

    @staticmethod
    def appends(dtype: str) -> bool:
        """Whether there are kernels that pack keys and values of a format on the unit. To make blocks of Q8_0 is
        arithmetic row by row, maxima and divisions, which is the core's."""
        return dtype in ("f32", "f16")

    def gemm(
        self, rows: int, mr: int, strips: tuple[int, int], columns: int, k: int, dtype: DTypeName = "f32"
    ) -> UnitWork:
        """A tile of packed operands: strips begin..end of `rows` rows by `columns` columns, K = k."""
        tile = self._tile(dtype)
        words = -(-k // tile.depth)
        blocks = -(-words // DEPTH_WORDS)
        total = _Steps()
        for height, count in strip_heights(rows, mr, *strips):
            parts = -(-height // (2 * tile.rows))
            for part, n_parts in strip_heights(height, -(-height // parts), 0, parts):
                total.add(self._block(part, columns, words, blocks, dtype), count * n_parts)
        return self._work(total, dtype, self._switch_s)

    def gemv(self, columns: int, k: int, dtype: DTypeName = "f32") -> UnitWork:
        """One row times `columns` columns by the unit's multiplication of vectors: two FLOP a weight."""
        rate = self._unit.vector_flop_per_s[dtype].value * self._efficiency
        return UnitWork(2.0 * columns * k / rate + self._switch_s, 0.0, 0.0)

    def pack(self, elements: float) -> UnitWork:
        """Packing a left operand by turning tiles over: each element goes into a tile and out again."""
        return UnitWork(elements * WORD_BYTES / self._store_bytes_per_s + self._switch_s, 0.0, elements * WORD_BYTES)

    def append(self, first: int, last: int, sequences: int, width: int) -> UnitWork:
        """Packing the keys and values of the positions first .. last of some sequences, `width` elements each.

        Keys are turned over a panel at a time: for each element a slice comes out of a tile, whether the panel is full
        or not. Values go through vectors, no more than a panel's width of them at a time. Either takes as long in fewer
        bits.
        """
        side, panel = self._tile("f32").rows, self._core.nr
        panels = [
            min(begin + panel, last) - max(begin, first) for begin in range(first // panel * panel, last, panel)
        ]
        elements = sequences * (last - first) * width
        slices: float = sequences * width * sum(-(-rows // side) for rows in panels)
        vectors = elements / min(side, panel)
        if "edge_tiles" not in self._effects:
            slices, vectors = elements / side, elements / side
        stored_bytes = (slices + vectors) * side * WORD_BYTES
        return UnitWork(stored_bytes / self._store_bytes_per_s + self._switch_s, 0.0, 2.0 * elements * WORD_BYTES)

    def attention(self, shape: AttentionShape) -> UnitWork:
        """Fused attention of one task on one KV head: both products on the unit, softmax on the core between them."""
        if shape not in self._attentions:
            if len(self._attentions) >= SHAPES_KEPT:
                self._attentions.clear()
            self._attentions[shape] = self._attention(shape)
        return self._attentions[shape]

    def _attention(self, shape: AttentionShape) -> UnitWork:
        group, d = shape.group, shape.head_dim
        tokens = max(1, ATTENTION_ROWS // group)
        total, pairs, row_blocks, leaves, packed = _Steps(), 0.0, 0, 0, 0.0
        for first in range(shape.begin, shape.end, tokens):
            rows = min(tokens, shape.end - first) * group
            keys_end = shape.past + first + rows // group
            for key0 in range(0, keys_end, ATTENTION_KEYS):
                block = self._attention_block(total, rows, group, shape.past + first, key0, keys_end, d)
                pairs += block[0]
                packed += block[1]
                row_blocks += rows
                leaves += 2
        core_s = self._core.scores_s(pairs, row_blocks) + self._core.query_s((shape.end - shape.begin) * group * d)
        packing = self.pack(packed)
        work = self._work(total, "f32", leaves * self._switch_s)
        return UnitWork(work.unit_s + packing.unit_s, core_s, work.operand_bytes + packing.operand_bytes)

    def stage(self, block: BlockShape, is_qk: bool) -> UnitWork:
        """One block of a pipeline: its scores, or its weights times values. The core scales queries before the first
        block, and outputs behind the last; the unit turns its left operand over strip by strip."""
        if (block, is_qk) not in self._stages:
            if len(self._stages) >= SHAPES_KEPT:
                self._stages.clear()
            self._stages[block, is_qk] = self._stage(block, is_qk)
        return self._stages[block, is_qk]

    def _stage(self, block: BlockShape, is_qk: bool) -> UnitWork:
        side, d = self._tile("f32").rows, block.head_dim
        strips = -(-block.rows // (2 * side))
        total, packed = _Steps(), 0.0
        for (rows, visible), count in _strips_seeing(block, strips).items():
            columns, words = (visible, d) if is_qk else (d, visible)
            total.add(self._block(rows, columns, words, 1, "f32"), count)
            packed += count * rows * words
        at_an_end = block.is_first if is_qk else block.is_last
        core_s = self._core.query_s(block.rows * d) / 2 if at_an_end else 0.0
        work, packing = self._work(total, "f32", self._switch_s), self.pack(packed)
        operand_bytes = work.operand_bytes + packing.operand_bytes
        return UnitWork(work.unit_s + packing.unit_s - self._switch_s, core_s, operand_bytes)

    def _attention_block(
        self, total: _Steps, rows: int, group: int, position: int, key0: int, keys_end: int, d: int
    ) -> tuple[float, float]:
        """Adds the steps for some rows and one block of keys; scores under the softmax, and elements packed on the
        way."""
        side = self._tile("f32").rows
        strips = -(-rows // (2 * side))
        pairs = packed = 0.0
        for strip in range(strips):
            begin, end = strip * rows // strips, (strip + 1) * rows // strips
            seen = [min(max(position + row // group + 1 - key0, 0), ATTENTION_KEYS) for row in (begin, end - 1)]
            visible = min(seen[1], keys_end - key0)
            if visible <= 0:
                continue
            total.add(self._block(end - begin, visible, d, 1, "f32"))
            total.add(self._block(end - begin, d, visible, 1, "f32"))
            pairs += (end - begin) * (seen[0] + visible) / 2
            packed += (end - begin) * (d + visible)
        return pairs, packed

    def _block(self, rows: int, columns: int, words: int, blocks: int, dtype: DTypeName) -> Block:
        """Steps of one strip's part times some columns, `words` deep in `blocks` blocks of the depth."""
        side = self._tile(dtype)
        if rows > side.rows:
            count, vectors = columns / (2 * side.columns), 4
        else:
            count, vectors = columns / (TILES_IN_FLIGHT * side.columns), 5
        if "edge_tiles" in self._effects:
            count = float(-(-columns // (2 * side.columns if vectors == 4 else TILES_IN_FLIGHT * side.columns)))
        else:
            count *= rows / (2 * side.rows if vectors == 4 else side.rows)
        moves = 2 * blocks - 1  # sums are stored after every block of the depth, and loaded again before the next
        return count * words, count * words * vectors, count * TILES_IN_FLIGHT * moves

    def _work(self, total: _Steps, dtype: DTypeName, switch_s: float) -> UnitWork:
        unit, tile = self._unit, self._tile(dtype)
        flop_a_step = 2.0 * tile.rows * tile.columns * tile.depth * TILES_IN_FLIGHT
        in_flight = TILES_IN_FLIGHT if "accumulators" in self._effects else 10**6
        seconds = total.steps * flop_a_step / (unit.rate_flop_per_s(dtype, in_flight) * self._efficiency)
        if "tile_overhead" in self._effects:
            sums_bytes = total.moves * tile.rows * tile.columns * WORD_BYTES
            latency_s = unit.latency_cycles[dtype].value / unit.clock_hz.value
            seconds += sums_bytes / self._store_bytes_per_s + total.moves * latency_s
        operand_bytes = total.vectors * tile.columns * WORD_BYTES if "operand_traffic" in self._effects else 0.0
        return UnitWork(seconds + switch_s, 0.0, operand_bytes)


@lru_cache(maxsize=4096)
def _strips_seeing(block: BlockShape, strips: int) -> Mapping[tuple[int, int], int]:
    """The strips of a block, by their rows and the keys that the last of these sees."""
    bounds = [strip * block.rows // strips for strip in range(strips + 1)]
    return Counter((end - begin, block.visible(end - 1)) for begin, end in pairwise(bounds))


def unit_rates(
    chip: Chip, drivers: Mapping[int, int], oversubscription: bool = True
) -> dict[str, tuple[float, float]]:
    """Seconds of work that each driven unit does a second: for all its drivers together, and for one of them.

    `drivers` are the threads on each unit, by its number. The chip's points say how the rate changes with the number
    of drivers, and with the number of units at work.
    """
    rates = {}
    for index, count in drivers.items():
        instance = chip.unit_instances[index]
        unit = instance.unit
        rate = factor_at(unit.multi_unit_factors, len(drivers))
        if oversubscription:
            rate *= factor_at(unit.oversubscription, count)
        rates[instance.name] = (rate, rate / max(1.0, unit.useful_drivers.value))
    return rates
