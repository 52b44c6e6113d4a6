"""What one task costs on one core: seconds of work, and bytes to move over which level of the memory hierarchy.

A task computes and moves data at the same time; it ends when both are done. This module says how much there is of
each when nobody else is in the way; who shares which link is the simulator's business.

Kernels are modelled by what their loops do, not by one efficiency; products, format by format, in `product_cost`. The
coefficients are a chip's `KernelModel` parameters, measured or fitted by `smesim probe`. A chip that was never probed
has none: then they follow from its peak rate and the guessed efficiencies at the top of these files, and everything
that depends on them is as good as the guess.

Effects that can be switched off here by name: see `COST_EFFECTS`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import NamedTuple

from smesim.errors import ChipError
from smesim.hwmodel.attention_blocks import BlockShape, block_work
from smesim.hwmodel.chip import DRAM, Cluster, factor_at
from smesim.hwmodel.product_cost import (
    DEFAULT_KC,
    GUESSED_GEMM_EFFICIENCY,
    Kernels,
    ProductCosts,
    product_rate,
    strip_heights,
)

__all__ = [
    "COST_EFFECTS",
    "DEFAULT_KC",
    "GUESSED_GEMM_EFFICIENCY",
    "AttentionShape",
    "AttentionWork",
    "CoreCosts",
    "TaskCost",
    "Transfer",
    "attention_work",
    "product_rate",
    "strip_heights",
]

COST_EFFECTS: dict[str, str] = {
    "edge_tiles": "micro-tiles that are lower than the kernel's full height run at their own, lower rate",
    "tile_overhead": "loading and storing the accumulators of a micro-tile for every block of K",
    "exposed_latency": "part of the time to fetch operands from DRAM is not hidden behind a kernel's arithmetic",
    "shared_lines": "what another core wrote last has to be fetched from its cache",
    "write_allocate": "a written line that is in no cache is read from memory first",
    "kernel_efficiency": "kernels reach less than the peak rate of the core",
    "multi_core": "cores run slower when several of a cluster are busy",
    "accumulators": "a matrix unit is idle between outer products into too few tiles",
    "operand_traffic": "a matrix unit has no cache of its own: each step's operands come through its port",
    "mode_switch": "entering and leaving the mode in which a matrix unit can be used takes time",
}

# Guessed for chips without fitted kernels: what tuned CPU kernels usually reach of the core's peak.
GUESSED_ATTENTION_EFFICIENCY = 0.6
# Guessed: a softmax element costs about a degree-6 polynomial and its range reduction, an element of a norm or
# activation about the same; counted as FLOP at the core's vector peak.
GUESSED_FLOP_PER_SCORE = 24.0
GUESSED_FLOP_PER_ELEMENT = 16.0
# Blocks of the fused attention kernel: query rows worked on together, and keys scored at a time (native/kernels).
ATTENTION_ROWS = 96
ATTENTION_KEYS = 256
# Rows that the router multiplies at a time (native/runtime/experts.c).
ROUTER_ROWS = 64
# Guessed: to look at a score is a comparison and a branch, one at a time.
GUESSED_FLOP_PER_ROUTED_SCORE = 16.0
DO_BOTH = {
    "rms_norm_packed_f32": ("rms_norm_f32", "pack_lhs_f32"),
    "swiglu_packed_f32": ("swiglu_f32", "pack_lhs_f32"),
}
"""Guessed: where a kernel was never measured, it costs as much as the two whose work it does."""


_FORMAT = re.compile(r"_(q\d(_\d)?|[a-z]+\d+)$")
"""The format that the name of a kernel ends with."""


class Transfer(NamedTuple):
    """Bytes that a task moves between its core and one level ("L2", "L3", ..., "DRAM")."""

    level: str
    n_bytes: float


class TaskCost(NamedTuple):
    """What a task asks of its worker and of the links.

    `compute_s` of arithmetic overlaps with the task's own transfers; `serial_s` of it does not, and comes first. With
    `on_unit` the arithmetic and the transfers are those of the matrix unit that the worker drives, else of its core.
    """

    compute_s: float
    serial_s: float
    transfers: tuple[Transfer, ...]
    on_unit: bool = False


class AttentionShape(NamedTuple):
    """One attention task on one KV head: query tokens begin..end behind `past` cached ones, `group` heads each."""

    begin: int
    end: int
    past: int
    group: int
    head_dim: int


class AttentionWork(NamedTuple):
    """What the loops of the fused kernel do: k-steps of micro-tiles by height, and micro-tiles; pairs under the
    softmax, visits of a row to a block of keys of which it sees any, those that the mask cuts short, and query rows."""

    ksteps_by_height: tuple[tuple[int, int], ...]
    tiles: int
    pairs: int
    row_blocks: int
    cut_rows: int
    rows: int


def _key_blocks(keys: int) -> int:
    """Blocks of keys that rows see which see 1, 2, .. keys of them, all together."""
    whole, rest = divmod(keys, ATTENTION_KEYS)
    return ATTENTION_KEYS * whole * (whole + 1) // 2 + rest * (whole + 1)


@lru_cache(maxsize=65536)
def attention_work(shape: AttentionShape, mr: int, nr: int) -> AttentionWork:
    """Count the work of one task, block by block of query rows and strip by strip, as the kernel walks it.

    A strip whose last row sees v keys computes ceil(v / nr) panels of scores, head_dim k-steps each, and head_dim / nr
    panels of output, v k-steps each, in a micro-tile for every block of keys.
    """
    block_tokens, group = max(1, ATTENTION_ROWS // shape.group), shape.group
    ksteps: dict[int, int] = {}
    tiles = pairs = row_blocks = cut_rows = 0
    outputs = -(-shape.head_dim // nr)
    for first in range(shape.begin, shape.end, block_tokens):
        rows = min(block_tokens, shape.end - first) * group
        strips = -(-rows // mr)
        seen_before = shape.past + first
        tokens = rows // group
        row_blocks += group * (_key_blocks(seen_before + tokens) - _key_blocks(seen_before))
        # The last token sees all keys of the last block, and others whole blocks.
        whole = (seen_before + tokens - 1) // ATTENTION_KEYS - seen_before // ATTENTION_KEYS
        cut_rows += group * (tokens - 1 - whole)
        pairs += group * (tokens * seen_before + tokens * (tokens + 1) // 2)
        for strip in range(strips):
            begin, end = strip * rows // strips, (strip + 1) * rows // strips
            visible = seen_before + (end - 1) // group + 1
            scores = -(-visible // nr)
            ksteps[end - begin] = ksteps.get(end - begin, 0) + shape.head_dim * scores + outputs * visible
            tiles += scores + outputs * -(-visible // ATTENTION_KEYS)
    query_rows = (shape.end - shape.begin) * group
    return AttentionWork(tuple(sorted(ksteps.items())), tiles, pairs, row_blocks, cut_rows, query_rows)


def router_blocks(rows: int) -> tuple[tuple[int, int], ...]:
    """The products that a router's task of so many rows falls into: ((rows, how many of them), ...)."""
    whole, rest = divmod(rows, ROUTER_ROWS)
    return tuple((height, count) for height, count in ((ROUTER_ROWS, whole), (rest, 1)) if height and count)


