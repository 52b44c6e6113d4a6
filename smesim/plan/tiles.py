"""Which tasks an operator falls into: its macro-tiles, in the order in which they are handed out.

One function a kind of operator, all of the same form: (operator, its entry in the plan) -> tiles. A tile is a task
kind and three ranges; `program.py` says what each range counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from smesim.errors import PlanError
from smesim.plan import formats
from smesim.plan.formats import format_of_kernel
from smesim.plan.layout import ROW_MAJOR, lhs_layout
from smesim.plan.program import TaskKind
from smesim.plan.schema import Assignment, OperatorPlan
from smesim.workload.operators import (
    Add,
    Attention,
    Embed,
    ExpertCombine,
    GroupedLinear,
    KvAppend,
    Linear,
    Operator,
    Quantize,
    RmsNorm,
    Rope,
    Router,
    Sample,
    SwiGlu,
)

NR = formats.NR


class Tile(NamedTuple):
    """One task to be: ranges are begin0, end0, begin1, end1, begin2, end2; slot and state are places in `handover`.

    `worker` is who runs it, where the division of the operator says so; else the entry's assignment decides.
    """

    kind: TaskKind
    ranges: tuple[int, int, int, int, int, int]
    slot: int = 0
    state: int = 0
    worker: int | None = None


def rows_of_expert(rows: int, experts: int, expert: int) -> int:
    """Rows that the expert-th of the reached experts gets when `rows` are spread as evenly as they can be."""
    return rows // experts + (expert < rows % experts)


def first_row_of_expert(rows: int, experts: int, expert: int) -> int:
    """Rows that the experts before it get."""
    return rows // experts * expert + min(expert, rows % experts)


def experts_with_rows(operator: GroupedLinear) -> int:
    """Experts that get rows: as many as are reached, in whole numbers."""
    return max(1, round(operator.experts_reached))


def ranges(total: int, step: int) -> Iterator[tuple[int, int]]:
    """0 .. total in ranges of `step`, the last one shorter."""
    for begin in range(0, total, step):
        yield begin, min(begin + step, total)


Owned = tuple[int, int, int | None]
"""A range, and who runs it where that is given."""


def _even_ranges(begin: int, end: int, step: int, matrix: int, owner: int | None = None) -> list[Owned]:
    """Ranges of `step`; a new one begins with each matrix of so many panels (or strips)."""
    found = []
    stop = min(end, (begin // matrix + 1) * matrix)
    while begin < end:
        upto = begin + step
        if upto >= stop:
            upto, stop = stop, min(end, stop + matrix)
        found.append((begin, upto, owner))
        begin = upto
    return found


def _guided_ranges(begin: int, end: int, step: int, matrix: int, entry: OperatorPlan) -> list[Owned]:
    """The same, and towards the end ever smaller ones: the slowest worker's share of half of what is left.

    Whoever draws the last tile keeps the others waiting for at most a small one (guided self-scheduling,
    Polychronopoulos and Kuck, IEEE Transactions on Computers, 1987).
    """
    found: list[Owned] = []
    workers, grain = len(entry.workers), entry.grain
    slowest = min((share for share in entry.shares if share > 0), default=0.0) / (sum(entry.shares) or 1.0)
    stop = min(end, (begin // matrix + 1) * matrix)
    while begin < end:
        size = min((end - begin) // (2 * workers), step)
        size = min(size, int((end - begin) * slowest / 2)) if slowest else size
        upto = begin + (size - size % grain or grain)
        if upto >= stop:
            upto, stop = stop, min(end, stop + matrix)
        found.append((begin, upto, None))
        begin = upto
    return found


STATIC_PART = 3 / 4
"""Of an operator that is divided first and drawn at the end: the part that is divided."""


def _column_ranges(
    operator: Linear | GroupedLinear, entry: OperatorPlan, matrices: int = 1
) -> list[Owned]:
    """Ranges of panels, and whose they are. Of several `matrices` panels are counted on from one to the next."""
    return _divided(-(-operator.n // NR), max(1, entry.tile.n // NR), entry, matrices)


def _divided(matrix: int, step: int, entry: OperatorPlan, matrices: int = 1) -> list[Owned]:
    """Ranges of the panels (or strips) of matrices of so many, and whose they are: even ones, or guided where the
    workers draw them.

    Workers with shares have ranges of their own, one behind the other, cut into tiles; in `static_then_shared` these
    are the first three quarters, and the tail is drawn. No range is of two matrices.
    """
    total = matrix * matrices
    if len(entry.workers) == 1 or (entry.assignment == "static" and not entry.shares):
        return _even_ranges(0, total, step, matrix)
    divided = {"static": total, "shared": 0, "static_then_shared": int(total * STATIC_PART)}[entry.assignment]
    found: list[Owned] = []
    begin = 0
    for worker, upto in zip(entry.workers, share_bounds(len(entry.workers), entry.shares, divided), strict=True):
        found += _even_ranges(begin, upto, step, matrix, worker)
        begin = upto
    return found + _guided_ranges(begin, total, step, matrix, entry)


def share_bounds(workers: int, shares: tuple[float, ...], total: int) -> list[int]:
    """Where the part of `total` of each of so many workers ends, by their shares, equal ones if they have none."""
    return _share_bounds(shares or (1.0,) * workers, total)


@lru_cache(maxsize=4096)
def _share_bounds(shares: tuple[float, ...], total: int) -> list[int]:
    given = np.array(shares)
    bounds: list[int] = np.rint(np.cumsum(given) / given.sum() * total).astype(int).tolist()
    return bounds


LAST_DRAWN, LAST_PARTS, LAST_ROWS = 2, 8, 24
"""The last ranges that workers of different speed draw, so many each, are divided by rows into at most so many parts of
so many: one panel may be long for the slowest."""


def _linear(operator: Linear, entry: OperatorPlan) -> list[Tile]:
    numbers = format_of_kernel(entry.kernel)
    if entry.kernel == numbers.gemv:
        if operator.m != 1:
            at = f"operators[{entry.site}].kernel"
            raise PlanError(f"{at} is {entry.kernel!r} for {operator.m} rows; accepted: {numbers.gemm!r}")
        return [Tile(TaskKind.GEMV, (0, 1, b, e, 0, 0), worker=who) for b, e, who in _column_ranges(operator, entry)]
    if entry.kernel != numbers.gemm:
        raise PlanError(
            f"operators[{entry.site}].kernel is {entry.kernel!r}; accepted: {numbers.gemm}, {numbers.gemv}"
        )
    mr = lhs_layout(entry.lhs_layout).mr
    strips = -(-operator.m // mr)
    strip_step = max(1, -(-entry.tile.m // mr))
    if entry.partition == "rows":
        panels, panel_step = -(-operator.n // NR), max(1, entry.tile.n // NR)
        return [
            Tile(TaskKind.GEMM, (begin, end, *columns, 0, 0), worker=who)
            for begin, end, who in _divided(strips, strip_step, entry)
            for columns in ranges(panels, panel_step)
        ]
    # Columns outside: the tiles that share a weight panel follow one another, so that it is still in a cache.
    row_ranges, columns = [*ranges(strips, strip_step)], _column_ranges(operator, entry)
    least = max(-(-LAST_ROWS // mr), -(-strip_step // LAST_PARTS))
    last_rows = [*ranges(strips, min(strip_step, least))] if entry.shares else row_ranges
    whole = len(columns) - LAST_DRAWN * len(entry.workers)
    return [
        Tile(TaskKind.GEMM, (first, last, begin, end, 0, 0), 0, 0, who)
        for i, (begin, end, who) in enumerate(columns)
        for first, last in (row_ranges if who is not None or i < whole else last_rows)
    ]


def _grouped_linear(operator: GroupedLinear, entry: OperatorPlan) -> list[Tile]:
    """All rows of an expert by some of its columns: every weight is read once."""
    experts, mr = experts_with_rows(operator), lhs_layout(entry.lhs_layout).mr
    panels = -(-operator.n // NR)
    tiles = []
    for begin, end, who in _column_ranges(operator, entry, experts):
        expert = begin // panels
        strips = -(-rows_of_expert(operator.m, experts, expert) // mr)
        columns = (begin - expert * panels, end - expert * panels)
        tiles.append(Tile(TaskKind.EXPERT_GEMM, (0, strips, *columns, expert, expert + 1), worker=who))
    return tiles


def _attention(operator: Attention, entry: OperatorPlan) -> list[Tile]:
    blocks = list(ranges(operator.tokens, entry.tile.m))
    # Later tokens see more keys: longest first leaves the short ones to even out the end.
    return [
        Tile(TaskKind.ATTENTION, (*tokens, *heads, sequence, sequence + 1))
        for tokens in reversed(blocks)
        for sequence in range(operator.batch)
        for heads in ranges(operator.kv_heads, entry.tile.n)
    ]


def _kv_append(operator: KvAppend, entry: OperatorPlan) -> list[Tile]:
    kind, tiles = TaskKind.KV_PACK if entry.packers else TaskKind.KV_APPEND, appended_tokens(operator, entry)
    return [
        Tile(kind, (*tokens, 0, 0, sequence, sequence + 1)) for sequence in range(operator.batch) for tokens in tiles
    ]


def appended_tokens(operator: KvAppend, entry: OperatorPlan) -> list[tuple[int, int]]:
    """The tokens of each sequence that a task appends: so many; with packers, as many tasks as there are of these, and
    cut between panels of keys."""
    if not entry.packers:
        return list(ranges(operator.tokens, entry.tile.m))
    parts = -(-len(entry.packers) // operator.batch)
    return list(_panels_of_positions(operator.past, operator.tokens, parts))


def _panels_of_positions(past: int, tokens: int, parts: int) -> Iterator[tuple[int, int]]:
    """The tokens behind `past` others in at most so many parts, each of all that fall into some panels."""
    first, last = past // NR, -(-(past + tokens) // NR)
    step = -(-(last - first) // parts)
    for panel in range(first, last, step):
        yield max(panel * NR - past, 0), min((panel + step) * NR - past, tokens)


def _by_rows(kind: TaskKind) -> Callable[[Any, OperatorPlan], list[Tile]]:
    def tiles(operator: Any, entry: OperatorPlan) -> list[Tile]:
        return [Tile(kind, (*rows, 0, 0, 0, 0)) for rows in ranges(operator.rows, entry.tile.m)]

    return tiles


PACKED_KINDS = {TaskKind.RMSNORM: TaskKind.RMSNORM_PACKED, TaskKind.SWIGLU: TaskKind.SWIGLU_PACKED}
"""Tasks that write their output as a packed left operand, by those that write it row major."""

STRIP_KINDS = (*PACKED_KINDS.values(), TaskKind.QUANTIZE)
"""Tasks that work row by row and count their rows in the strips of what they write."""


def _by_rows_or_strips(kind: TaskKind) -> Callable[[Any, OperatorPlan], list[Tile]]:
    """Tiles of what can write its output packed: then as many strips as come closest to the tile's rows."""

    def tiles(operator: Any, entry: OperatorPlan) -> list[Tile]:
        if entry.out_layout == ROW_MAJOR:
            return _by_rows(kind)(operator, entry)
        return _by_strips(PACKED_KINDS[kind], operator, entry)

    return tiles


