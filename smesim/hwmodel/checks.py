"""What must hold between the entries of a chip file, as errors that say what was given and what is accepted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from smesim.hwmodel.quantity import Quantity


def unique(where: str, names: list[str]) -> None:
    """Refuse a name that is given twice."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{where}: {name!r} given twice; accepted: each name once")


def among(where: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Refuse a name that is not known."""
    for name in given:
        if name not in known:
            raise ValueError(f"{where}: {name!r} given; accepted: {', '.join(known)}")


def ascending(where: str, threads: Sequence[int]) -> None:
    """Refuse points that are not in the order of their thread counts."""
    if list(threads) != sorted(set(threads)):
        raise ValueError(f"{where}: threads {list(threads)} given; accepted: each number once, ascending")


def steps_take_time(parameters: dict[str, Quantity]) -> dict[str, Quantity]:
    """Refuse a kernel whose products would take no time."""
    for name, quantity in parameters.items():
        if name.startswith("s_per_kstep_") and quantity.value <= 0:
            raise ValueError(f"{name}: {quantity.value} s given; accepted: a time above 0")
    return parameters
