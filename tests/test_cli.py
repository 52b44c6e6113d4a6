"""Every command on tiny inputs: what it prints, as a table and as JSON, and what it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from smesim import workflow
from smesim.cli import EFFECT_NAMES
from smesim.exec.device import Device
from smesim.hwmodel import library
from smesim.plan.schema import load_plan
from smesim.sim import ALL_EFFECTS
from smesim.trace import read_trace
from smesim.workload import catalog
from tests.command_line import CommandLine
from tests.sim.chips import two_core_chip

CORES = len(Device.here().cores)
COMMANDS = [
    "doctor", "models", "chips", "probe", "plan", "simulate", "execute", "compare", "roofline", "demo", "emulate",
    "plan-diff", "ablate", "validate", "fit", "advise", "engines", "dashboard",
]  # fmt: skip


def install_host_chip() -> None:
    """A made-up chip as this machine's last probe, so that nothing has to be measured."""
    chip = two_core_chip(cores=CORES).model_copy(
        update={"name": "host", "host": True, "machine": Device.here().processor}
    )
    library.save(chip, workflow.host_chip_path())


def test_help_names_every_command(smesim: CommandLine) -> None:
    for arguments in ([], ["--help"]):
        ended = smesim(*arguments)
        assert (ended.code, ended.err) == (0, "")
        for command in COMMANDS:
            assert command in ended.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_example(command: str, smesim: CommandLine) -> None:
    ended = smesim(command, "--help")
    assert ended.code == 0
    assert f"Example: smesim {command}" in ended.out
    assert "--json" in ended.out


def test_doctor(smesim: CommandLine) -> None:
    found = smesim("doctor", "--json").json()
    here = Device.here()
    assert found["processor"] == here.processor
    assert found["cores"] == list(here.cores)
    assert found["isa"] == here.isa
    assert {k["isa"] for k in found["kernels"]} == {k.isa for k in here.kernels}
    assert found["last_probe"] is None
    install_host_chip()
    assert smesim("doctor", "--json").json()["last_probe"] == str(workflow.host_chip_path())
    table = smesim("doctor")
    assert table.code == 0
    assert here.isa in table.out


def test_models(smesim: CommandLine) -> None:
    found = {model["name"]: model for model in smesim("models", "--json").json()}
    assert set(found) == set(catalog.names())
    assert found["llama-3.2-3b"]["layers"] == 28
    table = smesim("models").out
    assert all(name in table for name in catalog.names())


def test_chips(smesim: CommandLine) -> None:
    found = {chip["name"]: chip for chip in smesim("chips", "--json").json()}
    assert set(found) == set(library.names())
    assert found["apple-m4"]["matrix_units"]
    assert found["apple-m4"]["dram_provenance"]
    table = smesim("chips").out
    assert all(name in table for name in library.names())


def test_one_chip_with_all_its_numbers(smesim: CommandLine) -> None:
    found = smesim("chips", "apple-m4", "--json").json()
    assert found["chip"]["memory"]["bandwidth_bytes_per_s"]["source"]
    table = smesim("chips", "apple-m4").out
    for part in ("measured", "DRAM bandwidth", "sme2 peak f32"):
        assert part in table
    assert ", host, host-stand-in, or a path" in smesim("chips", "no-such-chip").refusal()


def plan_arguments(smesim: CommandLine, *more: str | Path) -> list[str | Path]:
    return ["plan", "--model", smesim.model(), "--phase", "prefill:8", "--chip", "apple-m4", *more]


def test_plan(smesim: CommandLine) -> None:
    ended = smesim(*plan_arguments(smesim, "--threads", "3", "--layers", "1", "--out", "a/plan.json", "--json"))
    written = load_plan(smesim.folder / "a" / "plan.json")
    assert ended.json() == json.loads(written.to_json())
    assert (len(written.workers), written.layers, written.chip, written.phase) == (3, 1, "apple-m4", "prefill:8")
    table = smesim(*plan_arguments(smesim, "--out", "plan.json"))
    assert table.code == 0
    assert "q_proj" in table.out
    assert "plan.json" in table.out


