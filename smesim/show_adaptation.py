"""What `smesim adapt` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from smesim.exec.adaptive import AdaptedRuns
from smesim.show import print_json, print_line, print_table
from smesim.units import format_seconds


def adaptation(adapted: AdaptedRuns, path: Path | None, json: bool) -> None:
    """The time of each run, what was changed after which, and what that cost."""
    runs, followed = adapted.seconds, adapted.adaptation
    spent_s = followed.spent_s + adapted.planning_s
    if json:
        changes = [asdict(change) for change in followed.changes]
        print_json(
            {
                "runs_s": list(runs), "changes": changes, "observing_s": followed.spent_s,
                "planning_s": adapted.planning_s, "plan": None if path is None else str(path),
            }
        )  # fmt: skip
        return
    plan = followed.plan
    title = f"{plan.model.name}, {plan.phase}, {plan.layers} layers: {len(followed.changes)} divisions moved"
    columns = ["after run", "operator", "shares before", "after", "planned", "measured", "expected"]
    rows = [
        [
            str(change.run + 1), change.site, _percent(change.before), _percent(change.after),
            "-" if change.predicted_s is None else format_seconds(change.predicted_s),
            format_seconds(change.measured_s), format_seconds(change.expected_s),
        ]
        for change in followed.changes
    ]  # fmt: skip
    print_table(title, columns, rows)
    print_line("runs: " + ", ".join(format_seconds(seconds) for seconds in runs))
    print_line(f"observing and dividing anew took {format_seconds(spent_s)}, {spent_s / sum(runs):.1%} of the runs")
    if path is not None:
        print_line(f"wrote {path}")


def _percent(shares: Sequence[float]) -> str:
    return " / ".join(f"{share:.0%}" for share in shares)
