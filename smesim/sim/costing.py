"""What each task of a program costs on its worker: the program's facts turned into questions to `hwmodel.cost`.

Where bytes are found `places` says; what a matrix unit and attention in stages cost, `costing_unit` and
`costing_attention`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np

from smesim.errors import ProgramError
from smesim.hwmodel.chip import DRAM, Chip, Cluster
from smesim.hwmodel.cost import AttentionShape, CoreCosts, TaskCost, Transfer
from smesim.hwmodel.stand_in import computing_core
from smesim.hwmodel.unit_cost import UnitCosts
from smesim.plan.formats import format_of_number
from smesim.plan.lower import CPU_ROLE
from smesim.plan.program import NO_BUFFER, SLOTS, Program, TaskKind
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
from smesim.sim.costing_unit import UnitCosting
from smesim.sim.places import Places


class Costing:
    """Costs of the tasks of one program on one chip, with the given effects on.

    >>> costing = Costing(chip, program, effects)
    >>> costing.cost(task=17, worker=0)
    TaskCost(compute_s=0.00031, serial_s=0.0, transfers=(Transfer(level='DRAM', n_bytes=3145728.0), ...))

    Equal tasks on equal cores are costed once.
    """

    def __init__(self, chip: Chip, program: Program, effects: Collection[str]) -> None:
        self._chip = chip
        self._program = program
        self._instances = [chip.instance_of(int(worker["core"])) for worker in program.workers]
        busy = self._busy = Counter(instance.name for instance in self._instances)
        cores = [_computing_core(chip, worker) for worker in program.workers]
        self._core_names = [name for name, _ in cores]
        self._costs = {
            name: CoreCosts(cluster, effects, busy[instance.name])
            for (name, cluster), instance in zip(cores, self._instances, strict=True)
        }
        self._places = Places(chip, program, self._instances, effects)
        self._staged = AttentionCosting(program, self._places)
        self._memo: dict[tuple[object, ...], TaskCost] = {}
        self._op_keys = self._shape_keys()
        self._units = [self._unit_costing(worker, effects) for worker in program.workers]

    def _unit_costing(self, worker: np.void, effects: Collection[str]) -> UnitCosting | None:
        """For a worker that drives a matrix unit, no stand-in; every unit has its own entry, so equal units are costed
        alike."""
        if worker["role"] == CPU_ROLE:
            return None
        cluster = self._chip.instance_of(int(worker["core"])).name
        unit = self._chip.unit_instances[int(worker["unit"])]
        if unit.unit.is_stand_in:
            return None
        if "f32" not in unit.unit.flop_per_s:
            raise ProgramError(f"a worker drives {unit.name}, which has no rate for f32; accepted: a unit that has one")
        costs = UnitCosts(self._chip, unit, self._costs[cluster], effects)
        return UnitCosting(costs, self._program, self._places, cluster)

    def cost(self, task: int, worker: int) -> TaskCost:
        """Seconds and bytes of one task if `worker` runs it."""
        row = self._program.tasks[task]
        cluster, core = self._instances[worker].name, self._core_names[worker]
        unit = -1 if self._units[worker] is None else int(self._program.workers["unit"][worker])
        key = (core, unit, self._op_keys[row["op"]], *row.item()[1:2], *row.item()[3:9])
        if key not in self._memo:
            op, costing = self._program.ops[row["op"]], self._units[worker]
            on_unit = None if costing is None else costing.cost(row, op)
            if costing is not None and TaskKind(row["kind"]) in STAGED_KINDS:
                on_unit = self._staged.cost(row, cluster, self._costs[core], costing.costs)
            self._memo[key] = on_unit or self._cost(task, row, op, cluster, self._costs[core])
        return self._memo[key]

    def _shape_keys(self) -> list[bytes]:
        """For each operator what its costs depend on: its shape and the sizes of its buffers, not which they are."""
        ops = self._program.ops.copy()
        ops["layer"] = 0
        sizes = self._places.touched_bytes
        keys = [b""] * len(ops)
        for name in SLOTS:
            chosen = np.where(ops[name] == NO_BUFFER, 0, sizes[ops[name]])
            keys = [key + size.tobytes() for key, size in zip(keys, chosen, strict=True)]
            ops[name] = 0
        distances = np.stack([self._places.distances[slot] for slot in SLOTS], axis=1)
        foreign = np.stack(list(self._staged.foreign.values()), axis=1)
        shapes = (repr(op).encode() for op in ops.tolist())
        rest = zip(keys, shapes, distances, foreign, strict=True)
        return [key + shape + far.tobytes() + shares.tobytes() for key, shape, far, shares in rest]

    def _cost(self, task: int, row: np.void, op: np.void, cluster: str, costs: CoreCosts) -> TaskCost:
        kind = TaskKind(row["kind"])
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
                table_bytes = float(self._program.buffers["n_bytes"][op["input2"]])
                level = self._places.level(cluster, table_bytes)
                return TaskCost(0.0, 0.0, (Transfer(level, table_bytes),))
            case _ if kind in ROW_KERNELS:
                return self._by_rows(task, cluster, costs)
        raise ProgramError(f"no cost is known for {kind.name} tasks; known are {', '.join(k.name for k in TaskKind)}")

    @staticmethod
    def _expert_rows(row: np.void, op: np.void) -> int:
        return rows_of_expert(int(op["m"]), int(op["experts"]), int(row["begin2"]))

    def _router(self, row: np.void, op: np.void, cluster: str, costs: CoreCosts) -> TaskCost:
        rows, panels, k = int(row["end0"]) - int(row["begin0"]), -(-int(op["n"]) // NR), int(op["k"])
        weight_bytes, row_bytes = float(panels * NR * k * F32_BYTES), float(rows * k * F32_BYTES)
        weights = self._places.slot_level(cluster, int(row["op"]), "weight")
        if row["begin0"]:  # the tasks of other rows find them in a cache
            weights = self._places.level(cluster, weight_bytes)
        lhs = Transfer(self._places.slot_level(cluster, int(row["op"]), "input0"), row_bytes)
        compute_s = costs.router_s(rows, int(op["n"]), k, is_gemv=bool(op["m"] == 1))
        return TaskCost(compute_s, 0.0, (Transfer(weights, weight_bytes), lhs))

    def _gemm(self, row: np.void, op: np.void, cluster: str, costs: CoreCosts) -> TaskCost:
        index, m, k, mr = int(row["op"]), int(op["m"]), int(op["k"]), int(op["lhs_mr"])
        if row["kind"] == TaskKind.EXPERT_GEMM:
            m = self._expert_rows(row, op)
        strips = (int(row["begin0"]), int(row["end0"]))
        panels = int(row["end1"]) - int(row["begin1"])
        count = -(-m // mr)
        rows = strips[1] * m // count - strips[0] * m // count
        numbers = format_of_number(int(op["rhs_dtype"]))
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
        return TaskCost(compute_s, 0.0, (weights, lhs, Transfer(out_level, self._places.write_factor * out_bytes)))

    def _gemv(self, row: np.void, op: np.void, cluster: str, costs: CoreCosts) -> TaskCost:
        panels = int(row["end1"]) - int(row["begin1"])
        numbers = format_of_number(int(op["rhs_dtype"]))
        weight_bytes = float(numbers.rhs_bytes(panels * NR, int(op["k"])))
        level = self._places.slot_level(cluster, int(row["op"]), "weight")
        compute_s = costs.gemv_s(panels, int(op["k"]), numbers.name)
        return TaskCost(compute_s, 0.0, (Transfer(level, weight_bytes),))

    def _attention(self, row: np.void, op: np.void, cluster: str, costs: CoreCosts) -> TaskCost:
        index = int(row["op"])
        begin, end, past, head_dim = (int(v) for v in (row["begin0"], row["end0"], op["past"], op["head_dim"]))
        units = (int(row["end1"]) - int(row["begin1"])) * (int(row["end2"]) - int(row["begin2"]))
        group = int(op["heads"]) // int(op["kv_heads"])
        rows = (end - begin) * group * units
        compute_s = units * costs.attention_s(AttentionShape(begin, end, past, group, head_dim))
        per_key = 2.0 * head_dim * cache_number_bytes(op) * units
        # Old keys were last read a whole pass ago; the first tasks in line (those of the last tokens) bring them in.
        near = self._places.level(cluster, 2 * per_key * (past + end))
        first = end == int(op["tokens"])
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
        serial_s = compute_s * costs.serial_share("attention_f32") if old == DRAM and past else 0.0
        return TaskCost(compute_s - serial_s, serial_s, tuple(t for t in transfers if t.n_bytes > 0))

    def _by_rows(self, task: int, cluster: str, costs: CoreCosts) -> TaskCost:
        """A task that streams rows: each operand from where it is; what comes from DRAM is partly waited for."""
        row = self._program.tasks[task]
        operands = row_operands(self._program, task)
        rows = rows_of(self._program, task)
        elements = sum(o.n_bytes for o in operands) / len(operands) / F32_BYTES
        transfers = []
        streamed_bytes = 0.0
        for operand in operands:
            level = self._places.slot_level(cluster, int(row["op"]), operand.slot)
            n_bytes = operand.n_bytes * (self._places.write_factor if operand.is_write else 1.0)
            streamed_bytes += n_bytes if level == DRAM else 0.0
            transfers.append(Transfer(level, n_bytes))
        kernel = row_kernel(self._program, task)
        compute_s = costs.elementwise_s(kernel, rows, elements) + costs.exposed_s(kernel, streamed_bytes)
        compute_s += costs.shared_s(kernel, shared_bytes(operands, self._busy[cluster]))
        return TaskCost(compute_s, 0.0, tuple(transfers))


def _computing_core(chip: Chip, worker: np.void) -> tuple[str, Cluster]:
    unit = None if worker["role"] == CPU_ROLE else int(worker["unit"])
    return computing_core(chip, int(worker["core"]), unit)
