"""What products of one number format cost on one core: k-steps of micro-tiles, and weights that stream by.

A GEMM tile of S strips and P panels over K steps is S x P micro-tiles; a micro-tile of height h takes K times the
k-step of that height plus, for each block of K, the time to load and store its accumulators. A kernel that takes
several panels together takes longer for one that is left over. The coefficients are those of the core's kernel
`gemm_<format>`, and `gemv_<format>` for one row. Where they were never fitted, the core's peak rate in that format and
a guessed efficiency stand for them; a core without such a rate computes at that of f32.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache

from smesim.hwmodel.chip import CoreSpec, MatrixUnit

# Guessed for chips without fitted kernels: what tuned CPU kernels usually reach of the core's peak.
GUESSED_GEMM_EFFICIENCY = 0.85
DEFAULT_MR = 6
DEFAULT_NR = 16
DEFAULT_KC = 384
PANELS_KEPT = 2000
GEMV_STREAMS = 4
"""Panels of weights that the kernels for one row read side by side (native/kernels/vector/streams.h)."""

_COMPUTED_IN = {"q8_0": "s8", "q4_0": "s8", "q4_1": "s8"}
"""Formats of weights whose products are sums of integers, and those integers' format in a chip's rates."""

Kernels = Mapping[str, Mapping[str, float]]
"""Fitted coefficients by kernel and by name."""


def product_rate(engine: CoreSpec | MatrixUnit, dtype: str) -> float:
    """Peak FLOP/s of products with weights of a format: the engine's own rate, or that of f32 where it has none."""
    rates = {str(name): rate.value for name, rate in engine.flop_per_s.items()}
    return rates.get(_COMPUTED_IN.get(dtype, dtype), rates.get("f32", 0.0))


@lru_cache(maxsize=65536)
def strip_heights(rows: int, mr: int, begin: int, end: int) -> tuple[tuple[int, int], ...]:
    """How many strips of each height there are in strips begin..end of `rows` rows: ((height, count), ...).

    Strips are balanced: with S = ceil(rows / mr) of them, strip s holds rows floor(s * rows / S) to
    floor((s + 1) * rows / S).
    """
    strips = -(-rows // mr)
    low, n_high = divmod(rows, strips)
    counts: dict[int, int] = {}
    if (begin, end) == (0, strips):
        counts = {low: strips - n_high, low + 1: n_high}
    else:
        for s in range(begin, end):
            height = (s + 1) * rows // strips - s * rows // strips
            counts[height] = counts.get(height, 0) + 1
    return tuple(sorted((h, c) for h, c in counts.items() if c))


def panels_taken(panels: int, together: int, lone_panel: float) -> float:
    """How many panels take as long as these if each has others beside it: a kernel takes so many `together`, and one
    that is left over by itself takes `lone_panel` times as long."""
    lone = panels % together
    return panels - lone + lone * lone_panel


class ProductCosts:
    """Times of the products of one format, seconds on a core that has its full rate."""

    def __init__(self, dtype: str, kernels: Kernels, peak_flop_per_s: float, effects: Collection[str]) -> None:
        self._effects = effects
        self._peak_flop_per_s = peak_flop_per_s
        self._gemm = kernels.get(f"gemm_{dtype}", {})
        self._gemv = kernels.get(f"gemv_{dtype}", {})
        sizes = self._gemm if "mr" in self._gemm else kernels.get("gemm_f32", {})
        self.mr = int(sizes.get("mr", DEFAULT_MR))
        self.nr = int(sizes.get("nr", DEFAULT_NR))
        self._panel_s: dict[tuple[int, int, tuple[int, int], int], float] = {}
        self._kc = int(sizes.get("kc", DEFAULT_KC))
        self.panels_together = int(self._gemm.get("panels", 1.0))
        self._lone_panel = self._gemm.get("lone_panel_factor", 1.0) if "edge_tiles" in effects else 1.0
        self.kstep_s = self._ksteps()
        """Time of one k-step of a micro-tile, by height 0..mr."""

    def _ksteps(self) -> tuple[float, ...]:
        ideal = [2.0 * h * self.nr / self._peak_flop_per_s for h in range(self.mr + 1)]
        if "kernel_efficiency" not in self._effects:
            return tuple(ideal)
        if f"s_per_kstep_h{self.mr}" in self._gemm:
            steps = [0.0, *(self._gemm[f"s_per_kstep_h{h}"] for h in range(1, self.mr + 1))]
        else:
            steps = [s / GUESSED_GEMM_EFFICIENCY for s in ideal]
        if "edge_tiles" not in self._effects:
            steps = [steps[self.mr] * h / self.mr for h in range(self.mr + 1)]
        return tuple(steps)

    def gemm_s(self, rows: int, mr: int, strips: tuple[int, int], panels: int, k: int) -> float:
        """A tile of packed operands: strips begin..end of `rows` rows by `panels` panels of nr columns, K = k."""
        key = (rows, mr, strips, k)
        if key not in self._panel_s:
            if len(self._panel_s) >= PANELS_KEPT:
                self._panel_s.clear()
            self._panel_s[key] = self._gemm_panel_s(*key)
        return self._panel_s[key] * panels_taken(panels, self.panels_together, self._lone_panel)

    def _gemm_panel_s(self, rows: int, mr: int, strips: tuple[int, int], k: int) -> float:
        blocks = -(-k // self._kc)
        per_tile = self._gemm.get("s_per_tile", 0.0) if "tile_overhead" in self._effects else 0.0
        seconds = 0.0
        for height, count in strip_heights(rows, mr, *strips):
            # A strip higher than the kernel's micro-tiles is as many of them as it takes, as even as they can be.
            for part, parts in strip_heights(height, self.mr, 0, -(-height // self.mr)):
                seconds += count * parts * (k * self.kstep_s[part] + blocks * per_tile)
        return seconds

    def gemv_s(self, panels: int, k: int) -> float:
        """One row times `panels` panels: two FLOP a weight."""
        return panels * self.nr * k * self._gemv.get("s_per_element", 2.0 / self._peak_flop_per_s)

    def streamed_s(self, weight_bytes: float, bytes_per_s: float) -> float:
        """Seconds that the weights of several rows' product take at least on their way from memory, of which a core
        draws `bytes_per_s`: its micro-kernel reads few panels at a time. 0 if it was never measured what it draws."""
        share = self._gemm.get("stream_share")
        return 0.0 if share is None else weight_bytes / (share * bytes_per_s)

    def lone_streams_s(self, panels: int, weight_bytes: float, bytes_per_s: float) -> float:
        """Seconds that so many panels take at least on their way from memory, of which several streams side by side
        draw `bytes_per_s`: those that are too few for that come one after the other, and a lone stream keeps fewer
        misses in flight. 0 if there are none of these, or it was never measured what a lone stream draws."""
        share, lone = self._gemv.get("lone_stream_share"), panels % GEMV_STREAMS
        if share is None or not lone:
            return 0.0
        return weight_bytes / panels * (panels - lone + lone / share) / bytes_per_s
