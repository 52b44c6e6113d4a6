"""Vector length at constant rate: prompts by SVL, with a port that stays or grows with it."""

from __future__ import annotations

from itertools import product as every

from smesim.scenarios import Changes, Chart, Findings, Scenario, Series, Table, Times, noted, scaled
from smesim.workload import Phase

PORTS = ("clusters.*.matrix_units.*.load_bytes_per_s.L2", "clusters.*.matrix_units.*.store_bytes_per_s.L2",
         "clusters.*.matrix_units.*.multi_driver_load_bytes_per_s.L2")  # fmt: skip
LENGTH = ("clusters.*.matrix_units.*.svl_bits",)


def study(s: Scenario, times: Times) -> Findings:
    lengths, rows, charts, verdicts = s.series("svl_bits"), [], [], []
    for chip, model in every(s.chips, s.models):
        series = []
        for phase, grows in every(s.phases, (False, True)):
            rates = []
            for length in lengths:
                described = times.chip(chip)
                own = scaled(described, LENGTH, 1.0)
                changes: Changes = tuple((path, int(length)) for path, _ in own)
                changes += scaled(described, PORTS, length / own[0][1]) if grows else ()
                answer = times.planned(chip, model, phase, s.planners[0], changes, last_layer_rows="logits")
                rates.append(Phase.parse(phase).tokens / answer.time_s)
                rows.append((chip, phase, "with SVL" if grows else "as it is", int(length), rates[-1], answer.mode))
            port = "port with SVL" if grows else "port as it is"
            series.append(Series(f"{phase}, {port}", lengths, tuple(rate / max(rates) for rate in rates)))
            best = lengths[rates.index(max(rates))]
            good = [f"{n:.0f}" for n, rate in zip(lengths, rates, strict=True) if rate > 0.95 * max(rates)]
            verdicts.append(
                noted(f"{model} {phase} on {chip}, {port}: best with {best:.0f} bits; within 5 %: {', '.join(good)}.")
            )
        charts.append(Chart(f"{model} on {chip}", "lines", "SVL, bits", "of the best", tuple(series), log_x=True))
    columns = ("chip", "phase", "port", "SVL, bits", "tokens/s", "modes")
    return Findings((Table("Prompts", columns, tuple(rows)),), tuple(verdicts), tuple(charts))


if __name__ == "__main__":
    from smesim.cli_scenario import run_script

    run_script(__file__)
