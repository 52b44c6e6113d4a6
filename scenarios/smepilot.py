"""SMEPilot: our planner beside cores alone and SME units alone; operators, decode, and end to end, with levers."""

from __future__ import annotations

from itertools import product as every

from smesim.scenarios import (
    Changes,
    Chart,
    Compared,
    Findings,
    Scenario,
    Series,
    Table,
    Times,
    Verdict,
    judged,
    noted,
    number,
    pull,
    ratios,
    tried,
)
from smesim.scenarios import table as compared_table
from smesim.workload import Phase

CORES, SME, ROWS = "cores (ggml)", "SME (Accelerate)", "cores, row by row (llama.cpp)"
TUNED, FLASH = "cores, our kernels", "cores, flash attention"


def gemms(s: Scenario, times: Times, chip: str, changes: Changes = ()) -> list[Compared]:
    """Every product of every model and prompt on one chip."""
    found = []
    for model, phase, site in every(s.models, s.phases, s.sites):
        shape = times.product(model, phase, site)
        if shape is None:
            continue
        ours = times.planned(chip, model, phase, s.planners[0], changes, site=site, weights=s.weights[0])
        alone = times.planned(chip, model, phase, s.planners[1], changes, site=site, weights=s.weights[0])
        others = {TUNED: alone.time_s} | tried({
            CORES: lambda shape=shape: times.product_on_cores(chip, s.engines[0], shape, changes=changes),
            SME: lambda shape=shape: times.product_on_units(chip, s.engines[1], shape, changes=changes),
        })  # fmt: skip
        found.append(Compared((chip, model, phase, site), ours.time_s, others, ours.mode))
    return found


def attentions(s: Scenario, times: Times, chip: str, changes: Changes = ()) -> list[Compared]:
    """Attention of every model and prompt on one chip."""
    found = []
    for model, phase in every(s.models, s.phases):
        ours = times.planned(chip, model, phase, s.planners[0], changes, site="attention")
        others = {
            FLASH: times.planned(chip, model, phase, s.planners[1], changes, site="attention").time_s,
            ROWS: times.engine_attention(chip, model, phase, s.engines[3], "q4_0", changes=changes).seconds,
        }
        found.append(Compared((chip, model, phase), ours.time_s, others, ours.mode))
    return found


def phases(s: Scenario, times: Times, chip: str, asked: tuple[str, ...], changes: Changes = ()) -> list[Compared]:
    """Whole phases on one chip."""
    found = []
    for model, phase in every(s.models, asked):
        planners = s.planners if Phase.parse(phase).tokens == 1 else s.planners[:1]
        ours = times.best_planned(chip, model, phase, planners, changes, last_layer_rows="logits")
        others = tried({
            CORES: lambda m=model, p=phase: times.engine(chip, m, p, s.engines[0], changes=changes).seconds,
            SME: lambda m=model, p=phase: times.engine(chip, m, p, s.engines[2], changes=changes).seconds,
        })  # fmt: skip
        found.append(Compared((chip, model, phase), ours.time_s, others, ours.mode))
    return found


def end_to_end(s: Scenario, prompts: list[Compared], steps: list[Compared]) -> list[Compared]:
    """A prompt and so many tokens after it, from the phases' times."""
    count = s.number("generated")
    found = []
    for prompt, step in zip(prompts, steps, strict=True):
        others = {n: prompt.others_s[n] + count * step.others_s[n] for n in prompt.others_s if n in step.others_s}
        found.append(Compared(prompt.point, prompt.ours_s + count * step.ours_s, others))
    return found


def decode_phases(s: Scenario) -> tuple[str, ...]:
    """The decode step in the middle of what is generated after each prompt."""
    half = int(s.number("generated")) // 2
    return tuple(str(Phase.decode(Phase.parse(phase).tokens + half)) for phase in s.phases)


