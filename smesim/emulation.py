"""The emulated device: this same package, run by an emulator of an Arm processor that has SME.

Most machines have no SME, so the code that needs it would never run. QEMU's user mode runs an aarch64 Python, with this
checkout's modules and a native module compiled for aarch64, as an ordinary process of this machine: files, arguments,
standard input and output and the exit code are those of any command. What such a process computes is what the hardware
would compute; how long it takes says nothing of hardware.

`make emulation` (`tools/emulation.py`) sets the device up beside the checkout; here is where it lies, and how a command
is started in it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

from smesim.errors import DeviceError
from smesim.exec.device import is_emulated

CHECKOUT = Path(__file__).resolve().parent.parent
FOLDER = CHECKOUT / ".cache" / "emulation"
REASON_IF_MISSING = FOLDER / "missing.txt"
"""Why the device could not be set up, in one line; absent if it could."""

SYSROOT = FOLDER / "sysroot"
PYTHON = SYSROOT / "usr" / "bin" / "python3.11"
NATIVE_MODULES = tuple(
    CHECKOUT / "smesim" / f"{name}.cpython-311-aarch64-linux-gnu.so" for name in ("exec/_native", "sim/_engine")
)
"""Beside the host's module: Python takes the one whose name ends as its own machine's do."""

SVL_BITS = (128, 256, 512, 1024, 2048)
"""The streaming vector lengths that the architecture allows."""


class Features(StrEnum):
    """Which matrix extension the emulated processor has."""

    SME2 = "sme2"
    SME1 = "sme1"
    NONE = "none"


EMULATORS = {
    Features.SME2: FOLDER / "qemu-aarch64",
    Features.SME1: FOLDER / "qemu-aarch64-sme1",
    Features.NONE: FOLDER / "qemu-aarch64",
}
"""SME2 cannot be switched off in the QEMU that has it, so a processor with SME alone is an older QEMU's."""


@dataclass(frozen=True)
class EmulatedDevice:
    """One emulated processor. DeviceError if there is none of that vector length.

    By default it has what an Apple M4 has: streaming mode, but no SVE outside it (the older QEMU cannot do without, and
    has SVE of 128 bits). Without a matrix extension it is a Cortex-A72, which has no vectors but those of Armv8.0.
    """

    svl_bits: int = 512
    features: Features = Features.SME2
    sve: bool = False

    def __post_init__(self) -> None:
        if self.svl_bits not in SVL_BITS:
            raise DeviceError(
                f"there is no streaming vector length of {self.svl_bits} bits; "
                f"accepted for --svl: {', '.join(map(str, SVL_BITS))}"
            )
        if self.sve and self.features is Features.NONE:
            raise DeviceError("--sve goes with SME; the processor of --features none is a Cortex-A72")

    @property
    def cpu(self) -> str:
        """The processor in QEMU's words."""
        if self.features is Features.NONE:
            return "cortex-a72"
        # Compilers spill SVE registers into room measured by the streaming length: SVE must not be the wider one.
        sve = "sve128=on" if self.sve or self.features is Features.SME1 else "sve=off"
        # Without FA64 an instruction of Neon in streaming mode is an illegal one, as on every SME chip known so far.
        return f"max,{sve},sme{self.svl_bits}=on,sme_fa64=off"

    def command(self, *python_arguments: str) -> list[str]:
        """The command that runs the emulated Python with these arguments, in `environment()`."""
        return [str(EMULATORS[self.features]), "-L", str(SYSROOT), "-cpu", self.cpu, str(PYTHON), *python_arguments]


def environment() -> dict[str, str]:
    """The environment variables of an emulated process: this one's, and those that lead Python to its own files.

    What compiling saved it finds again, also where this process is told to save nothing: in the emulator, compiling the
    modules that a command imports takes longer than most commands.
    """
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        "PYTHONHOME": str(SYSROOT / "usr"),
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONNOUSERSITE": "1",
        # numpy's OpenBLAS would take an emulated SVE for a real one; these kernels give right numbers without noise.
        "OPENBLAS_CORETYPE": "ARMV8",
        "OPENBLAS_NUM_THREADS": "1",
    }


def why_missing() -> str | None:
    """Why nothing can be emulated here, in one line; None if it can."""
    if REASON_IF_MISSING.exists():
        return REASON_IF_MISSING.read_text(encoding="utf-8").strip()
    if all(path.exists() for path in (*EMULATORS.values(), PYTHON, *NATIVE_MODULES)):
        return None
    return "it was never set up"


def refuse_without_device() -> None:
    """DeviceError if nothing can be emulated here."""
    if is_emulated():
        raise DeviceError("this is the emulated device already; run the command itself")
    if reason := why_missing():
        raise DeviceError(f"there is no emulated device ({reason}); run 'make emulation' in a checkout of smesim")


def run_emulated(device: EmulatedDevice, arguments: Sequence[str]) -> NoReturn:
    """Become the smesim command in the emulated device. DeviceError if there is no such device here."""
    refuse_without_device()
    sys.stdout.flush()
    command = device.command("-m", "smesim", *arguments)
    os.execve(command[0], command, environment())
