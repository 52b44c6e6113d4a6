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
    """What the loops of the fused kernel do: k-steps of micro-tiles by height, pairs under the softmax, visits of a
    row to a block of keys, and query rows."""

    ksteps_by_height: tuple[tuple[int, int], ...]
    pairs: int
    row_blocks: int
    rows: int


@lru_cache(maxsize=65536)
def attention_work(shape: AttentionShape, mr: int, nr: int) -> AttentionWork:
    """Count the work of one task, block by block of query rows and strip by strip, as the kernel walks it.

    A strip whose last row sees v keys computes ceil(v / nr) panels of scores, head_dim k-steps each, and head_dim / nr
    panels of output, v k-steps each.
    """
    block_tokens = max(1, ATTENTION_ROWS // shape.group)
    ksteps: dict[int, int] = {}
    pairs = row_blocks = 0
    for first in range(shape.begin, shape.end, block_tokens):
        rows = min(block_tokens, shape.end - first) * shape.group
        strips = -(-rows // mr)
        seen_before = shape.past + first
        tokens = rows // shape.group
        row_blocks += rows * -(-(seen_before + tokens) // ATTENTION_KEYS)
        pairs += shape.group * (tokens * seen_before + tokens * (tokens + 1) // 2)
        for strip in range(strips):
            begin, end = strip * rows // strips, (strip + 1) * rows // strips
            visible = seen_before + (end - 1) // shape.group + 1
            steps = shape.head_dim * -(-visible // nr) + -(-shape.head_dim // nr) * visible
            ksteps[end - begin] = ksteps.get(end - begin, 0) + steps
    return AttentionWork(tuple(sorted(ksteps.items())), pairs, row_blocks, (shape.end - shape.begin) * shape.group)


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

    def serial_share(self, kernel: str) -> float:
        """Share of a kernel's arithmetic that waits for streamed operands instead of overlapping with them, 0 .. 1."""
        return self._parameter(kernel, "serial_share", 0.0) if "exposed_latency" in self._effects else 0.0

    def shared_s(self, kernel: str, shared_bytes: float) -> float:
        """Time to fetch what another core wrote last from that core's cache."""
        if "shared_lines" not in self._effects:
            return 0.0
        return shared_bytes * self._parameter(kernel, "s_per_shared_byte", 0.0)

    def gemv_s(self, panels: int, k: int, dtype: str = "f32") -> float:
        """One row times `panels` panels: two FLOP a weight."""
        return self.products(dtype).gemv_s(panels, k) / self._rate_factor

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
        return self._fused_s(work.ksteps_by_height, work.pairs, work.row_blocks, work.rows * shape.head_dim)

    def part_s(self, block: BlockShape) -> float:
        """Fused attention to some of the keys."""
        work = block_work(block, self.mr, self.nr)
        row_blocks = block.rows * -(-(block.key_end - block.key_begin) // ATTENTION_KEYS)
        return self._fused_s((*work.qk_ksteps, *work.pv_ksteps), work.pairs, row_blocks, block.rows * block.head_dim)

    def _fused_s(self, ksteps: tuple[tuple[int, int], ...], pairs: int, row_blocks: int, elements: int) -> float:
        return (
            self._attention_products_s(ksteps, "attention_f32") / self._rate_factor
            + self.scores_s(pairs, row_blocks)
            + self.query_s(elements)
        )

    def scores_s(self, scores: float, row_blocks: float) -> float:
        """Mask and online softmax of so many scores, in so many visits of a row to a block of keys."""
        guess = GUESSED_FLOP_PER_SCORE / self._peak_flop_per_s
        seconds = scores * self._parameter("attention_f32", "s_per_score", guess)
        return (seconds + row_blocks * self._parameter("attention_f32", "s_per_row_block", 0.0)) / self._rate_factor

    def query_s(self, elements: float) -> float:
        """Scaling queries and dividing outputs by the sums of the softmax, so many elements of each."""
        guess = 4.0 / self._peak_flop_per_s
        return elements * self._parameter("attention_f32", "s_per_query_element", guess) / self._rate_factor

    def qk_s(self, block: BlockShape) -> float:
        """The scores of one block; at the first block of its rows their queries are scaled as well."""
        elements = block.rows * block.head_dim if block.is_first else 0
        return self._stage_product_s("attention_qk_f32", block_work(block, self.mr, self.nr).qk_ksteps, elements)

    def softmax_s(self, block: BlockShape) -> float:
        """Mask and exponential of one block's scores, and the running peaks and sums of its rows."""
        pairs, kernel = block_work(block, self.mr, self.nr).pairs, "attention_softmax_f32"
        guess = self._parameter("attention_f32", "s_per_score", GUESSED_FLOP_PER_SCORE / self._peak_flop_per_s)
        seconds = pairs * self._parameter(kernel, "s_per_score", guess)
        guess = self._parameter("attention_f32", "s_per_row_block", 0.0)
        return (seconds + block.rows * self._parameter(kernel, "s_per_row_block", guess)) / self._rate_factor

    def pv_s(self, block: BlockShape) -> float:
        """Weights times values of one block; behind the last block the rows are normalised and written."""
        elements = block.rows * block.head_dim if block.is_last else 0
        return self._stage_product_s("attention_pv_f32", block_work(block, self.mr, self.nr).pv_ksteps, elements)

    def _stage_product_s(self, kernel: str, ksteps: tuple[tuple[int, int], ...], elements: int) -> float:
        """A product of attention by its own coefficients, or where it has none by those of fused attention, which
        spends half its time for query elements before the first block and half behind the last."""
        per_element = self._parameter("attention_f32", "s_per_query_element", 4.0 / self._peak_flop_per_s) / 2
        seconds = self._attention_products_s(ksteps, kernel)
        return (seconds + elements * self._parameter(kernel, "s_per_query_element", per_element)) / self._rate_factor

    def _attention_products_s(self, ksteps_by_height: tuple[tuple[int, int], ...], kernel: str) -> float:
        efficiency = GUESSED_ATTENTION_EFFICIENCY / GUESSED_GEMM_EFFICIENCY
        slowdown = 1.0 if "kernel_efficiency" not in self._effects else 1.0 / efficiency
        factor = self._parameter(kernel, "kstep_factor", self._parameter("attention_f32", "kstep_factor", slowdown))
        return factor * sum(steps * self._kstep_s[min(h, self.mr)] for h, steps in ksteps_by_height)

    def handed_over_s(self, foreign_bytes: float) -> float:
        """Time to fetch what another core wrote for this stage; unless measured, as where rows are added."""
        if "shared_lines" not in self._effects:
            return 0.0
        guess = self._parameter("add_f32", "s_per_shared_byte", 0.0)
        return foreign_bytes * self._parameter("attention_softmax_f32", "s_per_shared_byte", guess)

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
