"""Set up the emulated device of this checkout: what ``smesim emulate`` and the emulated tests run on.

Fetched once into ``.cache/emulation``, by pip and by apt-get with lists of its own, from the sources that both are set
up with; nothing needs root and nothing outside the checkout is changed:

- the emulator, QEMU's user mode, one static file; and an older one, whose processor has SME but not SME2;
- Debian's Python for arm64, and the wheels for it of what smesim needs;
- a compiler that knows SME, zig's, unless the environment has it.

Then ``setup.py`` compiles the native module for aarch64. Each step is skipped when nothing changed. Where nothing can
be fetched the device is marked as missing, with the reason: ``smesim emulate`` says it, and the emulated tests are
skipped with it.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bootstrap import CACHE, COMPILER_FROM_PIP, ROOT, SetUpError, Stamps, announced, digest, requirements, run

from smesim import emulation
from smesim.emulation import FOLDER, NATIVE_MODULES, PYTHON, REASON_IF_MISSING, SYSROOT, Features

STAMPS = Stamps(FOLDER / "set-up.json")
ENVIRONMENT_HAS_ZIG = importlib.util.find_spec("ziglang") is not None
ZIG = FOLDER / "zig"
SITE = SYSROOT / "usr" / "lib" / "python3" / "dist-packages"
HEADERS = (SYSROOT / "usr" / "include" / "python3.11", SYSROOT / "usr" / "include")
HEADERS_FOR_ALL = ROOT / "build" / "python-headers"

EMULATOR_SUITES = {Features.SME2: "trixie-backports", Features.SME1: "trixie"}
"""Debian's releases of QEMU: from 11 on with SME2 and right, 10.0 with SME alone and right. Older ones have no SME,
or, like 7.2, get the integer outer products wrong without a word."""
EMULATOR_VERSIONS = {Features.SME2: range(11, 1000), Features.SME1: range(10, 11)}

PYTHON_SUITE = "bookworm"
PYTHON_PACKAGES = (
    "libc6", "libpython3.11-minimal", "libpython3.11-stdlib", "libpython3.11-dev", "python3.11-minimal", "libexpat1",
    "zlib1g", "libssl3", "libffi8", "libgcc-s1", "libstdc++6", "libsqlite3-0", "libbz2-1.0", "liblzma5", "libncursesw6",
    "libtinfo6", "libreadline8", "libuuid1", "libcrypt1",
)  # fmt: skip
SPEAKING_PACKAGES = ("jinja2", "tokenizers")
TEST_PACKAGES = ("pytest", "hypothesis")
WHEELS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
"""Platforms whose wheels run with the C library of that suite, 2.36."""

TARGET = "aarch64-linux-gnu.2.28"


class FetchError(SetUpError):
    """Something could not be fetched: no network, or no Debian to ask. The checkout is good without it."""


def main() -> int:
    """0 when the device is set up, or cannot be for want of a network; 1 after one line that says what is wrong."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        ensure_all()
        REASON_IF_MISSING.unlink(missing_ok=True)
    except FetchError as error:
        REASON_IF_MISSING.write_text(f"{error}\n", encoding="utf-8")
        print(f"no emulated device: {error}; what needs it is skipped", file=sys.stderr)
    except SetUpError as error:
        print(f"set-up of the emulated device failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("set-up interrupted: run it again to go on", file=sys.stderr)
        return 130
    return 0


def ensure_all() -> None:
    """All steps, each as soon as what it needs is there: some wait for the network, others for the processor."""
    with ThreadPoolExecutor(5) as pool:
        emulators, python, compiler = map(pool.submit, (ensure_emulators, ensure_python, ensure_compiler))
        packages = pool.submit(after, ensure_packages, python)
        native = pool.submit(after, ensure_native, python, compiler)
    for step in (emulators, python, compiler, packages, native):
        step.result()


def after(step: Callable[[], None], *others: Future[None]) -> None:
    """A step behind others; what one of them raises, it raises too."""
    for other in others:
        other.result()
    step()


def ensure_emulators() -> None:
    """Both emulators. What Debian's suites hold moves on; what was fetched once and is good stays."""
    for features, suite in EMULATOR_SUITES.items():
        path = emulation.EMULATORS[features]
        if path.exists():
            continue
        wanted = [("qemu-user", host_architecture(), suite)]
        with announced(f"emulation: fetching QEMU of Debian {suite}"), debian_packages(wanted) as tree:
            emulator = tree / "usr" / "bin" / "qemu-aarch64"
            words = subprocess.run([emulator, "--version"], capture_output=True, text=True, check=False).stdout
            version = re.match(r"qemu-aarch64 version (\d+)", words)
            if version is None or int(version[1]) not in EMULATOR_VERSIONS[features]:
                raise FetchError(f"the QEMU of Debian {suite} is not one that is known to be right: {words!r}")
            shutil.move(emulator, path)


def ensure_python() -> None:
    """Debian's Python for arm64, with its headers, as a folder that the emulator takes for the root."""
    key = digest([], PYTHON_SUITE, *PYTHON_PACKAGES)
    if STAMPS.of("python") == key and PYTHON.exists():
        return
    wanted = [(name, "arm64", PYTHON_SUITE) for name in PYTHON_PACKAGES]
    with announced("emulation: fetching Python for arm64"), debian_packages(wanted) as tree:
        shutil.rmtree(SYSROOT, ignore_errors=True)
        shutil.move(tree, SYSROOT)
        if sys.version_info[:2] == (3, 11):  # else the emulated Python compiles what it imports, once
            subprocess.run([sys.executable, "-m", "compileall", "-qq", "-j0", SYSROOT / "usr" / "lib"], check=False)
    STAMPS.write("python", key)
    STAMPS.write("packages", "")


def ensure_packages() -> None:
    """The packages that smesim, its tests and models that speak need, as wheels for arm64."""
    more = [r for r in requirements(["dev", "llm"]) if r.split(">=")[0] in (*TEST_PACKAGES, *SPEAKING_PACKAGES)]
    wanted = list(dict.fromkeys([*requirements([]), *more]))
    key = digest([], *wanted)
    if STAMPS.of("packages") == key:
        return
    options = [word for name in WHEELS for word in ("--platform", name)]
    options += ["--python-version", "3.11", "--implementation", "cp", "--only-binary=:all:"]
    with announced("emulation: installing Python packages for arm64"):
        shutil.rmtree(SITE, ignore_errors=True)
        pip_install(SITE, *wanted, *options)
    STAMPS.write("packages", key)


def ensure_compiler() -> None:
    """The zig that compiles smesim's kernels, unless this environment has it."""
    if ENVIRONMENT_HAS_ZIG or STAMPS.of("compiler") == COMPILER_FROM_PIP:
        return
    with announced("emulation: installing zig"):
        shutil.rmtree(ZIG, ignore_errors=True)
        pip_install(ZIG, COMPILER_FROM_PIP)
    STAMPS.write("compiler", COMPILER_FROM_PIP)


def ensure_native() -> None:
    """smesim's native modules for arm64, from the C files as they are now, compiled by zig."""
    key = digest([ROOT / "setup.py", Path(__file__), *(ROOT / "native").rglob("*")], COMPILER_FROM_PIP)
    if STAMPS.of("native") == key and all(module.exists() for module in NATIVE_MODULES):
        return
    built = ROOT / "build" / "lib.emulated"
    places = ["--build-lib", str(built), "--build-temp", str(ROOT / "build" / "temp.emulated")]
    with announced("emulation: compiling the native kernels for arm64"):
        run(
            [sys.executable, "setup.py", "--quiet", "build_ext", *places],
            "the native kernels did not compile for arm64",
            cross_environment(TARGET, "linux-aarch64", (headers_for_all(),)),
        )
        for module in NATIVE_MODULES:
            folder, name = module.parent.relative_to(ROOT), module.name.partition(".")[0]
            (built / folder / f"{name}.abi3.so").replace(module)
    STAMPS.write("native", key)


def headers_for_all() -> Path:
    """Python's headers without Debian's choice of a machine in the one that differs between them.

    The stable ABI's are the same everywhere, so wheels for other machines are built with them too; and what was
    compiled for the emulated device is found again, in zig's cache, when it is compiled for a wheel.
    """
    python, machines = HEADERS
    shutil.copytree(python, HEADERS_FOR_ALL, dirs_exist_ok=True)
    shutil.copy(machines / "aarch64-linux-gnu" / python.name / "pyconfig.h", HEADERS_FOR_ALL)
    return HEADERS_FOR_ALL


def cross_environment(target: str, platform_name: str, headers: Sequence[Path], *link: str) -> dict[str, str]:
    """The environment variables with which setup.py builds for another machine, by zig.

    `target` is that machine in zig's words and `platform_name` in Python's; `link` are further words for its linker.
    """
    zig = [sys.executable, "-m", "ziglang"] if ENVIRONMENT_HAS_ZIG else [str(ZIG / "ziglang" / "zig")]
    compiler = shlex.join([*zig, "cc", "-target", target])
    return {
        **os.environ,
        "_PYTHON_HOST_PLATFORM": platform_name,
        "CC": compiler,
        "LDSHARED": shlex.join([*zig, "cc", "-target", target, "-shared", *link]),
        "CPPFLAGS": shlex.join(f"-I{folder}" for folder in headers),
        "ZIG_GLOBAL_CACHE_DIR": str(CACHE / "zig"),
        "ZIG_LOCAL_CACHE_DIR": str(CACHE / "zig"),
    }


def pip_install(folder: Path, *arguments: str) -> None:
    """Packages by pip into a folder of their own."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq", "install", "--target", str(folder)]
    fetched(f"pip could not install {arguments[0]}", [*pip, *arguments])


def fetched(on_failure: str, command: Sequence[str], folder: Path = ROOT) -> None:
    """Runs what fetches something; FetchError with the first error that it names if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        errors = (line for line in done.stderr.splitlines() if line.startswith(("E: ", "ERROR: ")))
        raise FetchError(f"{on_failure}: {next(errors, 'it does not say why')}")


@contextmanager
def debian_packages(wanted: Sequence[tuple[str, str, str]]) -> Iterator[Path]:
    """Packages (name, architecture, suite) of Debian, fetched and unpacked into one folder for as long as is needed."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise FetchError("this is no Debian, whose packages it is made of")
    mirror = debian_mirror()
    with tempfile.TemporaryDirectory(dir=FOLDER) as name:
        folder = Path(name)
        sources = sorted({f"deb [arch={machine}] {mirror} {suite} main\n" for _, machine, suite in wanted})
        (folder / "sources.list").write_text("".join(sources), encoding="utf-8")
        (folder / "status").touch()
        for part in ("lists/partial", "archives/partial", "packages"):
            (folder / part).mkdir(parents=True)
        settings = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": folder / "lists",
            "Dir::State::status": folder / "status",
            "Dir::Cache::archives": folder / "archives",
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
        }
        options = [f"{name}={value}" for name, value in settings.items()]
        options += [f"APT::Architectures::={machine}" for machine in sorted({machine for _, machine, _ in wanted})]
        apt = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
        names = [f"{package}:{machine}/{suite}" for package, machine, suite in wanted]
        for words in (["update", "-o", "APT::Update::Error-Mode=any"], ["download", *names]):
            fetched(f"apt-get could not fetch from {mirror}", [*apt, *words], folder / "packages")
        for archive in (folder / "packages").glob("*.deb"):
            run(["dpkg-deb", "-x", str(archive), str(folder / "tree")], f"{archive.name} could not be unpacked")
        yield folder / "tree"


def debian_mirror() -> str:
    """The mirror that apt fetches this Debian's own packages from; other suites are fetched from there too."""
    suite = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    listed = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)"]
    lines = subprocess.run(listed, capture_output=True, text=True, check=False).stdout.splitlines()
    for line in lines:
        if line.split()[1:] == [suite, "main"] and platform.freedesktop_os_release()["ID"] == "debian":
            return line.split()[0]
    raise FetchError("apt here has no source of Debian's own packages")


def host_architecture() -> str:
    """This machine's name in Debian's words."""
    return subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
