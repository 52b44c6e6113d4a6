"""Products with weights of four bits on an M1: generated for AMX from a codebook, or multiplied on NEON as they are.

AMX takes full precision, so weights are looked up and written out first (`genlut`), once for every block of rows that
the accumulators hold. One row costs as much as sixteen; NEON costs by the row. Hence NEON is ahead at M = 1 and AMX by
M = 16.
"""

from __future__ import annotations

from smesim.engines.gemm import Product
from smesim.validate.adapters.gemm import core_seconds, in_unit, unit_seconds
from smesim.validate.library import Library
from smesim.validate.machines import NotModelled, chip_of
from smesim.validate.records import Question

_CORES = (("not repacked", "q4_0-plain"), ("repacked", "q4_0"), ("ggml", "q4_0"), ("NEON codebook", "codebook"))


def seconds(question: Question, library: Library, words: str, product: Product) -> float:
    """Time of one product by the engine that the words name, on as many threads as the record says."""
    chip = chip_of(question.chip, library)
    threads = min(question.threads or 1, chip.core_count)
    if "AMX" in words:
        kernel = "int8" if "int8" in words else "f32"
        units = [unit.index for unit in chip.unit_instances][: 1 if threads == 1 else None]
        crowded = threads > len(units)
        return unit_seconds(
            question, library, "amx-codebook", Product(product.m, product.n, product.k, packed=True), kernel=kernel,
            units=units, panel=64 if threads > 1 else None, crowded=crowded,
        )  # fmt: skip
    for word, kernel in _CORES:
        if word in words:
            return core_seconds(question, library, "ggml-m1", product, range(threads), kernel)
    raise NotModelled(f"no engine is known for {words!r}")


def m1cb(question: Question, library: Library) -> float:
    product = Product(question.number("M"), question.number("N"), question.number("K"))
    return in_unit(question, seconds(question, library, question.unit, product), product)


def _pair(question: Question) -> Product:
    """Shapes that are listed as a pair, without saying which is which: products of both orders take about as long."""
    first, second = question.shape.get("N_or_K_pair_as_listed") or question.shape["pair"]
    return Product(question.number("M"), int(second), int(first))


def m1cbs(question: Question, library: Library) -> float:
    product = _pair(question)
    return seconds(question, library, "repacked", product) / seconds(question, library, "AMX codebook", product)


def m1cbt(question: Question, library: Library) -> float:
    product = _pair(question)
    return in_unit(question, seconds(question, library, question.unit, product), product)


OPT_125M = tuple(Product(1, n, k) for _ in range(12) for n, k in ((768, 768),) * 4 + ((3072, 768), (768, 3072)))
"""Linear layers of OPT-125M (12 layers of width 768): queries, keys, values, output, and two of the feed-forward
part."""


def m1e2e(question: Question, library: Library) -> float:
    batch = question.number("batch")
    total = 0.0
    for product in dict.fromkeys(OPT_125M):
        shape = Product(batch, product.n, product.k)
        total += OPT_125M.count(product) * seconds(question, library, question.unit, shape)
    return batch / total


def m1neon(question: Question, library: Library) -> float:
    chip = chip_of(question.chip, library)
    if "ceiling" in question.metric:
        return chip.clusters[0].core.flop_per_s["s8"].value / 1e9
    product = Product(64, 8192, 2048)
    return in_unit(question, seconds(question, library, "NEON codebook", product), product)
