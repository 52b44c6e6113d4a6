"""Context length: decode steps and prompts behind it, and attention's share of them."""

from __future__ import annotations

from itertools import product as every

from smesim.scenarios import Chart, Findings, Scenario, Series, Table, Times, crossing, noted, number
from smesim.workload import Phase, catalog


def study(s: Scenario, times: Times) -> Findings:
    contexts, rows, series, verdicts = s.series("contexts"), [], [], []
    for chip, model in every(s.chips, s.models):
        layers = catalog.load(model).layers
        for kind in ("decode", "prefill"):
            shares, gains, prompt = [], [], int(s.number("prompt"))
            for context in map(int, contexts):
                asked = Phase.decode(context) if kind == "decode" else Phase.prefill(prompt, context - prompt)
                both, cores = (
                    times.planned(chip, model, str(asked), planner, last_layer_rows="logits") for planner in s.planners
                )
                attention = times.planned(chip, model, str(asked), s.planners[0], site="attention")
                shares.append(layers * attention.time_s / both.time_s)
                gains.append(cores.time_s / both.time_s)
                rows.append((chip, str(asked), asked.tokens / both.time_s, asked.tokens / cores.time_s, gains[-1],
                             f"{shares[-1]:.0%}", attention.mode, both.memory_bytes / 1e9))  # fmt: skip
            series.append(Series(f"{chip}, {kind}", contexts, tuple(shares)))
            half = crossing(contexts, shares, 0.5)
            word = f"half of the time from {half:,.0f} tokens on" if half else f"at most {max(shares):.0%} of the time"
            verdicts.append(
                noted(
                    f"{model} {kind} on {chip}: attention is {word}; ours over cores alone {number(gains[0])}x at"
                    f" {contexts[0]:,.0f} and {number(gains[-1])}x at {contexts[-1]:,.0f} tokens."
                )
            )
    columns = ("chip", "phase", "ours, tok/s", "cores, tok/s", "x", "attention", "attention's mode", "memory, GB")
    chart = Chart("Attention's share of the time", "lines", "context, tokens", "share", tuple(series), log_x=True)
    return Findings((Table("Context length", columns, tuple(rows)),), tuple(verdicts), (chart,))


if __name__ == "__main__":
    from smesim.cli_scenario import run_script

    run_script(__file__)
