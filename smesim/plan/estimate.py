"""The quick answer: how long an operator takes by the roofline alone.

The larger of arithmetic at the workers' peak and bytes at the chip's bandwidth. Planners use it to choose sizes and
to say what bounds an operator; the simulator gives the real prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

from smesim.hwmodel.chip import Chip
from smesim.workload.graph import OperatorGraph
from smesim.workload.operators import Operator


@dataclass(frozen=True)
class Estimate:
    """Seconds of one operator, and whether 'compute' or 'bandwidth' bounds it."""

    seconds: float
    bound: str


def estimate(operator: Operator, graph: OperatorGraph, chip: Chip, threads: int) -> Estimate:
    """Roofline time of an operator on the first `threads` cores of a chip.

    seconds = max(flop / sum of the cores' f32 peaks, bytes / sustained DRAM bandwidth).
    """
    peak_flop_per_s = sum(chip.instance_of(core).cluster.core.flop_per_s["f32"].value for core in range(threads))
    compute_s = operator.flop / peak_flop_per_s
    caps = sum(chip.instance_of(core).cluster.core.load_bytes_per_s["DRAM"].value for core in range(threads))
    transfer_s = graph.moved_bytes(operator) / min(caps, chip.memory.bandwidth_bytes_per_s.value)
    return Estimate(max(compute_s, transfer_s), "compute" if compute_s > transfer_s else "bandwidth")
