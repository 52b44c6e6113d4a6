"""What the pages show as tables: plain frames, with a unit in the name of every column that has one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd

from dashboards.palette import mark
from smesim.ablation import Step
from smesim.hwmodel.chip import Chip
from smesim.plan.diff import Difference
from smesim.plan.schema import OperatorPlan, Plan
from smesim.trace import Comparison
from smesim.trace.report import HardwareNumber
from smesim.units import format_seconds
from smesim.workflow import Roofs
from smesim.workload import Operator, OperatorGraph


def shape_of(operator: Operator) -> str:
    """An operator's sizes in the words of its kind: m x n x k of a product, heads and tokens of attention."""
    sizes = vars(operator)
    if {"m", "n", "k"} <= sizes.keys():
        return f"{sizes['m']} x {sizes['n']} x {sizes['k']}"
    named = {name: v for name, v in sizes.items() if isinstance(v, int) and not isinstance(v, bool) and name != "layer"}
    return ", ".join(f"{name} {value}" for name, value in named.items())


def roofline_table(found: Roofs, graph: OperatorGraph, plan: Plan) -> pd.DataFrame:
    """One row a site: its shape, its work over all layers, its intensity, the least time and what bounds it under each
    roof, and the mode that the plan gives it. Times are NaN, bounds "", where a roof's agents lack the dtype."""
    rows: list[dict[str, Any]] = []
    for i, demand in enumerate(found.demands):
        operators = graph.sites[demand.name]
        row: dict[str, Any] = {
            "site": demand.name, "kind": operators[0].kind, "shape": shape_of(operators[0]), "count": len(operators),
            "dtype": demand.dtype, "GFLOP": demand.flop / 1e9, "MB": demand.n_bytes / 1e6,
            "FLOP/B": demand.flop / demand.n_bytes if demand.n_bytes else float("inf"),
            "mode": plan.site(demand.name).mode,
        }  # fmt: skip
        for name, points in found.points.items():
            point = points[i]
            row[f"{name}, ms"] = float("nan") if point is None else point.time_s * 1e3
            row[f"{name}, GFLOP/s"] = float("nan") if point is None else point.attainable_flop_per_s / 1e9
            row[f"{name}, bound"] = "" if point is None else point.bound
        rows.append(row)
    return pd.DataFrame(rows)


def plan_table(plan: Plan) -> pd.DataFrame:
    """One row a site: how it is divided, the analytic time of one instance, why, and what was not taken."""
    return pd.DataFrame([_plan_row(plan, entry) for entry in plan.operators])


def _plan_row(plan: Plan, entry: OperatorPlan) -> dict[str, Any]:
    reason = entry.reason
    return {
        "site": entry.site,
        "kind": entry.kind,
        "mode": entry.mode,
        "estimate, ms": reason.predicted_s * 1e3 if reason else float("nan"),
        "bound": reason.bound if reason else "",
        "runners-up": _runners_up(entry),
        "kernel": entry.kernel,
        "tile": f"{entry.tile.m} x {entry.tile.n}",
        "tiles by": entry.assignment,
        "split": _split(plan, entry),
        "stages": _stages(entry),
        "reads": entry.lhs_layout,
        "weights": entry.rhs_layout,
        "writes": entry.out_layout,
    }


def _runners_up(entry: OperatorPlan) -> str:
    found = entry.reason.runners_up if entry.reason else ()
    return "; ".join(f"{r.mode}{' in stages' if r.pipeline else ''} {format_seconds(r.predicted_s)}" for r in found)


def _split(plan: Plan, entry: OperatorPlan) -> str:
    """Who gets how much, by role: what equal workers get is said once."""
    shares = entry.shares or tuple(1.0 for _ in entry.workers)
    total = sum(shares)
    by_role: dict[str, list[float]] = {}
    for worker, share in zip(entry.workers, shares, strict=True):
        by_role.setdefault(plan.workers[worker].role, []).append(share / total)
    return ", ".join(f"{len(of)} {role}: {sum(of):.0%}" for role, of in by_role.items())


