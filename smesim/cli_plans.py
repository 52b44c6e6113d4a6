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
        bool, typer.Option("--explain", help="Show what is packed and why, what is saved, and memory by layout.")
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
