"""The memory bill of a program: said before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass

from smesim.errors import DeviceError
from smesim.plan.program import BufferRole, Layout, Program
from smesim.units import format_bytes

HEADROOM = 0.95
"""Share of the available memory that a program may take; the rest is for Python and what else runs."""


@dataclass(frozen=True)
class MemoryBill:
    """Bytes by what they are for."""

    weights_bytes: int
    packed_bytes: int
    kv_bytes: int
    activations_bytes: int
    scratch_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.packed_bytes + self.kv_bytes + self.activations_bytes + self.scratch_bytes

    def __str__(self) -> str:
        return (
            f"weights {format_bytes(self.weights_bytes)}, packed activations {format_bytes(self.packed_bytes)},"
            f" KV cache {format_bytes(self.kv_bytes)}, activations {format_bytes(self.activations_bytes)},"
            f" scratch {format_bytes(self.scratch_bytes)}; in all {format_bytes(self.total_bytes)}"
        )


def memory_bill(program: Program, scratch_bytes: int) -> MemoryBill:
    """What the program's buffers take. Weights are kept once, packed; `scratch_bytes` is for all workers."""
    buffers = program.buffers
    weights = buffers["role"] == BufferRole.WEIGHT
    kv = buffers["role"] == BufferRole.KV
    packed = buffers["layout"] == Layout.LHS_PACKED
    n_bytes = buffers["n_bytes"]
    return MemoryBill(
        weights_bytes=int(n_bytes[weights].sum()),
        packed_bytes=int(n_bytes[packed].sum()),
        kv_bytes=int(n_bytes[kv].sum()),
        activations_bytes=int(n_bytes[~weights & ~kv & ~packed].sum()),
        scratch_bytes=scratch_bytes,
    )


def check_fits(bill: MemoryBill, available_bytes: int) -> None:
    """DeviceError with the bill if the program does not fit into the memory that is free."""
    if bill.total_bytes > HEADROOM * available_bytes:
        raise DeviceError(
            f"the program needs {format_bytes(bill.total_bytes)}, {format_bytes(available_bytes)} are available"
            f" ({bill}); use fewer --layers or a smaller model"
        )