def test_a_plan_is_explained(smesim: CommandLine) -> None:
    arguments = plan_arguments(smesim, "--explain")
    found = smesim(*arguments, "--json").json()
    packed = [p for p in found["packings"] if p["how"] == "tasks"]
    assert {p["site"] for p in packed} == {"o_proj"}
    assert found["total"]["tasks"]["n_bytes"] == sum(p["n_bytes"] for p in packed)
    assert found["total"]["tasks"]["seconds"] == pytest.approx(sum(p["seconds"] for p in packed))
    assert [layer["layer"] for layer in found["layers"]] == sorted({p["layer"] for p in packed})
    assert sum(layer["tasks"]["seconds"] for layer in found["layers"]) == pytest.approx(
        found["total"]["tasks"]["seconds"]
    )
    assert found["total"]["tasks"]["seconds"] > 0
    (q_proj,) = (choice for choice in found["choices"] if choice["site"] == "q_proj")
    assert q_proj["predicted_s"] > 0
    assert all(other["mode"] != q_proj["mode"] for other in q_proj["runners_up"])
    table = smesim(*arguments, "--layout-reuse", "shared_packs").out
    for part in ("otherwise", "pack tasks", "shared with", "memory by layout", "of one copy"):
        assert part in table
    assert json.loads(smesim(*arguments[:-1], "--layout-reuse", "none", "--json").out)["layout_reuse"] == "none"


def test_modes_are_forced_and_plans_compared(smesim: CommandLine) -> None:
    both = ["plan", "--model", "llama-3.2-1b", "--phase", "prefill:128", "--chip", "apple-m4", "--layers", "1"]
    plain = smesim(*both, "--planner", "roofline", "--out", "a.json", "--json").json()
    force = ["--force", "q_proj=cpu,attention=matrix"]
    forced = smesim(*both, "--planner", "roofline", *force, "--out", "b.json", "--json")
    modes = [{entry["site"]: entry["mode"] for entry in plan["operators"]} for plan in (plain, forced.json())]
    assert modes[0]["q_proj"] == "cooperative"
    assert (modes[1]["q_proj"], modes[1]["attention"]) == ("cpu", "matrix")
    found = smesim("plan-diff", "a.json", "b.json", "--json").json()["differences"]
    assert {"site": "q_proj", "field": "mode", "first": "cooperative", "second": "cpu"} in found
    assert {difference["site"] for difference in found} >= {"q_proj", "attention"}
    assert "cooperative" in smesim("plan-diff", "a.json", "b.json").out
    assert "alike" in smesim("plan-diff", "a.json", "a.json").out
    simulated = smesim("simulate", "a.json", "--chip", "apple-m4", "--json").json()
    without = smesim("simulate", "a.json", "--chip", "apple-m4", "--without", "operand_traffic", "--json").json()
    assert without["total_s"] <= simulated["total_s"]


def test_what_each_idea_is_worth(smesim: CommandLine) -> None:
    where = ["--model", "llama-3.2-1b", "--phase", "prefill:128", "--layers", "1", "--threads", "4", "--budget", "1"]
    steps = smesim("ablate", *where, "--chip", "apple-m4", "--json").json()["steps"]
    ideas = ["cores only", "+ matrix unit", "+ cooperation", "+ overlap", "+ layout reuse", "+ search"]
    assert [step["idea"] for step in steps] == ideas
    assert steps[0]["speedup"] == 1.0
    assert steps[1]["speedup"] > 1.5
    assert steps[5]["predicted_s"] <= steps[4]["predicted_s"]
    assert {step["measured_s"] for step in steps} == {None}
    table = smesim("ablate", *where, "--chip", "server-spr-amx").out
    assert "+ layout reuse" in table
    assert "+ matrix unit" not in table


def test_plan_without_a_file_writes_none(smesim: CommandLine) -> None:
    before = smesim.files() | {"model/config.json"}
    smesim(*plan_arguments(smesim, "--json")).json()
    assert smesim.files() == before


def test_plan_of_the_last_rows_only(smesim: CommandLine) -> None:
    sites = {
        o["site"] for o in smesim(*plan_arguments(smesim, "--last-layer-rows", "logits", "--json")).json()["operators"]
    }
    assert "last.ffn_norm" in sites


def test_simulate(smesim: CommandLine) -> None:
    path = smesim.plan("prefill:8,batch=2")
    found = smesim("simulate", path, "--chip", "apple-m4", "--trace", "trace.json", "--json").json()
    assert found["source"] == "simulated"
    assert found["total_s"] > 0
    assert found["tokens_per_s"] == pytest.approx(16 / found["total_s"])
    assert [o["name"] for o in found["operators"]] == [o.site for o in load_plan(path).operators]
    assert read_trace(smesim.folder / "trace.json").makespans_s()[0] == found["total_s"]
    assert smesim("simulate", path, "--chip", "apple-m4", "--json").json() == found
    assert "q_proj" in smesim("simulate", path, "--chip", "apple-m4").out


