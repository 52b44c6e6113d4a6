"""Softmax in two and three passes: stages of a program, from caches and from memory."""

from __future__ import annotations

from itertools import product as every

from smesim.engines.lowering import Chunk, Cost, Stage, Thread, lower_stages
from smesim.hwmodel.chip import DRAM, Chip
from smesim.plan.program import TaskKind
from smesim.scenarios import Chart, Findings, Scenario, Series, Table, Times, judged, noted, number

F32_BYTES = 4


def passes(exponential: float) -> dict[str, list[tuple[int, int, float]]]:
    """Elements read and written, and FLOP an element, of each pass."""
    return {
        "three, recomputing": [(1, 0, 1.0), (1, 0, exponential + 1), (1, 1, exponential + 1)],
        "three, with reloading": [(1, 0, 1.0), (1, 1, exponential + 1), (1, 1, 1.0)],
        "two": [(1, 0, exponential + 4), (1, 1, exponential + 2)],
    }


def level_of(chip: Chip, n_bytes: float, cores: int) -> str:
    """The nearest level that holds so many bytes, shared by so many cores."""
    cluster = chip.clusters[0].name
    for level in chip.levels(cluster):
        if level == DRAM:
            break
        cache = chip.cache(level, cluster)
        if n_bytes <= cache.size_bytes.value * (cores if cache.scope == "core" else 1):
            return level
    return DRAM


def seconds(chip: Chip, elements: int, cores: int, steps: list[tuple[int, int, float]]) -> float:
    """One softmax of so many elements, divided equally over cores of the first cluster."""
    core = chip.clusters[0].core
    level = level_of(chip, 2.0 * elements * F32_BYTES, cores)
    while level != DRAM and level not in core.load_bytes_per_s:
        level = chip.levels(chip.clusters[0].name)[chip.levels(chip.clusters[0].name).index(level) + 1]
    stages = []
    for i, (read, written, flop) in enumerate(steps):
        share = elements / cores
        n_bytes = share * F32_BYTES * (read + written)
        busy_s = share * flop / core.flop_per_s["f32"].value
        near_s = 0.0 if level == DRAM else n_bytes / core.load_bytes_per_s[level].value
        cost = Cost(max(busy_s, near_s), n_bytes if level == DRAM else 0.0)
        stages.append(Stage(f"pass {i + 1}", TaskKind.ADD, [Chunk({"core": cost}, c) for c in range(cores)]))
    threads = [Thread(core_number, "core") for core_number in range(cores)]
    return lower_stages(chip, threads, stages, "softmax").seconds(chip.sync.barrier_s.value if cores > 1 else 0.0)


def study(s: Scenario, times: Times) -> Findings:
    ways = passes(s.number("exponential"))
    rows, charts, far = [], [], []
    crowds = {"one core": lambda chip: 1, "first cluster": lambda chip: chip.clusters[0].core_count}
    for name, (crowd, count) in every(s.chips, crowds.items()):
        chip = times.chip(name)
        gains = []
        for elements in map(int, s.series("elements")):
            took = {way: seconds(chip, elements, count(chip), steps) for way, steps in ways.items()}
            three = min(took["three, recomputing"], took["three, with reloading"])
            gains.append(three / took["two"])
            level = level_of(chip, 2.0 * elements * F32_BYTES, count(chip))
            rows.append((name, crowd, elements, level, *(took[way] * 1e6 for way in ways), gains[-1]))
            if elements == s.number("out_of_cache"):
                far.append(gains[-1])
        charts.append(Series(f"{name}, {crowd}", s.series("elements"), tuple(gains)))
    columns = ("chip", "on", "elements", "from", *(f"{way}, us" for way in ways), "two over the better three, x")
    near = [row[-1] for row in rows if row[3] != DRAM and row[1] == "one core"]
    verdicts = [judged(claim, far, "out of cache, these chips") for claim in s.published.values()]
    verdicts.append(
        noted(
            f"On one core in caches two passes give {number(min(near))}x to {number(max(near))}x; out of cache"
            f" {number(min(far))}x to {number(max(far))}x; bytes alone (three elements moved instead of four) would"
            f" give {number(4 / 3)}x."
        )
    )
    bands = tuple((1.0, claim.band[1], claim.says) for claim in s.published.values())
    chart = Chart("Two passes over three", "lines", "elements", "x", tuple(charts), bands, log_x=True)
    return Findings((Table("Softmax of f32", columns, tuple(rows)),), tuple(verdicts), (chart,))


if __name__ == "__main__":
    from smesim.cli_scenario import run_script

    run_script(__file__)
