"""Memory that programs take turns in.

Of the programs of a session one runs at a time, and what passes between its operators is of no use when it has ended.
So the activations of all of them lie in the same memory: each takes blocks as large as its own, the largest of its
buffers in the largest block.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from smesim.exec.allocation import allocate

Bytes = npt.NDArray[np.uint8]


class Arena:
    """Blocks of memory, largest first. One that is too small for a program is replaced for it and those behind it."""

    def __init__(self) -> None:
        self._blocks: list[Bytes] = []

    def placed(self, sizes: Sequence[int]) -> list[Bytes]:
        """Memory for buffers of these sizes, in their order, all apart; what is in it is left from other programs."""
        places: dict[int, Bytes] = {}
        for rank, index in enumerate(sorted(range(len(sizes)), key=lambda i: -sizes[i])):
            if rank == len(self._blocks):
                self._blocks.append(allocate(sizes[index]))
            elif len(self._blocks[rank]) < sizes[index]:
                self._blocks[rank] = allocate(sizes[index])
            places[index] = self._blocks[rank][: sizes[index]]
        return [places[index] for index in range(len(sizes))]
