"""The emulated device as a fixture; where there is none, what needs it is skipped with the reason."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from smesim.emulation import CHECKOUT, EmulatedDevice, environment, why_missing
from tests.emulated.lengths import EmulatedPython

Run = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session", autouse=True)
def set_up() -> None:
    if reason := why_missing():
        pytest.skip(f"no emulated device: {reason}")


@pytest.fixture(scope="session")
def emulated_python() -> EmulatedPython:
    """Runs the emulated Python in the checkout."""

    def run(device: EmulatedDevice, *arguments: str) -> Run:
        return subprocess.run(
            device.command(*arguments), cwd=CHECKOUT, env=environment(), capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def emulate() -> Callable[..., Run]:
    """Runs `smesim emulate` with these arguments, as a user would."""

    def run(*arguments: str, stdin: str = "") -> Run:
        command = [sys.executable, "-m", "smesim", "emulate", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)

    return run
