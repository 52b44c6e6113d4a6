"""What the tasks of a worker that drives a matrix unit cost: products and attention on the unit, the rest on its core.

A unit draws first-time operands from where they lie, as a core would, and all that its steps load again from the
nearest cache that it has a port to.
"""

from __future__ import annotations

from smesim.hwmodel.cost import AttentionShape, TaskCost, Transfer
from smesim.hwmodel.unit_cost import UnitCosts, UnitWork
from smesim.plan.formats import format_of_number
from smesim.plan.program import Number, OpRow, TaskKind, TaskRow
from smesim.plan.reuse import F32_BYTES, appended, cache_number_bytes
from smesim.plan.tiles import NR, rows_of_expert
from smesim.sim.places import Places

UNIT_TASKS = (
    TaskKind.GEMM, TaskKind.EXPERT_GEMM, TaskKind.GEMV, TaskKind.ATTENTION, TaskKind.PACK_LHS, TaskKind.KV_PACK,
)  # fmt: skip
"""Tasks that `UnitCosting` may have a cost for."""


class UnitCosting:
    """Costs of tasks on one unit. `cost` gives None for a task that its driver's core does better."""

    def __init__(self, costs: UnitCosts, places: Places, cluster: str) -> None:
        self.costs = costs
        self._places = places
        self._cluster = cluster

    def cost(self, row: TaskRow, op: OpRow) -> TaskCost | None:
        match row.kind:
            case TaskKind.EXPERT_GEMM if _expert_rows(row, op) == 1:  # multiplied with as a vector
                return self._gemv(row, op)
            case TaskKind.GEMM | TaskKind.EXPERT_GEMM:
                return self._gemm(row, op)
            case TaskKind.GEMV:
                return self._gemv(row, op)
            case TaskKind.ATTENTION:
                return self._attention(row, op)
            case TaskKind.PACK_LHS:
                return self._pack(row, op)
            case TaskKind.KV_PACK:
                return self._append(row, op)
        return None

    def _slot(self, row: TaskRow, slot: str) -> str:
        return self._places.slot_level(self._cluster, row.op, slot)

    def _gemv(self, row: TaskRow, op: OpRow) -> TaskCost | None:
        numbers = format_of_number(op.rhs_dtype)
        if not self.costs.multiplies_vectors(numbers.name):
            return None
        columns = min(row.end1 * NR, op.n) - row.begin1 * NR
        weights = Transfer(self._slot(row, "weight"), float(columns * op.k * numbers.number.n_bytes))
        return _task(self.costs.gemv(columns, op.k, numbers.name), self.costs.nearest, weights)

    def _gemm(self, row: TaskRow, op: OpRow) -> TaskCost | None:
        numbers = format_of_number(op.rhs_dtype)
        if not self.costs.multiplies(numbers.name):
            return None
        m, k, mr = op.m, op.k, op.lhs_mr
        if row.kind == TaskKind.EXPERT_GEMM:
            m = _expert_rows(row, op)
        begin, end, count = row.begin0, row.end0, -(-m // mr)
        rows = end * m // count - begin * m // count
        columns = (row.end1 - row.begin1) * NR
        weight_bytes, lhs_bytes = float(columns * k * numbers.number.n_bytes), float(numbers.lhs_bytes(rows, k))
        first = begin == 0  # the tile of the first rows brings the weights in
        near = self._places.level(self._cluster, 2 * weight_bytes + lhs_bytes)
        return _task(
            self.costs.gemm(m, mr, (begin, end), columns, k, numbers.name),
            self.costs.nearest,
            Transfer(self._slot(row, "weight") if first else near, weight_bytes),
            Transfer(self._slot(row, "packed"), lhs_bytes),
            Transfer(self._slot(row, "output0"), float(rows * columns * F32_BYTES)),
        )

    def _pack(self, row: TaskRow, op: OpRow) -> TaskCost | None:
        if not self.costs.packs(format_of_number(op.rhs_dtype).name):
            return None
        m, count = op.m, -(-op.m // op.lhs_mr)
        rows = row.end0 * m // count - row.begin0 * m // count
        n_bytes = float(rows * op.k * F32_BYTES)
        written = Transfer(self._slot(row, "packed"), self._places.write_factor * n_bytes)
        work = self.costs.pack(rows * op.k)
        return _task(work, self.costs.nearest, Transfer(self._slot(row, "input0"), n_bytes), written)

    def _append(self, row: TaskRow, op: OpRow) -> TaskCost | None:
        number = Number(op.rhs_dtype)
        if not self.costs.appends(number.name.lower()):
            return None
        sequences, width = row.end2 - row.begin2, op.kv_heads * op.head_dim
        first, last = op.past + row.begin0, op.past + row.end0
        operands = appended(first, last, sequences, width, number.n_bytes)
        factors = [self._places.write_factor if operand.is_write else 1.0 for operand in operands]
        moved = (
            Transfer(self._slot(row, operand.slot), factor * operand.n_bytes)
            for operand, factor in zip(operands, factors, strict=True)
        )
        return _task(self.costs.append(first, last, sequences, width), self.costs.nearest, *moved)

    def _attention(self, row: TaskRow, op: OpRow) -> TaskCost:
        begin, end, past, head_dim = row.begin0, row.end0, op.past, op.head_dim
        units = (row.end1 - row.begin1) * (row.end2 - row.begin2)
        group = op.heads // op.kv_heads
        work = self.costs.attention(AttentionShape(begin, end, past, group, head_dim))
        per_key = 2.0 * head_dim * cache_number_bytes(op) * units
        near = self._places.level(self._cluster, 2 * per_key * (past + end))
        old = self._places.old_keys_level(self._cluster, op) if end == op.tokens else near
        query_bytes = float((end - begin) * group * units * head_dim * F32_BYTES)
        return _task(
            UnitWork(work.unit_s * units, work.core_s * units, work.operand_bytes * units),
            self.costs.nearest,
            Transfer(old, per_key * past),
            Transfer(near, per_key * end),
            Transfer(self._slot(row, "input0"), query_bytes),
            Transfer(self._slot(row, "output0"), query_bytes),
        )


def _expert_rows(row: TaskRow, op: OpRow) -> int:
    return rows_of_expert(op.m, op.experts, row.begin2)


def _task(work: UnitWork, nearest: str, *first_touch: Transfer) -> TaskCost:
    """What is touched for the first time comes from where it lies; what the steps load beyond that from `nearest`."""
    again = max(0.0, work.operand_bytes - sum(t.n_bytes for t in first_touch))
    transfers = (*first_touch, Transfer(nearest, again))
    return TaskCost(work.unit_s, work.core_s, tuple(t for t in transfers if t.n_bytes > 0), on_unit=True)
