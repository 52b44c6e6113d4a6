"""Cycles that the inner loops of the SME kernels take, as LLVM's model of a core says: an estimate, not a measurement.

    python tools/cycles.py            # a table, and where its numbers are from
    python tools/cycles.py --json

llvm-mca lets one turn of a loop after another through a model of a processor's pipes. Only LLVM 23 and later know how
long instructions of SME take, and only on few cores. It is fetched as the emulator is, once, into ``.cache``: Debian's
package with the libraries that it needs, by apt-get and without root. The loops are those of the native module that
``make emulation`` compiles.

The loop of a product is the one whose turn has most multiply-adds into ZA. A k-step is one word of k: four outer
products in a product of matrices, and in one with a vector four panels' words, a load of four vectors for each four.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from bootstrap import CACHE, ROOT, SetUpError, announced
from emulation import debian_packages, host_architecture

from smesim import emulation

SUITE = "sid"
PACKAGES = (
    "llvm-23", "libllvm23", "libc6", "libstdc++6", "libgcc-s1", "zlib1g", "libzstd1", "libxml2-16", "libffi8",
    "libedit2", "libtinfo6", "libbsd0", "libmd0", "libz3-4", "libpfm4", "liblzma5",
)  # fmt: skip
FOLDER = CACHE / "llvm-mca"
OBJECTS = ROOT / "build" / "temp.emulated" / "native" / "kernels"
CPU = "c1-ultra"
TURNS = 100
"""Enough for the first turns, which find empty pipes, not to count."""

LEAVES = {
    "gemm_f32": ("{isa}/{isa}.o", "sms_gemm"),
    "gemm_bf16": ("lowp/{isa}/{isa}.o", "sms_gemm_bf16"),
    "gemm_f16": ("lowp/{isa}/{isa}.o", "sms_gemm_f16"),
    "gemm_s8": ("lowp/{isa}/{isa}.o", "sms_gemm_s8"),
    "gemv_f32": ("{isa}/{isa}.o", "sms_gemv"),
    "gemv_bf16": ("lowp/{isa}/{isa}.o", "sms_gemv_bf16"),
    "gemv_f16": ("lowp/{isa}/{isa}.o", "sms_gemv_f16"),
    "gemv_s8": ("lowp/{isa}/{isa}.o", "sms_gemv_s8"),
}
"""The object file and the function of each kernel; products with one vector are SME2's."""

FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(.+?)(?:\s*//.*)?$")
BRANCH = re.compile(r"^(?:b\.\w+|b|cbn?z|tbn?z)\s.*?0x([0-9a-f]+)")
MULTIPLY = re.compile(r"^\w*mopa\s|^\w*(?:fmla|dot)\s+za\.")
OUTER_PRODUCT = re.compile(r"^\w*mopa\s")
LOAD_OF_FOUR = re.compile(r"^ld1w\s+\{ z\d+\.s(?: - |, .*, .*, )z\d+\.s \}")


@dataclass(frozen=True)
class Loop:
    """One inner loop, and what the model says of it."""

    kernel: str
    isa: str
    instructions: int
    """Of one turn."""
    k_steps: int
    cycles_per_k_step: float


def main() -> int:
    """0 after the table; 1 after one line that says what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="as JSON")
    arguments = parser.parse_args()
    try:
        ensure_llvm()
        loops = [loop_of(kernel, isa) for isa in ("sme2", "sme") for kernel in LEAVES if has(kernel, isa)]
        version = re.search(r"LLVM version (\S+)", llvm("mca", "--version"))
    except SetUpError as error:
        print(f"no cycles: {error}", file=sys.stderr)
        return 1
    origin = f"llvm-mca {version[1] if version else '?'}, model of {CPU}: an estimate, no measurement"
    if arguments.json:
        print(json.dumps({"origin": origin, "loops": [asdict(loop) for loop in loops]}, indent=1))
        return 0
    print(f"{'kernel':<10} {'isa':<5} {'instructions':>12} {'k-steps':>8} {'cycles/k-step':>14}")
    for loop in loops:
        sizes = f"{loop.instructions:>12} {loop.k_steps:>8}"
        print(f"{loop.kernel:<10} {loop.isa:<5} {sizes} {loop.cycles_per_k_step:>14.2f}")
    print(origin)
    return 0


def has(kernel: str, isa: str) -> bool:
    return isa == "sme2" or kernel.startswith("gemm")


def ensure_llvm() -> None:
    """LLVM with what it needs to run, in a folder of its own."""
    if FOLDER.exists():
        return
    emulation.FOLDER.mkdir(parents=True, exist_ok=True)  # where packages are unpacked
    wanted = [(name, host_architecture(), SUITE) for name in PACKAGES]
    with announced(f"cycles: fetching LLVM of Debian {SUITE}"), debian_packages(wanted) as tree:
        shutil.move(tree, FOLDER)


def llvm(tool: str, *arguments: str, stdin: str = "") -> str:
    """What a tool of that LLVM prints. It runs with the C library that it was made for, not with the system's."""
    loader = next(path for path in sorted((FOLDER / "usr").glob("lib*/**/ld-linux-*.so.*")))
    libraries = sorted({str(path.parent) for path in (FOLDER / "usr" / "lib").rglob("*.so*")})
    program = FOLDER / "usr" / "lib" / PACKAGES[0] / "bin" / f"llvm-{tool}"
    command = [str(loader), "--library-path", ":".join(libraries), str(program), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetUpError(f"llvm-{tool} failed: {(done.stderr.strip().splitlines() or ['it does not say why'])[0]}")
    return done.stdout


def loop_of(kernel: str, isa: str) -> Loop:
    """The inner loop of a kernel, through the model."""
    name, function = LEAVES[kernel]
    turn = inner_loop(OBJECTS / name.format(isa=isa), function)
    outer_products = sum(bool(OUTER_PRODUCT.match(text)) for text in turn)
    k_steps = outer_products // 4 or sum(bool(LOAD_OF_FOUR.match(text)) for text in turn)
    found = json.loads(
        llvm("mca", "-mtriple=aarch64", f"-mcpu={CPU}", f"-iterations={TURNS}", "-json", stdin="\n".join(turn))
    )
    cycles = found["CodeRegions"][0]["SummaryView"]["TotalCycles"]
    return Loop(kernel, isa, len(turn), k_steps, cycles / TURNS / k_steps)


def inner_loop(compiled: Path, function: str) -> list[str]:
    """The instructions from where a branch leads back to up to that branch, of the loop that multiplies most."""
    if not compiled.exists():
        raise SetUpError(f"{compiled.relative_to(ROOT)} is missing; 'make emulation' compiles it")
    options = ("-d", "--no-show-raw-insn", "--mattr=+all", f"--disassemble-symbols={function}")
    instructions: list[tuple[int, str]] = []
    inside = False
    for line in llvm("objdump", *options, str(compiled)).splitlines():
        if found := FUNCTION.match(line):
            inside = found[1] == function
        elif inside and (found := INSTRUCTION.match(line)):
            instructions.append((int(found[1], 16), " ".join(found[2].split())))
    loops, last_begin = [], -1
    for address, text in instructions:
        found = BRANCH.match(text)
        begin = int(found[1], 16) if found else address + 1
        if last_begin < begin <= address:  # an outer loop's branch leads further back than an inner one's
            loops.append([other for at, other in instructions if begin <= at < address])
            last_begin = begin
    return max(loops, key=lambda loop: sum(bool(MULTIPLY.match(text)) for text in loop))


if __name__ == "__main__":
    sys.exit(main())
