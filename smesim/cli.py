"""The command line: every step of the way through the house as one command.

Errors that a user can cause end in one line on standard error and exit code 2. Heavy packages are imported inside
the commands, so that `smesim --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from smesim import cli_dashboard, cli_models, cli_plans, cli_scenario, cli_sweep, cli_tune, cli_validate
from smesim.cli_options import (
    ChipOption,
    JsonFlag,
    LayersOption,
    LayoutReuseOption,
    ModelOption,
    PhaseOption,
    PlanArgument,
    PlannerOption,
    RefreshOption,
    RepeatsOption,
    SeedOption,
    ThreadsOption,
    TraceOption,
    load_plan_file,
    parse_weights,
)
from smesim.emulation import EmulatedDevice, Features, run_emulated
from smesim.errors import SmesimError

if TYPE_CHECKING:
    pass

app = typer.Typer(
    name="smesim",
    help="Which unit should do which part of an LLM's operators, and how long will it take? Predicted by simulation and"
    " measured by native kernels, from one plan.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)



@app.command(epilog="Example: smesim doctor")
def doctor(json: JsonFlag = False) -> None:
    """Say what this machine is: processor, matrix units, kernels that run here, memory, last probe."""
    from smesim import show, workflow
    from smesim.exec.device import Device

    show.doctor(Device.here(), workflow.host_chip_path(), json)


@app.command(epilog="Example: smesim models")
def models(json: JsonFlag = False) -> None:
    """List the catalogue of models."""
    from smesim import show

    show.models(json)


@app.command(epilog="Example: smesim chips apple-m4")
def chips(
    name: Annotated[str | None, typer.Argument(metavar="[CHIP]", help="A preset, a chip file, or 'host'.")] = None,
    json: JsonFlag = False,
) -> None:
    """List the chip presets; or all numbers of one chip, each with how it was got."""
    from smesim import show, workflow

    if name is None:
        show.chips(json)
        return
    with show.progress() as report:
        described = workflow.resolve_chip(name, report)
    show.chip(described, None, json)


@app.command(epilog="Example: smesim probe --out my-machine.toml")
def probe(
    out: Annotated[Path, typer.Option("--out", "-o", help="Chip file to write.")],
    quick: Annotated[bool, typer.Option("--quick", help="Fewer shapes, half the time.")] = False,
    formats: Annotated[
        str | None,
        typer.Option(help="Formats of weights to fit beside f32 and those in blocks: bf16. Default: all, quick: none."),
    ] = None,
    threads: ThreadsOption = None,
    seed: SeedOption = 0,
    stand_in: Annotated[
        bool, typer.Option("--stand-in", help="Wide kernels stand in for a matrix unit (--chip host-stand-in).")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Measure this machine and write its chip file (also used as --chip host from then on)."""
    from smesim import show, workflow
    from smesim.files import check_writable

    wanted = [parse_weights(name.strip()) for name in formats.split(",")] if formats else None
    check_writable(out)
    check_writable(workflow.host_chip_path(workflow.HOST_STAND_IN if stand_in else workflow.HOST))
    with show.progress() as report:
        chip = workflow.probe_host(
            out, quick=quick, formats=wanted, threads=threads, seed=seed, stand_in=stand_in, progress=report
        )
    show.chip(chip, out, json)


