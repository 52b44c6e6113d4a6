"""What attention in stages and in parts costs: `costing` for the tasks of `plan.pipeline`.

A stage's arithmetic is its share of fused attention's. What comes on top is the way through the ring: scores are
written and read in the nearest level that holds all rings, and those that another worker wrote have to be fetched
from its cache.
"""

from __future__ import annotations

from smesim.hwmodel.attention_blocks import BlockShape
from smesim.hwmodel.cost import CoreCosts, TaskCost, Transfer
from smesim.hwmodel.unit_cost import UnitCosts
from smesim.plan.program import TaskKind, TaskRow
from smesim.plan.reuse import F32_BYTES, cache_number_bytes
from smesim.sim.facts import Facts
from smesim.sim.places import Places

KERNEL = "attention_f32"
STAGE_KERNELS = {
    TaskKind.ATTENTION_QK: "attention_qk_f32", TaskKind.ATTENTION_SOFTMAX: "attention_softmax_f32",
    TaskKind.ATTENTION_PV: "attention_pv_f32",
}  # fmt: skip
STAGED_KINDS = frozenset(
    {
        TaskKind.ATTENTION_QK, TaskKind.ATTENTION_SOFTMAX, TaskKind.ATTENTION_PV, TaskKind.ATTENTION_PART,
        TaskKind.ATTENTION_COMBINE,
    }
)  # fmt: skip


