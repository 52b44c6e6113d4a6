"""Time to first token: an auxiliary model's prefill, the mapping of its cache, and one step of the base."""

from __future__ import annotations

from itertools import product as every

from smesim.scenarios import Chart, Findings, Scenario, Series, Table, Times, noted, number
from smesim.workload import Phase, catalog


def study(s: Scenario, times: Times) -> Findings:
    planner, rows, gains = s.planners[0], [], {}
    pairs = list(zip(s.models[::2], s.models[1::2], strict=True))
    for chip, (base, small), phase in every(s.chips, pairs, s.phases):
        tokens = Phase.parse(phase).tokens

        def whole(model: str, asked: str, chip: str = chip) -> float:
            return times.planned(chip, model, asked, planner, last_layer_rows="logits").time_s

        prefill, auxiliary = whole(base, phase), whole(small, phase)
        step = whole(base, str(Phase.decode(tokens + 1)))
        mapping = catalog.load(base).layers * sum(
            times.planned(chip, base, phase, planner, site=site).time_s for site in s.sites
        )
        with_it = auxiliary + mapping + step
        gains[chip, base, small, tokens] = prefill / with_it
        rows.append((chip, base, small, phase, prefill * 1e3, auxiliary * 1e3, mapping * 1e3, step * 1e3,
                     prefill / with_it, prefill / auxiliary))  # fmt: skip
    verdicts, series = [], []
    for chip, (base, small) in every(s.chips, pairs):
        found = {n: gain for (c, b, a, n), gain in gains.items() if (c, b, a) == (chip, base, small)}
        series.append(Series(f"{chip}, {base} by {small}", tuple(map(float, found)), tuple(found.values())))
        verdicts.append(
            noted(
                f"{chip}, {base} by {small}: the first token is there {number(min(found.values()))}x to"
                f" {number(max(found.values()))}x as early over prompts of {min(found)} to {max(found)} tokens."
            )
        )
    columns = (
        "chip", "base", "auxiliary", "prompt", "base's prefill, ms", "auxiliary's, ms", "mapping, ms", "first step, ms",
        "x", "without mapping and step, x",
    )  # fmt: skip
    chart = Chart("First token, times as early", "lines", "tokens of the prompt", "x", tuple(series), log_x=True)
    return Findings((Table("Time to first token", columns, tuple(rows)),), tuple(verdicts), (chart,))


if __name__ == "__main__":
    from smesim.cli_scenario import run_script

    run_script(__file__)
