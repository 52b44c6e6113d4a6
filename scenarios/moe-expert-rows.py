"""Experts by rows: rates before and after, balance of routings, and who runs the experts."""

from __future__ import annotations

from itertools import product as every

import numpy as np

from smesim.engines.formats import weight_format
from smesim.engines.gemm import Product, core_gemm_s
from smesim.engines.lowering import Chunk, Cost, Stage, Thread, lower_stages
from smesim.engines.profile import load
from smesim.plan.program import TaskKind
from smesim.scenarios import Chart, Findings, Scenario, Series, Table, Times, judged, judged_pairs, noted, number
from smesim.sim.effects import ALL_EFFECTS
from smesim.workload import Phase, catalog

ROUTINGS = ("even", "skewed", "grouped")


def expert_rows(s: Scenario, routing: str, tokens: int) -> list[int]:
    """Rows that each expert gets of so many tokens."""
    model, rng = catalog.load(s.models[0]), np.random.default_rng(int(s.number("seed")))
    experts, chosen, groups = model.experts, model.experts_per_token, int(s.number("groups"))
    popularity = np.ones(experts)
    if routing == "skewed":
        popularity = rng.permutation(np.arange(1, experts + 1.0) ** -s.number("zipf_exponent"))
    # The best of popularity times exponential noise are draws without replacement (Gumbel, top k).
    scores = np.log(popularity) + rng.gumbel(size=(tokens, experts))
    if routing == "grouped":
        per_group = chosen // groups
        split = scores.reshape(tokens, groups, -1)
        best = np.argsort(-split, axis=2)[:, :, :per_group] + (np.arange(groups) * (experts // groups))[:, None]
    else:
        best = np.argsort(-scores, axis=1)[:, :chosen]
    return [int(n) for n in np.bincount(best.ravel(), minlength=experts)]


def layer_s(s: Scenario, times: Times, rows: list[int], owned: bool) -> float:
    """The gate product of all experts, each owned by a thread or drawn from one counter."""
    chip, model = times.chip(s.chips[0]), catalog.load(s.models[0])
    kernel, weights, count = load(s.engines[1]).core[s.weights[0]], weight_format(s.weights[0]), s.threads[0]
    per_thread = -(-len(rows) // count)
    chunks = []
    for expert, m in enumerate(rows):
        if m:
            product = Product(m, model.d_expert, model.d_model)
            seconds = core_gemm_s(kernel, chip, 0, count, product, ALL_EFFECTS)
            cost = Cost(seconds, product.n * product.k * weights.bits / 8)
            chunks.append(Chunk({"core": cost}, expert // per_thread if owned else None))
    threads = [Thread(core, "core") for core in range(count)]
    stage = Stage("gate_experts", TaskKind.EXPERT_GEMM, chunks)
    return lower_stages(chip, threads, [stage], "experts").seconds(chip.sync.barrier_s.value)


def study(s: Scenario, times: Times) -> Findings:
    count, rows, gain, lines = s.threads[0], [], {}, []
    for routing, phase in every(ROUTINGS, s.phases):
        tokens = Phase.parse(phase).tokens
        per_expert = expert_rows(s, routing, tokens)
        owners = np.array(per_expert).reshape(count, -1).sum(axis=1)
        owned, drawn = (layer_s(s, times, per_expert, owned) for owned in (True, False))
        gain[routing, phase] = owned
        rows.append((routing, phase, max(per_expert), owners.max() / owners.mean(), owned * 1e3, drawn * 1e3))
    for routing in ROUTINGS:
        x = tuple(float(Phase.parse(phase).tokens) for phase in s.phases)
        lines.append(Series(routing, x, tuple(gain["even", p] / gain[routing, p] for p in s.phases)))
    columns = ("routing", "phase", "most rows of an expert", "fullest thread over mean", "owned, ms", "drawn, ms")
    chosen = []
    for phase, site in every(s.phases, s.sites):
        both = [times.planned(s.chips[0], s.models[0], phase, planner, site=site) for planner in s.planners]
        chosen.append((phase, site, both[0].time_s * 1e3, both[1].time_s * 1e3, both[0].time_s / both[1].time_s,
                       both[1].mode))  # fmt: skip
    last = s.phases[-1]
    skew, group = (gain["skewed", last] / gain[name, last] for name in ("even", "grouped"))
    by_even = gain["even", last] / gain["grouped", last]
    verdicts = (
        judged_pairs(s.published["rates"], times.pairs(s.published["rates"])),
        judged(s.published["by-rows"], [times.ratio(s.published["by-rows"])]),
        judged(s.published["decode"], [times.ratio(s.published["decode"])]),
        noted(
            f"{last}, experts owned by {count} threads: skewed routing takes {number(skew)}x as long as even routing;"
            f" routing in groups is {number(group)}x as fast as skewed and {number(by_even)}x as fast as even routing."
        ),
        noted(
            "Experts drawn from one counter instead of owned:"
            f" {number(max(row[4] / row[5] for row in rows if row[0] == 'skewed'))}x at most where routing is skewed."
        ),
    )
    tables = (
        Table("Load of one layer's gate product", columns, tuple(rows)),
        Table("Who runs the experts (f32)", ("phase", "product", "cores, ms", "ours, ms", "x", "mode"), tuple(chosen)),
    )
    chart = Chart("Owned experts: speed against even routing", "lines", "tokens", "x", tuple(lines), log_x=True)
    return Findings(tables, verdicts, (chart,))


if __name__ == "__main__":
    from smesim.cli_scenario import run_script

    run_script(__file__)
