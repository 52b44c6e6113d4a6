"""Which setting of an engine is predicted to be fastest: how many threads, how many of them on matrix units, per phase.

Every setting that a person can choose is predicted: engines differ in who drives a unit, and each is tried with some
thread counts. What comes out is a list per phase, best first, with what to set for the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from smesim.engines.formats import WeightFormat
from smesim.engines.llm import Run, threads_on, tokens_per_s
from smesim.engines.profile import load
from smesim.errors import SmesimError
from smesim.hwmodel.chip import Chip
from smesim.sim.effects import ALL_EFFECTS
from smesim.workload.config import ModelConfig
from smesim.workload.phase import Phase

ENGINE = "llama.cpp"
_WITH_SME = (("llama-cpp-neon", "cores"), ("llama-cpp-sme", "units"), ("llama-cpp-hybrid", "both"))
_WITHOUT = (("llama-cpp-arm", "cores"),)
ENVIRONMENT = "GGML_KLEIDIAI_SME"
"""What llama.cpp reads: how many threads may drive an SME unit, 0 for none (llama.cpp, ggml-cpu/kleidiai)."""


@dataclass(frozen=True)
class Setting:
    """One way to run a phase, and its predicted rate."""

    phase: str
    computes: str
    threads: int
    on_units: int
    tokens_per_s: float

    @property
    def environment(self) -> str:
        """The command-line words that get it."""
        return f"{ENVIRONMENT}={self.on_units} -t {self.threads}"


def thread_counts(chip: Chip) -> tuple[int, ...]:
    """Counts worth trying: powers of two, all big cores, all cores, and a thread for each unit."""
    big = chip.clusters[0].core_count * chip.clusters[0].count
    wanted = {1, 2, 4, 6, 8, 12, 16, big, chip.core_count, len(chip.unit_instances)}
    return tuple(sorted(count for count in wanted if 1 <= count <= chip.core_count))


def advise(
    chip: Chip, model: ModelConfig, weights: WeightFormat, phases: Sequence[Phase], engine: str = ENGINE
) -> dict[str, tuple[Setting, ...]]:
    """Settings by phase, best first. SmesimError for another engine than llama.cpp, or a chip that it has no profile
    for."""
    if engine != ENGINE:
        raise SmesimError(f"advice for engine {engine!r} asked for; accepted: {ENGINE}")
    if chip.clusters[0].core.isa not in ("neon", "sve2"):
        raise SmesimError(
            f"advice for {chip.name} asked for, whose cores run {chip.clusters[0].core.isa}; accepted: Arm chips"
        )
    sme = any(unit.unit.kind.startswith("sme") for unit in chip.unit_instances)
    found = {}
    for phase in phases:
        settings = []
        for name, computes in _WITH_SME if sme else _WITHOUT:
            for threads in thread_counts(chip):
                run = Run(load(name), chip, model, phase, weights, threads, ALL_EFFECTS)
                try:
                    rate = tokens_per_s(run)
                except SmesimError:
                    continue  # the engine has no such kernel
                settings.append(Setting(str(phase), computes, threads, _on_units(chip, computes, threads), rate))
        if not settings:
            raise SmesimError(
                f"no kernel of {engine} for weights of {weights.name}; accepted: q4_0, q4_k, q6_k, q8_0, f32"
            )
        # Units that a phase leaves idle make no difference: of settings that come to the same the first is shown.
        settings = list({(s.threads, round(s.tokens_per_s, 6)): s for s in reversed(settings)}.values())
        # Where two settings are alike, the one with fewer threads leaves more of the machine to others.
        found[str(phase)] = tuple(sorted(settings, key=lambda s: (-round(s.tokens_per_s, 1), s.threads, s.on_units)))
    return found


def _on_units(chip: Chip, computes: str, threads: int) -> int:
    drivers = {"cores": "none", "units": "all", "both": "first"}[computes]
    return sum(thread.unit is not None for thread in threads_on(chip, threads, drivers))
