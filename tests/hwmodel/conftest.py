"""The small chip as fixtures: its data, to be broken, and the chip itself."""

from __future__ import annotations

from typing import Any

import pytest
from small_chip import small_chip_data

from smesim.hwmodel.chip import Chip


@pytest.fixture
def small_data() -> dict[str, Any]:
    return small_chip_data()


@pytest.fixture
def small() -> Chip:
    return Chip.model_validate(small_chip_data())
