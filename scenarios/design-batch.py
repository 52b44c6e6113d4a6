"""Batch size: decode rates, ours and cores alone."""

from __future__ import annotations

from itertools import product as every

from smesim.scenarios import Chart, Findings, Scenario, Series, Table, Times, crossing, noted, number, stops_gaining
from smesim.workload import Phase


def study(s: Scenario, times: Times) -> Findings:
    batches, rows, series, verdicts = s.series("batches"), [], [], []
    for chip, model in every(s.chips, s.models):
        rates: dict[str, list[float]] = {planner: [] for planner in s.planners}
        for batch in map(int, batches):
            phase = str(Phase.decode(int(s.number("context")), batch))
            found = [times.planned(chip, model, phase, planner) for planner in s.planners]
            for planner, answer in zip(s.planners, found, strict=True):
                rates[planner].append(batch / answer.time_s)
            rows.append((chip, batch, *(batch / answer.time_s for answer in found), found[1].time_s / found[0].time_s,
                         found[0].mode))  # fmt: skip
        series += [Series(f"{chip}, {planner}", batches, tuple(rates[planner])) for planner in s.planners]
        gains = [ours / cores for ours, cores in zip(rates[s.planners[0]], rates[s.planners[1]], strict=True)]
        pays = crossing(batches, gains, 1.05)
        stop = stops_gaining(batches, rates[s.planners[0]])
        verdicts.append(
            noted(
                f"{model} on {chip}: units are worth 5 % {f'from a batch of {number(pays)} on' if pays else 'nowhere'};"
                f" at {batches[-1]:.0f} they give {number(gains[-1])}x; a larger batch"
                f" {'still gains at the end' if stop is None else f'stops gaining at {number(stop)}'},"
                f" with {number(max(rates[s.planners[0]]))} tokens/s."
            )
        )
    columns = ("chip", "batch", *(f"{planner}, tok/s" for planner in s.planners), "x", "modes")
    chart = Chart("Decode", "lines", "batch", "tokens/s of all sequences", tuple(series), log_x=True, log_y=True)
    return Findings((Table("Decode in batches", columns, tuple(rows)),), tuple(verdicts), (chart,))


if __name__ == "__main__":
    from smesim.cli_scenario import run_script

    run_script(__file__)