def _stages(entry: OperatorPlan) -> str:
    stages = entry.pipeline
    if stages is None:
        return f"past in {entry.past_split}" if entry.past_split > 1 else ""
    return f"scores {stages.qk}, softmax {stages.softmax}, values {stages.pv}; {stages.lanes} x {stages.depth} blocks"


def differences_table(differences: Sequence[Difference], first: str, second: str) -> pd.DataFrame:
    """What two plans do differently, under their names; "-" where a plan has no such value."""
    names = (first, second) if first != second else (f"{first} (1)", f"{second} (2)")
    return pd.DataFrame(
        [(d.site or "plan", d.field, d.first or "-", d.second or "-") for d in differences],
        columns=["of", "what", *names],
    )


def shown_numbers(numbers: Iterable[HardwareNumber]) -> pd.DataFrame:
    """Numbers of a chip, each with the mark of its origin and where it comes from."""
    return pd.DataFrame(
        [(n.quantity, n.value, mark(n.provenance), n.source) for n in numbers],
        columns=["number", "value", "provenance", "source"],
    )


def marks_of(chip: Chip) -> tuple[str, ...]:
    """The marks of the peaks and bandwidths that a chip's roofs are made of, and of a stand-in."""
    quantities = [chip.memory.bandwidth_bytes_per_s]
    quantities += [rate for cluster in chip.clusters for rate in cluster.core.flop_per_s.values()]
    quantities += [rate for unit in chip.unit_instances for rate in unit.unit.flop_per_s.values()]
    origins = sorted({q.provenance for q in quantities})
    return tuple(map(mark, [*origins, "stand-in"] if chip.has_stand_in else origins))


def sites_of(comparisons: Sequence[Comparison], modes: Sequence[Mapping[str, str]] = ()) -> pd.DataFrame:
    """The sites of some phases, one below the other, with their phase and mode, and a `label` that says which is which;
    `modes` are by site, of each phase, "" where nobody knows."""
    frames = []
    for i, comparison in enumerate(comparisons):
        sites = comparison.sites
        names = sites["site"].astype(str)
        known = modes[i] if i < len(modes) else {}
        label = names if len(comparisons) == 1 else names + f" ({comparison.phase})"
        frames.append(
            sites.assign(
                site=names, op_kind=sites["op_kind"].astype(str), bound=sites["bound"].astype(str),
                phase=comparison.phase, mode=[known.get(name, "") for name in names], label=label,
            )
        )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def sites_table(sites: pd.DataFrame) -> pd.DataFrame:
    """Predicted and measured of sites as `sites_of` gives them, in ms."""
    return pd.DataFrame(
        {
            "site": sites["label"],
            "phase": sites["phase"],
            "kind": sites["op_kind"],
            "mode": sites["mode"],
            "predicted, ms": sites["predicted_s"] * 1e3,
            "measured, ms": sites["measured_s"] * 1e3,
            "spread, ms": sites["spread_s"] * 1e3,
            "error, %": sites["error"] * 100,
            "share of its phase, %": sites["share"] * 100,
            "bound": sites["bound"],
        }
    ).reset_index(drop=True)


def steps_table(steps: Sequence[Step]) -> pd.DataFrame:
    """The steps of an ablation: each one's time, and what it saves against the step before it."""
    predicted = [step.predicted_s * 1e3 for step in steps]
    frame = pd.DataFrame(
        {
            "idea": [step.name for step in steps],
            "predicted, ms": predicted,
            "saves, ms": [0.0, *(before - now for before, now in pairwise(predicted))],
            "speed-up": [predicted[0] / now if now else float("nan") for now in predicted],
        }
    )
    if any(step.measured_s is not None for step in steps):
        frame["measured, ms"] = [None if s.measured_s is None else s.measured_s * 1e3 for s in steps]
        frame["spread, ms"] = [None if s.spread_s is None else s.spread_s * 1e3 for s in steps]
    return frame