def test_the_help_of_simulate_names_all_effects() -> None:
    assert set(EFFECT_NAMES) == ALL_EFFECTS
    assert len(EFFECT_NAMES) == len(ALL_EFFECTS)


def test_simulate_without_effects(smesim: CommandLine) -> None:
    path = smesim.plan()
    off = ("--without", "dispatch", "--without", "contention")
    found = smesim("simulate", path, "--chip", "apple-m4", *off, "--json").json()
    assert found["notes"] == ["without contention", "without dispatch"]
    assert found["total_s"] < smesim("simulate", path, "--chip", "apple-m4", "--json").json()["total_s"]


@pytest.mark.parametrize("phase", ["prefill:8", "decode:8"])
def test_execute(phase: str, smesim: CommandLine) -> None:
    path = smesim.plan(phase)
    found = smesim("execute", path, "--repeats", "3", "--trace", "trace.csv", "--json").json()
    assert (found["source"], found["runs"]) == ("measured", 3)
    assert found["total_s"] > 0
    assert set(found["kernels"].values()) == {Device.here().isa}
    assert all(o["spread_s"] >= 0 for o in found["operators"])
    assert read_trace(smesim.folder / "trace.csv").meta.runs == 3
    assert "measured" in smesim("execute", path, "--repeats", "1").out


def test_a_mixture_of_experts_is_planned_predicted_and_run(smesim: CommandLine) -> None:
    moe = {
        "architectures": ["Qwen3MoeForCausalLM"], "num_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 32, "head_dim": 16,
    }  # fmt: skip
    install_host_chip()
    arguments = ("--model", smesim.model(**moe), "--phase", "prefill:8", "--chip", "host", "--threads", "1")
    found = smesim("compare", *arguments, "--json", "--repeats", "1").json()
    assert "router" in json.dumps(found)


def test_execute_with_forced_kernels(smesim: CommandLine) -> None:
    path = smesim.plan("decode:8")
    found = smesim("execute", path, "--isa", "portable", "--json").json()
    assert set(found["kernels"].values()) == {"portable"}


def compare_arguments(smesim: CommandLine, *more: str | Path) -> list[str | Path]:
    phases = ("--phase", "prefill:8", "--phase", "decode:8")
    return ["compare", "--model", smesim.model(), *phases, "--repeats", "2", *more]


def test_compare(smesim: CommandLine) -> None:
    install_host_chip()
    found = smesim(*compare_arguments(smesim, "--json")).json()
    assert set(found) == {"machine", "phases"}
    assert [phase["phase"] for phase in found["phases"]] == ["prefill:8", "decode:8"]
    numbers = {"predicted_s", "measured_s", "spread_s", "error"}
    for phase in found["phases"]:
        assert set(phase["total"]) == numbers
        assert phase["operators"]
        for operator in phase["operators"]:
            assert set(operator) == numbers | {"name", "kind", "bound"}
            assert operator["error"] == pytest.approx(operator["predicted_s"] / operator["measured_s"] - 1)


def test_compare_writes_everything_that_a_study_leaves(smesim: CommandLine) -> None:
    install_host_chip()
    smesim(*compare_arguments(smesim, "--threads", "1", "--layers", "1", "--out", "study", "--json")).json()
    per_phase = {
        f"study/{what}-{p}{suffix}"
        for suffix, whats in ((".json", ("plan", "predicted", "measured")), (".csv", ("tasks", "operators")))
        for what in whats
        for p in ("prefill-8", "decode-8")
    }
    assert smesim.files() == per_phase | {
        "model/config.json", "study/chip.toml", "study/perfetto.json", "study/comparison.json", "study/report.html"
    }  # fmt: skip
    assert library.load("study/chip.toml") == library.load(workflow.host_chip_path())
    predicted, measured = (read_trace(f"study/{what}-decode-8.json") for what in ("predicted", "measured"))
    assert (predicted.meta.layers, len(predicted.meta.workers)) == (1, 1)
    assert predicted.meta.program_fingerprint == measured.meta.program_fingerprint
    events = json.loads(Path("study/perfetto.json").read_text())["traceEvents"]
    assert len({event["pid"] for event in events}) >= 2


