"""One product by a published engine, on matrix units or cores: throughput or time."""

from __future__ import annotations

import re
from collections.abc import Sequence

from smesim.engines.gemm import Product, on_cores, on_units
from smesim.engines.profile import in_half_the_steps
from smesim.hwmodel.chip import Chip, factor_at
from smesim.validate.library import Library
from smesim.validate.machines import NotModelled, chip_of
from smesim.validate.records import Question

GIGA = 1e9
_DTYPES = {"FP32": "f32", "FP64": "f64", "FP16": "f16", "INT8": "s8", "BF16": "bf16", "i8": "s8"}
FP_SHAPE = 4096  # where a record gives no shape: large, as such peaks are quoted


def product_of(question: Question) -> Product:
    """Shape of a record, M x N x K."""
    if "M" not in question.shape:
        return Product(FP_SHAPE, FP_SHAPE, FP_SHAPE)
    return Product(question.number("M"), question.number("N"), question.number("K"))


def dtype_of(question: Question) -> str:
    return _DTYPES.get(question.dtype, question.dtype)


def big_units(chip: Chip) -> list[int]:
    """The units of the first cluster's kind: those that BLAS libraries were seen to use."""
    return [u.index for u in chip.unit_instances if u.cluster.cluster.name == chip.clusters[0].name]


def unit_seconds(
    question: Question, library: Library, engine: str, product: Product, *, kernel: str | None = None,
    units: Sequence[int] | None = None, panel: int | None = None, crowded: bool = False,
) -> float:  # fmt: skip
    """Time of a product on some units (the first big one if not said), by an engine's kernel; `crowded` where several
    threads drive one unit."""
    chip = chip_of(question.chip, library)
    profile, name = library.engine(engine), kernel or dtype_of(question)
    if name not in profile.matrix:
        raise NotModelled(f"engine {engine} has no matrix kernel for {name}")
    on = list(units) if units is not None else big_units(chip)[:1]
    # Kernels are costed once for a shape, whoever asks.
    key = ("unit", engine, chip.name, name, tuple(on), panel, crowded, product)
    if key not in library.memo:
        lowered = on_units(profile, name, chip, on, product, library.effects, panel, crowded)
        library.memo[key] = lowered.seconds(meeting_s(chip, len(on), library))
    return float(library.memo[key])


def core_seconds(
    question: Question, library: Library, engine: str, product: Product, cores: Sequence[int], kernel: str | None = None
) -> float:
    """Time of a product on some cores, by an engine's kernel."""
    chip = chip_of(question.chip, library)
    profile, name = library.engine(engine), kernel or dtype_of(question)
    if name not in profile.core:
        raise NotModelled(f"engine {engine} has no core kernel for {name}")
    lowered = on_cores(profile, name, chip, cores, product, library.effects)
    return lowered.seconds(meeting_s(chip, len(cores), library))


def meeting_s(chip: Chip, threads: int, library: Library) -> float:
    return chip.sync.barrier_s.value if threads > 1 and "barrier" in library.effects else 0.0


def in_unit(question: Question, seconds: float, product: Product) -> float:
    """A time in the record's unit."""
    match question.unit_of_value:
        case "ms":
            return seconds * 1e3
        case "us":
            return seconds * 1e6
        case "GFLOPS" | "GOPS":
            return product.flop / seconds / GIGA
        case "GB/s":
            return product.n * product.k / seconds / GIGA
    raise NotModelled(f"a product has no answer in {question.unit_of_value}")


def m1probe(question: Question, library: Library) -> float:
    kernel = str(question.shape["kernel"])
    product = product_of(question)
    if kernel == "sgemv":  # M x K by a vector: a product of one row
        product = Product(1, product.m, product.k)
    engine, name = ("bnns", "f16") if kernel == "bnns_f16" else ("accelerate-amx", "f32")
    return in_unit(question, unit_seconds(question, library, engine, product, kernel=name), product)


_MPGEMM = {"OpenBLAS": "openblas-sme", "KleidiAI": "kleidiai-gemm", "Accelerate": "accelerate", "MpGEMM": "mpgemm"}


def mpgemm(question: Question, library: Library) -> float:
    words = question.metric.rpartition(", ")[2]
    engine = _MPGEMM[words.split("-")[0]]
    product = product_of(question)
    product = Product(product.m, product.n, product.k, transposed="transposed" in question.unit)
    units = big_units(chip_of(question.chip, library))
    units = units if question.unit.startswith("all") else units[:1]
    return in_unit(question, unit_seconds(question, library, engine, product, units=units), product)


