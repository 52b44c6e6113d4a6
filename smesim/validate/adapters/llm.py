"""Prefill and decode rates of models by published engines."""

from __future__ import annotations

import re

from smesim.engines.formats import weight_format
from smesim.engines.llm import Run, phase_seconds
from smesim.validate.library import Library
from smesim.validate.machines import NotModelled, chip_of
from smesim.validate.records import Question
from smesim.workload import Phase, catalog

_FORMATS = (
    ("Q4_0", "q4_0"), ("Q4_K", "q4_k"), ("Q6_K", "q6_k"), ("Q5_0", "q5_0"), ("Q8_0", "q8_0"), ("F32", "f32"),
    ("FP32", "f32"), ("FP8", "fp8"), ("BF16", "bf16"), ("FP16", "f16"), ("F16", "f16"), ("INT8", "int8"),
    ("W4", "w4"), ("W2", "w2"),
)  # fmt: skip
_MODELS = (
    (r"Llama-3\.2-1B|1B-class", "llama-3.2-1b"), (r"Llama-3\.2-3B", "llama-3.2-3b"), (r"Llama-3\.1-8B", "llama-3.1-8b"),
    (r"Llama-2-7B|Llama-7B|(?<![\d.])7B (prefill|decode)", "llama-2-7b"), (r"TinyLlama", "tinyllama-1.1b"),
    (r"Qwen2\.5-0\.5B", "qwen2.5-0.5b"), (r"Qwen2\.5-1\.5B", "qwen2.5-1.5b"), (r"Qwen2\.5-7B", "qwen2.5-7b"),
    (r"Qwen3-1\.7B", "qwen3-1.7b"), (r"Qwen3-4B", "qwen3-4b"), (r"Qwen3-30B-A3B", "qwen3-30b-a3b"),
    (r"Qwen3-235B-A22B", "qwen3-235b-a22b"), (r"R1-Distill-Llama-70B", "llama-3.1-70b"),
)  # fmt: skip
SHORT_PROMPT, LONG_PROMPT, PROMPT, GENERATED = 64, 256, 512, 128
"""Lengths where a record does not say: "prefill_short", "prefill_long", and what llama-bench takes by default."""


DEFAULT_THREADS = 4  # of MNN and others where a record does not say


def model_of(question: Question) -> str:
    """The catalogue's name of the model that a record means."""
    words = f"{question.shape.get('model', '')} {question.metric}"
    if str(question.shape.get("model")) == "7B":
        return "llama-2-7b"
    for pattern, name in _MODELS:
        if re.search(pattern, words):
            return name
    raise NotModelled(f"the catalogue has no model for {words.strip()!r}")


def format_of(question: Question) -> str:
    """The format of the weights, as kernels name it."""
    words = question.dtype if "/" not in question.dtype else question.metric
    for word, name in _FORMATS:
        if word in words:
            return name
    raise NotModelled(f"no format of weights is known for {words!r}")


