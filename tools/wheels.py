"""Wheels for other machines, built here: Linux on Arm with either C library, and macOS on Apple's chips.

zig compiles and links for all of them. What else a target needs is Python's headers, and those of the stable ABI are
the same everywhere but for one file, which says how long C's types are: every target here has 64-bit longs and
pointers, so the copy that came for the emulated device serves all. Python's own functions are found when the module
is loaded, so no Python has to be linked.

The emulated device runs the first of them (`tests/builds`); the others were built and looked into, never loaded.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from bootstrap import ROOT, SetUpError, announced, run
from emulation import TARGET, cross_environment, ensure_compiler, ensure_python, headers_for_all

FOR_MACOS = ("-undefined", "dynamic_lookup", "-install_name", "@rpath/_native.abi3.so")
"""To its linker: that Python's functions are missing is no error, and the name is not the folder that it links in."""


@dataclass(frozen=True)
class Target:
    """A kind of machine that wheels are built for."""

    tag: str
    """In the words of a wheel's name."""
    zig: str
    python: str
    """In Python's words, which end in the machine; builds for different ones are kept apart by them."""
    link: tuple[str, ...] = ()


TARGETS = {
    target.tag: target
    for target in (
        Target("manylinux_2_28_aarch64", TARGET, "linux-aarch64"),
        Target("musllinux_1_2_aarch64", "aarch64-linux-musl", "linux_musl-aarch64"),
        Target("macosx_11_0_arm64", "aarch64-macos.11.0", "macosx-11.0-arm64", FOR_MACOS),
    )
}


def main() -> int:
    """0 when the wheels are there; 1 after one line that says what is wrong."""
    parser = argparse.ArgumentParser(description="build wheels of smesim for other machines")
    parser.add_argument("--into", type=Path, default=ROOT / "dist", help="folder for the wheels; default: dist")
    parser.add_argument("--small", action="store_true", help="optimise for size: half the time, to see that it links")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="may be repeated; default: all")
    arguments = parser.parse_args()
    try:
        ensure_python()
        ensure_compiler()
        for tag in arguments.target or TARGETS:
            build_wheel(TARGETS[tag], arguments.into.resolve(), arguments.small)
    except SetUpError as error:
        print(f"no wheel: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: run it again to go on", file=sys.stderr)
        return 130
    return 0


def build_wheel(target: Target, into: Path, small: bool = False) -> None:
    """One wheel for every Python from the oldest on. What an earlier build collected does not go in."""
    for collected in (ROOT / "build").glob(f"lib.{target.python}-*"):
        shutil.rmtree(collected)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq", "wheel", "--wheel-dir", str(into)]
    named = f"--config-settings=--build-option=--plat-name={target.tag}"
    with announced(f"building the wheel for {target.tag}"):
        run(
            [*pip, "--no-deps", "--no-build-isolation", named, str(ROOT)],
            f"the wheel for {target.tag} could not be built",
            cross_environment(target.zig, target.python, (headers_for_all(),), *target.link)
            | ({"SMESIM_OPTIMISATION": "-Os"} if small else {}),
        )


if __name__ == "__main__":
    sys.exit(main())