def m1gemm(question: Question, library: Library) -> float:
    if question.unit_of_value == "x":
        return _m1_ratio(question, library)
    product = product_of(question)
    return in_unit(question, _m1_seconds(question, library, question.metric, product), product)


def _m1_seconds(question: Question, library: Library, words: str, product: Product, panel: int | None = None) -> float:
    """By cblas, BNNS MatMul, BNNS Graph, or the hand-written kernel over both blocks with weights packed at load."""
    if "direct AMX" in words or "pre-packed" in words:
        found = re.search(r"Nc=(\d+)", words)
        packed = Product(product.m, product.n, product.k, packed=True)
        width = panel or (int(found[1]) if found else 64)
        units = [unit.index for unit in chip_of(question.chip, library).unit_instances]
        return unit_seconds(question, library, "amx-panels", packed, kernel="f32", units=units, panel=width)
    engine = "bnns-graph" if "Graph" in words else "bnns" if "BNNS" in words else "accelerate-amx"
    packed_at_load = engine == "bnns-graph"
    given = Product(product.m, product.n, product.k, packed=packed_at_load)
    return unit_seconds(question, library, engine, given, kernel="f32")


_TWELVE = tuple(
    Product(128, n, k)
    for width, inner, words in ((2048, 8192, 60000), (2048, 5632, 32000), (4096, 11008, 32000))
    for n, k in ((width, width), (inner, width), (width, inner), (words, width))
)
"""The prefill shapes of GPT-2 class, TinyLlama and Llama-7B at 128 tokens."""


def _geomean(values: Sequence[float]) -> float:
    product = 1.0
    for value in values:
        product *= value
    return float(product ** (1.0 / len(values)))


def _m1_ratio(question: Question, library: Library) -> float:
    """How much faster panels are than another engine, or than wider panels, over the twelve shapes."""
    shapes = _TWELVE
    if "over Nc=512" in question.metric:
        shapes = tuple(p for p in _TWELVE if p.k >= p.n)
        ours = [_m1_seconds(question, library, "pre-packed", p, 64) for p in shapes]
        others = [_m1_seconds(question, library, "pre-packed", p, 512) for p in shapes]
    else:
        ours = [_m1_seconds(question, library, "pre-packed", p) for p in shapes]
        others = [_m1_seconds(question, library, question.metric.rpartition("vs ")[2], p) for p in shapes]
    return _geomean([other / own for own, other in zip(ours, others, strict=True)])


def m1panel(question: Question, library: Library) -> float:
    product = product_of(question)
    seconds = _m1_seconds(question, library, "pre-packed", product, question.number("Nc"))
    return in_unit(question, seconds, product)


def m1pack(question: Question, library: Library) -> float:
    product = product_of(question)
    inner = unit_seconds(
        question, library, "amx-panels", Product(product.m, product.n, product.k, packed=True), kernel="f32"
    )
    if question.unit_of_value != "fraction":
        return in_unit(question, inner, product)
    whole = unit_seconds(question, library, "amx-panels", product, kernel="f32")
    return 1.0 - inner / whole


def m1_12(question: Question, library: Library) -> float:
    """Hand-written kernel on one thread, weights packed in every call, against Accelerate."""

    def ratio(product: Product) -> float:
        own = unit_seconds(question, library, "amx-panels", product, kernel="f32")
        return unit_seconds(question, library, "accelerate-amx", product, kernel="f32") / own

    if "never pack" in question.metric:
        raise NotModelled("kernels that read unpacked weights on AMX have no profile")
    return _geomean([ratio(p) for p in _TWELVE]) if "policy" in question.metric else ratio(product_of(question))


def numkong(question: Question, library: Library) -> float:
    if "transition" in question.metric:
        raise NotModelled("the range of a fact that presets hold: an input")
    product, unit = product_of(question), question.unit
    xeon = "Xeon" in question.chip
    dtype = dtype_of(question)
    if unit.startswith("NEON") or "VNNI" in unit or (unit.startswith("MKL") and dtype == "f32"):
        engine = "mkl" if unit.startswith("MKL") else "numkong-amx" if xeon else "numkong"
        return in_unit(question, core_seconds(question, library, engine, product, [0], dtype), product)
    engine = "mkl" if unit.startswith("MKL") else "numkong-amx" if xeon else "numkong"
    kernel = "i4" if question.dtype == "i4" else dtype
    return in_unit(question, unit_seconds(question, library, engine, product, kernel=kernel), product)


