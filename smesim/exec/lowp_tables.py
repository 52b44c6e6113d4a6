"""The kernels that go with a set of f32 kernels: what a worker multiplies bf16 with, and weights in blocks.

An instruction set may have several tables of these, by what else the processor has: on a core whose f32 kernels are
those of NEON, BFMMLA where it is there. So a worker has three tables, and the f32 one decides which the others are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from smesim.errors import DeviceError
from smesim.exec.device import native
from smesim.plan.program import Number
from smesim.workload.dtypes import BLOCK_ELEMENTS

BF16_GROUP = 2

_BESIDE = {
    "avx512": ("avx512bf16", "avx512vnni", "avx2"),
    "neon": ("neonmm", "neondot", "neon"),
    "wide16": ("wide16bf16", "wide16vnni"),
}
"""Tables for an f32 one, the fastest first, where they are not of the same name."""


@dataclass(frozen=True)
class LowpTable:
    """One table of low precision or of blocks; `kc` is the depth of a block of the product, in k."""

    isa: str
    mr: int
    nr: int
    kc: int


@cache
def lowp_beside(isa: str) -> LowpTable:
    """The fastest kernels of low precision for a worker with those f32 kernels; DeviceError if none run here."""
    return _beside(isa, "lowp", lambda table: int(table.kc_groups) * BF16_GROUP)


@cache
def blocks_beside(isa: str) -> LowpTable:
    """The fastest kernels of weights in blocks for a worker with those f32 kernels; DeviceError if none run here."""
    return _beside(isa, "blocks", lambda table: int(table.kc_blocks) * BLOCK_ELEMENTS)


def table_beside(isa: str, number: int) -> LowpTable:
    """The kernels by which a worker with those f32 kernels multiplies with weights of a format that is not f32."""
    return lowp_beside(isa) if number == Number.BF16 else blocks_beside(isa)


def _beside(isa: str, kind: str, depth: Callable[[Any], int]) -> LowpTable:
    ffi, lib = native()
    names = _BESIDE.get(isa, (isa,))
    for name in names:
        table = getattr(lib, f"sms_{kind}_find")(name.encode())
        if table != ffi.NULL:
            return LowpTable(name, int(table.mr), int(table.nr), depth(table))
    raise DeviceError(f"no kernels of {kind} for {isa!r} run here; looked for {', '.join(names)}")
