"""What each task of a program costs on its worker: the program's facts turned into questions to `hwmodel.cost`.

Where bytes are found `places` says; what a matrix unit and attention in stages cost, `costing_unit` and
`costing_attention`.
"""

from __future__ import annotations

from collections.abc import Collection

from smesim.errors import ProgramError
from smesim.hwmodel.chip import DRAM, Chip
from smesim.hwmodel.cost import AttentionShape, CoreCosts, TaskCost, Transfer
from smesim.plan.formats import format_of_number
from smesim.plan.program import OpRow, Program, TaskKind, TaskRow
from smesim.plan.reuse import (
    F32_BYTES,
    ROW_KERNELS,
    cache_number_bytes,
    row_kernel,
    row_operands,
    rows_of,
    shared_bytes,
)
from smesim.plan.tiles import NR, rows_of_expert
from smesim.sim.costing_attention import STAGED_KINDS, AttentionCosting
from smesim.sim.costing_unit import UNIT_TASKS, UnitCosting
from smesim.sim.crew import Crew, crew_of, places_in
from smesim.sim.facts import Facts, facts_of
from smesim.sim.places import Places

UNIT_KINDS = frozenset({*STAGED_KINDS, *UNIT_TASKS})
"""Tasks that a unit may do in its driver's place."""

