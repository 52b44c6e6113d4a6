"""Builds for other machines need the compiler and the headers of the emulated device; without it they are skipped."""

from __future__ import annotations

import pytest

from smesim.emulation import why_missing


@pytest.fixture(scope="session", autouse=True)
def compiler() -> None:
    if reason := why_missing():
        pytest.skip(f"no compiler for other machines: {reason}")
