"""The emulated device: what it says it is, and that it computes what the host computes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from smesim.emulation import CHECKOUT, SVL_BITS, EmulatedDevice, Features
from smesim.trace import read_trace
from tests.command_line import CommandLine
from tests.emulated.conftest import EmulatedPython, Run
from tests.emulated.lengths import Ended, Job, run_all

NO_SME = EmulatedDevice(features=Features.NONE)

ASK_THE_PROCESSOR = """
from smesim.exec._native import lib
assert "smefa64" not in open("/proc/cpuinfo").read().split(), "Neon in streaming mode is to be illegal"
print(lib.sms_cpu_has_sve(), lib.sms_cpu_has_sme(), lib.sms_cpu_has_sme2(), lib.sms_cpu_svl_bits())
"""
PROCESSORS = [
    *((EmulatedDevice(svl), (0, 1, 1, svl)) for svl in SVL_BITS),
    *((EmulatedDevice(svl, Features.SME1), (1, 1, 0, svl)) for svl in SVL_BITS),
    (EmulatedDevice(128, sve=True), (1, 1, 1, 128)),
    (NO_SME, (0, 0, 0, 0)),
]


@pytest.mark.parametrize(("device", "sve_sme_sme2_svl"), PROCESSORS)
def test_the_processor_has_what_was_asked_for(
    device: EmulatedDevice, sve_sme_sme2_svl: tuple[int, ...], emulated_python: EmulatedPython
) -> None:
    ended = emulated_python(device, "-c", ASK_THE_PROCESSOR)
    assert ended.stderr == ""
    assert tuple(map(int, ended.stdout.split())) == sve_sme_sme2_svl


COMMANDS = {
    "doctor": ("doctor", "--json"),
    "probe": ("probe", "--out", "chip.toml"),
    "compare": ("compare", "--model", "smollm2-135m", "--phase", "decode:8", "--chip", "apple-m4"),
    "emulate": ("emulate", "--", "doctor"),
}
"""What `smesim` is asked on one emulated device, in one process: to start it takes longer than any of these."""


@pytest.fixture(scope="module")
def commands(emulated_python: EmulatedPython) -> dict[str, Ended]:
    jobs = {name: Job("smesim", arguments, EmulatedDevice().svl_bits) for name, arguments in COMMANDS.items()}
    return run_all(emulated_python, EmulatedDevice(), jobs, ("smesim.cli", "smesim.show", "smesim.workflow"))


@pytest.mark.parametrize(
    ("started_alone", "matrix", "svl_bits", "has", "has_not"),
    [
        (False, ["Arm SME", "Arm SME2"], 512, {"asimd", "i8mm", "bf16"}, {"sve", "sve2"}),
        (True, [], None, {"asimd"}, {"asimddp", "i8mm", "bf16", "sve"}),
    ],
    ids=["like an M4", "without SME"],
)
def test_doctor_says_what_is_emulated(
    started_alone: bool,
    matrix: list[str],
    svl_bits: int | None,
    has: set[str],
    has_not: set[str],
    commands: dict[str, Ended],
    emulate: Callable[..., Run],
) -> None:
    ended = emulate("--features", "none", "--", "doctor", "--json") if started_alone else commands["doctor"]
    assert (ended.returncode, ended.stderr) == (0, "")
    found: dict[str, Any] = json.loads(ended.stdout)
    assert found["emulated"]
    assert found["architecture"] == "aarch64"
    assert (found["matrix_extensions"], found["svl_bits"]) == (matrix, svl_bits)
    assert found["matrix_isa"] == ("sme2" if matrix else None)
    assert found["matrix_units"]["count"] == (None if matrix else 0)
    assert "HWCAP2" in found["detected_by"]
    vectors = set(found["vector_extensions"])
    assert has <= vectors
    assert not has_not & vectors


@pytest.mark.parametrize(("command", "needs"), [("probe", "a probe"), ("compare", "a comparison")])
def test_emulated_times_are_not_taken_for_those_of_hardware(
    command: str, needs: str, commands: dict[str, Ended]
) -> None:
    ended = commands[command]
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"{needs}" in ended.stderr
    assert "this device is emulated" in ended.stderr
    assert not (CHECKOUT / "chip.toml").exists()


def test_an_emulated_device_emulates_no_other(commands: dict[str, Ended]) -> None:
    ended = commands["emulate"]
    assert ended.returncode == 2
    assert "this is the emulated device already" in ended.stderr


def test_a_trace_made_there_says_so(smesim: CommandLine, emulate: Callable[..., Run]) -> None:
    plan = smesim.plan("prefill:8")
    ended = emulate("--", "execute", str(plan), "--repeats", "1", "--trace", "trace.json", "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)["source"] == "emulated"
    head = read_trace(smesim.folder / "trace.json").meta
    assert head.source == "emulated"
    assert head.machine.startswith("emulated ")
