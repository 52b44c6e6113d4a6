"""What `smesim ablate` prints."""

from __future__ import annotations

from collections.abc import Sequence

from smesim.ablation import Step
from smesim.show import print_json, print_table
from smesim.units import format_seconds


def ablation(steps: Sequence[Step], json: bool) -> None:
    """A row a step: seconds, and how much faster it is than the first and than the one before it."""
    first = steps[0]
    rows = [
        {
            "idea": step.name,
            "predicted_s": step.predicted_s,
            "speedup": first.predicted_s / step.predicted_s,
            "over_previous": before.predicted_s / step.predicted_s,
            "measured_s": step.measured_s,
            "spread_s": step.spread_s,
            "measured_speedup": first.measured_s / step.measured_s if step.measured_s and first.measured_s else None,
        }
        for before, step in zip([first, *steps], steps, strict=False)
    ]
    plan = first.plan
    if json:
        print_json({"model": plan.model.name, "phase": plan.phase, "chip": plan.chip, "steps": rows})
        return
    title = f"{plan.model.name}, {plan.phase}, {plan.layers} layers on {plan.chip}: what each idea is worth"
    columns = ["idea", "predicted", "speed-up", "over previous"]
    measured = first.measured_s is not None
    columns += ["measured", "spread", "speed-up"] if measured else []
    table = []
    for step, row in zip(steps, rows, strict=True):
        cells = [step.name, format_seconds(step.predicted_s), f"{row['speedup']:.2f}x", f"{row['over_previous']:.2f}x"]
        if step.measured_s is not None and step.spread_s is not None:
            faster = f"{row['measured_speedup']:.2f}x"
            cells += [format_seconds(step.measured_s), format_seconds(step.spread_s), faster]
        table.append(cells)
    print_table(title, columns, table)
