"""Experts: time and mode by number of experts, of chosen ones, and tokens."""

from __future__ import annotations

from itertools import product as every

from smesim.scenarios import Chart, Findings, Scenario, Series, Table, Times, noted, number
from smesim.workload import Phase


def study(s: Scenario, times: Times) -> Findings:
    experts, rows, series, verdicts = s.series("experts"), [], [], []
    for chip, model, chosen in every(s.chips, s.models, map(int, s.series("chosen"))):
        shared = {}
        for phase in s.phases:
            gains, tokens = [], Phase.parse(phase).tokens
            for count in map(int, experts):
                asked = {"site": s.sites[0], "model.experts": count, "model.experts_per_token": chosen}
                both, cores = (times.planned(chip, model, phase, planner, **asked) for planner in s.planners)
                gains.append(cores.time_s / both.time_s)
                each = tokens * chosen / count
                if both.mode != "cpu":
                    shared[each] = gains[-1]
                rows.append((chip, count, chosen, tokens, each, both.time_s / tokens * 1e6, cores.time_s / tokens * 1e6,
                             gains[-1], both.mode))  # fmt: skip
            series.append(Series(f"{chip}, {chosen} chosen, {tokens} tokens", experts, tuple(gains)))
        least = min(shared) if shared else None
        said = "units never take part" if least is None else f"units take part from {number(least)} rows an expert on"
        best = f", and gain {number(max(shared.values()))}x at most" if shared else ""
        verdicts.append(noted(f"{chip}, {chosen} experts a token: {said}{best}."))
    columns = (
        "chip", "experts", "chosen", "tokens", "rows an expert", "ours, us a token", "cores, us a token", "x", "mode",
    )  # fmt: skip
    chart = Chart("Gate product, ours over cores alone", "lines", "experts", "x", tuple(series), log_x=True)
    return Findings((Table("Gate product of one layer", columns, tuple(rows)),), tuple(verdicts), (chart,))


if __name__ == "__main__":
    from smesim.cli_scenario import run_script

    run_script(__file__)
