"""What one agent draws from memory, and vectors on one core."""

from __future__ import annotations

from smesim.engines.formats import weight_format
from smesim.engines.profile import number
from smesim.hwmodel.links import LinkNetwork
from smesim.validate.library import Library
from smesim.validate.machines import NotModelled, chip_of
from smesim.validate.records import Question

GIGA = 1e9
BYTES = 4


def _dram(question: Question, library: Library, unit: int | None) -> float:
    network = LinkNetwork.of(chip_of(question.chip, library))
    return network.route(network.agent(0, unit), "DRAM").cap_bytes_per_s


def _weight_stream(question: Question, library: Library, engine: str, kernel: str, name: str) -> float:
    """Bytes of weights a second that one core multiplies with a vector: by its arithmetic, or by what it can draw."""
    core = chip_of(question.chip, library).clusters[0].core
    per_s = number(library.engine(engine).core[kernel].gemv) * core.clock_hz.value
    return min(per_s * weight_format(name).bits / 8.0, _dram(question, library, None))


def m1bw(question: Question, library: Library) -> float:
    words = question.metric
    if "LDX" in words:
        return _dram(question, library, 0) / GIGA
    if "GEMV" in words:
        return _dram(question, library, None) / GIGA
    if "llama.cpp" in words:
        return _weight_stream(question, library, "ggml-m1", "q4_0", "q4_0") / GIGA
    raise NotModelled(f"{words!r}: a loop of its own kind, without a profile")


def m4neon(question: Question, library: Library) -> float:
    name = "q8_0" if "int8 weights" in question.metric else "q4_0"
    return _weight_stream(question, library, "llama-cpp-neon", name, name) / GIGA


_STREAMS = {"sum": 1, "maximum": 1, "vadd": 3, "vmul": 3}


def aavec(question: Question, library: Library) -> float:
    """vDSP and vForce: additions stream by what a core draws, functions cost arithmetic an element."""
    word = question.metric.rpartition(": ")[2]
    chip = chip_of(question.chip, library)
    core, elements = chip.clusters[0].core, question.number("elements")
    profile = library.engine("accelerate-vectors")
    if word in _STREAMS:
        n_bytes = elements * BYTES * _STREAMS[word]
        return n_bytes / (number(profile.core["stream"].gemm) * core.load_bytes_per_s["L2"].value) * 1e6
    if word not in profile.core:
        raise NotModelled(f"no vector function is known for {word!r}")
    cycles = 1.0 / number(profile.core[word].gemv)
    return elements * cycles / core.clock_hz.value * 1e6
