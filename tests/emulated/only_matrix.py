"""A pytest plugin for the emulated Python: of tests that are there for every table, those of the matrix unit."""

from __future__ import annotations

import pytest

from smesim.exec.device import Device


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    isa = Device.here().matrix_isa
    chosen = [item for item in items if isa in str(getattr(getattr(item, "callspec", None), "id", "")).split("-")]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen
