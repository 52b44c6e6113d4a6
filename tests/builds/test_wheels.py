"""Wheels for other machines: built as `make wheels` builds them, then run where that can be, else looked into.

The one that is only looked into is optimised for size, which takes half the time: what it needs of other libraries is
at least what the faster code needs, of which less is in functions of its own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from smesim.emulation import CHECKOUT, EmulatedDevice, environment
from tests.builds import macho

GLIBC = (2, 28)
NATIVE_MODULE = "smesim/exec/_native.abi3.so"
ENGINE_MODULE = "smesim/sim/_engine.abi3.so"
ABI_ROUTINES = {"___arm_tpidr2_save", "___arm_get_current_vg"}


def wheel_for(tag: str, into: Path, *options: str) -> zipfile.ZipFile:
    command = [sys.executable, str(CHECKOUT / "tools" / "wheels.py"), "--target", tag, "--into", str(into), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = into.glob("*.whl")
    assert wheel.name.endswith(f"-cp311-abi3-{tag}.whl")
    return zipfile.ZipFile(wheel)


@pytest.fixture(scope="module")
def manylinux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip would unpack the wheel."""
    folder = tmp_path_factory.mktemp("manylinux")
    with wheel_for("manylinux_2_28_aarch64", folder) as wheel:
        wheel.extractall(folder / "installed")
    # As pip does, and much faster than the emulated Python would, if this one makes what that one reads.
    subprocess.run([sys.executable, "-m", "compileall", "-qq", str(folder / "installed")], check=True)
    return folder / "installed"


def test_the_wheel_for_arm_works_in_an_emulated_python(manylinux: Path, tmp_path: Path) -> None:
    run = EmulatedDevice().command("-m", "smesim", "doctor", "--json")
    there = {**environment(), "PYTHONPATH": str(manylinux)}
    ended = subprocess.run(run, cwd=tmp_path, env=there, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert {"sme2", "sme", "neon", "portable"} == {table["isa"] for table in found["kernels"] if table["supported"]}
    assert (found["matrix_isa"], found["svl_bits"]) == ("sme2", 512)


def test_the_wheel_for_arm_asks_for_no_newer_c_library_than_its_name_says(manylinux: Path) -> None:
    asked_for = re.findall(rb"\0GLIBC_(\d+)\.(\d+)", (manylinux / NATIVE_MODULE).read_bytes())
    assert asked_for
    assert max((int(major), int(minor)) for major, minor in asked_for) <= GLIBC


def test_a_wheel_has_the_files_of_its_package_and_no_others_machines(manylinux: Path) -> None:
    modules = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "smesim").rglob("*.py")}
    there = {str(path.relative_to(manylinux)) for path in manylinux.rglob("*") if "__pycache__" not in path.parts}
    assert modules <= there
    assert {path for path in there if path.endswith(".so")} == {NATIVE_MODULE, ENGINE_MODULE}
    assert "smesim/hwmodel/presets/apple-m4.toml" in there


def test_the_library_for_macos_links_and_lacks_nothing_but_python(tmp_path: Path) -> None:
    with wheel_for("macosx_11_0_arm64", tmp_path, "--small") as wheel:
        library = macho.read_macho(wheel.read(NATIVE_MODULE))
    assert library.cpu == macho.CPU_ARM64
    assert library.filetype in {macho.DYLIB, macho.BUNDLE}
    assert library.is_signed, "Apple's chips run nothing that is not signed; the linker does it, without a name"
    assert library.libraries == ("/usr/lib/libSystem.B.dylib",)
    # Of the routines that code in streaming mode calls Apple's library has them all, but older toolchains none.
    assert library.defined >= ABI_ROUTINES
    assert "_PyInit__native" in library.defined
    elsewhere = {name for name, ordinal in library.needed.items() if ordinal != 1}
    assert elsewhere
    assert {name for name in elsewhere if not name.startswith(("_Py", "__Py"))} == set()
    assert {name for name in library.needed if name.startswith(("_sms", "___arm", "___aarch64"))} == set()
