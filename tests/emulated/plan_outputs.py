"""What comes out of a plan: the host's Python imports this, and the emulated one runs it.

As a command it takes the kernels, or "best" for each worker's own, and the files of plans. For each of them it writes
the outputs beside the file and prints the instruction sets that ran.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smesim.plan.lower import lower
from smesim.plan.program import Program
from smesim.plan.schema import Plan, load_plan
from smesim.workflow import Measurement, measure

SEED = 5


def run(plan: Plan, program: Program, isa: str | None) -> Measurement:
    return measure(plan, repeats=1, seed=SEED, isa=isa, program=program)


def outputs_of(measured: Measurement, program: Program) -> dict[str, NDArray[Any]]:
    """The logits, the tokens chosen, and the keys and values that were appended."""
    wanted = [name for name in program.buffer_names if name.startswith(("lm_head.out", "sample.out"))]
    wanted += [name for name in program.buffer_names if name.endswith("_cache")]
    return {name: measured.tensors.read(name) for name in wanted}


def outputs(plan: Plan, isa: str | None = None) -> dict[str, NDArray[Any]]:
    program = lower(plan)
    return outputs_of(run(plan, program, isa), program)


def main(isa: str, *plan_files: str) -> None:
    for file in map(Path, plan_files):
        plan = load_plan(file)
        program = lower(plan)
        measured = run(plan, program, None if isa == "best" else isa)
        np.savez(target_of(file, isa), **outputs_of(measured, program))
        print(*sorted({name for ran in measured.trace.meta.kernels.values() for name in ran.split("+")}))


def target_of(plan_file: Path, isa: str) -> Path:
    """Where the command writes the outputs of a plan."""
    return plan_file.with_suffix(f".{isa}.npz")


if __name__ == "__main__":
    main(*sys.argv[1:])
