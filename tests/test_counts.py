"""How the emulator's log is read, on a log that is written here; `tests/emulated` reads real ones."""

from __future__ import annotations

from collections import Counter

import pytest

from smesim import show
from smesim.counts import KernelCount, count_leaves, read_log
from smesim.emulation import EmulatedDevice
from smesim.errors import DeviceError
from smesim.exec.leaves import LEAVES
from tests.command_line import CommandLine

ADD, FMOPA, RET = 0x8B020020, 0x80812000, 0xD65F03C0


def block(address: int, *words: int) -> list[bytes]:
    """A block as the emulator tells it when it first meets it."""
    lines = [f"{address + 4 * i:#018x}:  {word:08x}  some name\n".encode() for i, word in enumerate(words)]
    return [b"----------------\n", b"IN: \n", *lines, b"\n"]


def executed(address: int) -> bytes:
    return b"Trace 0: 0x7f0a2c01 [00000000/%016x/00000000/00000000] \n" % address


def says(*leaves: int) -> bytes:
    return f'{{"leaves": {list(leaves)}, "isa": "sme2"}}\n'.encode()


def test_a_count_is_executions_times_instructions_from_the_leaf_on() -> None:
    before = [*block(0x1000, ADD, RET), executed(0x1000)]
    leaf = [*block(0x2000, ADD, ADD), executed(0x2000), *block(0x2008, FMOPA, FMOPA), *[executed(0x2008)] * 3]
    about, counted = read_log([*before, says(0x2000), *leaf, executed(0x1000)])
    assert about is not None
    assert about["isa"] == "sme2"
    assert counted == [Counter({ADD: 3, FMOPA: 6, RET: 1})]


def test_leaves_that_are_called_one_after_the_other_are_told_apart() -> None:
    blocks = [*block(0x1000, ADD, RET), *block(0x2000, FMOPA, RET)]
    calls = [executed(address) for address in (0x1000, 0x1000, 0x2000, 0x1000)]
    _, counted = read_log([says(0x1000, 0x2000, 0x1000), *blocks, *calls])
    assert counted == [Counter({ADD: 2, RET: 2}), Counter({FMOPA: 1, RET: 1}), Counter({ADD: 1, RET: 1})]


def test_a_block_that_was_stopped_before_it_began_is_not_counted_twice() -> None:
    stopped = b"Stopped execution of TB chain before 0x7f0a2c01 [%016x] \n" % 0x1000
    _, counted = read_log([says(0x1000), *block(0x1000, ADD), executed(0x1000), stopped, executed(0x1000)])
    assert counted == [Counter({ADD: 1})]


def test_a_block_counts_as_it_was_when_it_was_met_last() -> None:
    _, counted = read_log([says(0x1000), *block(0x1000, ADD, RET), *block(0x1000, ADD, RET), executed(0x1000)])
    assert counted == [Counter({ADD: 1, RET: 1})]


def test_a_program_that_says_nothing_is_noticed() -> None:
    assert read_log([b"Traceback\n"]) == (None, [])


def test_a_count_is_shown_with_shares(capsys: pytest.CaptureFixture[str]) -> None:
    counted = KernelCount("gemm_f32", "8x8x8", "sme2", 512, Counter({FMOPA: 1500, ADD: 400, RET: 100}))
    show.kernel_count(counted, json=False)
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.replace("│", " ").splitlines()]
    assert {"outer product 1,500 75.0%", "scalar 400 20.0%", "branch 100 5.0%", "all 2,000 100.0%"} <= set(shown)
    assert "gemm_f32 8x8x8, sme2, SVL 512" in shown


@pytest.mark.parametrize("kernel", ["gemm_f64", "", "gemm"])
def test_an_unknown_kernel_is_refused_with_those_that_there_are(kernel: str, smesim: CommandLine) -> None:
    refusal = smesim("emulate", "--count", kernel, "--shape", "8x8x8", "--json").refusal()
    assert all(known in refusal for known in LEAVES)


NO_SHAPES = ["8", "8x8", "8x8x0", "8x8x8x8", "8x-8x8", "axbxc", "8x8x", "8*8*8", "8x8x8.0", "²x1x1"]


@pytest.mark.parametrize("shape", NO_SHAPES)
def test_what_is_no_shape_is_refused_with_an_example(shape: str, smesim: CommandLine) -> None:
    refusal = smesim("emulate", "--count", "gemm_f32", "--shape", shape).refusal()
    assert f"'{shape}' is no shape for gemm_f32; accepted for --shape: MxNxK" in refusal


def test_a_product_with_a_vector_has_one_row(smesim: CommandLine) -> None:
    assert "accepted for --shape: 1xNxK" in smesim("emulate", "--count", "gemv_f32", "--shape", "2x8x8").refusal()


def test_what_an_emulator_could_not_end_is_refused(smesim: CommandLine) -> None:
    refusal = smesim("emulate", "--count", "gemm_f32", "--shape", "100000x100000x100000").refusal()
    assert "1000000000000000 multiply-adds; accepted for --shape: up to" in refusal
    refusal = smesim("emulate", "--count", "gemv_f32", "--shape", "1x60000x60000").refusal()
    assert "numbers in its operands; accepted for --shape: up to" in refusal


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        ([], "accepted: a smesim command, or --count KERNEL --shape MxNxK"),
        (["--count", "gemm_f32"], "--count goes with --shape MxNxK and without a command"),
        (["--count", "gemm_f32", "--shape", "8x8x8", "--", "doctor"], "without a command"),
        (["--shape", "8x8x8", "--", "doctor"], "go with --count"),
        (["--isa", "neon", "--", "doctor"], "go with --count"),
        (["--json", "--", "doctor"], "go with --count"),
    ],
)
def test_a_command_and_a_count_are_not_mixed(arguments: list[str], refusal: str, smesim: CommandLine) -> None:
    assert refusal in smesim("emulate", *arguments).refusal()


def test_a_count_is_refused_where_nothing_can_be_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smesim.emulation.why_missing", lambda: "it was never set up")
    with pytest.raises(DeviceError, match=r"no emulated device \(it was never set up\); run 'make emulation'"):
        count_leaves(EmulatedDevice(), None, ["gemm_f32:8x8x8"])
