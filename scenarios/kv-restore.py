"""Restoring a KV cache: storage and expansion against prefilling."""

from __future__ import annotations

from smesim.engines.gemm import core_weights_per_s
from smesim.engines.llm import threads_on
from smesim.engines.lowering import Chunk, Cost, Stage, lower_stages
from smesim.engines.profile import load
from smesim.plan.program import TaskKind
from smesim.scenarios import Chart, Findings, Scenario, Series, Table, Times, noted, number
from smesim.workload import Phase, catalog

F32_BYTES = 4
KERNEL = "q4_0"


def expand_s(s: Scenario, times: Times, chip_name: str, numbers: float) -> float:
    """All cores expand blocks into the f32 cache, each by its speed."""
    chip, kernel = times.chip(chip_name), load(s.engines[0]).core[KERNEL]
    threads = threads_on(chip, chip.core_count, "none")
    rates = [core_weights_per_s(kernel, chip, thread.core) for thread in threads]
    n_bytes = numbers * (s.number("bits") / 8 + F32_BYTES)
    costs = [
        Chunk({thread.kind: Cost(numbers / sum(rates), n_bytes * rate / sum(rates))}, i)
        for i, (thread, rate) in enumerate(zip(threads, rates, strict=True))
    ]
    stage = Stage("expand", TaskKind.ADD, costs)
    return lower_stages(chip, threads, [stage], "restore").seconds(chip.sync.barrier_s.value)


def study(s: Scenario, times: Times) -> Findings:
    rows, series, verdicts = [], [], []
    for chip, storage in zip(s.chips, s.series("storage_gb_per_s"), strict=False):
        for name in s.models:
            model, gains, lengths = catalog.load(name), [], []
            for phase in s.phases:
                tokens = Phase.parse(phase).tokens
                numbers = 2.0 * model.layers * model.kv_heads * model.head_dim * tokens
                kept_bytes = numbers * s.number("bits") / 8
                again = times.planned(chip, name, phase, s.planners[0], last_layer_rows="logits").time_s
                read, expand = kept_bytes / (storage * 1e9), expand_s(s, times, chip, numbers)
                gains.append(again / max(read, expand))
                lengths.append(float(tokens))
                rows.append((chip, name, phase, kept_bytes / 1e6, read * 1e3, expand * 1e3, again * 1e3, gains[-1]))
            series.append(Series(f"{chip}, {name}", tuple(lengths), tuple(gains)))
            verdicts.append(
                noted(
                    f"{chip}, {name}: restoring is {number(min(gains))}x to {number(max(gains))}x as fast as prefilling"
                    f" {lengths[0]:.0f} to {lengths[-1]:.0f} tokens; {'storage' if read > expand else 'expansion'} is"
                    " what it waits for."
                )
            )
    columns = (
        "chip", "model", "context", "kept, MB", "storage, ms", "expansion, ms", "prefilling again, ms", "restoring, x",
    )  # fmt: skip
    table = Table("Restoring against prefilling", columns, tuple(rows))
    chart = Chart("Restoring over prefilling", "lines", "tokens", "x", tuple(series), log_x=True, log_y=True)
    return Findings((table,), tuple(verdicts), (chart,))


if __name__ == "__main__":
    from smesim.cli_scenario import run_script

    run_script(__file__)