app.command(epilog="Example: smesim plan --model llama-3.2-3b --phase prefill:128 --chip apple-m4 --out plan.json")(
    cli_plans.plan
)
app.command(epilog="Example: smesim ablate --model llama-3.2-3b --phase prefill:512 --chip apple-m4")(cli_plans.ablate)
app.command(epilog="Example: smesim adapt plan.json --repeats 10 --handicap 1=2 --out adapted.json")(cli_plans.adapt)
app.command(epilog="Example: smesim plan-diff cores.json both.json")(cli_plans.plan_diff)
app.command(epilog="Example: smesim generate --model model.gguf --prompt 'The capital of France is' --max-tokens 32")(
    cli_models.generate
)
app.command(epilog="Example: smesim make-weights --model llama-3.2-3b --format q4_0 --layers 4 --out four.gguf")(
    cli_models.make_weights
)
app.command(epilog="Example: smesim bench model.gguf -p 128,512 -n 32 -t 1,2 -o jsonl")(cli_models.bench)
app.command(epilog="Example: smesim validate --block mpgemm --out out")(cli_validate.validate)
app.command(epilog="Example: smesim engines")(cli_validate.engines)
app.command(epilog="Example: smesim advise --chip apple-m4-pro --model llama-3.2-1b --quant q4_0")(cli_validate.advise)
app.command(epilog="Example: smesim dashboard --port 8501")(cli_dashboard.dashboard)
app.command(epilog="Example: smesim fit --preset apple-m4 --block m4mem --out out")(cli_validate.fit)
app.command(epilog="Example: smesim sweep scenarios/gemm-sweep.toml --workers 2 --out out/gemm")(cli_sweep.sweep)
app.command(epilog="Example: smesim results out/gemm --best chip,tokens:time_s")(cli_sweep.results)
app.command(epilog="Example: smesim tune --model llama-3.2-3b --phase prefill:512 --chip apple-m4 --out plan.json")(
    cli_tune.tune
)
app.command(epilog="Example: smesim scenario kleidiai-m4-pro --out out/kleidiai")(cli_scenario.scenario)


# Named here, because the module that knows them is slow to import; a test holds this to the same names.
EFFECT_NAMES = (
    "contention", "agent_cap", "shared_unit", "oversubscription", "dispatch", "barrier", "edge_tiles", "tile_overhead",
    "exposed_latency", "shared_lines", "write_allocate", "kernel_efficiency", "multi_core", "accumulators",
    "operand_traffic", "mode_switch",
)  # fmt: skip