def _by_strips(kind: TaskKind, operator: Any, entry: OperatorPlan) -> list[Tile]:
    strips = -(-operator.rows // lhs_layout(entry.out_layout).mr)
    step = -(-strips // -(-operator.rows // entry.tile.m))
    return [Tile(kind, (*strip, 0, 0, 0, 0)) for strip in ranges(strips, step)]


def _quantize(operator: Quantize, entry: OperatorPlan) -> list[Tile]:
    return _by_strips(TaskKind.QUANTIZE, operator, entry)


_TILES: dict[type[Operator], Callable[[Any, OperatorPlan], list[Tile]]] = {
    Embed: _by_rows(TaskKind.EMBED),
    RmsNorm: _by_rows_or_strips(TaskKind.RMSNORM),
    Linear: _linear,
    Rope: _by_rows(TaskKind.ROPE),
    KvAppend: _kv_append,
    Attention: _attention,
    Add: _by_rows(TaskKind.ADD),
    SwiGlu: _by_rows_or_strips(TaskKind.SWIGLU),
    Sample: _by_rows(TaskKind.ARGMAX),
    Router: _by_rows(TaskKind.ROUTER),
    GroupedLinear: _grouped_linear,
    ExpertCombine: _by_rows(TaskKind.EXPERT_COMBINE),
    Quantize: _quantize,
}


ROUTE_TILE = Tile(TaskKind.EXPERT_ROUTE, (0, 0, 0, 0, 0, 0))
"""The one task that says, from what a router has chosen, where the rows of each expert are."""


def operator_tiles(operator: Operator, entry: OperatorPlan) -> list[Tile]:
    """The tasks of an operator, in the order in which they are handed out."""
    return _TILES[type(operator)](operator, entry)


class Hands(NamedTuple):
    """Who does the tasks of a stage of an operator, and how they are handed out: as an entry of the plan says it."""

    workers: tuple[int, ...]
    assignment: Assignment
    shares: tuple[float, ...]


def hands_of(entry: OperatorPlan) -> Hands:
    """Those who do an operator."""
    return Hands(entry.workers, entry.assignment, entry.shares)


def packing_hands(entry: OperatorPlan) -> Hands:
    """Those who pack for an operator. Their parts are equal: shares are of the product's columns, and may be very
    different."""
    return Hands(entry.packers or entry.workers, "shared" if entry.assignment == "shared" else "static", ())


def pack_tiles(operator: Operator, entry: OperatorPlan) -> list[Tile]:
    """The tasks that pack the left operand of a GEMM, cut by rows, or by experts, over those who pack it."""
    packers = len(entry.packers or entry.workers)
    if isinstance(operator, GroupedLinear):
        experts = experts_with_rows(operator)
        step = -(-experts // packers)
        first = [first_row_of_expert(operator.m, experts, i) for i in range(experts + 1)]
        return [Tile(TaskKind.EXPERT_PACK, (first[b], first[e], 0, 0, b, e)) for b, e in ranges(experts, step)]
    strips = -(-operator.activation_rows // lhs_layout(entry.lhs_layout).mr)
    step = -(-strips // packers)
    return [Tile(TaskKind.PACK_LHS, (*rows, 0, 0, 0, 0)) for rows in ranges(strips, step)]


def kv_capacity(positions: int) -> int:
    """Positions that a KV cache is laid out for: whole panels."""
    return -(-positions // NR) * NR
