"""The kernels of low precision that go with a set of f32 kernels: what a worker multiplies bf16 with.

An instruction set may have several tables of low precision, by what else the processor has: on a core whose f32 kernels
are those of NEON, BFMMLA where it is there. So a worker has two tables, and the f32 one decides which the other is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from smesim.errors import DeviceError
from smesim.exec.device import native

BF16_GROUP = 2

_BESIDE = {
    "avx512": ("avx512bf16", "avx512vnni", "avx2"),
    "neon": ("neonmm", "neondot", "neon"),
    "wide16": ("wide16bf16",),
}
"""Tables for an f32 one, the fastest first, where they are not of the same name."""


@dataclass(frozen=True)
class LowpTable:
    """One table of low precision; `kc` is the depth of a block of bf16, in k."""

    isa: str
    mr: int
    nr: int
    kc: int


@cache
def lowp_beside(isa: str) -> LowpTable:
    """The fastest kernels of low precision for a worker with those f32 kernels; DeviceError if none run here."""
    ffi, lib = native()
    names = _BESIDE.get(isa, (isa,))
    for name in names:
        table = lib.sms_lowp_find(name.encode())
        if table != ffi.NULL:
            return LowpTable(name, int(table.mr), int(table.nr), int(table.kc_groups) * BF16_GROUP)
    raise DeviceError(f"no kernels of low precision for {isa!r} run here; looked for {', '.join(names)}")
