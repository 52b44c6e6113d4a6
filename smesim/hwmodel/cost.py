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

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

from smesim.errors import ChipError
from smesim.hwmodel.chip import Cluster, factor_at
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


@dataclass(frozen=True)
class Transfer:
    """Bytes that a task moves between its core and one level ("L2", "L3", ..., "DRAM")."""

    level: str
    n_bytes: float


@dataclass(frozen=True)
class TaskCost:
    """What a task asks of its worker and of the links.

    `compute_s` of arithmetic overlaps with the task's own transfers; `serial_s` of it does not, and comes first.
    """

    compute_s: float
    serial_s: float
    transfers: tuple[Transfer, ...]


@dataclass(frozen=True)
class AttentionShape:
    """One attention task on one KV head: query tokens begin..end behind `past` cached ones, `group` heads each."""

    begin: int
    end: int
    past: int
    group: int
    head_dim: int


@dataclass(frozen=True)
class AttentionWork:
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
        row_blocks += rows * -(-(seen_before + rows // shape.group) // ATTENTION_KEYS)
        for strip in range(strips):
            begin, end = strip * rows // strips, (strip + 1) * rows // strips
            visible = seen_before + (end - 1) // shape.group + 1
            steps = shape.head_dim * -(-visible // nr) + -(-shape.head_dim // nr) * visible
            ksteps[end - begin] = ksteps.get(end - begin, 0) + steps
            pairs += sum(seen_before + row // shape.group + 1 for row in range(begin, end))
    return AttentionWork(tuple(sorted(ksteps.items())), pairs, row_blocks, (shape.end - shape.begin) * shape.group)


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
        in_f32 = f"{kernel.rpartition('_')[0]}_f32"
        return self._kernels.get(kernel, self._kernels.get(in_f32, {})).get(name, guess)

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

    def pack_s(self, elements: int, dtype: str = "f32") -> float:
        """Packing so many elements of a left operand, where that is part of another task."""
        guess = 2.0 / self._peak_flop_per_s
        return elements * self._parameter(f"pack_lhs_{dtype}", "s_per_element", guess) / self._rate_factor

    def attention_s(self, shape: AttentionShape) -> float:
        """Fused attention of one task: both products by their micro-tiles, softmax by the pairs it sees."""
        work = attention_work(shape, self.mr, self.nr)
        efficiency = GUESSED_ATTENTION_EFFICIENCY / GUESSED_GEMM_EFFICIENCY
        slowdown = 1.0 if "kernel_efficiency" not in self._effects else 1.0 / efficiency
        products = sum(steps * self._kstep_s[min(h, self.mr)] for h, steps in work.ksteps_by_height)
        seconds = (
            products * self._parameter("attention_f32", "kstep_factor", slowdown)
            + work.pairs
            * self._parameter("attention_f32", "s_per_score", GUESSED_FLOP_PER_SCORE / self._peak_flop_per_s)
            + work.row_blocks * self._parameter("attention_f32", "s_per_row_block", 0.0)
            + work.rows
            * shape.head_dim
            * self._parameter("attention_f32", "s_per_query_element", 4.0 / self._peak_flop_per_s)
        )
        return seconds / self._rate_factor

    def elementwise_s(self, kernel: str, rows: int, elements: float) -> float:
        """Norms, rotations, activations, copies: by element, and where the kernel has such costs by row and by task.

        Elements of the first row may cost more: their lines are asked for before prefetching is under way. These
        kernels wait for memory more than they compute, so busy neighbours are felt through the links, not here.
        """
        guess = GUESSED_FLOP_PER_ELEMENT / self._peak_flop_per_s
        seconds = elements * self._parameter(kernel, "s_per_element", guess)
        seconds += elements / rows * self._parameter(kernel, "s_per_first_element", 0.0)
        return seconds + self._parameter(kernel, "s_per_task", 0.0) + rows * self._parameter(kernel, "s_per_row", 0.0)
