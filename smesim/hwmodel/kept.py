"""What is worked out from a chip's numbers and needed again and again: made once, and kept as long as the chip.

A chip never changes, so what follows from its numbers, and from a key, need not be worked out twice. It is kept where a
chip keeps what it has worked out itself; a changed copy of the chip begins without it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

from smesim.hwmodel.chip import Chip

V = TypeVar("V")


def kept_with(chip: Chip, key: Hashable, make: Callable[[], V]) -> V:
    """What `make` makes for that key, the same object whenever it is asked for. Keys must be few."""
    kept: dict[Hashable, V] = chip.__dict__.setdefault("kept", {})
    if key not in kept:
        kept[key] = make()
    return kept[key]
