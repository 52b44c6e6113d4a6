"""Builds the native modules: the kernels and the runtime, every C file for the instruction set it is written for, all
in one extension; and in another the simulator's engine.

The package's metadata is in ``pyproject.toml``. What that cannot say is here: files of one extension need different
compiler flags, and the wheel is tagged for the stable ABI.
"""

import os
import platform
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

ROOT = Path(__file__).resolve().parent
NATIVE = ROOT / "native"
ENGINE = "smesim.sim._engine"
LINK_ONLY = bool(os.environ.get("SMESIM_LINK_ONLY"))
"""Set by who has the native modules compiled beside the sources already, and only wants to install a link to them."""
OPTIMISATION = os.environ.get("SMESIM_OPTIMISATION", "-O3")
"""Something else only to see whether all compiles and links."""
COMMON_FLAGS = ["-std=c11", OPTIMISATION, "-Wall", "-Wextra", "-ffp-contract=fast", "-fvisibility=hidden", "-fPIC"]
X86_AVX2 = ["-mavx2", "-mfma", "-mbmi2", "-mf16c"]
X86_AVX512 = [*X86_AVX2, "-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq"]
# Without tables for unwinding, of which kernels have no use, SME code needs no routine that says how long vectors are
# now; zig makes such tables unless it is told in all of these ways.
STREAMING = ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fno-exceptions", "-g0"]
ISA_FLAGS = {
    "x86_64": {
        "avx2": X86_AVX2,
        "fma128": [*X86_AVX2, "-mprefer-vector-width=128"],
        "avx512": X86_AVX512,
        "avx512vnni": [*X86_AVX512, "-mavx512vnni"],
        "avx512bf16": [*X86_AVX512, "-mavx512vnni", "-mavx512bf16"],
        "wide16": [*X86_AVX2, "-Wno-psabi"],
    },
    # Not armv9-a: it implies SVE2 outside streaming mode, which an Apple M4 has not.
    "aarch64": {
        "neon": ["-march=armv8-a"],
        "neondot": ["-march=armv8.2-a+dotprod"],
        "neonmm": ["-march=armv8.2-a+dotprod+i8mm+bf16"],
        "sme": ["-march=armv8.7-a+sme", *STREAMING],
        "sme2": ["-march=armv8.7-a+sme2", *STREAMING],
    },
}
# Without it zig compiles for the machine it runs on, and the portable code would not be portable.
ZIG_BASELINE = ["-mcpu=baseline"]
MACHINE_NAMES = {"amd64": "x86_64", "arm64": "aarch64"}

AS_WRITTEN = ["-ffp-contract=off"]
"""The engine must round where Python rounds: no multiplication and addition may become one instruction."""

NEW_IN_COMPILERS = {"sme", "sme2"}
"""Left out where the compiler does not know them yet: gcc before 14, clang before 19."""


def native_sources(machine: str) -> dict[Path, list[str]]:
    """The C and assembly files of the runtime for a machine, and the flags of each beyond the common ones.

    A file in a folder named after an instruction set is for that one; a file beside such folders, or in one named
    ``portable``, is for every machine.
    """
    isas = {isa for of_machine in ISA_FLAGS.values() for isa in of_machine}
    here = ISA_FLAGS.get(MACHINE_NAMES.get(machine, machine), {})
    sources = {}
    for source in sorted(NATIVE.rglob("*.[cS]")):
        isa = source.parent.name
        if (isa in here or isa not in isas) and source.parent != NATIVE / "sim":
            sources[source] = here.get(isa, [])
    return sources


def engine_sources() -> dict[Path, list[str]]:
    """The C files of the simulator's engine, the same for every machine."""
    return dict.fromkeys(sorted((NATIVE / "sim").glob("*.c")), AS_WRITTEN)


def for_zig(flag: str) -> str:
    """A flag in zig's words: it knows no -march, and names a CPU's features with underscores."""
    if not flag.startswith("-march=arm"):
        return flag
    version, *extensions = flag.removeprefix("-march=arm").split("+")
    features = [version.replace(".", "_").replace("-", ""), *(name.replace("-", "_") for name in extensions)]
    return "+".join(["-mcpu=generic", *features])


class BuildNative(build_ext):
    """Compiles each file with its own flags, then lets cffi's generated module link with the objects.

    All files see a macro ``SMS_HAVE_<ISA>`` for each instruction set that is compiled in, so that the registry knows.
    """

    def build_extension(self, ext: Extension) -> None:
        shared = [str(path) for pattern in ("**/*.h", "cdef/*", "builder.py") for path in NATIVE.glob(pattern)]
        shared.append(__file__)
        self.compiler.src_extensions = [*self.compiler.src_extensions, ".S"]
        self.zig = any("zig" in word for word in self.compiler.compiler_so)
        baseline = ZIG_BASELINE if self.zig else []
        ext.extra_compile_args = [*ext.extra_compile_args, *baseline]
        # Python's own variable for cross builds names the platform that is built for, as linux-aarch64.
        machine = os.environ.get("_PYTHON_HOST_PLATFORM", platform.machine()).rpartition("-")[2]
        sources = engine_sources() if ext.name == ENGINE else native_sources(machine.lower())
        refused = {isa for isa in NEW_IN_COMPILERS if not self.compiles(sources, isa)}
        sources = {source: flags for source, flags in sources.items() if source.parent.name not in refused}
        isas = {source.parent.name for source, flags in sources.items() if flags and flags is not AS_WRITTEN}
        have = sorted(f"-DSMS_HAVE_{isa.upper()}" for isa in isas)
        shared += [str(folder) for folder in {source.parent for source in sources}]  # a new file may mean a new macro
        targets, jobs = [], []
        for source, flags in sources.items():
            name = str(source.relative_to(ROOT))
            targets += self.compiler.object_filenames([name], output_dir=self.build_temp)
            if self.force or newer_group([str(source), *shared], targets[-1]):
                jobs.append((name, [*COMMON_FLAGS, *baseline, *have, *self.spelled(flags)]))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda job: self.compile_file(*job), jobs))  # taking the results raises what failed
        ext.extra_objects = targets
        ext.depends = [*shared, *targets]
        super().build_extension(ext)

    def compile_file(self, name: str, flags: list[str]) -> None:
        include = [str(NATIVE / "include")]
        self.compiler.compile([name], output_dir=self.build_temp, include_dirs=include, extra_postargs=flags)

    def compiles(self, sources: dict[Path, list[str]], isa: str) -> bool:
        """Whether the compiler takes the flags of an instruction set's files; true of one that has none."""
        flags = next((flags for source, flags in sources.items() if source.parent.name == isa), [])
        trial = [*self.compiler.compiler_so, *self.spelled(flags), "-x", "c", "-E", os.devnull]
        return not flags or subprocess.run(trial, capture_output=True, check=False).returncode == 0

    def spelled(self, flags: list[str]) -> list[str]:
        return [for_zig(flag) for flag in flags] if self.zig else flags


if __name__ == "__main__":
    setup(
        cffi_modules=[] if LINK_ONLY else ["native/builder.py:ffibuilder", "native/builder.py:engine"],
        cmdclass={"build_ext": BuildNative},
        options={"bdist_wheel": {"py_limited_api": "cp311"}},
    )
