"""The probe's chip, brought up to what the machine gives now.

Two ratios are applied and nothing else: what the yardstick gives now over what it gave at the probe, on the same
number of threads. The first scales what comes from DRAM, the second how fast cores compute. No time of the program
that is to be predicted goes in.
"""

from __future__ import annotations

from smesim.exec.probe.yardstick import Reference
from smesim.hwmodel.chip import DRAM, Chip, Cluster, FactorPoint, MatrixUnit, factor_at
from smesim.hwmodel.quantity import Quantity

REFERENCE_KERNEL = "yardstick"


def chip_of_now(chip: Chip, now: Reference, threads: int) -> tuple[Chip, str]:
    """The chip as it is now for a plan of so many threads, and a note that says what was changed.

    The chip itself if it was not probed with that many threads.
    """
    cluster = chip.clusters[0]
    then = next((k.parameters for k in cluster.core.kernels if k.name == REFERENCE_KERNEL), {})
    if not {f"memory_t{threads}", f"product_t{threads}"} <= then.keys():
        return (
            chip,
            f"the probe ran no yardstick on {threads} threads, so it is not known how far the machine has drifted",
        )
    memory_drift = now.memory.median / then[f"memory_t{threads}"].value
    compute_drift = now.product.median / then[f"product_t{threads}"].value
    memory = chip.memory.model_copy(
        update={"bandwidth_bytes_per_s": _scaled(chip.memory.bandwidth_bytes_per_s, memory_drift, "decode step")}
    )
    clusters = (_cluster_of_now(cluster, threads, memory_drift, compute_drift), *chip.clusters[1:])
    note = (
        f"since the probe, by a little model between the runs: memory {memory_drift - 1:+.0%} (DRAM at"
        f" {memory.bandwidth_bytes_per_s.value / 1e9:.1f} GB/s), products {compute_drift - 1:+.0%}"
    )
    return chip.model_copy(update={"memory": memory, "clusters": clusters}), note


def _cluster_of_now(cluster: Cluster, threads: int, memory_drift: float, compute_drift: float) -> Cluster:
    loads = dict(cluster.core.load_bytes_per_s)
    loads[DRAM] = _scaled(loads[DRAM], memory_drift, "decode step") if threads == 1 else loads[DRAM]
    core = cluster.core.model_copy(update={"load_bytes_per_s": loads})
    factors = _factors_of_now(cluster.multi_core_factors, core.clock_hz, threads, compute_drift)
    # A stand-in is the same core with other kernels: it drifts as the core does.
    units = tuple(_unit_of_now(unit, threads, compute_drift) for unit in cluster.matrix_units)
    return cluster.model_copy(update={"core": core, "multi_core_factors": factors, "matrix_units": units})


def _unit_of_now(unit: MatrixUnit, threads: int, compute_drift: float) -> MatrixUnit:
    factors = _factors_of_now(unit.multi_unit_factors, unit.clock_hz, threads, compute_drift)
    return unit.model_copy(update={"multi_unit_factors": factors})


def _factors_of_now(
    points: tuple[FactorPoint, ...], like: Quantity, threads: int, drift: float
) -> tuple[FactorPoint, ...]:
    """Rate factors with that of so many threads scaled."""
    known = {point.threads: point for point in points}
    base = known[threads].factor if threads in known else _one(like)
    now = base.model_copy(update={"value": factor_at(points, threads)})
    known[threads] = FactorPoint(threads=threads, factor=_scaled(now, drift, "prompt"))
    return tuple(known[count] for count in sorted(known))


def _one(like: Quantity) -> Quantity:
    """A factor of one with the source of another quantity of the same probe."""
    return like.model_copy(update={"value": 1.0, "unit": "1", "reason": None, "spread": None})


def _scaled(known: Quantity, drift: float, what: str) -> Quantity:
    reason = f"the probe's {known.value:.4g} times {drift:.3f}, what the yardstick's {what} gives now over then"
    return known.model_copy(
        update={"value": known.value * drift, "provenance": "derived", "reason": reason, "spread": None}
    )
