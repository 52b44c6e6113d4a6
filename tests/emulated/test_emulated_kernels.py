"""The kernels' own tests, run by the emulated Python on every processor that can be emulated.

Those of the cores are the same wherever they run, so once, without a matrix unit, is enough; what that oldest of CPUs
lacks runs on a newer one. Those of the matrix unit run at every streaming vector length, and with SME alone; of its
tables only the products, the packing and attention are code of their own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from smesim.emulation import CHECKOUT, SVL_BITS, EmulatedDevice, Features
from tests.emulated.conftest import EmulatedPython
from tests.emulated.lengths import AnyLength, Ended, Job, run_all

WITHOUT_MATRIX = EmulatedDevice(features=Features.NONE)
DEVICES = (
    WITHOUT_MATRIX,
    *(EmulatedDevice(svl_bits=bits) for bits in SVL_BITS),
    *(EmulatedDevice(svl_bits=bits, features=Features.SME1) for bits in SVL_BITS),
)
TESTS = [str(path) for path in sorted(CHECKOUT.glob("tests/exec/test_kernels_*.py"))]
# Loaded by itself, hypothesis' plugin would have pytest compile all of hypothesis anew, to rewrite its assertions.
PYTEST = ("--disable-plugin-autoload", "-p", "tests.emulated.few_examples", "-p", "no:cacheprovider",
          "--color=no")  # fmt: skip
OWN_CODE = ("_products.py", "_pack.py", "_append.py", "_attention.py", "_sme.py", "_lowp.py", "_blocks.py")
OF_MATRIX = [path for path in TESTS if path.endswith(OWN_CODE)]
OF_NEWER_CORES = ("-k", "neondot or neonmm", *(path for path in TESTS if path.endswith(("_lowp.py", "_blocks.py"))))
ONLY_MATRIX = ("-p", "tests.emulated.only_matrix", *OF_MATRIX)
USUAL = ("-k", "not test_kernels_lowp or not (pack or quantising)", *ONLY_MATRIX)
OTHERS = ("-k", "not across and not random_weights and not (test_kernels_blocks and packing)"
          " and (not test_kernels_lowp or any_shape)", *ONLY_MATRIX)  # fmt: skip
"""Low precision is packed by the cores' kernels, as weights in blocks are, and random ones made; the loops around its
tiles are those of f32, and those over blocks the same for all."""
ALONE = tuple(word for word in OTHERS if not word.endswith("_blocks.py"))
"""SME alone has nothing for blocks, so its table has the cores' there: seen once, and in the plans of every length."""


NEWER_CORES = "cores with dot and matrix products"


IMPORTS = ("pytest", "hypothesis", "numpy", "smesim.exec.device")


def selection_for(device: EmulatedDevice) -> tuple[str, ...]:
    if device == WITHOUT_MATRIX:
        return tuple(TESTS)
    if device.svl_bits == EmulatedDevice().svl_bits:
        return USUAL if device.features is Features.SME2 else OTHERS
    return OTHERS if device.features is Features.SME2 else ALONE


def name_of(device: EmulatedDevice) -> str:
    return f"{device.features}-{device.svl_bits}"


def jobs_of(features: Features) -> dict[str, Job]:
    jobs = {}
    for device in DEVICES:
        if device.features is features:
            svl_bits = None if features is Features.NONE else device.svl_bits
            jobs[name_of(device)] = Job("pytest", (*PYTEST, *selection_for(device)), svl_bits)
    if features is Features.SME2:
        jobs[NEWER_CORES] = Job("pytest", (*PYTEST, *OF_NEWER_CORES), EmulatedDevice().svl_bits)
    return jobs


@pytest.fixture(scope="module")
def runs(emulated_python: EmulatedPython) -> Iterator[dict[str, Future[dict[str, Ended]]]]:
    """The tests on all devices, as many processors at a time as there are cores: most of a test is one thread."""
    pool = ThreadPoolExecutor(os.cpu_count())
    processors = {features: AnyLength(features=features) for features in (Features.SME2, Features.SME1)}
    processors[Features.NONE] = WITHOUT_MATRIX
    found = {}
    for features, processor in processors.items():
        jobs = jobs_of(features)
        found |= dict.fromkeys(jobs, pool.submit(run_all, emulated_python, processor, jobs, IMPORTS))
    yield found
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", [*map(name_of, DEVICES), NEWER_CORES])
def test_kernels_pass_their_tests(name: str, runs: dict[str, Future[dict[str, Ended]]]) -> None:
    ended = runs[name].result()[name]
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"^\d+ passed(, \d+ deselected)? in ", ended.stdout, re.MULTILINE), "all of them, none skipped"
