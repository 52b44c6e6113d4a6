"""Cooperation against the better of cores and units alone, as the units grow."""

from __future__ import annotations

from itertools import product as every

from smesim.scenarios import Chart, Findings, Scenario, Series, Table, Times, noted, number, scaled

UNITS = ("clusters.*.matrix_units.*.flop_per_s.f32", "clusters.*.matrix_units.*.load_bytes_per_s.L2",
         "clusters.*.matrix_units.*.load_bytes_per_s.L3", "clusters.*.matrix_units.*.multi_driver_load_bytes_per_s.L2",
         "clusters.*.matrix_units.*.multi_driver_load_bytes_per_s.L3")  # fmt: skip


def study(s: Scenario, times: Times) -> Findings:
    factors, rows, series, verdicts = s.series("factors"), [], [], []
    for chip, model, phase in every(s.chips, s.models, s.phases):
        gains = []
        for factor in factors:
            changes = scaled(times.chip(chip), UNITS, factor)
            both, unit = (
                times.planned(chip, model, phase, planner, changes, last_layer_rows="logits")
                for planner in s.planners[:2]
            )
            cores = times.planned(chip, model, phase, s.planners[2], last_layer_rows="logits")
            gains.append(min(unit.time_s, cores.time_s) / both.time_s)
            rows.append((chip, phase, factor, both.time_s * 1e3, unit.time_s * 1e3, cores.time_s * 1e3, gains[-1],
                         both.mode))  # fmt: skip
        series.append(Series(f"{chip}, {phase}", factors, tuple(gains)))
        most = factors[gains.index(max(gains))]
        paying = [factor for factor, gain in zip(factors, gains, strict=True) if gain >= s.number("worth")]
        until = "nowhere" if not paying else f"from {number(paying[0])} to {number(paying[-1])} times the preset's rate"
        verdicts.append(
            noted(
                f"{model} {phase} on {chip}: both together gain most, {number(max(gains))}x, with {number(most)} times"
                f" the preset's unit; at least {s.number('worth') - 1:.0%} {until} (of {number(factors[0])} to"
                f" {number(factors[-1])})."
            )
        )
    columns = ("chip", "phase", "unit, x", "both, ms", "unit alone, ms", "cores alone, ms", "gain, x", "modes")
    chart = Chart("Gain over the better alone", "lines", "rate of the units, x", "x", tuple(series), log_x=True)
    return Findings((Table("Cooperation", columns, tuple(rows)),), tuple(verdicts), (chart,))


if __name__ == "__main__":
    from smesim.cli_scenario import run_script

    run_script(__file__)
