"""What Python sees of the C code: the cffi descriptions of two modules, for the runtime and for the simulator.

`smesim.exec._native` is the kernels and the runtime, `smesim.sim._engine` the discrete-event engine of `native/sim`;
neither needs the other, as the rooms that they belong to do not.

cffi's API mode has the C compiler check every declaration against the headers. Most headers declare nothing that cffi
cannot read, so their own text serves; the inline functions of ``layout.h`` have their declarations in ``cdef/``. The
modules are built for the stable ABI of Python 3.11, so one wheel serves that and every later version.
"""

from pathlib import Path

from cffi import FFI

NATIVE = Path(__file__).resolve().parent
HEADERS = sorted((NATIVE / "include" / "smesim").glob("*.h"))
ENGINE_HEADERS = ("engine", "sketch")
PYTHON_ABI = "0x030b0000"


def without_preprocessor(header: Path) -> str:
    """The text of a header less its directives, which cffi does not read."""
    lines = header.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("#"))


def described(module: str, source: str, folder: Path) -> FFI:
    """A module with the C source that its generated one begins with, and the folder of the headers."""
    described = FFI()
    described.set_source(
        module,
        source,
        include_dirs=[str(folder)],
        define_macros=[("Py_LIMITED_API", PYTHON_ABI)],
        py_limited_api=True,
        libraries=["m", "pthread"],
        extra_compile_args=["-std=c11", "-fvisibility=hidden"],
    )
    return described


ffibuilder = described(
    "smesim.exec._native", "".join(f'#include "smesim/{header.name}"\n' for header in HEADERS), NATIVE / "include"
)
for readable in ("blocks", "cpu", "kernels", "lowp", "program", "runtime"):
    ffibuilder.cdef(without_preprocessor(NATIVE / "include" / "smesim" / f"{readable}.h"))
for fragment in sorted((NATIVE / "cdef").glob("*.cdef")):
    ffibuilder.cdef(fragment.read_text(encoding="utf-8"))

engine = described(
    "smesim.sim._engine", "".join(f'#include "{name}.h"\n' for name in ENGINE_HEADERS), NATIVE / "sim"
)
for name in ENGINE_HEADERS:
    engine.cdef(without_preprocessor(NATIVE / "sim" / f"{name}.h"))
