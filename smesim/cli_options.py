"""Options and arguments that several commands take, and what they are read with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from smesim.plan.schema import Plan
    from smesim.workload import DType

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
ModelOption = Annotated[str, typer.Option("--model", "-m", help="A catalogue name, a config.json, or a .gguf file.")]
PhaseOption = Annotated[str, typer.Option("--phase", "-p", help="prefill:TOKENS[,past=N][,batch=N] or decode:CONTEXT.")]
ChipOption = Annotated[str, typer.Option("--chip", "-c", help="A preset, a chip file, or 'host': this machine.")]
ForceOption = Annotated[
    str | None, typer.Option(help="Modes that operators must take: q_proj=cpu,attention=cooperative.")
]
PlannerOption = Annotated[
    str, typer.Option("--planner", help="Who divides the work: cpu_only, matrix_only, roofline, search, or oracle.")
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", "-t", help="Workers in the plan; default: all cores.")]
LayersOption = Annotated[int | None, typer.Option("--layers", help="Take only the first so many layers.")]
WeightsOption = Annotated[str, typer.Option("--weights", help="Format of the weights: f32, bf16, q8_0, q4_0 or q4_1.")]
LayoutReuseOption = Annotated[
    str, typer.Option(help="Packed operands: 'full', 'shared_packs' (nobody writes packed), or 'none' (each its own).")
]
BudgetOption = Annotated[float, typer.Option(min=0, help="Seconds that the planner 'search' may take.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of the random weights and prompt.")]
RepeatsOption = Annotated[int, typer.Option("--repeats", "-r", min=1, help="Counted runs, after one that is not.")]
RefreshOption = Annotated[
    bool, typer.Option(help="Let a little model between the runs say what the machine gives now.")
]
TraceOption = Annotated[Path | None, typer.Option("--trace", help="Write the trace: .json, .csv or .parquet.")]
PlanArgument = Annotated[Path, typer.Argument(metavar="PLAN", help="A plan file, as 'smesim plan --out' writes it.")]


def load_plan_file(path: Path) -> Plan:
    """A plan from its file; imported here, so that commands without one start at once."""
    from smesim.plan.schema import load_plan

    return load_plan(path)


def parse_weights(name: str) -> DType:
    """The format of weights of that name; an error lists those that there are plans for."""
    from smesim.plan.formats import product_format
    from smesim.workload import DType

    return product_format(DType.parse(name)).dtype