def test_comparing_a_preset_says_that_the_machines_differ(smesim: CommandLine) -> None:
    """It takes no more threads than this machine has, and kernels whose strips are those of the plan."""
    ended = smesim(*compare_arguments(smesim, "--chip", "apple-m4"))
    assert ended.code == 0
    said = " ".join(ended.out.split())
    assert "Predicted for apple-m4, measured on this machine" in said
    install_host_chip()
    assert "Predicted for" not in smesim(*compare_arguments(smesim)).out


def test_the_first_line_of_a_comparison_says_what_this_machine_has(smesim: CommandLine) -> None:
    install_host_chip()
    out = smesim(*compare_arguments(smesim)).out
    assert out.startswith("This machine")
    assert "2 of 2 layers" in out


@pytest.mark.parametrize("chip", ["apple-m4", "server-spr-amx"])
def test_roofline(chip: str, smesim: CommandLine) -> None:
    arguments = ("roofline", "--model", smesim.model(), "--phase", "decode:8", "--chip", chip)
    found = smesim(*arguments, "--json").json()
    assert found["chip"] == chip
    assert "lm_head" in smesim(*arguments).out


def test_roofline_of_quantised_weights(smesim: CommandLine) -> None:
    arguments = ("roofline", "--model", smesim.model(), "--phase", "decode:8", "--chip", "apple-m4")
    found = {w: smesim(*arguments, "--weights", w, "--json").json() for w in ("f32", "q4_0")}
    assert (found["f32"]["dtype"], found["q4_0"]["dtype"]) == ("f32", "s8")
    least = {w: roofs["roofs"]["matrix"]["total_s"] for w, roofs in found.items()}
    assert least["q4_0"] < least["f32"] / 3
    assert "unknown dtype 'f31'" in smesim(*arguments, "--weights", "f31").refusal()


@pytest.mark.parametrize("weights", ["bf16", "q4_0"])
def test_weights_of_other_formats_are_planned_predicted_and_executed(smesim: CommandLine, weights: str) -> None:
    arguments = ("plan", "--model", smesim.model(), "--phase", "prefill:9", "--chip", "apple-m4", "--threads", "1")
    made = smesim(*arguments, "--weights", weights, "--out", "low.json", "--json").json()
    assert made["weights_dtype"] == weights
    kernels = {entry["kernel"] for entry in made["operators"] if entry["kind"] in ("linear", "embed")}
    assert kernels == {f"gemm_{weights}", f"gemv_{weights}", f"embed_{weights}"}
    assert f"{weights} weights" in smesim(*arguments, "--weights", weights).out
    assert smesim("simulate", "low.json", "--chip", "apple-m4", "--json").json()["source"] == "simulated"
    assert smesim("execute", "low.json", "--repeats", "1", "--json").json()["kernels"]["linear"]
    assert "f16 asked for; accepted: f32, bf16" in smesim(*arguments, "--weights", "f16").refusal()


def test_roofline_says_what_a_unit_does_not_compute(smesim: CommandLine) -> None:
    """Intel's tiles multiply bf16 and int8, and no f32."""
    arguments = ("roofline", "--model", smesim.model(), "--phase", "decode:8", "--chip", "server-spr-amx")
    matrix = smesim(*arguments, "--json").json()["roofs"]["matrix"]
    assert "f32" not in matrix["dtypes"]
    assert matrix["total_s"] is None
    assert matrix["operators"] == []
    assert "matrix: computes bf16, s8, no f32" in smesim(*arguments).out


def test_a_chip_file_serves_like_a_preset(smesim: CommandLine) -> None:
    library.save(library.load("apple-m4"), smesim.folder / "mine.toml")
    path = smesim.plan()
    found = [smesim("simulate", path, "--chip", chip, "--json").json() for chip in ("mine.toml", "apple-m4")]
    assert found[0] == found[1]


def test_python_dash_m_is_the_same_command_line(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "smesim", "models", "--json"], capture_output=True, text=True, check=True
    )
    assert {model["name"] for model in json.loads(run.stdout)} == set(catalog.names())
    assert not run.stderr


def test_a_reader_that_goes_away_is_no_error_message() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "smesim", "models", "--json"]
    run = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert run.stderr == ""
