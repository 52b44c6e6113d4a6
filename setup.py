"""Builds the native module: every C file for the instruction set it is written for, all in one extension.

The package's metadata is in ``pyproject.toml``. What that cannot say is here: files of one extension need different
compiler flags, and the wheel is tagged for the stable ABI.
"""

import platform
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

ROOT = Path(__file__).resolve().parent
NATIVE = ROOT / "native"
COMMON_FLAGS = ["-std=c11", "-O3", "-Wall", "-Wextra", "-ffp-contract=fast", "-fvisibility=hidden", "-fPIC"]
X86_AVX2 = ["-mavx2", "-mfma", "-mbmi2"]
ISA_FLAGS = {
    "x86_64": {
        "avx2": X86_AVX2,
        "avx512": [*X86_AVX2, "-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq"],
        "wide16": [*X86_AVX2, "-Wno-psabi"],
    },
}
# Without it zig compiles for the machine it runs on, and the portable code would not be portable.
ZIG_FLAGS = ["-mcpu=baseline"]
MACHINE_NAMES = {"amd64": "x86_64"}


def native_sources() -> dict[Path, list[str]]:
    """The C files for this machine and the flags of each beyond the common ones."""
    machine = platform.machine().lower()
    sources: dict[Path, list[str]] = {NATIVE / "kernels" / "registry.c": []}
    for source in [*(NATIVE / "kernels" / "portable").glob("*.c"), *(NATIVE / "runtime").glob("*.c")]:
        sources[source] = []
    for isa, flags in ISA_FLAGS.get(MACHINE_NAMES.get(machine, machine), {}).items():
        for source in (NATIVE / "kernels" / isa).glob("*.c"):
            sources[source] = flags
    return dict(sorted(sources.items()))


class BuildNative(build_ext):
    """Compiles each C file with its own flags, then lets cffi's generated module link with the objects."""

    def build_extension(self, ext: Extension) -> None:
        shared = [str(path) for pattern in ("**/*.h", "cdef/*", "builder.py") for path in NATIVE.glob(pattern)]
        shared.append(__file__)
        baseline = ZIG_FLAGS if any("zig" in word for word in self.compiler.compiler_so) else []
        ext.extra_compile_args = [*ext.extra_compile_args, *baseline]
        objects = []
        for source, flags in native_sources().items():
            name = source.relative_to(ROOT)
            target = self.compiler.object_filenames([str(name)], output_dir=self.build_temp)[0]
            if self.force or newer_group([str(source), *shared], target):
                self.compiler.compile(
                    [str(name)],
                    output_dir=self.build_temp,
                    include_dirs=[str(NATIVE / "include")],
                    extra_postargs=[*COMMON_FLAGS, *baseline, *flags],
                )
            objects.append(target)
        ext.extra_objects = objects
        ext.depends = [*shared, *objects]
        super().build_extension(ext)


setup(
    cffi_modules=["native/builder.py:ffibuilder"],
    cmdclass={"build_ext": BuildNative},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
