"""Programs run by `tests/native/program_driver.c`, which a compiler's sanitizer watches."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from smesim.exec.tensors import Tensors
from smesim.plan.program import Program

ROOT = Path(__file__).resolve().parents[2]


def driver_under(sanitizers: str, folder: Path, level: str = "-O1") -> Path:
    """The driver with the portable kernels, compiled for sanitizers; the test is skipped where there are none."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("there is no C compiler")
    flags = [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-std=c11", level, "-g", "-pthread"]
    empty = folder / "empty.c"
    empty.write_text("int main(void) { return 0; }\n")
    probe = subprocess.run(
        [compiler, *flags, str(empty), "-o", str(folder / "empty")], capture_output=True, check=False
    )
    if probe.returncode or subprocess.run([folder / "empty"], capture_output=True, check=False).returncode:
        pytest.skip(f"{compiler} has no working sanitizers {sanitizers}")
    native = ROOT / "native"
    sources = [ROOT / "tests" / "native" / "program_driver.c", *sorted((native / "runtime").glob("*.c"))]
    sources += sorted((native / "kernels").rglob("portable.c"))
    include = [f"-I{native / 'include'}", f"-I{native / 'runtime'}"]
    objects = [str(folder / f"{number}.o") for number in range(len(sources))]
    compiling = [
        subprocess.Popen([compiler, *flags, *include, "-c", str(source), "-o", target])
        for source, target in zip(sources, objects, strict=True)
    ]
    assert [process.wait() for process in compiling] == [0] * len(sources)
    subprocess.run([compiler, *flags, *objects, "-lm", "-o", str(folder / "program")], check=True)
    return folder / "program"


def run_driver(driver: Path, program: Program, tensors: Tensors, folder: Path, runs: int) -> None:
    """Run a program some times, each from the tensors' contents, which become what the last run left."""
    arrays = [
        program.ops, program.tasks, program.successors, program.workers, program.entries, program.pools,
        program.pool_tasks, program.buffers, *tensors.arrays,
    ]  # fmt: skip
    with (folder / "program.bin").open("wb") as file:
        for array in arrays:
            file.write(np.int64(array.nbytes).tobytes() + np.ascontiguousarray(array).tobytes())
    command = [str(driver), str(folder / "program.bin"), str(runs)]
    env = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}  # the driver ends, and gives nothing back before
    ran = subprocess.run(command, capture_output=True, timeout=300, check=False, env=env)
    assert ran.returncode == 0, ran.stderr.decode()
    left = np.frombuffer(ran.stdout, np.uint8)
    for array in tensors.arrays:
        array[:], left = left[: len(array)], left[len(array) :]
