"""Programs run by `tests/native/program_driver.c`, and weights packed by `tests/native/packing_driver.c`, which a
compiler's sanitizers watch."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from smesim.exec.tensors import Tensors
from smesim.plan.program import Program

ROOT = Path(__file__).resolve().parents[2]


def driver_under(sanitizers: str, folder: Path, level: str = "-O1", packing: bool = False) -> Path:
    """The driver with the portable kernels, compiled for sanitizers; the test is skipped where there are none. With
    `packing` that of packing is beside it."""
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
    drivers = ["program", "packing"] if packing else ["program"]
    sources = [ROOT / "tests" / "native" / f"{driver}_driver.c" for driver in drivers]
    sources += [*sorted((native / "runtime").glob("*.c")), *sorted((native / "kernels").rglob("portable.c"))]
    include = [f"-I{native / 'include'}", f"-I{native / 'runtime'}"]
    objects = [str(folder / f"{number}.o") for number in range(len(sources))]
    compiling = [
        subprocess.Popen([compiler, *flags, *include, "-c", str(source), "-o", target])
        for source, target in zip(sources, objects, strict=True)
    ]
    assert [process.wait() for process in compiling] == [0] * len(sources)
    for number, driver in enumerate(drivers):
        own = [objects[number], *objects[len(drivers) :]]
        subprocess.run([compiler, *flags, *own, "-lm", "-o", str(folder / driver)], check=True)
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


def run_packing(driver: Path, form: str, rows: NDArray[Any], k: int, piece: int) -> bytes:
    """Rows [n][k] of weights packed, so many at a time."""
    command = [str(driver.with_name("packing")), form, str(len(rows)), str(k), str(piece)]
    env = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
    ran = subprocess.run(command, input=rows.tobytes(), capture_output=True, timeout=300, check=False, env=env)
    assert ran.returncode == 0, ran.stderr.decode()
    return ran.stdout
