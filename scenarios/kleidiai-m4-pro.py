"""llama.cpp with KleidiAI: rates over threads by engine and format, beside what was published."""

from __future__ import annotations

from itertools import product as every

from smesim.errors import SmesimError
from smesim.scenarios import (
    Chart,
    Findings,
    Scenario,
    Series,
    Table,
    Times,
    Verdict,
    judged_pairs,
    noted,
    number,
    record_of,
)
from smesim.workload import Phase

SHORT = {"llama-cpp-neon": "NEON", "llama-cpp-sme": "SME only", "llama-cpp-hybrid": "hybrid"}
CLAIM_OF = {"neon": "llama-cpp-neon", "sme": "llama-cpp-sme", "hybrid": "llama-cpp-hybrid"}


def rates(
    s: Scenario, times: Times, engine: str, weights: str, phase: str, without: tuple[str, ...] = ()
) -> list[float] | None:
    """Tokens a second by thread count, None where the engine has no such kernel."""
    chip, model, tokens = s.chips[0], s.models[0], Phase.parse(phase).tokens
    try:
        return [
            tokens / times.engine(chip, model, phase, engine, weights, n, without=without).seconds for n in s.threads
        ]
    except SmesimError:
        return None


def best(s: Scenario, found: list[float]) -> int:
    return s.threads[found.index(max(found))]


def study(s: Scenario, times: Times) -> Findings:
    rows, known = [], {}
    for phase, weights, engine in every(s.phases, s.weights, s.engines):
        found = rates(s, times, engine, weights, phase)
        if found is not None:
            known[phase, weights, engine] = found
            rows.append((phase, weights, SHORT.get(engine, engine), *found, best(s, found)))
    columns = ("phase", "weights", "engine", *(f"{n} threads, tok/s" for n in s.threads), "best")
    verdicts = [judged_pairs(claim, times.pairs(claim)) for claim in s.published.values()]
    verdicts += mechanisms(s, times)
    table = Table("Rates by threads", columns, tuple(rows))
    return Findings((table, published_rows(s, times)), tuple(verdicts), charts(s, known))


def published_rows(s: Scenario, times: Times) -> Table:
    rows = []
    for claim in s.published.values():
        for name in claim.records:
            if (record := record_of(name)) is not None and record.value is not None:
                predicted = times.record(name)
                off = f"{predicted / record.value - 1:+.1%}"
                rows.append((claim.says.rpartition(",")[0], record.threads, predicted, record.value, off, name))
    columns = ("series", "threads", "predicted, tok/s", "published, tok/s", "off", "record")
    return Table("Beside what was published", columns, tuple(rows))


def mechanisms(s: Scenario, times: Times) -> list[Verdict]:
    """What is left of the fall beyond two threads, and of the gains, with a mechanism off."""
    prefill = s.phases[0]
    alone = rates(s, times, "llama-cpp-sme", "q4_0", prefill)
    free = rates(s, times, "llama-cpp-sme", "q4_0", prefill, (s.effects[0],))
    both = rates(s, times, "llama-cpp-hybrid", "q4_0", prefill)
    if alone is None or free is None or both is None or len(s.threads) < 4:
        return []
    two, four = s.threads.index(2), s.threads.index(4)
    return [
        noted(
            f"SME only with four threads against two: {alone[four] / alone[two] - 1:+.0%}; without what the turns of"
            f" threads on a unit cost ({s.effects[0]}) {free[four] / free[two] - 1:+.0%}."
        ),
        noted(
            f"Best for Q4_0 prefill: SME only {number(max(alone))} tokens/s with {best(s, alone)} threads, hybrid"
            f" {number(max(both))} with {best(s, both)}: the cores add {max(both) / max(alone) - 1:.0%}."
        ),
    ]  # fmt: skip


def charts(s: Scenario, known: dict[tuple[str, str, str], list[float]]) -> tuple[Chart, ...]:
    x = tuple(float(n) for n in s.threads)
    made = []
    for phase, weights in every(s.phases, s.weights):
        series = [Series(SHORT.get(e, e), x, tuple(known[phase, weights, e])) for e in s.engines
                  if (phase, weights, e) in known]  # fmt: skip
        kind = phase.partition(":")[0]
        for name, claim in s.published.items():
            engine, _, format_ = name.partition("-")
            if kind == "prefill" and format_ == weights and engine in CLAIM_OF:
                found = [r for n in claim.records if (r := record_of(n)) is not None]
                threads = tuple(float(r.threads or 1) for r in found)
                says = f"{SHORT[CLAIM_OF[engine]]}, published"
                series.append(Series(says, threads, tuple(r.value for r in found), published=True))
        made.append(Chart(f"{phase}, {weights}", "lines", "threads", "tokens/s", tuple(series)))
    return tuple(made)


if __name__ == "__main__":
    from smesim.cli_scenario import run_script

    run_script(__file__)