class Costing:
    """Costs of the tasks of one program on one chip, with the given effects on.

    >>> costing = Costing.of(chip, program, effects)
    >>> costing.cost(task=17, worker=0)
    TaskCost(compute_s=0.00031, serial_s=0.0, transfers=(Transfer(level='DRAM', n_bytes=3145728.0), ...))

    Equal tasks on equal cores are costed once.
    """

    def __init__(self, chip: Chip, facts: Facts, crew: Crew, effects: Collection[str]) -> None:
        self._rows, self._ops = facts.rows, facts.rows.op_rows
        self._crew = crew
        self._places = Places(chip, facts, effects)
        self._staged = AttentionCosting(facts, self._places)
        self._memo: dict[tuple[object, ...], TaskCost] = {}
        self._op_keys = facts.op_keys

    @classmethod
    def of(cls, chip: Chip, program: Program, effects: Collection[str]) -> Costing:
        """The costs of a program's tasks on a chip, with the given effects on."""
        return cls(chip, facts_of(program), crew_of(chip, places_in(program), frozenset(effects)), effects)

    def cost(self, task: int, worker: int) -> TaskCost:
        """Seconds and bytes of one task if `worker` runs it."""
        row = self._rows.task_row(task)
        core, unit = self._crew.alike[worker]
        key = (core, unit if row.kind in UNIT_KINDS else -1, self._op_keys[row.op], row.kind, row[3:9])
        if key not in self._memo:
            self._memo[key] = self._cost_of(row, worker)
        return self._memo[key]

    def cost_once(self, task: int, worker: int) -> TaskCost:
        """The same for who does not ask for equal tasks twice."""
        return self._cost_of(self._rows.task_row(task), worker)

    def _cost_of(self, row: TaskRow, worker: int) -> TaskCost:
        op, unit = self._ops[row.op], self._crew.unit_costs[worker]
        cluster, costs = self._crew.clusters[worker].name, self._crew.costs[self._crew.alike[worker][0]]
        if unit is not None and row.kind in STAGED_KINDS:
            return self._staged.cost(row, cluster, costs, unit)
        on_unit = None if unit is None else UnitCosting(unit, self._places, cluster).cost(row, op)
        return on_unit or self._cost(row, op, cluster, costs)

    def _cost(self, row: TaskRow, op: OpRow, cluster: str, costs: CoreCosts) -> TaskCost:
        kind = row.kind
        match kind:
            case TaskKind.GEMM | TaskKind.EXPERT_GEMM:
                # An expert with one row is multiplied with as a vector.
                is_gemv = kind == TaskKind.EXPERT_GEMM and self._expert_rows(row, op) == 1
                return (self._gemv if is_gemv else self._gemm)(row, op, cluster, costs)
            case TaskKind.GEMV:
                return self._gemv(row, op, cluster, costs)
            case TaskKind.ATTENTION:
                return self._attention(row, op, cluster, costs)
            case _ if kind in STAGED_KINDS:
                return self._staged.cost(row, cluster, costs)
            case TaskKind.ROUTER:
                return self._router(row, op, cluster, costs)
            case TaskKind.EXPERT_ROUTE:
                table_bytes = float(self._rows.buffer_row(op.input2)[0])
                level = self._places.level(cluster, table_bytes)
                return TaskCost(0.0, 0.0, (Transfer(level, table_bytes),))
            case _ if kind in ROW_KERNELS:
                return self._by_rows(row, op, cluster, costs)
        named, known = TaskKind(kind).name, ", ".join(k.name for k in TaskKind)
        raise ProgramError(f"no cost is known for {named} tasks; known are {known}")

    @staticmethod
    def _expert_rows(row: TaskRow, op: OpRow) -> int:
        return rows_of_expert(op.m, op.experts, row.begin2)

    def _router(self, row: TaskRow, op: OpRow, cluster: str, costs: CoreCosts) -> TaskCost:
        rows, panels, k = row.end0 - row.begin0, -(-op.n // NR), op.k
        weight_bytes, row_bytes = float(panels * NR * k * F32_BYTES), float(rows * k * F32_BYTES)
        weights = self._places.slot_level(cluster, row.op, "weight")
        if row.begin0:  # the tasks of other rows find them in a cache
            weights = self._places.level(cluster, weight_bytes)
        lhs = Transfer(self._places.slot_level(cluster, row.op, "input0"), row_bytes)
        compute_s = costs.router_s(rows, op.n, k, is_gemv=bool(op.m == 1))
        return TaskCost(compute_s, 0.0, (Transfer(weights, weight_bytes), lhs))

    def _gemm(self, row: TaskRow, op: OpRow, cluster: str, costs: CoreCosts) -> TaskCost:
        index, m, k, mr = row.op, op.m, op.k, op.lhs_mr
        if row.kind == TaskKind.EXPERT_GEMM:
            m = self._expert_rows(row, op)
        strips = (row.begin0, row.end0)
        panels = row.end1 - row.begin1
        count = -(-m // mr)
        rows = strips[1] * m // count - strips[0] * m // count
        numbers = format_of_number(op.rhs_dtype)
        weight_bytes = float(numbers.rhs_bytes(panels * NR, k))
        lhs_bytes, out_bytes = float(numbers.lhs_bytes(rows, k)), float(rows * panels * NR * F32_BYTES)
        # The tile of the first rows brings the weights in; the tiles of the other rows find them in a cache.
        if strips[0] == 0:
            weights = Transfer(self._places.slot_level(cluster, index, "weight"), weight_bytes)
        else:
            weights = Transfer(self._places.level(cluster, 2 * weight_bytes + lhs_bytes), weight_bytes)
        lhs = Transfer(self._places.slot_level(cluster, index, "packed"), lhs_bytes)
        out_level = self._places.slot_level(cluster, index, "output0")
        compute_s = costs.gemm_s(m, mr, strips, panels, k, numbers.name)
        if weights.level == DRAM:
            compute_s += costs.exposed_s(numbers.gemm, weight_bytes)
            compute_s = max(compute_s, costs.streamed_s(weight_bytes, numbers.name))
        return TaskCost(compute_s, 0.0, (weights, lhs, Transfer(out_level, self._places.write_factor * out_bytes)))

    def _gemv(self, row: TaskRow, op: OpRow, cluster: str, costs: CoreCosts) -> TaskCost:
        panels = row.end1 - row.begin1
        numbers = format_of_number(op.rhs_dtype)
        weight_bytes = float(numbers.rhs_bytes(panels * NR, op.k))
        level = self._places.slot_level(cluster, row.op, "weight")
        compute_s = costs.gemv_s(panels, op.k, numbers.name)
        if level != DRAM:
            return TaskCost(compute_s, 0.0, (Transfer(level, weight_bytes),))
        serial_s = compute_s * costs.serial_share(numbers.gemv)
        beside_s = max(compute_s - serial_s, costs.lone_streams_s(panels, weight_bytes, numbers.name))
        return TaskCost(beside_s, serial_s, (Transfer(level, weight_bytes),))

    def _attention(self, row: TaskRow, op: OpRow, cluster: str, costs: CoreCosts) -> TaskCost:
        index = row.op
        begin, end, past, head_dim = row.begin0, row.end0, op.past, op.head_dim
        units = (row.end1 - row.begin1) * (row.end2 - row.begin2)
        group = op.heads // op.kv_heads
        rows = (end - begin) * group * units
        compute_s = units * costs.attention_s(AttentionShape(begin, end, past, group, head_dim))
        per_key = 2.0 * head_dim * cache_number_bytes(op) * units
        # Old keys were last read a whole pass ago; the first tasks in line (those of the last tokens) bring them in.
        near = self._places.level(cluster, 2 * per_key * (past + end))
        first = end == op.tokens
        old = self._places.old_keys_level(cluster, op) if first else near
        query_bytes = rows * head_dim * F32_BYTES
        query = self._places.slot_level(cluster, index, "input0")
        out = self._places.slot_level(cluster, index, "output0")
        transfers = (
            Transfer(old, per_key * past),
            Transfer(near, per_key * end),
            Transfer(query, query_bytes),
            Transfer(out, self._places.write_factor * query_bytes),
        )
        waits = past and self._places.is_far(cluster, old)
        serial_s = compute_s * costs.serial_share("attention_f32", old) if waits else 0.0
        return TaskCost(compute_s - serial_s, serial_s, tuple(t for t in transfers if t.n_bytes > 0))

    def _by_rows(self, row: TaskRow, op: OpRow, cluster: str, costs: CoreCosts) -> TaskCost:
        """A task that streams rows: each operand from where it is; what comes from DRAM is partly waited for."""
        operands = row_operands(self._rows, row)
        rows = rows_of(row, op)
        elements = sum(o.n_bytes for o in operands) / len(operands) / F32_BYTES
        transfers = []
        streamed_bytes = 0.0
        for operand in operands:
            level = self._places.slot_level(cluster, row.op, operand.slot)
            n_bytes = operand.n_bytes * (self._places.write_factor if operand.is_write else 1.0)
            streamed_bytes += n_bytes if level == DRAM else 0.0
            transfers.append(Transfer(level, n_bytes))
        kernel = row_kernel(row.kind, op.rhs_dtype)
        compute_s = costs.elementwise_s(kernel, rows, elements) + costs.exposed_s(kernel, streamed_bytes)
        compute_s += costs.shared_s(kernel, shared_bytes(operands, self._crew.busy[cluster]))
        return TaskCost(compute_s, 0.0, tuple(transfers))
