"""Quantisation: rates by format, phase, engine and threads, and the formats that lose to one with more bits."""

from __future__ import annotations

from itertools import product as every

from smesim.engines.formats import weight_format
from smesim.errors import SmesimError
from smesim.scenarios import (
    Chart,
    Findings,
    Scenario,
    Series,
    Table,
    Times,
    Verdict,
    judged,
    judged_pairs,
    noted,
    number,
)
from smesim.workload import Phase


def study(s: Scenario, times: Times) -> Findings:
    chip, model = s.chips[0], s.models[0]
    formats = sorted(s.weights, key=lambda name: -weight_format(name).bits)
    rows, found = [], {}
    for phase, engine, threads in every(s.phases, s.engines, s.threads):
        rates = {}
        for weights in formats:
            try:
                took = times.engine(chip, model, phase, engine, weights, threads).seconds
            except SmesimError:
                continue
            rates[weights] = Phase.parse(phase).tokens / took
        found[phase, engine, threads] = rates
        rows.append((phase, engine, threads, *(rates.get(weights) for weights in formats)))
    columns = ("phase", "engine", "threads", *(f"{w} ({weight_format(w).bits:g} bits), tok/s" for w in formats))
    verdicts = [
        judged(s.published["two-bits"], [times.ratio(s.published["two-bits"])]),
        judged(s.published["sme-prefill"], [times.ratio(s.published["sme-prefill"])]),
        judged_pairs(s.published["neon-decode"], times.pairs(s.published["neon-decode"])),
    ]
    verdicts += [sentence(key, rates) for key, rates in found.items() if rates and key[2] in (1, max(s.threads))]
    charts = []
    for phase in s.phases:
        series = [
            Series(f"{engine}, {n} threads", tuple(rates), tuple(rates.values()))
            for (p, engine, n), rates in found.items()
            if p == phase and rates
        ]
        charts.append(Chart(phase, "bars", "format of the weights", "tokens/s", tuple(series)))
    return Findings((Table("Rates by format", columns, tuple(rows)),), tuple(verdicts), tuple(charts))


def sentence(key: tuple[str, str, int], rates: dict[str, float]) -> Verdict:
    """How many formats are beaten by one with more bits."""
    phase, engine, threads = key
    names = list(rates)
    beaten = [name for i, name in enumerate(names) if any(rates[more] > rates[name] * 1.02 for more in names[:i])]
    best = max(rates, key=lambda name: rates[name])
    said = f"slower than one with more bits: {', '.join(beaten) or 'none'}"
    return noted(f"{phase}, {engine}, {threads} threads: best {best} ({number(rates[best])} tokens/s); {said}.")


if __name__ == "__main__":
    from smesim.cli_scenario import run_script

    run_script(__file__)
