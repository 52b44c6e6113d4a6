"""Adapters: what a block of records asks, as a run of the public API.

An adapter takes a record's question (never its value) and a library of chips and engines, and gives the answer in the
record's unit, or raises NotModelled with the reason. `ADAPTERS` names one for each block that can be answered,
`OUTSIDE` says why others cannot.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from smesim.errors import SmesimError
from smesim.validate.adapters import codebook, gemm, instruction_peaks, llm, memory, streams
from smesim.validate.library import Library
from smesim.validate.machines import NotModelled
from smesim.validate.records import Question

Adapter = Callable[[Question, Library], float]

ADAPTERS: Mapping[str, Adapter] = {
    "aa": gemm.blas,
    "aa132": gemm.blas,
    "aavec": memory.aavec,
    "adl": llm.llama_cpp,
    "armcpu": llm.arm,
    "corsix": instruction_peaks.corsix,
    "cpufp": instruction_peaks.cpufp,
    "dgx": llm.arm,
    "ik121": llm.ik121,
    "ik437": llm.ik437,
    "jblas": gemm.jblas,
    "kt": gemm.kt,
    "lc10435": llm.lc10435,
    "lc11390": llm.llama_cpp,
    "lc16993": llm.llama_cpp,
    "lc20043": llm.llama_cpp,
    "lc20070": llm.llama_cpp,
    "lc24414": llm.llama_cpp,
    "lc26891": llm.llama_cpp,
    "lc27078": llm.lc27078,
    "lc27086": llm.lc27086,
    "lc29219": llm.llama_cpp,
    "lc7487": llm.lc7487,
    "lc8672": llm.lc8672,
    "lf974": llm.lf974,
    "m1-12": gemm.m1_12,
    "m1bw": memory.m1bw,
    "m1cb": codebook.m1cb,
    "m1cbs": codebook.m1cbs,
    "m1cbt": codebook.m1cbt,
    "m1e2e": codebook.m1e2e,
    "m1gemm": gemm.m1gemm,
    "m1llm": llm.m1llm,
    "m1max": gemm.blas,
    "m1neon": codebook.m1neon,
    "m1pack": gemm.m1pack,
    "m1panel": gemm.m1panel,
    "m1probe": gemm.m1probe,
    "m4gemm": gemm.blas,
    "m4ilp": instruction_peaks.m4ilp,
    "m4max": gemm.blas,
    "m4mem": streams.m4mem,
    "m4neon": memory.m4neon,
    "m4op": instruction_peaks.m4op,
    "m4thr": instruction_peaks.m4thr,
    "m5": gemm.blas,
    "mm73": gemm.mm73,
    "mnn": llm.mnn,
    "mpgemm": gemm.mpgemm,
    "numkong": gemm.numkong,
    "rten18": gemm.rten,
    "rten827": gemm.rten,
    "sgl": llm.sgl,
    "tmac": llm.tmac,
    "xnn": gemm.xnnpack,
    "xnn10602": gemm.xnnpack,
    "xnn10631": gemm.xnnpack,
    "ynn9531": gemm.ynn9531,
}

_FACTS = "facts of a chip: inputs of its preset"
_CLAIM = "a claim in words, without what it was measured on"

OUTSIDE: Mapping[str, str] = {
    "armclaim": _CLAIM,
    "c1mca": "a table of instruction latencies: it is an input of presets, nothing to predict",
    "cactus": "one library's kernels with two rows: no profile",
    "d9000p": "the catalogue has no Gemma, whose layers differ",
    "d9500": "facts of a data sheet: inputs of a preset",
    "iphone15p": "no preset for an A17 Pro",
    "loops": "sparse products have no model",
    "lx2": _FACTS,
    "m1attn": "an encoder, DistilBERT: the catalogue has decoders",
    "m1amx": "facts of the microarchitecture: inputs of a preset",
    "m4arch": "facts of the microarchitecture: inputs of a preset",
    "m4pro-spec": _FACTS,
    "ort": _CLAIM,
    "ort24346": "networks for images and an encoder: the catalogue has decoders",
    "ort24491": "the processor is not named",
    "sd8e5": _FACTS,
    "smepilot": "a range over models and machines that are not named: the scenario 'smepilot' holds it",
    "spec": _FACTS,
    "x300": "a network for images: the catalogue has decoders",
}
"""Blocks that no model of this kind answers, with the reason."""

_OTHER_PROCESSORS = re.compile(r"\b(GPU|MLX|Metal|NPU|ANE)\b")
"""Words of a unit that say that neither cores nor matrix units computed. MLX computes on the GPU."""


def answer(question: Question, library: Library) -> float:
    """The predicted value of a question in its unit; NotModelled says why there is none."""
    if found := _OTHER_PROCESSORS.search(question.unit):
        raise NotModelled(f"{found[1]}: neither cores nor their matrix units computed it")
    adapter = ADAPTERS.get(question.block)
    if adapter is None:
        raise NotModelled(OUTSIDE.get(question.block, "no adapter for this block"))
    try:
        return adapter(question, library)
    except (KeyError, ValueError, TypeError, SmesimError) as error:  # a word or a number that no adapter expects
        raise NotModelled(f"the record lacks or asks for what is not known: {error}") from error
