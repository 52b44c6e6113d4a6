"""Whether all numbers that a run computed are finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from smesim.errors import DeviceError
from smesim.exec.kv_cache import scales
from smesim.exec.tensors import Tensors
from smesim.plan.program import NO_BUFFER, BufferRole, Number, Program

Q8_SCALE_SHARE = 9
"""Of quantised activations one byte in nine is of a scale."""


def check_finite(program: Program, tensors: Tensors) -> None:
    """A NaN would make every time that we report a time of nonsense, so all that was computed is looked at."""
    outputs = ("output0", "output1", "packed_out")
    last_writer = {int(row[slot]): op for op, row in enumerate(program.ops) for slot in outputs}
    last_writer = {
        buffer: op
        for buffer, op in last_writer.items()
        if buffer != NO_BUFFER and program.buffers["role"][buffer] != BufferRole.INDEX
    }
    for output, op in sorted(last_writer.items(), key=lambda item: item[1]):
        values = _floats(program, tensors, output)
        if not np.isfinite(values).all():
            bad = int(np.flatnonzero(~np.isfinite(values))[0])
            raise DeviceError(
                f"{program.op_names[op]} computed {values[bad]} at element {bad} of {program.buffer_names[output]!r};"
                " expected finite numbers"
            )


def _floats(program: Program, tensors: Tensors, buffer: int) -> npt.NDArray[Any]:
    """The floats of a buffer; where its numbers are integers, their scales."""
    array, facts = tensors.arrays[buffer], program.buffers[buffer]
    match Number(int(facts["dtype"])):
        case Number.F16:
            return array.view(np.float16)
        case Number.Q8_0:
            return scales(array, int(facts["rows"]), int(facts["columns"])).ravel()
        case Number.Q8:  # the scales lie behind the numbers
            values = array.view(np.float32)
            return values[-len(values) // Q8_SCALE_SHARE :]
    return array.view(np.float32)
