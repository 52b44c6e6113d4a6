"""What comes out of a plan: the host's Python imports this, and the emulated one runs it."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smesim.plan.lower import lower
from smesim.plan.schema import Plan, load_plan
from smesim.workflow import measure

SEED = 5


def outputs(plan: Plan, isa: str | None = None) -> dict[str, NDArray[Any]]:
    """The logits, the tokens chosen, and the keys and values that were appended."""
    program = lower(plan)
    tensors = measure(plan, repeats=1, seed=SEED, isa=isa, program=program).tensors
    wanted = [name for name in program.buffer_names if name.startswith(("lm_head.out", "sample.out"))]
    wanted += [name for name in program.buffer_names if name.endswith("_cache")]
    return {name: tensors.read(name) for name in wanted}


if __name__ == "__main__":
    plan_file, isa, target = sys.argv[1:]
    np.savez(target, **outputs(load_plan(plan_file), isa))
