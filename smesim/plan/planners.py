"""Planners: from a graph and a chip to a plan.

`cpu_only` puts everything on the cores' vector pipes; `matrix_only` gives what a matrix unit can do, products of
matrices and attention, to the workers that drive one, and the rest to the others. They decide per operator which
kernel, how large a tile, and whether tiles are fixed or drawn from a queue. The rules:

- A tile should take about `TARGET_TASK_S`: long beside the cost of handing it out, short beside the operator.
- Every worker should get several tiles, so that the last one does not leave the others waiting.
- A tile of a GEMM has as many rows as their packed block of depth kc fits into half of a core's own cache, so that
  it stays there while the columns stream by.
- Large operators are drawn from a queue (a slow or disturbed core then gets less); small ones are fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smesim.errors import PlanError
from smesim.hwmodel.chip import Chip
from smesim.hwmodel.cost import DEFAULT_KC
from smesim.hwmodel.library import fingerprint
from smesim.plan.estimate import Estimate, estimate
from smesim.plan.schema import OperatorPlan, Plan, Reason, TileShape, WorkerPlan
from smesim.plan.teams import Team, core_workers, cpu_team, matrix_team, matrix_workers
from smesim.plan.tiles import NR, experts_with_rows
from smesim.workload.dtypes import DType
from smesim.workload.graph import OperatorGraph
from smesim.workload.operators import Attention, ExpertCombine, GroupedLinear, KvAppend, Linear, Operator, Router

TARGET_TASK_S = 300e-6
TARGET_STREAM_S = 100e-6  # a tile that only streams weights loses nothing by being short, and leaves a short tail
TILES_PER_WORKER = 8
SHARED_FROM_S = 100e-6  # below this an operator is too short for a disturbed core to matter
QUERY_BLOCK_TOKENS = 64
PANELS_TOGETHER = 4
"""Panels that a tile has at least, if every worker still gets several tiles: a GEMV reads so many side by side, and a
GEMM fetches its left operand from the shared cache once a tile."""


def cpu_only(graph: OperatorGraph, chip: Chip, threads: int | None = None, **options: Any) -> Plan:
    """A plan that uses no matrix unit.

    `options` are fields of `Plan` that say how the graph was built (`last_layer_rows`, `lm_head_rows`).
    """
    workers = core_workers(chip, threads)
    team = cpu_team(chip, workers)
    return _plan("cpu_only", graph, chip, workers, lambda operator: team, options)


def matrix_only(graph: OperatorGraph, chip: Chip, threads: int | None = None, **options: Any) -> Plan:
    """A plan that gives to the matrix units all that they can do. `options` as for `cpu_only`.

    PlanError if the chip has no unit that multiplies f32.
    """
    workers = matrix_workers(chip, threads)
    cores, units = cpu_team(chip, workers), matrix_team(chip, workers)

    def team(operator: Operator) -> Team:
        products = isinstance(operator, Linear | GroupedLinear | Attention)
        return units if products and operator.activation_rows > 1 else cores

    return _plan("matrix_only", graph, chip, workers, team, options)


def _plan(
    planner: str, graph: OperatorGraph, chip: Chip, workers: tuple[WorkerPlan, ...],
    team: Callable[[Operator], Team], options: dict[str, Any],
) -> Plan:  # fmt: skip
    dtypes = graph.dtypes
    if (dtypes.weights, dtypes.activations, dtypes.kv) != (DType.F32,) * 3:
        raise PlanError(
            f"dtypes {dtypes.weights}/{dtypes.activations}/{dtypes.kv} (weights/activations/KV) asked for;"
            " planners make plans for f32"
        )
    first = [operators[0] for operators in graph.sites.values()]
    return Plan(
        model=graph.config,
        phase=str(graph.phase),
        layers=graph.layers,
        chip=chip.name,
        chip_fingerprint=fingerprint(chip),
        planner=planner,
        workers=workers,
        operators=tuple(_Rules(chip, graph, team(operator)).plan(operator) for operator in first),
        **options,
    )


PLANNERS: dict[str, Callable[..., Plan]] = {"cpu_only": cpu_only, "matrix_only": matrix_only}


def planner(name: str) -> Callable[..., Plan]:
    """The planner of that name; PlanError names the planners there are."""
    try:
        return PLANNERS[name]
    except KeyError:
        raise PlanError(f"unknown planner {name!r}; accepted: {', '.join(PLANNERS)}") from None


class _Rules:
    def __init__(self, chip: Chip, graph: OperatorGraph, team: Team) -> None:
        self.chip = chip
        self.graph = graph
        self.team = team
        self.n_workers = len(team.workers)

    def plan(self, operator: Operator) -> OperatorPlan:
        guess = estimate(operator, self.graph, self.chip, self.team)
        shared = guess.seconds >= SHARED_FROM_S
        workers, mr = self.team.workers, self.team.mr
        kernel, lhs, rhs = f"{operator.kind}_f32", "row_major", "row_major"
        match operator:
            case Linear():
                kernel = "gemv_f32" if operator.m == 1 else "gemm_f32"
                lhs = "row_major" if operator.m == 1 else f"lhs_f32_m{mr}"
                rhs = "rhs_f32_n16"
                tile = self._gemm_tile(operator.m, operator.n, operator.k, guess)
            case GroupedLinear():
                kernel, lhs, rhs = "gemm_f32", f"lhs_f32_m{mr}", "rhs_f32_n16"
                tile = TileShape(m=operator.m, n=self._columns(operator.n, guess, 1.0, experts_with_rows(operator)))
            case Attention():
                tile = self._attention_tile(operator)
            case KvAppend():
                tile = TileShape(m=self._rows(operator.tokens, guess), n=operator.kv_heads)
            case _:
                rows = operator.rows if isinstance(operator, ExpertCombine) else operator.activation_rows
                tile = TileShape(m=self._rows(rows, guess), n=1)
                if tile.m >= rows:
                    workers = workers[:1]
                if isinstance(operator, Router):
                    rhs = "rhs_f32_n16"
        return OperatorPlan(
            site=operator.site,
            kind=operator.kind,
            mode=self.team.mode,
            kernel=kernel,
            tile=tile,
            assignment="shared" if shared else "static",
            workers=workers,
            lhs_layout=lhs,
            rhs_layout=rhs,
            reason=Reason(bound=guess.bound, predicted_s=guess.seconds),
        )

    def _gemm_tile(self, m: int, n: int, k: int, guess: Estimate) -> TileShape:
        most_rows = max(self.team.mr, int(self.team.cache_bytes / 2 / (4 * min(k, DEFAULT_KC))))
        row_tiles = -(-m // most_rows)
        rows = -(-m // row_tiles)
        return TileShape(m=rows, n=self._columns(n, guess, rows / m))

    def _columns(self, n: int, guess: Estimate, row_share: float, matrices: int = 1) -> int:
        """Columns of a tile, whole panels: by the target time, and so that every worker gets several tiles.

        `matrices` are those of as many columns that the operator multiplies with, one after another.
        """
        panels = -(-n // NR)
        per_panel_s = max(guess.seconds * self.n_workers * row_share / (panels * matrices), 1e-12)
        by_time = max(1, round((TARGET_STREAM_S if guess.bound == "bandwidth" else TARGET_TASK_S) / per_panel_s))
        tiles = -(-TILES_PER_WORKER * self.n_workers // matrices)
        by_balance = max(1, panels // tiles) if self.n_workers > 1 else panels
        columns = min(max(by_time, PANELS_TOGETHER), by_balance, panels)
        return NR * (columns - columns % PANELS_TOGETHER if columns > PANELS_TOGETHER else columns)

    def _rows(self, rows: int, guess: Estimate) -> int:
        """Rows of a tile of a row-wise operator: all of them where splitting would not pay."""
        if self.n_workers == 1 or guess.seconds * self.n_workers < 2 * self.chip.sync.barrier_s.value:
            return max(rows, 1)
        return max(1, -(-rows // (2 * self.n_workers)))

    def _attention_tile(self, operator: Attention) -> TileShape:
        heads = 1 if operator.kv_heads >= self.n_workers else operator.kv_heads
        return TileShape(m=min(operator.tokens, QUERY_BLOCK_TOKENS), n=heads)