@app.command(epilog="Example: smesim simulate plan.json --chip apple-m4 --without contention")
def simulate(
    plan_file: PlanArgument,
    chip: ChipOption,
    without: Annotated[
        list[str] | None, typer.Option(help=f"Switch an effect off; may be repeated: {', '.join(EFFECT_NAMES)}.")
    ] = None,
    trace: TraceOption = None,
    engine: Annotated[
        str | None, typer.Option(help="Who simulates: simpy (default), or the same compiled; the result is the same.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Predict a plan on a chip."""
    from smesim import show, workflow
    from smesim.sim import without as all_without
    from smesim.trace import write_trace
    from smesim.trace.storage import check_trace_path

    loaded = load_plan_file(plan_file)
    effects = all_without(without or ())
    if trace is not None:
        check_trace_path(trace)
    with show.progress() as report:
        described = workflow.resolve_chip(chip, report, loaded.weights_dtype)
    result = workflow.predict(loaded, described, effects, engine=engine)
    if trace is not None:
        write_trace(result, trace)
    show.run(result, loaded, json)


@app.command(epilog="Example: smesim execute plan.json --repeats 5 --trace measured.json")
def execute(
    plan_file: PlanArgument,
    repeats: RepeatsOption = 5,
    seed: SeedOption = 0,
    isa: Annotated[str | None, typer.Option(help="Force the kernels of an instruction set, e.g. portable.")] = None,
    trace: TraceOption = None,
    json: JsonFlag = False,
) -> None:
    """Run a plan for real on this machine, with random weights."""
    from smesim import show, workflow
    from smesim.trace import write_trace
    from smesim.trace.storage import check_trace_path

    loaded = load_plan_file(plan_file)
    if trace is not None:
        check_trace_path(trace)
    with show.progress() as report:
        result = workflow.measure(loaded, repeats=repeats, seed=seed, isa=isa, progress=report).trace
    if trace is not None:
        write_trace(result, trace)
    show.run(result, loaded, json)


@app.command(epilog="Example: smesim compare --model llama-3.2-3b --phase prefill:128 --phase decode:128 --chip host")
def compare(
    model: ModelOption,
    phase: Annotated[
        list[str] | None, typer.Option("--phase", "-p", help="prefill:TOKENS or decode:CONTEXT; may be repeated.")
    ] = None,
    prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="Instead of phases, of a model file: a whole run, a prompt of so many")
    ] = None,
    generate: Annotated[int | None, typer.Option(min=0, help="and so many tokens more; default: 32.")] = None,
    chip: ChipOption = "host",
    planner: PlannerOption = "cpu_only",
    layers: LayersOption = None,
    threads: ThreadsOption = None,
    repeats: Annotated[
        int | None, typer.Option("--repeats", "-r", min=1, help="Counted runs; default: 5, and up to 25 of short ones.")
    ] = None,
    seed: SeedOption = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for plans, traces, Perfetto and report.")
    ] = None,
    refresh: RefreshOption = True,
    weights: Annotated[
        str | None, typer.Option(help="Format of the weights; default: f32, of a model file its own.")
    ] = None,
    kv: cli_models.KvOption = "f32",
    packed: cli_models.PackedOption = "keep",
    layout_reuse: LayoutReuseOption = "full",
    json: JsonFlag = False,
) -> None:
    """Predict and measure a model on this machine, side by side. --layers defaults to all that fit into memory."""
    from smesim import show, workflow
    from smesim.artefacts import check_report_can_be_made, write_study
    from smesim.files import check_writable
    from smesim.workload import Phase, catalog

    phases = [Phase.parse(text) for text in phase or ()]
    if len(set(phases)) < len(phases):
        raise SmesimError(f"a phase is given twice ({', '.join(phase or ())}); accepted: each phase once")
    is_whole = prompt_tokens is not None
    if bool(phases) == is_whole:
        raise SmesimError("accepted: either --phase, or --prompt-tokens and --generate with a model file")
    foreign = {
        "--layers": is_whole and layers is not None, "--layout-reuse": is_whole and layout_reuse != "full",
        "--generate": not is_whole and generate is not None, "--kv": not is_whole and kv != "f32",
        "--packed": not is_whole and packed != "keep",
    }  # fmt: skip
    for option in (option for option, is_given in foreign.items() if is_given):
        wanted = "phases of a catalogue model" if is_whole else "a whole run of a model file (--prompt-tokens)"
        raise SmesimError(f"{option} is for {wanted}; accepted: the command without it")
    if out is not None:
        check_report_can_be_made()
        check_writable(out / "chip.toml")
    if prompt_tokens is not None:
        from smesim import show_session

        asked = show_session.Asked(chip, planner, weights, kv, packed)
        steps = 32 if generate is None else generate
        result = show_session.compared(
            Path(model), asked, threads, prompt_tokens, steps, repeats, seed, refresh
        )  # fmt: skip
    else:
        numbers = parse_weights(weights or "f32")
        with show.progress() as report:
            described = workflow.resolve_chip(chip, report, numbers)
            result = workflow.study(
                catalog.load(model), phases, described, planner_name=planner, threads=threads, layers=layers,
                repeats=repeats, seed=seed, layout_reuse=layout_reuse, refresh=refresh, weights=numbers,
                progress=report,
            )  # fmt: skip
    show.comparison(result, json)
    if out is not None:
        write_study(result, out)


@app.command(epilog="Example: smesim roofline --model qwen3-4b --phase decode:1024 --chip apple-m4")
def roofline(
    model: ModelOption,
    phase: PhaseOption,
    chip: ChipOption = "host",
    layers: LayersOption = None,
    weights: Annotated[
        str, typer.Option(help="Format of the weights: f32, f16, bf16, s8, q8_0, q4_0, q4_1; integers compute in s8.")
    ] = "f32",
    json: JsonFlag = False,
) -> None:
    """Show how fast each operator could be at best on cores, matrix units and both, and what bounds it."""
    from smesim import show, workflow
    from smesim.workload import DType, DTypes, Phase, build_graph, catalog

    dtypes = DTypes(weights=DType.parse(weights))
    graph = build_graph(catalog.load(model), Phase.parse(phase), dtypes, layers=layers)
    with show.progress() as report:
        described = workflow.resolve_chip(chip, report)
    show.roofline(graph, described, json)


