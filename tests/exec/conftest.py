"""Marks of this room."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes longer than ten seconds; '-m \"not slow\"' leaves it out")