def ynn9531(question: Question, library: Library) -> float:
    product = product_of(question)
    profile = library.engine("ynnpack-first" if "original" in question.metric else "ynnpack-four")
    kernel = profile.matrix["f32"]
    if dtype_of(question) == "bf16":
        kernel = in_half_the_steps(kernel, "bf16")
    chip = chip_of(question.chip, library)
    own = profile.model_copy(update={"matrix": {"dot": kernel}})
    return in_unit(
        question, on_units(own, "dot", chip, big_units(chip)[:1], product, library.effects).seconds(0.0), product
    )


def neon_peak(chip: Chip) -> float:
    """Arithmetic of all cores at once, each cluster with what is left of its rate when all its cores are busy."""
    return sum(
        count * c.core.flop_per_s["f32"].value * factor_at(c.multi_core_factors, count)
        for c in chip.clusters
        for count in (c.core_count * c.count,)
    )


def blas(question: Question, library: Library) -> float:
    """Accelerate on AMX or SME, OpenBLAS on NEON or SME: square products (blocks aa, aa132, m5, m4max, m4gemm,
    m1max)."""
    chip = chip_of(question.chip, library)
    product = product_of(question)
    words = question.unit + " " + question.metric
    family = (
        "accelerate" if chip.unit_instances and chip.unit_instances[0].unit.kind.startswith("sme") else "accelerate-amx"
    )
    if "all cores" in words:
        return neon_peak(chip) / GIGA
    if "NEON" in words:
        cores = range(min(question.threads or chip.core_count, chip.core_count))
        engine = "openblas-neon" if family == "accelerate-amx" else "openblas-sme"
        return in_unit(question, core_seconds(question, library, engine, product, cores), product)
    if "OpenBLAS SME" in words:
        return in_unit(question, unit_seconds(question, library, "openblas-sme", product), product)
    if "LIBXSMM" in words or "hand-written" in words or "BLIS" in words:
        family = "mpgemm" if dtype_of(question) == "f32" else "accelerate"
    units = big_units(chip)
    if family == "accelerate-amx" and question.threads == 1:
        family = "accelerate-amx-alone"
    # Accelerate puts small products on one unit, large ones on all of the big cores' units; on AMX, one a thread.
    whole = product.m >= 2048 and "one SME" not in words and family != "accelerate-amx-alone"
    on = units if whole else units[:1]
    drivers = [on[i % len(on)] for i in range(max(len(on), question.threads or 1))]
    return in_unit(question, unit_seconds(question, library, family, product, units=drivers), product)


def rten(question: Question, library: Library) -> float:
    chip = chip_of(question.chip, library)
    product = product_of(question)
    if "kernel" in question.metric:
        name = "i8mm" if "i8mm" in question.metric else "udot"
        return in_unit(question, core_seconds(question, library, "rten", product, [0], name), product)
    cores = range(min(question.threads or 1, chip.core_count))
    return in_unit(question, core_seconds(question, library, "rten", product, cores), product)


def mm73(question: Question, library: Library) -> float:
    product = product_of(question)
    return in_unit(question, core_seconds(question, library, "matrixmultiply", product, [0]), product)


def xnnpack(question: Question, library: Library) -> float:
    """Kernels of 4-bit weights on one core, by the kernel's shape and the length of its blocks."""
    product = product_of(question)
    if question.block == "xnn":
        found = re.search(r"qb4w (\S+)$", question.unit)
        name = f"w4a8-{found[1]}" if found else ""
    elif "sdot" in question.unit:
        name = "w4a8-sdot"
    else:
        name = f"w4a8-block{question.number('block')}"
    return in_unit(question, core_seconds(question, library, "xnnpack-neon", product, [0], name), product)


def jblas(question: Question, library: Library) -> float:
    product = product_of(question)
    cores = range(min(question.threads or 1, chip_of(question.chip, library).core_count))
    return in_unit(question, core_seconds(question, library, "jblas", product, cores, "w4"), product)


def kt(question: Question, library: Library) -> float:
    unit = chip_of(question.chip, library).unit_instances
    if not unit or ("tile" not in question.metric and "MACs" not in question.metric):
        raise NotModelled("kernels of mixtures of experts of one project, or a choice that it makes: no profile")
    operation = unit[0].unit.instructions["tmul_s8"]
    return operation.cycles.value if "time" in question.metric else operation.flop / 2 / operation.cycles.value
