"""Several vector lengths in one emulated Python: it starts once, and a fork of it runs what each length has to.

To start Python in the emulator, and to translate it, takes longer than what most lengths have to run. As a command this
imports modules, forks for every job, and prints what became of each.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NoReturn, TextIO

from smesim.emulation import SVL_BITS, EmulatedDevice

EmulatedPython = Callable[..., "subprocess.CompletedProcess[str]"]
"""Called with an `EmulatedDevice` and the arguments of Python."""

PR_SME_SET_VL = 63
"""Of Linux's `prctl`: the streaming vector length of this thread and of those that it starts."""


@dataclass(frozen=True)
class Job:
    """A module and its arguments, run at a streaming vector length; at none where there is no such mode."""

    module: str
    arguments: tuple[str, ...]
    svl_bits: int | None


@dataclass(frozen=True)
class Ended:
    """How a job ended, with what it printed."""

    returncode: int
    stdout: str
    stderr: str


class AnyLength(EmulatedDevice):
    """A processor that can be set to every streaming vector length."""

    @property
    def cpu(self) -> str:
        one = f",sme{self.svl_bits}=on"
        return super().cpu.replace(one, "".join(f",sme{bits}=on" for bits in SVL_BITS))


def run_all(
    emulated_python: EmulatedPython, device: EmulatedDevice, jobs: Mapping[str, Job], imports: Sequence[str]
) -> dict[str, Ended]:
    """The end of each of these jobs, done one after the other by a Python that imports these modules once for all."""
    told = json.dumps([asdict(job) for job in jobs.values()])
    ended = emulated_python(device, "-m", "tests.emulated.lengths", told, *imports)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return dict(zip(jobs, (Ended(**found) for found in json.loads(ended.stdout)), strict=True))


def set_length(svl_bits: int) -> None:
    import cffi

    ffi = cffi.FFI()
    ffi.cdef("int prctl(int option, unsigned long, unsigned long, unsigned long, unsigned long);")
    found = ffi.dlopen(None).prctl(PR_SME_SET_VL, svl_bits // 8, 0, 0, 0)
    if found != svl_bits // 8:
        raise SystemExit(f"asked for vectors of {svl_bits} bits, given {found}")


def become(job: Job, stdout: TextIO, stderr: TextIO) -> NoReturn:
    """Do the job in this process, and end it."""
    os.dup2(stdout.fileno(), 1)
    os.dup2(stderr.fileno(), 2)
    code: object = 1
    try:
        if job.svl_bits is not None:
            set_length(job.svl_bits)
        sys.argv = [job.module, *job.arguments]
        runpy.run_module(job.module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def run(job: Job) -> Ended:
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        child = os.fork()
        if child == 0:
            become(job, stdout, stderr)
        _, status = os.waitpid(child, 0)
        printed = []
        for file in (stdout, stderr):
            file.seek(0)
            printed.append(file.read())
        return Ended(os.waitstatus_to_exitcode(status), *printed)


def main(jobs: str, *imports: str) -> None:
    for name in imports:
        importlib.import_module(name)
    ended = [run(Job(**{**job, "arguments": tuple(job["arguments"])})) for job in json.loads(jobs)]
    json.dump([asdict(one) for one in ended], sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
