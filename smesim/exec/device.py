"""What this machine is: its processor, the kernels that run on it, the cores we may use, and its memory.

device = Device.here()
print(device.summary())
print(device.isa)          # the fastest kernels that run here, e.g. "avx2"

What is chosen can be overridden by environment variables: SMESIM_ISA names the kernels of the cores, SMESIM_MATRIX_ISA
those that drive a matrix unit, or ``none``, and SMESIM_MATRIX_UNITS how many units there are (`matrix_units.py`).
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from smesim.errors import DeviceError
from smesim.exec.matrix_units import COUNT_VARIABLE, MatrixUnits, matrix_units

ISA_VARIABLE = "SMESIM_ISA"
MATRIX_ISA_VARIABLE = "SMESIM_MATRIX_ISA"
NO_MATRIX = "none"
"""What SMESIM_MATRIX_ISA says to leave the matrix unit alone."""
_VARIABLES = (ISA_VARIABLE, MATRIX_ISA_VARIABLE, COUNT_VARIABLE)

PORTABLE = "portable"
NARROWER = {"avx512": "avx2", "avx2": "fma128"}
"""Kernels of half the width that run wherever these run; for all others it is the portable ones."""

MATRIX_FLAGS = {"sme": "Arm SME", "sme2": "Arm SME2", "amx_tile": "Intel AMX"}
"""Processor flags (Linux, /proc/cpuinfo) that say a matrix extension is there, and what it is called."""
VECTOR_FLAGS = ("avx2", "fma", "avx512f", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2")
"""Flags, in Linux's words, of vector instructions that kernels use or could use."""
OPTIONAL_IN_SME = {
    "sme2p1": "FEAT_SME2p1", "smef64f64": "FEAT_SME_F64F64", "smei16i64": "FEAT_SME_I16I64",
    "smef16f16": "FEAT_SME_F16F16", "smeb16b16": "FEAT_SME_B16B16",
}  # fmt: skip
"""What a processor with SME may have beyond it: Linux's word, and macOS's under ``hw.optional.arm``."""
_DETECTED_BY = {
    ("Linux", "x86_64"): "CPUID and XGETBV, /proc/cpuinfo",
    ("Linux", "aarch64"): "AT_HWCAP and AT_HWCAP2, /proc/cpuinfo, RDSVL",
    ("Darwin", "arm64"): "sysctl hw.optional.arm, RDSVL",
}
"""By system and machine, who says which instructions there are."""
_LONGEST_SYSCTL_BYTES = 256


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
    stand_in: bool = False
    """Narrower than need be: for cores beside wider kernels that stand in for a matrix unit."""


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
    sme_features: tuple[str, ...]
    matrix_units: MatrixUnits
    emulated: bool
    detected_by: str
    overrides: tuple[str, ...] = ()
    """Environment variables that were set to change what is chosen, as NAME=VALUE."""
    forced_isa: str | None = None
    forced_matrix_isa: str | None = None
    stand_in: bool = False
    """Wide kernels stand in for a matrix unit, and the cores run narrower ones (`with_stand_in`)."""

    @classmethod
    def here(cls) -> Device:
        """This machine. DeviceError if an environment variable asks for what it cannot do."""
        flags = _cpu_flags() | _arm_flags()
        total, available = _memory()
        here = cls(
            processor=_processor_name(),
            architecture=platform.machine(),
            cores=_usable_cores(),
            memory_bytes=total,
            available_bytes=available,
            matrix_extensions=tuple(name for flag, name in MATRIX_FLAGS.items() if flag in flags),
            kernels=tuple(_kernel_tables()),
            vector_extensions=tuple(flag for flag in VECTOR_FLAGS if flag in flags),
            svl_bits=native()[1].sms_cpu_svl_bits(),
            sme_features=tuple(sorted(flag for flag in flags if flag.startswith("sme"))) if "sme" in flags else (),
            matrix_units=matrix_units(any(flag in flags for flag in MATRIX_FLAGS), sysctl_number),
            emulated=is_emulated(),
            detected_by=_DETECTED_BY.get((platform.system(), platform.machine()), "what the module was compiled for"),
            overrides=tuple(f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ),
            forced_isa=os.environ.get(ISA_VARIABLE),
            forced_matrix_isa=os.environ.get(MATRIX_ISA_VARIABLE),
        )
        here.check_overrides()
        return here

    def check_overrides(self) -> None:
        """DeviceError if kernels are forced that this machine cannot run, or that are not of that kind."""
        for variable, forced, of_matrix in (
            (ISA_VARIABLE, self.forced_isa, False),
            (MATRIX_ISA_VARIABLE, self.forced_matrix_isa, True),
        ):
            if forced is None or (of_matrix and forced == NO_MATRIX):
                continue
            runnable = [table.isa for table in self.kernels if table.supported and table.matrix == of_matrix]
            if forced not in runnable:
                known = any(table.isa == forced and table.matrix == of_matrix for table in self.kernels)
                why = "this CPU lacks the instructions" if known else "this build has no such kernels"
                accepted = ", ".join([*runnable, NO_MATRIX] if of_matrix else runnable)
                raise DeviceError(f"{variable}={forced} cannot be done here: {why}; accepted: {accepted}")

    @cached_property
    def isa(self) -> str:
        """The fastest kernels of a core that run here, or those that are forced."""
        return self.forced_isa or next(k.isa for k in self.kernels if k.supported and not k.test_only and not k.matrix)

    @cached_property
    def matrix_isa(self) -> str | None:
        """The fastest kernels that drive a matrix unit, or those that are forced; None where there are none."""
        if self.forced_matrix_isa is not None:
            return None if self.forced_matrix_isa == NO_MATRIX else self.forced_matrix_isa
        return next((k.isa for k in self.kernels if k.supported and not k.test_only and k.matrix), None)

    @property
    def stand_in_isas(self) -> tuple[str, str]:
        """What stands in for a matrix unit where there is none: the fastest kernels of a core as those of the unit, and
        the next narrower ones as those of the cores."""
        if self.stand_in and self.matrix_isa is not None:
            return self.matrix_isa, self.isa
        return self.isa, NARROWER.get(self.isa, PORTABLE)

    def with_stand_in(self) -> Device:
        """This machine with narrow kernels for its cores, and wide ones that stand in for matrix units."""
        wide, narrow = self.stand_in_isas
        return replace(self, forced_isa=narrow, forced_matrix_isa=wide, stand_in=True)

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


