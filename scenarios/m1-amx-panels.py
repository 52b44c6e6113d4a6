"""M1 AMX: panel width, both blocks, and packing once, over twelve products of prompts."""

from __future__ import annotations

from statistics import geometric_mean

from smesim.engines.gemm import Product
from smesim.scenarios import (
    Chart,
    Findings,
    Scenario,
    Series,
    Table,
    Times,
    judged,
    judged_pairs,
    noted,
    number,
    record_of,
)

LIBRARIES = ("accelerate-amx", "bnns", "bnns-graph")
PANELS = "amx-panels"


def shapes(s: Scenario) -> list[Product]:
    """The twelve: projection, both feed-forward products and the output projection of three models."""
    tokens = int(s.number("tokens"))
    sizes = zip(s.series("widths"), s.series("inner"), s.series("words"), strict=True)
    pairs = [pair for w, inner, words in sizes for pair in ((w, w), (inner, w), (w, inner), (words, w))]
    return [Product(tokens, int(n), int(k)) for n, k in pairs]


def packed(product: Product) -> Product:
    return Product(product.m, product.n, product.k, packed=True)


def library_s(times: Times, chip: str, engine: str, product: Product) -> float:
    """A library's time on one block; BNNS Graph packs weights when the graph is compiled."""
    given = packed(product) if engine == "bnns-graph" else product
    return times.product_on_units(chip, engine, given, units=1)


def panel_s(s: Scenario, times: Times, product: Product, width: float, blocks: int = 2) -> float:
    return times.product_on_units(s.chips[0], PANELS, packed(product), units=blocks, panel=int(width))


def study(s: Scenario, times: Times) -> Findings:
    chip, best, widths = s.chips[0], s.number("best_panel"), s.series("panels")
    rows = []
    for p in shapes(s):
        ours = panel_s(s, times, p, best)
        other = [library_s(times, chip, engine, p) for engine in LIBRARIES]
        per_call = times.product_on_units(chip, PANELS, p, units=2, panel=int(best))
        one = panel_s(s, times, p, best, blocks=1)
        rates = [p.flop / t / 1e9 for t in (*other, per_call, one, ours)]
        twice = [panel_s(s, times, p, width) / ours for width in (2 * best, best / 2, widths[0])]
        rows.append((f"{p.m} x {p.n} x {p.k}", *rates, *twice))
    columns = (
        "M x N x K", "cblas, GFLOPS", "BNNSMatMul", "BNNS Graph", "panels, packed in every call", "panels, one block",
        "panels, both blocks", "time of panels twice as wide, x", "half as wide, x", f"{widths[0]:.0f} columns, x",
    )  # fmt: skip
    over = {e: geometric_mean([row[6] / row[1 + i] for row in rows]) for i, e in enumerate(LIBRARIES)}
    deep = [row[9] for row, p in zip(rows, shapes(s), strict=True) if p.k >= p.n]
    once, call = ([row[i] for row in rows] for i in (6, 4))
    rate = {name: times.record(name) for name in s.published["tinyllama-rates"].records}
    worst = max(max(row[7], row[8]) for row in rows)
    finest = [min(panel_s(s, times, p, width) for width in widths) for p in shapes(s)]
    both = geometric_mean([panel_s(s, times, p, best, 1) / t for p, t in zip(shapes(s), finest, strict=True)])
    verdicts = (
        judged(s.published["over-bnns"], [over["bnns"]]),
        judged(s.published["over-graph"], [over["bnns-graph"]]),
        judged(s.published["mistuned"], [geometric_mean(deep)]),
        judged_pairs(s.published["panels"], times.pairs(s.published["panels"])),
        judged(s.published["pack"], [times.record("m1pack-0001")]),
        judged(s.published["tinyllama"], [times.ratio(s.published["tinyllama"])]),
        judged_pairs(s.published["tinyllama-rates"], times.pairs(s.published["tinyllama-rates"])),
        noted(
            f"Packing once instead of in every call: {number(geometric_mean(once) / geometric_mean(call))}x over the"
            f" twelve shapes; both blocks instead of one: "
            f"{number(geometric_mean([row[6] / row[5] for row in rows]))}x, and {number(both)}x with the best width for"
            f" each shape; a panel width that is wrong by a factor of"
            f" two costs at most {worst - 1:.0%}."
        ),
        noted(
            f"At 512 tokens {'cblas' if rate['m1llm-0006'] > rate['m1llm-0005'] else 'the hand-written path'} is ahead:"
            f" {number(rate['m1llm-0006'])} tokens/s with cblas, {number(rate['m1llm-0005'])} with panels, whose"
            " activations are transposed in every call."
        ),
    )  # fmt: skip
    return Findings((Table("Twelve products of 128 tokens", columns, tuple(rows)),), verdicts, (chart(s, times),))


def chart(s: Scenario, times: Times) -> Chart:
    """Throughput over panel width of each model's projection, predicted, and what was published of the first."""
    widths, tokens = s.series("panels"), int(s.number("tokens"))
    sizes = dict.fromkeys(int(width) for width in s.series("widths"))
    series = [
        Series(f"N = K = {n}", widths, tuple(p.flop / panel_s(s, times, p, w) / 1e9 for w in widths))
        for n in sizes
        for p in (Product(tokens, n, n),)
    ]
    found = [r for name in s.published["panels"].records if (r := record_of(name)) is not None]
    x = tuple(float(record.shape_params["Nc"]) for record in found)
    series.append(Series("N = K = 2048, published", x, tuple(record.value for record in found), published=True))
    return Chart("Throughput by panel width", "lines", "columns of a panel", "GFLOPS", tuple(series), log_x=True)


if __name__ == "__main__":
    from smesim.cli_scenario import run_script

    run_script(__file__)
