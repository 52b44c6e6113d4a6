"""From a choice to an operator's entry in the plan: kernel, tile shape, who runs which tile. The rules:

- A tile should take about `TARGET_TASK_S`: long beside the cost of handing it out, short beside the operator.
- Every worker should get several tiles, so that the last one does not leave the others waiting.
- A tile of a GEMM has as many rows as their packed block of depth kc fits into half of a core's own cache, so that
  it stays there while the columns stream by.
- Large operators are drawn from a queue (a slow or disturbed core then gets less); small ones are fixed.
- Workers of different speed get columns of their own, by their speed; the tail is drawn from a queue where the
  slowest's smallest tile is short beside the operator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from smesim.hwmodel.chip import Chip
from smesim.hwmodel.cost import DEFAULT_KC
from smesim.plan.choices import TILES_PER_WORKER, Choice, query_block
from smesim.plan.estimate import Estimate, estimate
from smesim.plan.formats import QUANTIZE_KERNEL, QUANTIZED_ROWS, ProductFormat, operator_format
from smesim.plan.layout import ROW_MAJOR
from smesim.plan.schema import Assignment, OperatorPlan, Reason, RunnerUp, TileShape, WorkerPlan
from smesim.plan.teams import Team, row_team, team_of
from smesim.plan.tiles import NR, experts_with_rows
from smesim.workload.graph import OperatorGraph
from smesim.workload.operators import (
    Attention,
    Embed,
    ExpertCombine,
    GroupedLinear,
    KvAppend,
    Linear,
    Operator,
    Quantize,
    Router,
)

TARGET_TASK_S = 300e-6
TARGET_STREAM_S = 100e-6  # a tile that only streams weights loses nothing by being short, and leaves a short tail
SHARED_FROM_S = 100e-6  # below this an operator is too short for a disturbed core to matter
SHORT_PANEL = 0.06  # part of an operator that the slowest may take for a drawn tile: paces are off by more at times
LEAST_ROWS = 64  # of a tile whose rows are divided: weights are brought into the cache and widened once for all of them
WORTH_FETCHING = 0.1  # part of a tile's time that fetching its left operand from memory may take
PANELS_TOGETHER = 4
"""Panels that a tile has at least, if every worker still gets several tiles: a GEMV reads so many side by side, and a
GEMM fetches its left operand from the shared cache once a tile."""


class Rules:
    """The rules for the workers of one plan."""

    def __init__(self, chip: Chip, graph: OperatorGraph, workers: tuple[WorkerPlan, ...]) -> None:
        self.chip = chip
        self.graph = graph
        self.workers = workers

    @cached_property
    def rows(self) -> Team:
        """Who works row by row."""
        return row_team(self.chip, self.workers)

    def row_entry(self, operator: Operator) -> OperatorPlan:
        """Work row by row, on all cores; on one where dividing it would not pay."""
        team, numbers = self.rows, operator_format(self.graph, operator)
        guess = estimate(operator, self.graph, self.chip, team)
        if isinstance(operator, KvAppend):
            tile = TileShape(m=self._rows(operator.tokens, guess, team), n=operator.kv_heads)
            alone = False
        else:
            rows = _rows_of(operator)
            tile = TileShape(m=self._rows(rows, guess, team), n=1)
            alone = tile.m >= rows
        return OperatorPlan(
            site=operator.site,
            kind=operator.kind,
            kernel=_row_kernel(operator, numbers),
            tile=tile,
            assignment="shared" if guess.seconds >= SHARED_FROM_S else "static",
            workers=team.workers[:1] if alone else team.workers,
            rhs_layout=numbers.rhs_layout if isinstance(operator, Router) else ROW_MAJOR,
            reason=Reason(bound=guess.bound, predicted_s=guess.seconds),
        )

    def row_divisions(self, operator: Operator) -> Iterator[tuple[TileShape, tuple[int, ...]]]:
        """Ways to divide work row by row, whatever is predicted of it: not, and over all cores."""
        rows, width, workers = _rows_of(operator), 1, self.rows.workers
        if isinstance(operator, KvAppend):
            rows, width = operator.tokens, operator.kv_heads
        for team in (workers[:1], workers):
            parts = 1 if len(team) == 1 else 2 * len(team)
            yield TileShape(m=max(1, -(-rows // parts)), n=width), team

    def entry(self, operator: Operator, choice: Choice, possible: Sequence[Choice]) -> OperatorPlan:
        """A product or attention in the mode of a choice; `possible` are all choices, for the reasons."""
        team = team_of(self.chip, self.workers, choice)
        guess = Estimate(choice.seconds, choice.bound)
        kernel, lhs, rhs, numbers = f"{operator.kind}_f32", ROW_MAJOR, ROW_MAJOR, operator_format(self.graph, operator)
        grain = 1
        match operator:
            case Linear():
                kernel = numbers.gemv if operator.m == 1 else numbers.gemm
                lhs = numbers.lhs_layout(team.mr)
                if operator.m == 1:
                    lhs = QUANTIZED_ROWS if numbers.is_quantized else ROW_MAJOR
                rhs = numbers.rhs_layout
                grain = max(agent.granule(operator.m) for agent in choice.agents.of_kinds)
                tile = self._gemm_tile(operator, guess, team, grain, choice)
            case GroupedLinear():
                kernel, lhs, rhs = numbers.gemm, numbers.lhs_layout(team.mr), numbers.rhs_layout
                matrices = experts_with_rows(operator)
                grain = max(agent.granule(operator.m) for agent in choice.agents.of_kinds)
                n = self._columns(operator.n, guess, 1.0, team, grain, matrices)
                tile = TileShape(m=operator.m, n=n if choice.cut is None else NR * choice.cut.width)
            case _:
                assert isinstance(operator, Attention)
                tile = TileShape(m=choice.query_block or query_block(operator, choice.agents), n=1)
        assignment: Assignment = "shared" if guess.seconds >= SHARED_FROM_S else "static"
        shares: tuple[float, ...] = ()
        if choice.cut is not None:
            assignment = choice.cut.assignment
        elif isinstance(operator, Linear) and not choice.is_even:
            paces = [agent.panel_s(operator.m, team.mr, operator.k) for agent in choice.agents.of_kinds]
            slowest_s, fastest_s = max(paces), min(paces)
            short_s = SHORT_PANEL * choice.seconds
            rows = tile.m
            while slowest_s * grain * rows / operator.m > short_s and rows >= 2 * LEAST_ROWS:
                rows = -(-rows // 2)  # what the slowest draws last should be short
            is_short = slowest_s * grain * rows / operator.m <= short_s
            rows = rows if is_short else tile.m
            tile = TileShape(m=rows, n=self._uneven_columns(operator, choice, rows, fastest_s * rows / operator.m))
            assignment = "static_then_shared" if is_short else "static"
            shares = tuple(
                panels / len(agent.workers)
                for agent, panels in zip(choice.agents, choice.parts, strict=True)
                for _ in agent.workers
            )
        elif not choice.is_even or choice.pipeline is not None:
            assignment = "shared"
        return OperatorPlan(
            site=operator.site,
            kind=operator.kind,
            mode=choice.mode,
            kernel=kernel,
            tile=tile,
            assignment=assignment,
            workers=team.workers,
            shares=shares,
            lhs_layout=lhs,
            rhs_layout=rhs,
            grain=grain,
            pipeline=choice.pipeline,
            past_split=choice.past_split,
            reason=Reason(
                bound=choice.bound,
                predicted_s=choice.seconds,
                runners_up=tuple(
                    RunnerUp(mode=other.mode, predicted_s=other.seconds, pipeline=other.pipeline is not None)
                    for other in possible
                    if other is not choice
                ),
            ),
        )

    def _uneven_columns(self, operator: Linear, choice: Choice, rows: int, fastest_s: float) -> int:
        """Columns of a tile of so many rows where each worker has columns of its own: by the target time of the
        fastest, or what it takes to be worth fetching those rows for, and whole steps of a unit. The slow have few
        columns anyway, and nobody waits for a part of them."""
        together = max(PANELS_TOGETHER, *(agent.granule(operator.m) for agent in choice.agents.of_kinds))
        target = TARGET_STREAM_S if choice.bound == "bandwidth" else TARGET_TASK_S
        fetched_bytes = operator_format(self.graph, operator).lhs_bytes(rows, operator.k)
        fetch_s = fetched_bytes / self.chip.memory.bandwidth_bytes_per_s.value
        target = max(target, fetch_s / WORTH_FETCHING)
        steps = max(1, round(target / max(fastest_s, 1e-12) / together))
        return NR * min(steps * together, -(-operator.n // NR))

    def _gemm_tile(
        self, operator: Linear, guess: Estimate, team: Team, grain: int, choice: Choice
    ) -> TileShape:  # fmt: skip
        numbers = operator_format(self.graph, operator)
        row_bytes = numbers.lhs_bytes(1, min(operator.k, DEFAULT_KC))
        most_rows = max(team.mr, int(team.cache_bytes / 2 / row_bytes))
        parts = 1 if choice.cut is None else choice.cut.row_parts
        rows = -(-operator.m // max(parts, -(-operator.m // most_rows)))
        if choice.cut is not None:
            return TileShape(m=rows, n=NR * choice.cut.width)
        return TileShape(m=rows, n=self._columns(operator.n, guess, rows / operator.m, team, grain))

    def _columns(
        self, n: int, guess: Estimate, row_share: float, team: Team, grain: int, matrices: int = 1
    ) -> int:  # fmt: skip
        """Columns of a tile, whole steps of `grain` panels: by the target time, and so that every worker gets several.

        `matrices` are those of as many columns that the operator multiplies with, one after another.
        """
        panels, n_workers = -(-n // NR), len(team.workers)
        per_panel_s = max(guess.seconds * n_workers * row_share / (panels * matrices), 1e-12)
        by_time = max(1, round((TARGET_STREAM_S if guess.bound == "bandwidth" else TARGET_TASK_S) / per_panel_s))
        tiles = -(-TILES_PER_WORKER * n_workers // matrices)
        by_balance = max(1, panels // tiles) if n_workers > 1 else panels
        columns = min(max(by_time, PANELS_TOGETHER), by_balance, panels)
        together = max(grain, PANELS_TOGETHER) if columns > PANELS_TOGETHER else grain
        return NR * min(panels, max(columns - columns % together, grain))

    def _rows(self, rows: int, guess: Estimate, team: Team) -> int:
        """Rows of a tile of a row-wise operator: all of them where splitting would not pay."""
        if len(team.workers) == 1 or guess.seconds * len(team.workers) < 2 * self.chip.sync.barrier_s.value:
            return max(rows, 1)
        return max(1, -(-rows // (2 * len(team.workers))))


def _rows_of(operator: Operator) -> int:
    """Rows of what is worked on row by row."""
    return operator.rows if isinstance(operator, ExpertCombine) else operator.activation_rows


def _row_kernel(operator: Operator, numbers: ProductFormat) -> str:
    """The kernel of an operator that works row by row."""
    match operator:
        case Embed():
            return numbers.embed
        case Quantize():
            return QUANTIZE_KERNEL
        case _:
            return f"{operator.kind}_f32"
