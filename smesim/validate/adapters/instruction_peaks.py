"""Loops of one instruction without loads: SME and AMX units by threads and accumulators, cores by instruction set."""

from __future__ import annotations

import re

from smesim.hwmodel.chip import Chip, Cluster, factor_at
from smesim.hwmodel.instructions import MANY_CHAINS, instruction, unit_flop_per_s
from smesim.validate.library import Library
from smesim.validate.machines import NotModelled, chip_of
from smesim.validate.records import Question

GIGA = 1e9
BEST_THREADS = 8  # "best over thread counts 4..9": threads enough for every unit

_OPERATION = re.compile(r"(?:peak )?(B?F?S?MOPA|B?FDOT|SDOT|FMLA|B?FMLALL?|SMLALL?|MLA) \(([^)]*)\)")
_NAMES = {"MOPA": "mopa", "DOT": "dot", "MLALL": "mlall", "MLAL": "mlal", "MLA": "mla"}
_NUMBER = {"FP": "f", "BF": "bf", "I": "s"}


def _number(word: str) -> str:
    found = re.match(r"(FP|BF|I)(\d+)", word)
    if not found:
        raise NotModelled(f"operand type {word!r} is not known")
    return f"{_NUMBER[found[1]]}{found[2]}"


def sme_instruction(metric: str, encoding: str) -> str:
    """ "peak FDOT (FP16 to FP32, 2-way, two vectors) [za-vector]" as an instruction's name: "za_dot_f16_f32"."""
    found = _OPERATION.search(metric)
    if not found:
        raise NotModelled(f"no instruction is known for {metric!r}")
    name = next(short for long, short in _NAMES.items() if found[1].endswith(long))
    operands = [_number(word) for word in re.split(r" into | to ", found[2].split(",")[0])]
    prefix = {"za-tile": "", "z-register": "z_"}.get(encoding, "za_")
    return f"{prefix}{name}_{operands[0]}_{operands[-1]}"


def place(chip: Chip, threads: int, clusters: slice | None = None) -> dict[int, int]:
    """Threads on the units, cluster after cluster as the system fills them; equal clusters get them in turn."""
    drivers: dict[int, int] = {}
    left = threads
    for cluster in chip.clusters[clusters or slice(None)]:
        units = [unit for unit in chip.unit_instances if unit.cluster.cluster.name == cluster.name]
        here = min(left, cluster.core_count * cluster.count)
        for position, unit in enumerate(units):
            count = here // len(units) + (position < here % len(units))
            if count:
                drivers[unit.index] = count
        left -= here if units else 0
    return drivers


def units_flop_per_s(chip: Chip, drivers: dict[int, int], name: str, chains: int, library: Library) -> float:
    """Rate of several units together, each driven by its threads."""
    total = 0.0
    for index, threads in drivers.items():
        unit = chip.unit_instances[index].unit
        operation = instruction(unit.instructions, name, f"unit {unit.name} of {chip.name}")
        total += unit_flop_per_s(operation, unit.clock_hz.value, unit.sharing, threads, chains, library.effects)
    return total


def m4ilp(question: Question, library: Library) -> float:
    chip = chip_of(question.chip, library)
    name = sme_instruction(question.metric, "za-tile")
    chains = question.number("ilp_accumulators")
    return units_flop_per_s(chip, place(chip, question.threads or 1), name, chains, library) / GIGA


def m4thr(question: Question, library: Library) -> float:
    chip = chip_of(question.chip, library)
    only_e = "E only" in str(question.shape["qos"])
    drivers = place(chip, question.threads or 1, slice(1, None) if only_e else None)
    return units_flop_per_s(chip, drivers, sme_instruction(question.metric, "za-tile"), MANY_CHAINS, library) / GIGA


def m4op(question: Question, library: Library) -> float:
    chip = chip_of(question.chip, library)
    name = sme_instruction(question.metric, str(question.shape["encoding"]))
    if question.unit.startswith("both"):
        drivers = place(chip, BEST_THREADS)
    else:
        drivers = place(chip, 1, slice(1, None) if question.unit.startswith("E-cluster") else None)
    return units_flop_per_s(chip, drivers, name, MANY_CHAINS, library) / GIGA


