"""What is worked out from a chip, or a program, and needed again and again: made once, and kept as long as that.

Neither changes once it is made, so what follows from it, and from a key, need not be worked out twice. It is kept where
they keep what they have worked out themselves; a changed copy begins without it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

V = TypeVar("V")


def kept_with(owner: object, key: Hashable, make: Callable[[], V]) -> V:
    """What `make` makes for that key, the same object whenever it is asked for. Keys must be few."""
    kept: dict[Hashable, V] | None = owner.__dict__.get("kept")
    if kept is None:
        kept = owner.__dict__.setdefault("kept", {})
    try:
        return kept[key]
    except KeyError:
        pass
    found = kept[key] = make()
    return found