def study(s: Scenario, times: Times) -> Findings:
    products = [each for chip in s.chips for each in gemms(s, times, chip)]
    attention = [each for chip in s.chips for each in attentions(s, times, chip)]
    prompts = [each for chip in s.chips for each in phases(s, times, chip, s.phases)]
    steps = [each for chip in s.chips for each in phases(s, times, chip, decode_phases(s))]
    whole = end_to_end(s, prompts, steps)
    claims = (
        ("gemm-sme", products, SME), ("gemm-cpu", products, CORES), ("attention", attention, FLASH),
        ("decode", steps, CORES), ("end-to-end", whole, CORES),
    )  # fmt: skip
    verdicts = []
    for claim, compared, other in claims:
        for chip in s.chips:
            if figures := ratios(at(compared, chip), other):
                verdicts.append(judged(s.published[claim], figures, f"{chip}, against {other}"))
    for what, compared, other in (("GEMM", products, TUNED), ("Attention", attention, ROWS)):
        for chip in s.chips:
            if figures := ratios(at(compared, chip), other):
                least, most = number(min(figures)), number(max(figures))
                verdicts.append(noted(f"{what} on {chip} over {other}: {least} to {most}x."))
    verdicts += [one_thread(s, times, at(steps, chip)) for chip in s.chips]
    rows, needs = levers(s, times)
    point = ("chip", "model", "phase")
    tables = (
        compared_table("Products", (*point, "product"), (CORES, TUNED, SME), products),
        compared_table("Attention of one layer", point, (FLASH, ROWS), attention),
        compared_table("Prompts", point, (CORES, SME), prompts),
        compared_table("Decode steps", point, (CORES, SME), steps),
        compared_table("End to end: a prompt and the tokens after it", point, (CORES, SME), whole),
        memory(s, times),
        Table("What would have to be true", ("lever", "chip", "factor", "x"), rows),
    )
    return Findings(tables, (*verdicts, *needs), (chart(s, whole),))


def one_thread(s: Scenario, times: Times, steps: list[Compared]) -> Verdict:
    """Decode against cores alone where only one of them works: thread counts of the publication are not known."""
    alone = [times.engine(*map(str, each.point), s.engines[0], threads=1).seconds / each.ours_s for each in steps]
    return noted(f"Decode on {steps[0].point[0]} over one core alone: {number(min(alone))} to {number(max(alone))}x.")


def at(compared: list[Compared], chip: str) -> list[Compared]:
    return [each for each in compared if each.point[0] == chip]


def levers(s: Scenario, times: Times) -> tuple[tuple[tuple[str | float | int | None, ...], ...], tuple[Verdict, ...]]:
    """Each lever of the file, pulled on each chip at the first model and the middle prompt."""
    narrow = s.model_copy(update={"models": s.models[:1], "phases": s.phases[len(s.phases) // 2 :][:1]})
    asked = {
        "gemm-sme": lambda chip, changes: ratios(gemms(narrow, times, chip, changes), SME),
        "gemm-cpu": lambda chip, changes: ratios(gemms(narrow, times, chip, changes), CORES),
        "attention": lambda chip, changes: ratios(attentions(narrow, times, chip, changes), FLASH),
        "decode": lambda chip, changes: ratios(phases(narrow, times, chip, decode_phases(narrow), changes), CORES),
    }
    chips = [(chip, times.chip(chip)) for chip in s.chips]
    pulled = [pull(v, s.published[v.published], chips, asked[v.published]) for v in s.levers.values()]
    return tuple(row for each in pulled for row in each.rows), tuple(v for each in pulled for v in each.verdicts)


def memory(s: Scenario, times: Times) -> Table:
    """Weights and cache against what the chip has."""
    rows = []
    for chip, model in every(s.chips, s.models):
        needed = times.planned(chip, model, s.phases[-1], s.planners[0], last_layer_rows="logits").memory_bytes / 1e9
        has = times.chip(chip).memory.capacity_bytes.value / 1e9
        rows.append((chip, model, needed, has, "yes" if needed <= has else "no"))
    return Table("Memory", ("chip", "model", "weights and KV cache, GB", "memory, GB", "fits"), tuple(rows))


def chart(s: Scenario, whole: list[Compared]) -> Chart:
    x = tuple(f"{model}, {phase}" for model, phase in every(s.models, s.phases))
    series = tuple(
        Series(f"{chip} over {other}", x, tuple(each.ratio(other) for each in whole if each.point[0] == chip))
        for chip, other in every(s.chips, (CORES, SME))
    )
    low, high = s.published["end-to-end"].band
    band = ((low, high, "published, up to"),)
    return Chart("End to end: times as fast", "bars", "model, prompt", "x", series, band)


if __name__ == "__main__":
    from smesim.cli_scenario import run_script

    run_script(__file__)
