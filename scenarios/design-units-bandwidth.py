"""Units and bandwidth: rates over both, and where each stops gaining."""

from __future__ import annotations

from itertools import product as every

from smesim.scenarios import (
    Changes,
    Chart,
    Findings,
    Scenario,
    Series,
    Table,
    Times,
    noted,
    number,
    scaled,
    stops_gaining,
)
from smesim.workload import Phase

COUNT = "clusters.P.matrix_units.sme.count"
BANDWIDTHS = (
    "memory.bandwidth_bytes_per_s", "memory.spec_bandwidth_bytes_per_s", "memory.store_bandwidth_bytes_per_s",
    "clusters.*.core.load_bytes_per_s.DRAM", "clusters.*.matrix_units.*.load_bytes_per_s.DRAM",
    "clusters.*.matrix_units.*.multi_driver_load_bytes_per_s.DRAM",
    "clusters.*.matrix_units.*.store_bytes_per_s.DRAM",
)  # fmt: skip


def study(s: Scenario, times: Times) -> Findings:
    units, factors = s.series("units"), s.series("bandwidth")
    rows, charts, verdicts = [], [], []
    for chip, model, phase in every(s.chips, s.models, s.phases):
        rates = {}
        for factor, count in every(factors, units):
            changes: Changes = ((COUNT, int(count)), *scaled(times.chip(chip), BANDWIDTHS, factor))
            answer = times.planned(chip, model, phase, s.planners[0], changes, last_layer_rows="logits")
            rates[factor, count] = Phase.parse(phase).tokens / answer.time_s
            rows.append((chip, phase, int(count), factor, rates[factor, count], answer.mode))
        series = tuple(
            Series(f"{number(factor)} x bandwidth", units, tuple(rates[factor, n] for n in units)) for factor in factors
        )
        charts.append(Chart(f"{phase} on {chip}", "lines", "SME units of the P cluster", "tokens/s", series))
        enough = stops_gaining(units, [rates[1.0, n] for n in units])
        wide = stops_gaining(factors, [rates[factor, units[0]] for factor in factors])
        widest = stops_gaining(units, [rates[factors[-1], n] for n in units])
        verdicts.append(
            noted(
                f"{model} {phase} on {chip}: with its bandwidth it {_stops(enough, 'units')}; with one unit it"
                f" {_stops(wide, 'times the bandwidth')}; with {number(factors[-1])} times the bandwidth it"
                f" {_stops(widest, 'units')}. Best of the grid {number(max(rates.values()) / rates[1.0, units[0]])}x"
                " the chip as it is."
            )
        )
    columns = ("chip", "phase", "units", "bandwidth, x", "tokens/s", "modes")
    return Findings((Table("Rates", columns, tuple(rows)),), tuple(verdicts), tuple(charts))


def _stops(at: float | None, what: str) -> str:
    return f"still gains at the end of the grid ({what})" if at is None else f"stops gaining at {number(at)} {what}"


if __name__ == "__main__":
    from smesim.cli_scenario import run_script

    run_script(__file__)
