"""The commands that make plans and set them against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smesim.cli_options import (
    BudgetOption,
    ChipOption,
    ForceOption,
    JsonFlag,
    LayersOption,
    LayoutReuseOption,
    ModelOption,
    PhaseOption,
    PlanArgument,
    PlannerOption,
    RepeatsOption,
    SeedOption,
    ThreadsOption,
    WeightsOption,
    load_plan_file,
    parse_weights,
)
from smesim.errors import SmesimError


def plan(
    model: ModelOption,
    phase: PhaseOption,
    chip: ChipOption,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Plan file to write.")] = None,
    planner: PlannerOption = "cpu_only",
    threads: ThreadsOption = None,
    layers: LayersOption = None,
    last_layer_rows: Annotated[
        str, typer.Option(help="Rows that the last layer computes: all, or only those whose 'logits' are wanted.")
    ] = "all",
    weights: WeightsOption = "f32",
    force: ForceOption = None,
    budget: BudgetOption = 30.0,
    layout_reuse: LayoutReuseOption = "full",
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Show why each mode, what is packed and why, what is saved, memory by layout."),
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Divide the operators of one phase over units and workers."""
    from smesim import show, show_layouts, workflow
    from smesim.plan.planners import parse_forced
    from smesim.workload import Phase, catalog

    forced, numbers = parse_forced(force), parse_weights(weights)
    with show.progress() as report:
        described = workflow.resolve_chip(chip, report, numbers)
        made = workflow.make_plan(
            catalog.load(model), Phase.parse(phase), described, planner_name=planner, threads=threads, layers=layers,
            last_layer_rows=last_layer_rows, layout_reuse=layout_reuse, forced=forced, weights=numbers, budget_s=budget,
            progress=report,
        )  # fmt: skip
    if out is not None:
        made.save(out)
    if not explain:
        show.plan(made, out, json)
        return
    show_layouts.layouts(made, workflow.explain_layouts(made, described), out, json)


def ablate(
    model: ModelOption,
    phase: PhaseOption,
    chip: ChipOption,
    threads: ThreadsOption = None,
    layers: LayersOption = None,
    weights: WeightsOption = "f32",
    budget: BudgetOption = 30.0,
    repeats: RepeatsOption = 5,
    seed: SeedOption = 0,
    json: JsonFlag = False,
) -> None:
    """Say what each idea is worth: cores only, + matrix unit, + cooperation, + overlap, + layout reuse, + search.

    Predicted, and measured too where the chip is this machine.
    """
    from smesim import ablation, show, show_ablation, workflow
    from smesim.workload import Phase, catalog

    config, wanted, numbers = catalog.load(model), Phase.parse(phase), parse_weights(weights)
    with show.progress() as report:
        described = workflow.resolve_chip(chip, report, numbers)
        steps = ablation.ablate(
            config, wanted, described, threads=threads, layers=layers, weights=numbers, budget_s=budget,
            repeats=repeats, seed=seed, progress=report,
        )  # fmt: skip
    show_ablation.ablation(steps, json)


def plan_diff(first: PlanArgument, second: PlanArgument, json: JsonFlag = False) -> None:
    """Say what two plans do differently."""
    from smesim import show
    from smesim.plan.diff import plan_differences

    show.plan_differences(plan_differences(load_plan_file(first), load_plan_file(second)), json)


def adapt(
    plan_file: PlanArgument,
    repeats: Annotated[int, typer.Option("--repeats", "-r", min=1, help="Runs, after one that is not counted.")] = 10,
    handicap: Annotated[
        str | None, typer.Option(help="Workers to slow down: 1=2 lets the tasks of worker 1 take twice as long.")
    ] = None,
    seed: SeedOption = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the plan as it is divided at the end.")] = None,
    json: JsonFlag = False,
) -> None:
    """Run a plan again and again, and move the division of its products to where the workers really are fast."""
    from smesim import show, show_adaptation, workflow
    from smesim.files import check_writable

    loaded, handicaps = load_plan_file(plan_file), _handicaps(handicap)
    if out is not None:
        check_writable(out)
    with show.progress() as report:
        adapted = workflow.measure_adaptively(loaded, repeats=repeats, seed=seed, handicaps=handicaps, progress=report)
    if out is not None:
        adapted.adaptation.plan.save(out)
    show_adaptation.adaptation(adapted, out, json)


def _handicaps(text: str | None) -> dict[int, float]:
    """Factors by worker from "0=1.5,1=2"."""
    found: dict[int, float] = {}
    for item in text.split(",") if text else ():
        worker, _, factor = item.partition("=")
        try:
            found[int(worker)] = float(factor)
        except ValueError:
            raise SmesimError(f"--handicap {item!r}; accepted: WORKER=FACTOR,..., as in 0=1.5,1=2") from None
    return found