class AttentionCosting:
    """Costs of the staged attention tasks of one program."""

    def __init__(self, facts: Facts, places: Places) -> None:
        self._ops = facts.rows.op_rows
        self._places = places
        self._foreign = facts.foreign

    def cost(self, row: TaskRow, cluster: str, costs: CoreCosts, unit: UnitCosts | None = None) -> TaskCost:
        """Seconds and bytes of one task, a row of the program's `tasks`; `unit` is what its worker drives."""
        kind = TaskKind(row.kind)
        if kind is TaskKind.ATTENTION_COMBINE:
            return self._combine(row, cluster, costs)
        op = self._ops[row.op]
        group = op.heads // op.kv_heads
        past, head_dim, tokens = op.past, op.head_dim, op.tokens
        if kind is TaskKind.ATTENTION_PART:
            block = BlockShape(0, tokens, past, group, head_dim, row.begin0, row.end0)
            return self._part(row, block, cluster, costs)
        begin, end, key_begin, key_end = row.begin0, row.end0, row.begin1, row.end1
        block = BlockShape(begin, end, past, group, head_dim, key_begin, key_end)
        return self._stage(kind, row, block, cluster, costs, unit)

    def _stage(
        self, kind: TaskKind, row: TaskRow, block: BlockShape, cluster: str, costs: CoreCosts, unit: UnitCosts | None
    ) -> TaskCost:
        index = row.op
        ring = self._places.slot_level(cluster, index, "handover")
        score_bytes = float(F32_BYTES * block.rows * (block.key_end - block.key_begin))
        query_bytes = float(F32_BYTES * block.rows * block.head_dim)
        foreign = float(self._foreign[kind][index]) if kind in self._foreign else 0.0
        foreign_s = costs.handed_over_s(foreign * score_bytes, STAGE_KERNELS[kind])
        if kind is TaskKind.ATTENTION_SOFTMAX:
            return TaskCost(costs.softmax_s(block) + foreign_s, 0.0, (Transfer(ring, 2 * score_bytes),))
        is_last = block.end == self._ops[row.op].tokens
        near, old = self._key_levels(row, block.past, block.end, cluster, is_last)
        per_key = cache_number_bytes(self._ops[row.op]) * block.head_dim
        old_keys = max(0, min(block.past, block.key_end) - block.key_begin)
        transfers = [
            Transfer(ring, score_bytes),
            Transfer(old, per_key * old_keys),
            Transfer(near, per_key * (block.key_end - block.key_begin - old_keys)),
        ]
        is_qk = kind is TaskKind.ATTENTION_QK
        if is_qk and block.is_first:
            transfers.append(Transfer(self._places.slot_level(cluster, index, "input0"), query_bytes))
        if not is_qk and block.is_last:
            level = self._places.slot_level(cluster, index, "output0")
            transfers.append(Transfer(level, self._places.write_factor * query_bytes))
        if unit is not None:
            work = unit.stage(block, is_qk)
            again = max(0.0, work.operand_bytes - sum(transfer.n_bytes for transfer in transfers))
            moved = _moved([*transfers, Transfer(unit.nearest, again)])
            return TaskCost(work.unit_s, work.core_s, moved, on_unit=True)
        compute_s = costs.qk_s(block) if is_qk else costs.pv_s(block)
        serial_s = compute_s * self._waiting_share(costs, cluster, old, old_keys)
        return TaskCost(compute_s - serial_s + foreign_s, serial_s, _moved(transfers))

    def _part(self, row: TaskRow, block: BlockShape, cluster: str, costs: CoreCosts) -> TaskCost:
        index = row.op
        units = (row.end1 - row.begin1) * (row.end2 - row.begin2)
        compute_s = units * costs.part_s(block)
        near, old = self._key_levels(row, block.past, block.end, cluster, True)
        old_keys = max(0, min(block.past, block.key_end) - block.key_begin)
        per_key = 2.0 * cache_number_bytes(self._ops[index]) * block.head_dim * units
        gathered = float(F32_BYTES * units * block.rows * (block.head_dim + 2))
        transfers = [
            Transfer(old, per_key * old_keys),
            Transfer(near, per_key * (block.key_end - block.key_begin - old_keys)),
            Transfer(self._places.slot_level(cluster, index, "input0"), gathered),
            Transfer(self._places.slot_level(cluster, index, "handover"), gathered),
        ]
        serial_s = compute_s * self._waiting_share(costs, cluster, old, old_keys)
        return TaskCost(compute_s - serial_s, serial_s, _moved(transfers))

    def _combine(self, row: TaskRow, cluster: str, costs: CoreCosts) -> TaskCost:
        op, index = self._ops[row.op], row.op
        units = (row.end1 - row.begin1) * (row.end2 - row.begin2)
        rows = units * op.tokens * op.heads // op.kv_heads
        elements = rows * op.head_dim
        read_bytes = float(F32_BYTES * row.end0 * (elements + 2 * rows))
        compute_s = costs.combine_s(rows, row.end0 * elements)
        compute_s += costs.handed_over_s(self._foreign[TaskKind.ATTENTION_COMBINE][index] * read_bytes)
        written = self._places.write_factor * F32_BYTES * elements
        transfers = [
            Transfer(self._places.slot_level(cluster, index, "handover"), read_bytes),
            Transfer(self._places.slot_level(cluster, index, "output0"), written),
        ]
        return TaskCost(compute_s, 0.0, _moved(transfers))

    def _waiting_share(self, costs: CoreCosts, cluster: str, old: str, old_keys: int) -> float:
        """The share of the arithmetic that waits for old keys and values, if there are any and they are not near."""
        return costs.serial_share(KERNEL, old) if old_keys and self._places.is_far(cluster, old) else 0.0

    def _key_levels(self, row: TaskRow, past: int, end: int, cluster: str, first: bool) -> tuple[str, str]:
        """Where new keys and values are, and old ones: these were last read a whole pass ago, and the first tasks in
        line, those of the last tokens, bring them in."""
        op = self._ops[row.op]
        near = self._places.level(cluster, 4.0 * cache_number_bytes(op) * op.head_dim * (past + end))
        return near, self._places.old_keys_level(cluster, op) if first else near


def _moved(transfers: list[Transfer]) -> tuple[Transfer, ...]:
    return tuple(transfer for transfer in transfers if transfer.n_bytes > 0)
