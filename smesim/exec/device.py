"""What this machine is: its processor, the kernels that run on it, the cores we may use, and its memory.

device = Device.here()
print(device.summary())
print(device.isa)          # the fastest kernels that run here, e.g. "avx2"
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from smesim.errors import DeviceError

MATRIX_FLAGS = {"sme": "Arm SME", "sme2": "Arm SME2", "amx_tile": "Intel AMX"}
"""Processor flags (Linux, /proc/cpuinfo) that say a matrix extension is there, and what it is called."""
VECTOR_FLAGS = ("avx2", "fma", "avx512f", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2")
"""Flags, in Linux's words, of vector instructions that kernels use or could use."""


def native() -> tuple[Any, Any]:
    """The (ffi, lib) of the native module. DeviceError if it was not built for this Python."""
    try:
        from smesim.exec._native import ffi, lib
    except ImportError as error:
        raise DeviceError(f"the native kernels are not built ({error}); run 'make build', or install a wheel") from None
    return ffi, lib


@dataclass(frozen=True)
class KernelTable:
    """One set of kernels: an instruction set, and the tile geometry that comes with it."""

    isa: str
    lanes: int
    mr: int
    nr: int
    kc: int
    supported: bool
    test_only: bool
    matrix: bool = False
    """Drives a matrix unit; for workers that do."""


@dataclass(frozen=True)
class Device:
    """This machine. Make one with `Device.here()`."""

    processor: str
    architecture: str
    cores: tuple[int, ...]
    memory_bytes: int
    available_bytes: int
    matrix_extensions: tuple[str, ...]
    kernels: tuple[KernelTable, ...]
    vector_extensions: tuple[str, ...]
    svl_bits: int
    emulated: bool

    @classmethod
    def here(cls) -> Device:
        flags = _cpu_flags() | _arm_flags()
        total, available = _memory()
        return cls(
            processor=_processor_name(),
            architecture=platform.machine(),
            cores=_usable_cores(),
            memory_bytes=total,
            available_bytes=available,
            matrix_extensions=tuple(name for flag, name in MATRIX_FLAGS.items() if flag in flags),
            kernels=tuple(_kernel_tables()),
            vector_extensions=tuple(flag for flag in VECTOR_FLAGS if flag in flags),
            svl_bits=native()[1].sms_cpu_svl_bits(),
            emulated=is_emulated(),
        )

    @cached_property
    def isa(self) -> str:
        """The fastest kernels of a core that run here."""
        return next(k.isa for k in self.kernels if k.supported and not k.test_only and not k.matrix)

    @cached_property
    def matrix_isa(self) -> str | None:
        """The fastest kernels that drive a matrix unit; None where there is none."""
        return next((k.isa for k in self.kernels if k.supported and not k.test_only and k.matrix), None)

    def kernel_table(self, isa: str) -> KernelTable:
        """The kernels of that instruction set; DeviceError if they are unknown or do not run here."""
        for table in self.kernels:
            if table.isa == isa and table.supported:
                return table
        runnable = ", ".join(k.isa for k in self.kernels if k.supported)
        known = any(k.isa == isa for k in self.kernels)
        why = "this CPU lacks the instructions" if known else "there are no such kernels in this build"
        raise DeviceError(f"kernels {isa!r} cannot run here: {why}; accepted: {runnable}")

    def refuse_if_emulated(self, wanted: str) -> None:
        """DeviceError if this machine is emulated, for what `wanted` names needs times that are those of hardware."""
        if self.emulated:
            raise DeviceError(
                f"{wanted} needs the times of real hardware; this device is emulated, and its times say nothing of that"
            )

    def summary(self) -> str:
        """One line: processor, cores, matrix units."""
        matrix = ", ".join(self.matrix_extensions) or "no matrix extension (no SME)"
        if self.svl_bits:
            matrix += f" with vectors of {self.svl_bits} bits"
        emulated = "emulated " if self.emulated else ""
        return f"{emulated}{self.processor}, {len(self.cores)} cores, {matrix}; kernels: {self.isa}"


def is_emulated() -> bool:
    """Whether QEMU's user mode runs this process.

    It hides behind /proc/self but, by all its versions up to 11.1, not behind /proc/thread-self.
    """
    try:
        return os.readlink("/proc/thread-self/exe").rpartition("/")[2].startswith("qemu-")
    except OSError:
        return False


def _arm_flags() -> set[str]:
    """What native code found out, for systems without /proc/cpuinfo."""
    _, lib = native()
    found = {
        "asimdhp": lib.sms_cpu_has_fp16(),
        "asimddp": lib.sms_cpu_has_dotprod(),
        "i8mm": lib.sms_cpu_has_i8mm(),
        "bf16": lib.sms_cpu_has_bf16(),
        "sve": lib.sms_cpu_has_sve(),
        "sme": lib.sms_cpu_has_sme(),
        "sme2": lib.sms_cpu_has_sme2(),
    }
    return {flag for flag, is_there in found.items() if is_there}


def _kernel_tables() -> list[KernelTable]:
    ffi, lib = native()
    tables, index = [], 0
    while (table := lib.sms_kernels_at(index)) != ffi.NULL:
        tables.append(
            KernelTable(
                isa=ffi.string(table.isa).decode(),
                lanes=table.lanes,
                mr=table.mr,
                nr=table.nr,
                kc=table.kc,
                supported=bool(lib.sms_kernels_supported(table)),
                test_only=bool(table.test_only),
                matrix=bool(table.matrix),
            )
        )
        index += 1
    return tables


def _usable_cores() -> tuple[int, ...]:
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _cpu_flags() -> set[str]:
    return set((_cpuinfo("flags") or _cpuinfo("Features")).split())


def _processor_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _memory() -> tuple[int, int]:
    """(all, available) bytes of memory: the smaller of the machine's and of this process's control group."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    available = total
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text(encoding="utf-8").strip()) != "max":
        used = Path("/sys/fs/cgroup/memory.current")
        free = int(text) - (int(used.read_text(encoding="utf-8")) if used.exists() else 0)
        total, available = min(total, int(text)), max(0, min(available, free))
    return total, available
