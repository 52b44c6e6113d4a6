"""How many matrix units there are, read from registers and names of machines that are made up here."""

from __future__ import annotations

from pathlib import Path

import pytest

from smesim.errors import DeviceError
from smesim.exec import matrix_units as module
from smesim.exec.matrix_units import COUNT_VARIABLE, MatrixUnits, matrix_units, units_of_registers

OWN, SHARED = 0b10 << 13, 0b11 << 13
"""SMIDR_EL1.SH of a unit of the core's own, and of one that is shared."""
ARM = 0x41 << 24
M4 = {
    "hw.nperflevels": 2, "hw.perflevel0.physicalcpu": 4, "hw.perflevel0.cpusperl2": 4, "hw.perflevel1.physicalcpu": 6,
    "hw.perflevel1.cpusperl2": 6,
}  # fmt: skip


@pytest.fixture(autouse=True)
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a Linux that shows nothing yet."""
    monkeypatch.setattr(module, "_SYSFS", tmp_path)
    monkeypatch.delenv(COUNT_VARIABLE, raising=False)
    return tmp_path


def show(sysfs: Path, core: int, text: str) -> None:
    file = sysfs / f"cpu{core}" / "regs" / "identification" / "smidr_el1"
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="ascii")


def no_macos(name: str) -> int:
    return -1


@pytest.mark.parametrize(
    ("registers", "units"),
    [
        ([ARM] * 4, 4),
        ([ARM | 1] * 4, 1),
        ([ARM | 1] * 6 + [ARM | 2] * 2, 2),
        ([ARM | 1 << 32 | 1, ARM | 2 << 32 | 1], 2),
        ([ARM | SHARED] * 8, 1),
        ([ARM | SHARED | 1 << 56 | 3] * 4, 2),
        ([ARM | OWN | 1, ARM | OWN | 1], 2),
        ([ARM | OWN] + [ARM | SHARED | 7] * 3, 2),
        ([ARM | 0xFF << 16 | 1 << 15 | 1] * 3, 1),
    ],
    ids=[
        "one with each core", "one for all", "one for each group", "groups told apart by Affinity2",
        "shared, of affinity 0", "two that belong together", "not shared though the affinity is equal",
        "a core with its own, others with one", "revision and priorities do not matter",
    ],
)  # fmt: skip
def test_cores_of_one_affinity_share_a_unit_unless_each_has_its_own(registers: list[int], units: int) -> None:
    assert units_of_registers(dict(enumerate(registers))) == units


def test_linux_shows_the_register_of_every_core(sysfs: Path) -> None:
    for core in range(12):
        show(sysfs, core, f"0x{ARM | core // 6 + 1:016x}\n")
    assert matrix_units(True, no_macos) == MatrixUnits(2, "SMIDR_EL1 of 12 cores (Linux sysfs)")


def test_a_register_that_cannot_be_read_is_left_out(sysfs: Path) -> None:
    show(sysfs, 0, f"0x{ARM | 1:016x}\n")
    show(sysfs, 1, "")
    (sysfs / "cpu2" / "regs" / "identification" / "smidr_el1").mkdir(parents=True)
    (sysfs / "cpufreq").mkdir()
    assert matrix_units(True, no_macos) == MatrixUnits(1, "SMIDR_EL1 of 1 cores (Linux sysfs)")


@pytest.mark.parametrize(
    ("numbers", "units"),
    [
        (M4, 2),
        (M4 | {"hw.perflevel0.physicalcpu": 10, "hw.perflevel0.cpusperl2": 5, "hw.perflevel1.physicalcpu": 4}, 3),
        (M4 | {"hw.nperflevels": 1}, 1),
        (M4 | {"hw.perflevel1.cpusperl2": 0}, 1),
    ],
    ids=["4 + 6 cores", "10 cores in two clusters, 4 in one", "one level", "a level that is not described"],
)
def test_macos_has_one_for_each_cluster(numbers: dict[str, int], units: int) -> None:
    found = matrix_units(True, lambda name: numbers.get(name, -1))
    assert found.count == units
    assert "macOS" in found.source


def test_without_a_matrix_extension_there_are_none(sysfs: Path) -> None:
    show(sysfs, 0, f"0x{ARM | 1:016x}\n")
    assert matrix_units(False, lambda name: M4.get(name, -1)).count == 0


def test_a_system_that_says_nothing_leaves_it_open_and_says_how_to_tell() -> None:
    found = matrix_units(True, no_macos)
    assert found.count is None
    assert f"{COUNT_VARIABLE}=N" in found.source


@pytest.mark.parametrize("there_are_any", [True, False])
def test_the_override_comes_before_what_the_system_says(
    there_are_any: bool, sysfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    show(sysfs, 0, f"0x{ARM | 1:016x}\n")
    monkeypatch.setenv(COUNT_VARIABLE, "3")
    assert matrix_units(there_are_any, no_macos) == MatrixUnits(3, f"{COUNT_VARIABLE}=3")


@pytest.mark.parametrize("text", ["", "-1", "two", "1.5", "²"])
def test_an_override_that_is_no_count_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COUNT_VARIABLE, text)
    with pytest.raises(DeviceError, match=f"{COUNT_VARIABLE}={text} is no number of matrix units; accepted: 0, 1, 2"):
        matrix_units(True, no_macos)
