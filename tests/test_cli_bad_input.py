"""Bad input: one clear line (what, where, what would be accepted), exit code 2, no traceback, no half-written file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from smesim.exec.device import Device
from smesim.hwmodel import library
from tests.command_line import CommandLine

CORES = len(Device.here().cores)

# -- the command line itself

USAGE = {
    "unknown command": (["simulat"], "No such command 'simulat'"),
    "unknown option": (["models", "--colour"], "--colour"),
    "missing option": (["plan", "--phase", "prefill:8", "--chip", "apple-m4"], "Missing option '--model'"),
    "missing argument": (["simulate", "--chip", "apple-m4"], "Missing argument 'PLAN'"),
    "not a number": (["compare", "-m", "x", "-p", "prefill:1", "--layers", "many"], "'--layers'"),
    "too few repeats": (["execute", "plan.json", "--repeats", "0"], "greater than or equal to 1"),
    "option without value": (["probe", "--out"], "--out"),
    "one argument too many": (["models", "x"], "unexpected extra argument"),
}


@pytest.mark.parametrize("case", USAGE)
def test_a_command_line_that_cannot_be_read_is_one_line(case: str, smesim: CommandLine) -> None:
    arguments, wanted = USAGE[case]
    refusal = smesim(*arguments).refusal()
    assert wanted.lower() in refusal.lower()
    assert "smesim --help" in refusal


# -- names

PLAN = {"--model": "tinyllama-1.1b", "--phase": "prefill:8", "--chip": "apple-m4"}
UNKNOWN = {
    ("--model", "llama-3.2-3"): "unknown model 'llama-3.2-3' (did you mean llama-3.2-3b?)",
    ("--chip", "phone-d9501"): "unknown chip 'phone-d9501' (did you mean 'phone-d9500'?)",
    ("--planner", "magic"): "unknown planner 'magic'; accepted: cpu_only, matrix_only, roofline, search, oracle",
    ("--force", "q_proj"): "accepted: OPERATOR=MODE,..., a mode of cpu, matrix, cooperative",
    ("--force", "q_proj=gpu"): "accepted: OPERATOR=MODE,..., a mode of cpu, matrix, cooperative",
    ("--force", "q_proj=cpu,q_proj=matrix"): "accepted: one mode for an operator",
    ("--force", "query=cpu"): "--force names operator 'query'; accepted: embed",
    ("--force", "q_proj=matrix"): "this operator has no such mode with these workers; accepted: cpu",
    ("--phase", "prefill"): "accepted: prefill:TOKENS",
    ("--phase", "prefill:0"): "accepted: whole numbers from 1",
    ("--phase", "decode:2,past=1"): "unknown option 'past=1'",
    ("--phase", "prefill:9999999"): "has at most 2048",
    ("--layers", "0"): "accepted for tinyllama-1.1b: 1..22",
    ("--layers", "23"): "accepted for tinyllama-1.1b: 1..22",
    ("--threads", "0"): "accepted: 1..",
    ("--threads", "99"): "accepted: 1..",
    ("--last-layer-rows", "some"): "accepted: all, logits",
    ("--layout-reuse", "much"): "accepted: full, shared_packs, none",
}


@pytest.mark.parametrize("changed", UNKNOWN, ids=" ".join)
def test_what_does_not_exist_is_named_with_what_does(changed: tuple[str, str], smesim: CommandLine) -> None:
    arguments = [word for pair in (PLAN | dict([changed])).items() for word in pair]
    assert UNKNOWN[changed] in smesim("plan", *arguments, "--out", "plan.json").refusal()
    assert not smesim.files()


def test_an_unknown_effect_is_named_with_those_there_are(smesim: CommandLine) -> None:
    refusal = smesim("simulate", smesim.plan(), "--chip", "apple-m4", "--without", "gravity").refusal()
    assert "unknown effect 'gravity'; accepted: contention" in refusal


def test_unknown_kernels_are_named_with_those_there_are(smesim: CommandLine) -> None:
    assert "accepted: " in smesim("execute", smesim.plan(), "--isa", "mmx").refusal()


# -- files

CONFIGS: dict[str, tuple[dict[str, object], str]] = {
    "missing key": ({"hidden_size": None}, "hidden_size is missing"),
    "wrong type": ({"num_hidden_layers": "two"}, "num_hidden_layers"),
    "impossible": ({"num_key_value_heads": 3}, "multiple"),
    "architecture": ({"architectures": ["BertForMaskedLM"]}, "accepted: LlamaForCausalLM"),
    "NaN": ({"rms_norm_eps": float("nan")}, "rms_norm_eps is not a finite number"),
    "negative": ({"vocab_size": -1}, "vocab_size"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_wrong_config_is_refused_with_file_and_key(case: str, smesim: CommandLine) -> None:
    changes, wanted = CONFIGS[case]
    model = smesim.model(**changes)
    for command in (["plan"], ["compare"], ["roofline"]):
        refusal = smesim(*command, "--model", model, "--phase", "prefill:8", "--chip", "apple-m4").refusal()
        assert str(model) in refusal
        assert wanted in refusal


def truncated(path: Path) -> None:
    text = path.read_text()
    path.write_text(text[: len(text) // 2])


def emptied(path: Path) -> None:
    path.write_text("")


def binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 4)


def deep(path: Path) -> None:
    path.write_text("[" * 200_000 if path.suffix == ".json" else "a = " + "[" * 200_000)


def removed(path: Path) -> None:
    path.unlink()


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE = [truncated, emptied, binary, deep, removed, folder]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_config_is_refused(damage: Callable[[Path], None], smesim: CommandLine) -> None:
    model = smesim.model()
    damage(model)
    refusal = smesim("plan", "--model", model, "--phase", "prefill:8", "--chip", "apple-m4").refusal()
    assert "config.json" in refusal


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_plan_is_refused(damage: Callable[[Path], None], smesim: CommandLine) -> None:
    path = smesim.plan()
    damage(path)
    before = smesim.files()
    for command in (
        ["simulate", path, "--chip", "apple-m4", "--trace", "t.json"],
        ["execute", path, "--trace", "t.json"],
    ):
        refusal = smesim(*command).refusal()
        assert "plan.json" in refusal
        assert "plan" in refusal.split("plan.json", 1)[1]
    assert smesim.files() == before


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_chip_is_refused(damage: Callable[[Path], None], smesim: CommandLine) -> None:
    path = smesim.folder / "chip.toml"
    library.save(library.load("apple-m4"), path)
    damage(path)
    assert "chip.toml" in smesim("simulate", smesim.plan(), "--chip", path).refusal()


def test_a_damaged_last_probe_is_refused_and_said_where_it_is(smesim: CommandLine) -> None:
    from smesim import workflow

    workflow.host_chip_path().parent.mkdir()
    workflow.host_chip_path().write_text("name = ")
    refusal = smesim("simulate", smesim.plan(), "--chip", "host").refusal()
    assert str(workflow.host_chip_path()) in refusal


WRONG_CHIPS = {
    "NaN": ("value = 1.2e11", "value = nan", "finite"),
    "infinity": ("value = 1.2e11", "value = inf", "finite"),
    "unit": ('unit = "B/s"', 'unit = "GB/s"', "accepted: "),
    "provenance": ('provenance = "measured"', 'provenance = "hearsay"', "'guessed'"),
    "version": ("schema_version = 1", "schema_version = 9", "schema_version"),
    "unknown key": ("schema_version = 1", "schema_version = 1\ncolour = 3", "unknown key 'colour'"),
}


@pytest.mark.parametrize("case", WRONG_CHIPS)
def test_a_wrong_number_in_a_chip_is_refused_with_its_key(case: str, smesim: CommandLine) -> None:
    old, new, wanted = WRONG_CHIPS[case]
    text = library.dumps(library.load("apple-m4"))
    assert old in text
    path = smesim.folder / "chip.toml"
    path.write_text(text.replace(old, new, 1))
    refusal = smesim("simulate", smesim.plan(), "--chip", path).refusal()
    assert "chip.toml: " in refusal
    assert wanted in refusal


def test_a_wrong_number_in_a_plan_is_refused_with_its_key(smesim: CommandLine) -> None:
    path = smesim.plan()
    raw = json.loads(path.read_text())
    raw["operators"][0]["reason"]["predicted_s"] = float("nan")
    path.write_text(json.dumps(raw))
    assert "plan.json: operators.0.reason.predicted_s" in smesim("execute", path).refusal()


# -- what this machine cannot do


def test_a_plan_for_more_workers_than_the_machine_has_is_refused(smesim: CommandLine) -> None:
    path = smesim.plan("prefill:8", "--threads", "10")
    if CORES >= 10:
        pytest.skip("this machine has ten cores")
    refusal = smesim("execute", path, "--trace", "t.json").refusal()
    assert f"the plan has 10 workers; this machine has {CORES} usable cores" in refusal
    assert "t.json" not in smesim.files()


def test_a_plan_for_more_workers_than_the_chip_has_is_refused(smesim: CommandLine) -> None:
    from tests.sim.chips import two_core_chip

    library.save(two_core_chip(), smesim.folder / "two.toml")
    path = smesim.plan("prefill:8", "--threads", "4")
    assert "core 2" in smesim("simulate", path, "--chip", "two.toml").refusal()


HUGE = {"hidden_size": 16384, "intermediate_size": 262144, "num_hidden_layers": 100, "num_attention_heads": 128}
BILL = ("weights", "packed", "KV cache", "scratch", "available", "--layers or a smaller model")


def test_a_model_that_does_not_fit_is_refused_with_the_bill(smesim: CommandLine) -> None:
    model = smesim.model(**HUGE)
    arguments = ("--model", model, "--phase", "prefill:8", "--chip", "apple-m4", "--threads", "1")
    assert smesim("plan", *arguments, "--out", "plan.json").code == 0
    refusal = smesim("execute", "plan.json").refusal()
    assert all(part in refusal for part in BILL)


def test_not_even_one_layer_fits(smesim: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    from smesim.exec import device

    monkeypatch.setattr(device, "_memory", lambda: (10**6, 10**5))
    refusal = smesim("compare", "--model", smesim.model(), "--phase", "prefill:8", "--chip", "apple-m4").refusal()
    assert all(part in refusal for part in BILL)


# -- where nothing can be written

WRITERS = {
    "plan": ["plan", "--model", "tinyllama-1.1b", "--phase", "prefill:8", "--chip", "apple-m4", "--out"],
    "simulate": ["simulate", "plan.json", "--chip", "apple-m4", "--trace"],
    "execute": ["execute", "plan.json", "--trace"],
    "probe": ["probe", "--quick", "--out"],
    "compare": ["compare", "--model", "model/config.json", "--phase", "prefill:8", "--chip", "apple-m4", "--out"],
    "demo": ["demo", "--out"],
}


@pytest.mark.parametrize("command", WRITERS)
def test_a_path_that_cannot_be_a_file_is_refused_before_anything_is_measured(
    command: str, smesim: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent of the wanted file is a file itself; not even root can write there."""
    smesim.plan()
    before = smesim.files()
    if command != "simulate":
        monkeypatch.setattr("smesim.workflow.measure", lambda *_, **__: pytest.fail("measured in vain"))
        monkeypatch.setattr("smesim.workflow.probe_host", lambda *_, **__: pytest.fail("probed in vain"))
    refusal = smesim(*WRITERS[command], "plan.json/result.json").refusal()
    assert "cannot write plan.json/result.json" in refusal
    assert "Not a directory" in refusal
    assert smesim.files() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_said_and_leaves_nothing(smesim: CommandLine) -> None:
    path = smesim.plan()
    os.symlink("/dev/full", smesim.folder / "full.json")
    for command in (["plan", *WRITERS["plan"][1:]], ["simulate", path, "--chip", "apple-m4", "--trace"]):
        assert "cannot write full.json: No space left on device" in smesim(*command, "full.json").refusal()
    assert Path("/dev/full").is_char_device()
    assert smesim.files() == {"model/config.json", "plan.json"}


