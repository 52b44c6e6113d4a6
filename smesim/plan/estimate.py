"""The quick answer: how long an operator takes by the roofline alone.

The larger of arithmetic at the workers' peak and bytes at the chip's bandwidth. Planners use it to choose sizes and
to say what bounds an operator; the simulator gives the real prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

from smesim.hwmodel.chip import Chip
from smesim.plan.teams import Team
from smesim.workload.graph import OperatorGraph
from smesim.workload.operators import Operator


@dataclass(frozen=True)
class Estimate:
    """Seconds of one operator, and whether 'compute' or 'bandwidth' bounds it."""

    seconds: float
    bound: str


def estimate(operator: Operator, graph: OperatorGraph, chip: Chip, team: Team) -> Estimate:
    """Roofline time of an operator on a team.

    seconds = max(flop / the team's f32 peak, bytes / sustained DRAM bandwidth).
    """
    compute_s = operator.flop / team.flop_per_s
    bandwidth = min(team.load_bytes_per_s, chip.memory.bandwidth_bytes_per_s.value)
    transfer_s = graph.moved_bytes(operator) / bandwidth
    return Estimate(max(compute_s, transfer_s), "compute" if compute_s > transfer_s else "bandwidth")
