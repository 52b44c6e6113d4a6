"""What Python sees of the C code: the cffi description of the module ``smesim.exec._native``.

cffi's API mode has the C compiler check every declaration against the headers. Most headers declare nothing that cffi
cannot read, so their own text serves; the inline functions of ``layout.h`` have their declarations in ``cdef/``. The
module is built for the stable ABI of Python 3.11, so one wheel serves that and every later version.
"""

from pathlib import Path

from cffi import FFI

NATIVE = Path(__file__).resolve().parent
HEADERS = sorted((NATIVE / "include" / "smesim").glob("*.h"))
PYTHON_ABI = "0x030b0000"


def without_preprocessor(header: Path) -> str:
    """The text of a header less its directives, which cffi does not read."""
    lines = header.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("#"))


ffibuilder = FFI()
for readable in ("blocks", "cpu", "kernels", "lowp", "program", "runtime"):
    ffibuilder.cdef(without_preprocessor(NATIVE / "include" / "smesim" / f"{readable}.h"))
for fragment in sorted((NATIVE / "cdef").glob("*.cdef")):
    ffibuilder.cdef(fragment.read_text(encoding="utf-8"))
ffibuilder.set_source(
    "smesim.exec._native",
    "".join(f'#include "smesim/{header.name}"\n' for header in HEADERS),
    include_dirs=[str(NATIVE / "include")],
    define_macros=[("Py_LIMITED_API", PYTHON_ABI)],
    py_limited_api=True,
    libraries=["m", "pthread"],
    extra_compile_args=["-std=c11", "-fvisibility=hidden"],
)