def phase_of(question: Question) -> Phase:
    """The phase that a metric's words mean: "prefill pp512", "decode tg128", "TTFT"."""
    words = question.metric
    if found := re.search(r"tg(\d+)|decode|TPOT", words):
        generated = int(found[1]) if found[1] else int(question.shape.get("out", GENERATED))
        before = int(question.shape.get("in", 0)) + int(question.shape.get("depth", 0))
        return Phase.decode(before + max(1, generated // 2))
    if found := re.search(r"pp(\d+)", words):
        return Phase.prefill(int(found[1]), int(question.shape.get("depth", 0)))
    if "prefill_short" in words:
        return Phase.prefill(SHORT_PROMPT)
    if "prefill_long" in words:
        return Phase.prefill(LONG_PROMPT)
    prompt = question.shape.get("prompt", question.shape.get("in", question.shape.get("prompt_tokens", PROMPT)))
    return Phase.prefill(int(str(prompt).lstrip("~")))


def rate(question: Question, library: Library, engine: str, *, kernel: str | None = None) -> float:
    """Tokens a second, or milliseconds of a phase, as the record's unit asks."""
    chip = chip_of(question.chip, library)
    count = question.threads or DEFAULT_THREADS
    run = Run(
        library.engine(engine), chip, catalog.load(model_of(question)), phase_of(question),
        weight_format(format_of(question)), min(count, chip.core_count), library.effects, kernel,
    )  # fmt: skip
    key = (engine, chip.name, run.model.name, str(run.phase), run.weights.name, run.threads, kernel)
    if key not in library.memo:
        library.memo[key] = phase_seconds(run)
    seconds = float(library.memo[key])
    match question.unit_of_value:
        case "tok/s":
            return run.phase.tokens / seconds
        case "ms":
            return seconds * 1e3
    raise NotModelled(f"a phase has no answer in {question.unit_of_value}")


def llama_cpp(question: Question, library: Library) -> float:
    """llama.cpp on Apple silicon, by the words of the unit: NEON, SME only, hybrid, or before there was a GEMV
    kernel."""
    unit = question.unit
    if "no GEMV" in unit:
        return rate(question, library, "llama-cpp-sme-no-gemv")
    if "before fp16" in unit:
        return rate(question, library, "llama-cpp-sme", kernel="q4_0-before")
    if "SME off" in unit or unit.startswith("NEON"):
        return rate(question, library, "llama-cpp-neon")
    # Products of f32 are never shared with the cores: every thread drives a unit.
    hybrid = format_of(question) != "f32" and ("hybrid" in unit or "NEON" in unit or "SME on" in unit)
    return rate(question, library, "llama-cpp-hybrid" if hybrid else "llama-cpp-sme")


def lc27086(question: Question, library: Library) -> float:
    return rate(
        question, library, "llama-cpp-flash-rows" if "flash-attention on" in question.unit else "llama-cpp-batched"
    )


def lc8672(question: Question, library: Library) -> float:
    return rate(question, library, "llama-cpp-2024")


def lc10435(question: Question, library: Library) -> float:
    return rate(question, library, "llama-cpp-blas")


def arm(question: Question, library: Library) -> float:
    return rate(question, library, "llama-cpp-arm")


def lc27078(question: Question, library: Library) -> float:
    return rate(question, library, "llama-cpp-neon")


def ik121(question: Question, library: Library) -> float:
    return rate(question, library, "ik-llama")


def tmac(question: Question, library: Library) -> float:
    return rate(question, library, "t-mac" if "T-MAC" in question.metric else "llama-cpp-tmac")


def lf974(question: Question, library: Library) -> float:
    return rate(question, library, "llamafile-974" if "PR 974" in question.unit else "llamafile")


def mnn(question: Question, library: Library) -> float:
    if question.unit_of_value == "MiB":
        raise NotModelled("a file's size: an input")
    return rate(question, library, "mnn")


def sgl(question: Question, library: Library) -> float:
    chip = chip_of(question.chip, library)
    if "achieved bandwidth, " in question.metric:
        return chip.memory.bandwidth_bytes_per_s.value / 1e9
    if "bandwidth fraction" in question.metric and chip.memory.spec_bandwidth_bytes_per_s is not None:
        return chip.memory.bandwidth_bytes_per_s.value / chip.memory.spec_bandwidth_bytes_per_s.value
    if "share" in question.metric:
        raise NotModelled("communication between ranks has no model: one process is assumed")
    return rate(question, library, "sglang-cpu" if "SGLang" in question.unit else "llama-cpp-x86")


def lc7487(question: Question, library: Library) -> float:
    return rate(question, library, "llama-cpp-amx")


def ik437(question: Question, library: Library) -> float:
    raise NotModelled("the processor is not named")


def m1llm(question: Question, library: Library) -> float:
    return rate(question, library, "inferc-shim" if "shim" in question.metric else "llama-cpp-cblas")