def amx_instruction(metric: str) -> str:
    """The words of corsix/amx ("fma32 in matrix mode, each Z accumulator being f32[16][16]") as an instruction."""
    total = re.search(r"Z accumulator being ([fi])(\d+)(\[\d+\])+", metric)
    if not total:
        raise NotModelled(f"no instruction is known for {metric!r}")
    to = ("s" if total[1] == "i" else "f") + total[2]
    shape = re.findall(r"\[(\d+)\]", metric.rpartition("Z accumulator being")[2])
    form = "matrix" if len(shape) == 2 and shape[0] != "2" else "vector"
    if (found := re.search(r"fma(\d+) in", metric)) or (found := re.search(r"X and Y being f(\d+)", metric)):
        of = f"f{found[1]}"
    else:
        of = "s8" if "both of X and Y being i8" in metric else "s16"
    return f"{form}_{of}_{to}"


def corsix(question: Question, library: Library) -> float:
    chip = chip_of(question.chip, library)
    chains = question.number("z_accumulators_per_thread")
    drivers = place(chip, question.threads or 1)
    return units_flop_per_s(chip, drivers, amx_instruction(question.metric), chains, library) / GIGA


_CORE_OPERATIONS = (
    (r"AMX_INT8", "tmul_s8"), (r"AMX_BF16", "tmul_bf16"),
    (r"AVX512_VNNI DP4A", "dot512_s8"), (r"AVX512_VNNI DP2A", "dot512_s16"), (r"AVX512_BF16", "dot512_bf16"),
    (r"AVX512_FP16", "fma512_f16"), (r"AVX512F FMA\(f32", "fma512_f32"), (r"AVX512F FMA\(f64", "fma512_f64"),
    (r"mmla\([su]32", "mmla_s8"), (r"dp4a\.", "dot_s8"), (r"mmla\(f32,bf16", "mmla_bf16"), (r"dp2a\.", "dot_bf16"),
    (r"fmla\.v.\(fp16", "fma_f16"), (r"fmla\.v.\(f32", "fma_f32"), (r"fmla\.v.\(f64", "fma_f64"),
)  # fmt: skip


def cpufp(question: Question, library: Library) -> float:
    """A register-resident loop on some cores; E cores alone run at the clock of background work."""
    chip = chip_of(question.chip, library)
    name = next((name for pattern, name in _CORE_OPERATIONS if re.search(pattern, question.metric)), None)
    if name is None:
        raise NotModelled(f"no instruction is known for {question.metric!r}")
    words = question.unit.partition(": ")[2]
    if name.startswith("tmul"):
        return _tile_units(chip, int(re.findall(r"\d+|single", words)[0].replace("single", "1")), name, library)
    groups = [part for part in re.split(r" \+ | and ", re.sub(r"\(.*\)", "", words)) if part.strip()]
    background = all(re.search(r"E-?[Cc]ore", part) for part in groups)
    return sum(_cores_flop_per_s(chip, part, name, background, library) for part in groups) / GIGA


def _tile_units(chip: Chip, units: int, name: str, library: Library) -> float:
    unit = chip.unit_instances[0].unit
    factor = factor_at(unit.multi_unit_factors, units) if "multi_core" in library.effects else 1.0
    rate = instruction(unit.instructions, name, f"unit {unit.name} of {chip.name}").flop_per_s(unit.clock_hz.value)
    return units * factor * rate / GIGA


def _cores_flop_per_s(chip: Chip, words: str, name: str, background: bool, library: Library) -> float:
    count = 1 if words.startswith("single") else int(words.split(maxsplit=1)[0])
    cluster = _cluster(chip, words)
    core = cluster.core
    clock_hz = core.clock_hz.value
    if background and core.background_clock_hz is not None:
        clock_hz = core.background_clock_hz.value
    rate = instruction(core.instructions, name, f"core {core.name} of {chip.name}").flop_per_s(clock_hz)
    factor = factor_at(cluster.multi_core_factors, count) if "multi_core" in library.effects else 1.0
    return count * rate * factor


def _cluster(chip: Chip, words: str) -> Cluster:
    if found := re.search(r"@ ([\d.]+) ?GHz", words):
        same = [c for c in chip.clusters if abs(c.core.clock_hz.value - float(found[1]) * 1e9) < 1e6]
        if not same:
            raise NotModelled(f"{chip.name} has no cores at {found[1]} GHz")
        return same[0]
    return chip.clusters[-1] if re.search(r"E-?[Cc]ore", words) else chip.clusters[0]