class CoreCosts:
    """Times of the kernels of one core, seconds, from its `KernelModel`s or from its peak."""

    def __init__(self, cluster: Cluster, effects: Collection[str], busy_cores: int = 1) -> None:
        self._effects = frozenset(effects)
        core = cluster.core
        many = "multi_core" in self._effects
        self._rate_factor = factor_at(cluster.multi_core_factors, busy_cores) if many else 1.0
        self._kernels: Kernels = {
            kernel.name: {name: quantity.value for name, quantity in kernel.parameters.items()}
            for kernel in core.kernels
        }
        if "f32" not in core.flop_per_s:
            raise ChipError(
                f"core {core.name}: flop_per_s has no f32 rate; accepted: one, f32 kernels are costed by it"
            )
        self._peak_flop_per_s = core.flop_per_s["f32"].value
        self._core = core
        self._products: dict[str, ProductCosts] = {}
        self._coefficients: dict[str, Mapping[str, float]] = {}
        self.mr, self.nr = self.products("f32").mr, self.products("f32").nr
        self._kstep_s = self.products("f32").kstep_s

    def products(self, dtype: str) -> ProductCosts:
        """The costs of products with weights of a format, on a core that has its full rate."""
        if dtype not in self._products:
            rate = product_rate(self._core, dtype)
            self._products[dtype] = ProductCosts(dtype, self._kernels, rate, self._effects)
        return self._products[dtype]

    def _parameter(self, kernel: str, name: str, guess: float) -> float:
        """A coefficient; of a kernel that was not fitted in its format, what it is in f32."""
        known = self._coefficients.get(kernel)
        if known is None:
            in_f32 = _FORMAT.sub("_f32", kernel)
            known = self._coefficients[kernel] = self._kernels.get(kernel, self._kernels.get(in_f32, {}))
        return known.get(name, guess)

    def gemm_s(
        self, rows: int, mr: int, strips: tuple[int, int], panels: int, k: int, dtype: str = "f32"
    ) -> float:
        """A tile of packed operands: strips begin..end of `rows` rows by `panels` panels of nr columns, K = k."""
        return self.products(dtype).gemm_s(rows, mr, strips, panels, k) / self._rate_factor

    def exposed_s(self, kernel: str, streamed_bytes: float) -> float:
        """Time by which streaming from DRAM lengthens a kernel's arithmetic even when bandwidth is to spare."""
        if "exposed_latency" not in self._effects:
            return 0.0
        return streamed_bytes * self._parameter(kernel, "s_per_streamed_byte", 0.0)

    def serial_share(self, kernel: str, level: str = DRAM) -> float:
        """Share of a kernel's arithmetic that waits for operands streamed from a level instead of overlapping with
        them, 0 .. 1: fitted where they come from memory, and as much less as a nearer level is faster."""
        if "exposed_latency" not in self._effects:
            return 0.0
        rates = self._core.load_bytes_per_s
        nearer = rates[DRAM].value / rates[level].value if level in rates else 1.0
        return self._parameter(kernel, "serial_share", 0.0) * min(1.0, nearer)

    def shared_s(self, kernel: str, shared_bytes: float) -> float:
        """Time to fetch what another core wrote last from that core's cache."""
        if "shared_lines" not in self._effects:
            return 0.0
        return shared_bytes * self._parameter(kernel, "s_per_shared_byte", 0.0)

    def gemv_s(self, panels: int, k: int, dtype: str = "f32") -> float:
        """One row times `panels` panels: two FLOP a weight."""
        return self.products(dtype).gemv_s(panels, k) / self._rate_factor

    def streamed_s(self, weight_bytes: float, dtype: str = "f32") -> float:
        """Seconds that a product of several rows takes at least whose weights are in memory."""
        if "exposed_latency" not in self._effects:
            return 0.0
        return self.products(dtype).streamed_s(weight_bytes, self._core.load_bytes_per_s[DRAM].value)

    def lone_streams_s(self, panels: int, weight_bytes: float, dtype: str = "f32") -> float:
        """Seconds that a GEMV takes at least whose weights are in memory, as far as it reads them in lone streams."""
        if "exposed_latency" not in self._effects:
            return 0.0
        return self.products(dtype).lone_streams_s(panels, weight_bytes, self._core.load_bytes_per_s[DRAM].value)

    def pack_s(self, elements: int, dtype: str = "f32") -> float:
        """Packing so many elements of a left operand, where that is part of another task."""
        guess = 2.0 / self._peak_flop_per_s
        return elements * self._parameter(f"pack_lhs_{dtype}", "s_per_element", guess) / self._rate_factor

    def router_s(self, rows: int, experts: int, k: int, is_gemv: bool) -> float:
        """Scores of all experts for each row, and the choice of the best.

        Scores are products like others: of packed rows, or if the operator has but one (`is_gemv`), of a vector.
        """
        guess = GUESSED_FLOP_PER_ROUTED_SCORE / self._peak_flop_per_s
        choice_s = rows * experts * self._parameter("router_f32", "s_per_score", guess) / self._rate_factor
        panels = -(-experts // self.nr)
        if is_gemv:
            return choice_s + self.gemv_s(panels, k)
        product_s = sum(
            count * (self.pack_s(block * k) + self.gemm_s(block, self.mr, (0, -(-block // self.mr)), panels, k))
            for block, count in router_blocks(rows)
        )
        return choice_s + product_s

    def attention_s(self, shape: AttentionShape) -> float:
        """Fused attention of one task: both products by their micro-tiles, softmax by the pairs it sees."""
        work = attention_work(shape, self.mr, self.nr)
        products_s = self._attention_products_s("attention_f32", work.ksteps_by_height, work.tiles)
        scores_s = self.scores_s(work.pairs, work.row_blocks, work.cut_rows)
        return products_s + scores_s + self.query_s(work.rows * shape.head_dim)

    def part_s(self, block: BlockShape) -> float:
        """Fused attention to some of the keys."""
        seconds = self.query_s(block.rows * block.head_dim)
        for begin in range(block.key_begin, block.key_end, ATTENTION_KEYS):
            end = min(begin + ATTENTION_KEYS, block.key_end)
            work = block_work(block._replace(key_begin=begin, key_end=end), self.mr, self.nr)
            ksteps, tiles = (*work.qk_ksteps, *work.pv_ksteps), work.qk_tiles + work.pv_tiles
            seconds += self._attention_products_s("attention_f32", ksteps, tiles)
            seconds += self.scores_s(work.pairs, work.seeing_rows, work.cut_rows)
        return seconds

    def scores_s(self, scores: float, row_blocks: float, cut_rows: float = 0, kernel: str = "attention_f32") -> float:
        """Mask and online softmax of so many scores, in so many visits of a row to a block of keys, of which the mask
        cuts some short; a stage by its own coefficients, where it has them."""
        seconds = scores * self._of_attention(kernel, "s_per_score", GUESSED_FLOP_PER_SCORE / self._peak_flop_per_s)
        seconds += row_blocks * self._of_attention(kernel, "s_per_row_block", 0.0)
        return (seconds + cut_rows * self._of_attention(kernel, "s_per_cut_row", 0.0)) / self._rate_factor

    def query_s(self, elements: float) -> float:
        """Scaling queries and dividing outputs by the sums of the softmax, so many elements of each."""
        guess = 4.0 / self._peak_flop_per_s
        return elements * self._parameter("attention_f32", "s_per_query_element", guess) / self._rate_factor

    def qk_s(self, block: BlockShape) -> float:
        """The scores of one block; at the first block of its rows their queries are scaled as well."""
        elements = block.rows * block.head_dim if block.is_first else 0
        work = block_work(block, self.mr, self.nr)
        return self._stage_product_s("attention_qk_f32", work.qk_ksteps, work.qk_tiles, elements)

    def softmax_s(self, block: BlockShape) -> float:
        """Mask and exponential of one block's scores, and the running peaks and sums of its rows."""
        work = block_work(block, self.mr, self.nr)
        return self.scores_s(work.pairs, work.seeing_rows, work.cut_rows, "attention_softmax_f32")

    def pv_s(self, block: BlockShape) -> float:
        """Weights times values of one block; behind the last block the rows are normalised and written."""
        elements = block.rows * block.head_dim if block.is_last else 0
        work = block_work(block, self.mr, self.nr)
        return self._stage_product_s("attention_pv_f32", work.pv_ksteps, work.pv_tiles, elements)

    def _stage_product_s(self, kernel: str, ksteps: tuple[tuple[int, int], ...], tiles: int, elements: int) -> float:
        """A product of attention by its own coefficients, or where it has none by those of fused attention, which
        spends half its time for query elements before the first block and half behind the last."""
        per_element = self._parameter("attention_f32", "s_per_query_element", 4.0 / self._peak_flop_per_s) / 2
        seconds = elements * self._parameter(kernel, "s_per_query_element", per_element)
        seconds += self._parameter(kernel, "s_per_task", 0.0)
        return self._attention_products_s(kernel, ksteps, tiles) + seconds / self._rate_factor

    def _attention_products_s(self, kernel: str, ksteps: tuple[tuple[int, int], ...], tiles: int) -> float:
        efficiency = GUESSED_ATTENTION_EFFICIENCY / GUESSED_GEMM_EFFICIENCY
        slowdown = 1.0 if "kernel_efficiency" not in self._effects else 1.0 / efficiency
        factor = self._of_attention(kernel, "kstep_factor", slowdown)
        seconds = factor * sum(steps * self._kstep_s[min(h, self.mr)] for h, steps in ksteps)
        per_tile = self._of_attention(kernel, "s_per_tile", 0.0) if "tile_overhead" in self._effects else 0.0
        return (seconds + tiles * per_tile) / self._rate_factor

    def _of_attention(self, kernel: str, name: str, guess: float) -> float:
        """A coefficient of a stage, or where it has none that of fused attention."""
        return self._parameter(kernel, name, self._parameter("attention_f32", name, guess))

    def handed_over_s(self, foreign_bytes: float, kernel: str = "attention_softmax_f32") -> float:
        """Time to fetch what another core wrote for this stage; unless measured, as where rows are added."""
        if "shared_lines" not in self._effects:
            return 0.0
        guess = self._parameter("add_f32", "s_per_shared_byte", 0.0)
        guess = self._parameter("attention_softmax_f32", "s_per_shared_byte", guess)
        return foreign_bytes * self._parameter(kernel, "s_per_shared_byte", guess)

    def combine_s(self, rows: int, elements: int) -> float:
        """Summing parts of attention with their weights: so many elements are read, multiplied and added."""
        return self.elementwise_s("add_f32", rows, elements)

    def elementwise_s(self, kernel: str, rows: int, elements: float) -> float:
        """Norms, rotations, activations, copies: by element, and where the kernel has such costs by row and by task.

        Elements of the first row may cost more: their lines are asked for before prefetching is under way. These
        kernels wait for memory more than they compute, so busy neighbours are felt through the links, not here.
        """
        if kernel in DO_BOTH and kernel not in self._kernels:
            return sum(self.elementwise_s(part, rows, elements) for part in DO_BOTH[kernel])
        guess = GUESSED_FLOP_PER_ELEMENT / self._peak_flop_per_s
        seconds = elements * self._parameter(kernel, "s_per_element", guess)
        seconds += elements / rows * self._parameter(kernel, "s_per_first_element", 0.0)
        return seconds + self._parameter(kernel, "s_per_task", 0.0) + rows * self._parameter(kernel, "s_per_row", 0.0)
