"""Memory for the buffers of a program."""

from __future__ import annotations

import mmap
from contextlib import suppress

import numpy as np
import numpy.typing as npt

HUGE_PAGE_BYTES = 2 << 20


def allocate(n_bytes: int) -> npt.NDArray[np.uint8]:
    """Zeroed bytes on a 2 MiB boundary, on huge pages where the system gives them: a cold weight stream touches a new
    4 KiB page every 150 ns otherwise."""
    block = mmap.mmap(-1, max(n_bytes, 1) + HUGE_PAGE_BYTES)
    if hasattr(mmap, "MADV_HUGEPAGE") and n_bytes >= HUGE_PAGE_BYTES:
        with suppress(OSError):  # a system built without huge pages refuses the advice, an emulator any
            block.madvise(mmap.MADV_HUGEPAGE)
    array = np.frombuffer(block, np.uint8)
    skip = -array.ctypes.data % HUGE_PAGE_BYTES
    return array[skip : skip + n_bytes]
