"""How the emulated device is asked for, and what is said where it cannot be had; `tests/emulated` runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from smesim import emulation
from smesim.emulation import EmulatedDevice, Features, why_missing
from tests.command_line import CommandLine


@pytest.fixture
def nothing_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout without an emulated device; returns the file that would say why."""
    monkeypatch.setattr(emulation, "REASON_IF_MISSING", tmp_path / "missing.txt")
    monkeypatch.setattr(emulation, "PYTHON", tmp_path / "python")
    return tmp_path / "missing.txt"


@pytest.mark.parametrize("svl", [0, 64, 300, 4096])
def test_other_vector_lengths_are_refused_with_those_that_there_are(svl: int, smesim: CommandLine) -> None:
    refusal = smesim("emulate", "--svl", str(svl), "--", "doctor").refusal()
    assert f"no streaming vector length of {svl} bits; accepted for --svl: 128, 256, 512, 1024, 2048" in refusal


def test_unknown_features_are_refused_with_those_that_there_are(smesim: CommandLine) -> None:
    refusal = smesim("emulate", "--features", "sme3", "--", "doctor").refusal()
    assert all(features in refusal for features in Features)


def test_sve_needs_a_processor_with_sme(smesim: CommandLine) -> None:
    assert "Cortex-A72" in smesim("emulate", "--features", "none", "--sve", "--", "doctor").refusal()


def test_a_device_that_was_never_set_up_is_a_line_that_says_how(nothing_set_up: Path, smesim: CommandLine) -> None:
    refusal = smesim("emulate", "--", "doctor").refusal()
    assert "it was never set up" in refusal
    assert "make emulation" in refusal


def test_why_a_device_could_not_be_set_up_is_said(nothing_set_up: Path, smesim: CommandLine) -> None:
    nothing_set_up.write_text("pip could not fetch packages\n")
    assert why_missing() == "pip could not fetch packages"
    assert "(pip could not fetch packages)" in smesim("emulate", "doctor", "--json").refusal()


@pytest.mark.parametrize(
    ("device", "cpu"),
    [
        (EmulatedDevice(), "max,sve=off,sme512=on,sme_fa64=off"),
        (EmulatedDevice(2048), "max,sve=off,sme2048=on,sme_fa64=off"),
        (EmulatedDevice(256, sve=True), "max,sve128=on,sme256=on,sme_fa64=off"),
        (EmulatedDevice(128, Features.SME1), "max,sve128=on,sme128=on,sme_fa64=off"),
        (EmulatedDevice(features=Features.NONE), "cortex-a72"),
    ],
)
def test_sve_is_off_or_no_wider_than_a_streaming_vector(device: EmulatedDevice, cpu: str) -> None:
    command = device.command("-c", "pass")
    assert command[command.index("-cpu") + 1] == cpu
    assert command[-2:] == ["-c", "pass"]
