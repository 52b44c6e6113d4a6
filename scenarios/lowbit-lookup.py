"""Look-up kernels beside llama.cpp's, by bits and threads."""

from __future__ import annotations

from itertools import product as every

from smesim.scenarios import Chart, Findings, Scenario, Series, Table, Times, judged, judged_pairs, noted, number


def study(s: Scenario, times: Times) -> Findings:
    model, phase = s.models[0], s.phases[0]
    plain, lookup = s.engines
    rows, series, gains = [], [], {}
    for chip, weights in every(s.chips, s.weights):
        both = {e: [1 / times.engine(chip, model, phase, e, weights, n).seconds for n in s.threads] for e in s.engines}
        gains[chip, weights] = [b / a for a, b in zip(both[plain], both[lookup], strict=True)]
        for i, n in enumerate(s.threads):
            rows.append((chip, weights, n, both[plain][i], both[lookup][i], gains[chip, weights][i]))
        series.append(Series(f"{chip}, {weights}", tuple(map(float, s.threads)), tuple(gains[chip, weights])))
    verdicts = [judged_pairs(s.published["rates"], times.pairs(s.published["rates"]))]
    verdicts += [judged(s.published[k], [times.ratio(s.published[k])]) for k in ("two-bits", "four-bits")]
    for (chip, weights), gain in gains.items():
        verdicts.append(
            noted(
                f"{chip}, {weights}: look-up tables give {number(gain[0])}x with {s.threads[0]} thread and"
                f" {number(gain[-1])}x with {s.threads[-1]}."
            )
        )
    columns = ("chip", "weights", "threads", "llama.cpp, tok/s", "T-MAC, tok/s", "x")
    chart = Chart("T-MAC over llama.cpp, decode", "lines", "threads", "x", tuple(series))
    return Findings((Table("Decode", columns, tuple(rows)),), tuple(verdicts), (chart,))


if __name__ == "__main__":
    from smesim.cli_scenario import run_script

    run_script(__file__)