def _sysctl(name: str) -> bytes | None:
    """What macOS tells under a name; None where there is none of that name, or no macOS."""
    ffi, lib = native()
    value = ffi.new("char[]", _LONGEST_SYSCTL_BYTES)
    length = lib.sms_cpu_sysctl(name.encode(), value, _LONGEST_SYSCTL_BYTES)
    return None if length < 0 else bytes(ffi.buffer(value, length))


def sysctl_number(name: str) -> int:
    """A number of macOS, of 32 or 64 bits, by its name; -1 where there is none."""
    value = _sysctl(name)
    return -1 if value is None else int.from_bytes(value, "little", signed=True)


def _arm_flags() -> set[str]:
    """What native code found out, for systems without /proc/cpuinfo."""
    _, lib = native()
    found = {
        **{word: sysctl_number(f"hw.optional.arm.{name}") > 0 for word, name in OPTIONAL_IN_SME.items()},
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
                stand_in=bool(table.stand_in),
            )
        )
        index += 1
    return tables


def other_kernels() -> dict[str, tuple[str, ...]]:
    """The numbers beside f32 that have kernels, and the instruction sets whose kernels run here, fastest first.

    Of these plans use bf16 and blocks.
    """
    ffi, lib = native()
    tables_of = {
        "bf16, f16 and int8": (lib.sms_lowp_at, lib.sms_lowp_supported),
        "blocks of 4 and 8 bits": (lib.sms_blocks_at, lib.sms_blocks_supported),
    }
    found = {}
    for numbers, (table_at, is_supported) in tables_of.items():
        isas, index = [], 0
        while (table := table_at(index)) != ffi.NULL:
            if is_supported(table) and not table.test_only and not getattr(table, "stand_in", 0):
                isas.append(ffi.string(table.isa).decode())
            index += 1
        found[numbers] = tuple(isas)
    return found


def _usable_cores() -> tuple[int, ...]:
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _cpuinfo_of_all_cores(key: str) -> list[str]:
    """All values under that key of /proc/cpuinfo, each once; [] where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    pairs = (line.partition(":") for line in lines)
    return list(dict.fromkeys(value.strip() for name, _, value in pairs if name.strip() == key))


def _cpuinfo(key: str) -> str:
    return next(iter(_cpuinfo_of_all_cores(key)), "")


def _cpu_flags() -> set[str]:
    return set((_cpuinfo("flags") or _cpuinfo("Features")).split())


def _processor_name() -> str:
    """What it calls itself. Arm's cores under Linux have numbers only, by which others can look them up."""
    if name := _cpuinfo("model name"):
        return name
    if brand := _sysctl("machdep.cpu.brand_string"):
        return brand.rstrip(b"\0").decode()
    if parts := _cpuinfo_of_all_cores("CPU part"):
        return f"Arm, implementer {_cpuinfo('CPU implementer')}, parts {', '.join(parts)}"
    return platform.processor() or platform.machine()


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
