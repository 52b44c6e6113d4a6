"""The tokens that a session generates: the host's Python imports this, and the emulated one runs it.

As a command it takes a model file, the name of a chip, how many tokens to generate, and those of the prompt, and prints
what was generated and the instruction sets that ran.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from smesim.exec.session import Session
from smesim.hwmodel import library
from smesim.workload import DType

THREADS = 2


def generated(model: str, chip: str, most: int, prompt: Sequence[int], isa: str | None = None) -> tuple[list[int], str]:
    """Greedy tokens behind a prompt, keys and values in f16, on cores and matrix units by the roofline planner."""
    session = Session.open(
        model, library.load(chip), isa=isa, context=len(prompt) + most, chunk=16, threads=THREADS,
        planner_name="roofline", kv=DType.F16,
    )  # fmt: skip
    session.record = []
    tokens = list(session.generate(prompt, most))
    sets = {
        name
        for step in session.record
        for ran in session.executor.kernels_that_ran(step.moving.program, [step.times]).values()
        for name in ran.split("+")
    }
    return tokens, "+".join(sorted(sets))


if __name__ == "__main__":
    model, chip, most, *prompt = sys.argv[1:]
    tokens, sets = generated(model, chip, int(most), [int(token) for token in prompt])
    print(*tokens)
    print(sets)
