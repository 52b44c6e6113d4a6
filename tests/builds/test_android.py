"""The C files compile for Android on Arm.

What that checks: each of them compiles, with the flags of its instruction set and without a warning, for the ABI of
aarch64-linux-android. It is optimised for size, in half the time of a build: what the optimiser does else, the wheels
for Linux on Arm have shown. What it does not check: zig has no headers of bionic, Android's C library, so those of musl
stand in, which have the same names for what is used here; and nothing is linked, for which it takes Android's NDK.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest
from emulation import ROOT, cross_environment

ANDROID = "aarch64-linux-android"
EM_AARCH64 = 183
STAND_INS = ("aarch64-linux-musl", "generic-musl", "aarch64-linux-any", "any-linux-any")


@pytest.fixture(scope="module")
def set_up() -> ModuleType:
    """`setup.py` as a module: it knows the files and the flags of each."""
    spec = importlib.util.spec_from_file_location("set_up", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_c_file_compiles_for_android(set_up: ModuleType, tmp_path: Path) -> None:
    environment = cross_environment(ANDROID, "linux-aarch64", ())
    compiler = shlex.split(environment["CC"])
    zig = compiler[: compiler.index("cc")]
    told = subprocess.run([*zig, "env"], env=environment, capture_output=True, text=True, check=True).stdout
    found = re.search(r'lib_dir\W+"([^"]+)"', told)
    assert found is not None, told
    headers = [word for name in STAND_INS for word in ("-isystem", f"{found[1]}/libc/include/{name}")]
    sources = set_up.native_sources("aarch64")
    have = sorted({f"-DSMS_HAVE_{source.parent.name.upper()}" for source, flags in sources.items() if flags})
    headers += ["-I", str(ROOT / "native" / "include")]
    common = [*set_up.COMMON_FLAGS, "-Os", "-Werror", *set_up.ZIG_BASELINE, *have, *headers]

    def compiled(source: Path, number: int) -> str:
        into = tmp_path / f"{number}.o"
        flags = [set_up.for_zig(flag) for flag in sources[source]]
        command = [*compiler, *common, *flags, "-c", str(source), "-o", str(into)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return f"{source.relative_to(ROOT)}: {done.stderr}"
        (machine,) = struct.unpack_from("<H", into.read_bytes(), 18)
        return "" if machine == EM_AARCH64 else f"{source.relative_to(ROOT)} became code for machine {machine}"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        wrong = list(pool.map(compiled, sources, range(len(sources))))
    assert {isa.name for isa in (source.parent for source in sources)} >= {"neon", "sme", "sme2", "portable", "runtime"}
    assert [line for line in wrong if line] == []
