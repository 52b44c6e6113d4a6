"""Which preset a record's chip is: the words of a source, as a chip of the library and what differs from it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from smesim.hwmodel.chip import Chip
from smesim.validate.library import Library


class NotModelled(Exception):  # noqa: N818 - not an error: an answer
    """Why a record has no prediction."""


@dataclass(frozen=True)
class Variant:
    """A preset, and how the machine that was measured differs: cores of the first cluster, sockets."""

    preset: str
    first_cluster_cores: int | None = None
    sockets: int = 1


_CHIPS: tuple[tuple[str, Variant], ...] = (
    (r"Apple M4 \(iPad Pro", Variant("apple-m4", first_cluster_cores=3)),
    (r"Apple M4 Max", Variant("apple-m4-max")),
    (r"Apple M4 Pro", Variant("apple-m4-pro")),
    (r'Apple "MacBook M4"', Variant("apple-m4-pro")),
    (r"Apple M4/M5|Apple M4$", Variant("apple-m4")),
    (r"Apple M5", Variant("apple-m5")),
    (r"Apple M3 Pro", Variant("apple-m4-pro")),
    (r"Apple M2 Max", Variant("apple-m2-max")),
    (r"Apple M2 Ultra", Variant("apple-m2-ultra")),
    (r"Apple M2", Variant("apple-m2")),
    (r"Apple M1 Max", Variant("apple-m1-max")),
    (r"Apple M1", Variant("apple-m1")),
    (r"Snapdragon X Elite", Variant("snapdragon-x-elite")),
    (r"Graviton3", Variant("graviton3e")),
    (r"Graviton4", Variant("graviton4")),
    (r"CIX|Orion O6", Variant("cix-p1")),
    (r"Kunpeng 920", Variant("kunpeng-920")),
    (r"Xeon Gold 6455B x2", Variant("server-spr-amx", sockets=2)),
    (r"Xeon SPR|Xeon Scalable 4th|Xeon 4th", Variant("server-spr-amx")),
    (r"Xeon W9-3495X", Variant("xeon-w9-3495x")),
    (r"Xeon w9-3475X", Variant("xeon-w9-3475x")),
    (r"Xeon 8480", Variant("xeon-8480")),
    (r"Xeon 6980P", Variant("xeon-6980p")),
    (r"DGX Spark", Variant("dgx-spark")),
    (r"8cx Gen 3", Variant("snapdragon-8cx-gen3")),
    (r"Dimensity 9000\+", Variant("dimensity-9000-plus")),
    (r"SM8750|Snapdragon 8 Elite \(", Variant("snapdragon-8-elite")),
    (r"SM8850|8 Elite Gen 5", Variant("snapdragon-8-elite-gen5")),
    (r"Dimensity 9500|C1-", Variant("phone-d9500")),
)


def chip_of(words: str, library: Library) -> Chip:
    """The chip that a record's words mean; NotModelled where there is no preset for it."""
    for pattern, variant in _CHIPS:
        if re.search(pattern, words):
            return _with(library.chip(variant.preset), variant)
    raise NotModelled(f"no preset for {words}")


def _with(chip: Chip, variant: Variant) -> Chip:
    first = chip.clusters[0]
    changes: dict[str, int] = {}
    if variant.first_cluster_cores is not None:
        changes["core_count"] = variant.first_cluster_cores
    if variant.sockets > 1:
        changes["count"] = first.count * variant.sockets
    if not changes:
        return chip
    return chip.model_copy(update={"clusters": (first.model_copy(update=changes), *chip.clusters[1:])})