@app.command(epilog="Example: smesim demo --out out/demo")
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything that it writes.")] = Path("out/demo"),
    model: ModelOption = "llama-3.2-3b",
    layers: LayersOption = None,
    seed: SeedOption = 0,
    json: JsonFlag = False,
) -> None:
    """Probe this machine, then predict and measure one model: prefill of 128 tokens and decode at context 128."""
    from smesim import show, workflow
    from smesim.artefacts import write_study
    from smesim.files import check_writable
    from smesim.workload import Phase, catalog

    config = catalog.load(model)
    phases = [Phase.prefill(128), Phase.decode(128)]
    check_writable(out / "chip.toml")
    check_writable(workflow.host_chip_path())
    show.first_line(json)
    with show.progress() as report:
        chip = workflow.probe_host(out / "chip.toml", quick=True, seed=seed, progress=report)
        count = workflow.layers_in_time(config, phases, chip) if layers is None else layers
        result = workflow.study(config, phases, chip, layers=count, seed=seed, progress=report)
        report("report", 0.5)
        write_study(result, out)
    show.comparison(result, json, with_first_line=False)
    show.written(out, json)


@app.command(
    epilog="Example: smesim emulate --svl 512 -- doctor --json, or smesim emulate --count gemm_f32 --shape 64x64x512",
    context_settings={"allow_interspersed_args": False},
)
def emulate(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND...", help="A smesim command and its arguments.")
    ] = None,
    svl: Annotated[int, typer.Option(help="Streaming vector length in bits: 128, 256, 512, 1024 or 2048.")] = 512,
    features: Annotated[Features, typer.Option(help="What the processor has.")] = Features.SME2,
    sve: Annotated[bool, typer.Option("--sve", help="SVE of 128 bits too; an Apple M4 has none.")] = False,
    count: Annotated[
        str | None, typer.Option(metavar="KERNEL", help="Instead of a command: count a kernel's instructions.")
    ] = None,
    shape: Annotated[str | None, typer.Option(metavar="MxNxK", help="With --count: what the kernel computes.")] = None,
    isa: Annotated[str | None, typer.Option(help="With --count: whose kernel; default: the matrix unit's.")] = None,
    json: JsonFlag = False,
) -> None:
    """Run a smesim command on an emulated Arm processor with SME. Its times say nothing of hardware."""
    device = EmulatedDevice(svl, features, sve)
    if count is None:
        if not command:
            raise SmesimError("nothing to emulate; accepted: a smesim command, or --count KERNEL --shape MxNxK")
        if shape or isa or json:
            raise SmesimError("--shape, --isa and --json go with --count; a command's own options stand behind it")
        run_emulated(device, command)
    if command or shape is None:
        raise SmesimError("--count goes with --shape MxNxK and without a command")
    from smesim import show
    from smesim.counts import count_leaves

    show.kernel_count(count_leaves(device, isa, [f"{count}:{shape}"])[0], json)


USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""What typer raises for a command line that it cannot read; only this child of it is public under one name in all its
versions."""

INTERRUPTED = 130
"""What typer makes of Ctrl-C."""


def main() -> None:
    """Entry point: runs the command; every error a user can cause is one line and exit code 2."""
    try:
        status = app(args=sys.argv[1:] or ["--help"], prog_name="smesim", standalone_mode=False)
        sys.stdout.flush()
    except SmesimError as error:
        _fail(str(error))
    except USAGE_ERROR as error:
        what = error.format_message().rstrip(".")  # type: ignore[attr-defined]
        _fail(f"{what}; 'smesim --help' shows what is accepted")
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except MemoryError:
        _fail("out of memory; use fewer --layers or a smaller model")
    except OSError as error:
        # Nothing can be printed any more; what Python still holds back for it must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _fail(f"cannot write standard output: {error.strerror}")
    if status == INTERRUPTED:
        _fail("interrupted; nothing half-written is left")


def _fail(message: str) -> NoReturn:
    print(f"smesim: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