def test_a_disk_that_fills_up_while_writing_leaves_the_old_file(
    smesim: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = smesim.plan()
    old = path.read_text()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    arguments = [word for pair in PLAN.items() for word in pair]
    assert "No space left on device" in smesim("plan", *arguments, "--out", path).refusal()
    assert path.read_text() == old
    assert smesim.files() == {"model/config.json", "plan.json"}


def test_a_folder_is_no_file(smesim: CommandLine) -> None:
    path = smesim.plan()
    (smesim.folder / "trace.json").mkdir()
    for command in (["simulate", path, "--chip", "apple-m4"], ["execute", path]):
        assert "cannot write trace.json: Is a directory" in smesim(*command, "--trace", "trace.json").refusal()


@pytest.mark.parametrize("command", ["simulate", "execute"])
def test_a_trace_of_an_unknown_form_is_refused(command: str, smesim: CommandLine) -> None:
    smesim.plan()
    refusal = smesim(*WRITERS[command], "trace.xml").refusal()
    assert "ends in .json, .csv, .parquet" in refusal


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_standard_output_that_is_full_is_said() -> None:
    command = [sys.executable, "-m", "smesim", "models", "--json"]
    with open("/dev/full", "w") as full:
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr == "smesim: cannot write standard output: No space left on device\n"


# -- Ctrl-C


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_ends_a_measurement_with_one_line_and_no_file(smesim: CommandLine) -> None:
    path = smesim.plan("prefill:512")
    command = [sys.executable, "-m", "smesim", "execute", str(path), "--repeats", "1000000", "--trace", "trace.json"]
    run = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_interrupts,  # noqa: PLW1509 - no threads are running here
    )
    try:
        wait_until_it_computes(run.pid)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=60)
    finally:
        run.kill()
        run.communicate()
    assert run.returncode == 2
    assert (out, err) == ("", "smesim: interrupted; nothing half-written is left\n")
    assert smesim.files() == {"model/config.json", "plan.json"}


def heed_interrupts() -> None:
    """A shell starts its background jobs with Ctrl-C ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until_it_computes(process: int) -> None:
    """Until a thread beside the first, a worker, has used the processor for longer than any import does."""
    for _ in range(600):
        for stat in Path(f"/proc/{process}/task").glob("*/stat"):
            user_ticks = int(stat.read_text().rsplit(")", 1)[1].split()[11])
            if stat.parent.name != str(process) and user_ticks > 20:
                return
        time.sleep(0.1)
    pytest.fail("the measurement never began")


def test_ctrl_c_in_a_command_is_one_line(smesim: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    path = smesim.plan()
    monkeypatch.setattr("smesim.workflow.predict", interrupted)
    assert "interrupted" in smesim("simulate", path, "--chip", "apple-m4", "--trace", "t.json").refusal()
    assert "t.json" not in smesim.files()


def test_memory_that_runs_out_is_one_line(smesim: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    path = smesim.plan()
    monkeypatch.setattr("smesim.workflow.measure", exhausted)
    assert "out of memory" in smesim("execute", path).refusal()
