"""What each task of a program costs on its worker: the program's facts turned into questions to `hwmodel.cost`.

Where bytes are found follows from how much else is touched before they are touched again. Weights and old
keys and values are read once a pass, so they lie in the nearest level that holds all of them (a model: DRAM).
Activations were just written, so they lie in the nearest level that holds their tensor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np

from smesim.errors import ProgramError
from smesim.hwmodel.chip import DRAM, Chip
from smesim.hwmodel.cost import AttentionShape, CoreCosts, TaskCost, Transfer
from smesim.plan.program import NO_BUFFER, BufferRole, Program, TaskKind
from smesim.plan.tiles import NR, rows_of_expert

F32_BYTES = 4

_ELEMENTWISE = {
    TaskKind.EMBED: "embed_f32",
    TaskKind.RMSNORM: "rms_norm_f32",
    TaskKind.ROPE: "rope_f32",
    TaskKind.KV_APPEND: "kv_append_f32",
    TaskKind.ADD: "add_f32",
    TaskKind.SWIGLU: "swiglu_f32",
    TaskKind.ARGMAX: "argmax_f32",
    TaskKind.EXPERT_COMBINE: "expert_combine_f32",
    TaskKind.QUANTIZE: "quantize_f32",
}


class Costing:
    """Costs of the tasks of one program on one chip, with the given effects on.

    >>> costing = Costing(chip, program, effects)
    >>> costing.cost(task=17, worker=0)
    TaskCost(compute_s=0.00031, overhead_s=0.0, transfers=(Transfer(level='DRAM', n_bytes=3145728.0), ...))

    Equal tasks on equal cores are costed once.
    """

    def __init__(self, chip: Chip, program: Program, effects: Collection[str]) -> None:
        self._chip = chip
        self._program = program
        self._instances = [chip.instance_of(int(worker["core"])) for worker in program.workers]
        busy = Counter(instance.name for instance in self._instances)
        self._costs = {
            instance.name: CoreCosts(instance.cluster, effects, busy[instance.name])
            for instance in self._instances
        }
        self._levels = {
            instance.name: [
                (level, chip.cache(level, instance.cluster.name).size_bytes.value)
                for level in chip.levels(instance.cluster.name)
                if level != DRAM
            ]
            for instance in self._instances
        }
        buffers = program.buffers
        streamed = (buffers["role"] == BufferRole.WEIGHT) | (buffers["role"] == BufferRole.KV)
        self._pass_bytes = float(buffers["n_bytes"][streamed].sum())
        self._memo: dict[tuple[object, ...], TaskCost] = {}
        self._op_keys = self._shape_keys()

    def cost(self, task: int, worker: int) -> TaskCost:
        """Seconds and bytes of one task if `worker` runs it."""
        row = self._program.tasks[task]
        cluster = self._instances[worker].name
        key = (cluster, self._op_keys[row["op"]], *row.item()[1:2], *row.item()[3:9])
        if key not in self._memo:
            self._memo[key] = self._cost(row, self._program.ops[row["op"]], cluster)
        return self._memo[key]

    def _shape_keys(self) -> list[bytes]:
        """For each operator what its costs depend on: its shape and the sizes of its buffers, not which they are."""
        ops = self._program.ops.copy()
        ops["layer"] = 0
        sizes = self._program.buffers["n_bytes"]
        keys = [b""] * len(ops)
        for name in ("input0", "input1", "input2", "weight", "bias", "packed", "output0", "output1"):
            chosen = np.where(ops[name] == NO_BUFFER, 0, sizes[ops[name]])
            keys = [key + size.tobytes() for key, size in zip(keys, chosen, strict=True)]
            ops[name] = 0
        return [key + op.tobytes() for key, op in zip(keys, ops, strict=True)]

    def _level(self, cluster: str, footprint_bytes: float) -> str:
        for level, size_bytes in self._levels[cluster]:
            if footprint_bytes <= size_bytes:
                return level
        return DRAM

    def _buffer_bytes(self, buffer: int) -> float:
        return 0.0 if buffer == NO_BUFFER else float(self._program.buffers["n_bytes"][buffer])

    def _cost(self, task: np.void, op: np.void, cluster: str) -> TaskCost:
        kind = TaskKind(task["kind"])
        costs = self._costs[cluster]
        match kind:
            case TaskKind.GEMM | TaskKind.EXPERT_GEMM:
                return self._gemm(task, op, cluster, costs)
            case TaskKind.GEMV:
                return self._gemv(task, op, cluster, costs)
            case TaskKind.ATTENTION:
                return self._attention(task, op, cluster, costs)
            case TaskKind.PACK_LHS:
                rows = self._strip_rows(
                    int(op["m"]), int(op["lhs_mr"]), int(task["begin0"]), int(task["end0"])
                )
                elements = rows * int(op["k"])
                return self._move(cluster, costs.pack_s(elements), 2.0 * F32_BYTES * elements, op)
            case TaskKind.ROUTER:
                rows = int(task["end0"]) - int(task["begin0"])
                panels = -(-int(op["n"]) // NR)
                weights = Transfer(
                    self._level(cluster, self._pass_bytes), float(self._buffer_bytes(op["weight"]))
                )
                return TaskCost(rows * costs.gemv_s(panels, int(op["k"])), 0.0, (weights,))
            case _ if kind in _ELEMENTWISE:
                return self._elementwise(kind, task, op, cluster, costs)
        raise ProgramError(
            f"no cost is known for {kind.name} tasks; known are {', '.join(k.name for k in TaskKind)}"
        )

    def _move(self, cluster: str, compute_s: float, n_bytes: float, op: np.void) -> TaskCost:
        """A task that streams activations: they are found where the largest tensor it touches fits."""
        footprint = max(self._buffer_bytes(op[name]) for name in ("input0", "input1", "output0"))
        return TaskCost(compute_s, 0.0, (Transfer(self._level(cluster, footprint), n_bytes),))

    @staticmethod
    def _strip_rows(rows: int, mr: int, begin: int, end: int) -> int:
        strips = -(-rows // mr)
        return end * rows // strips - begin * rows // strips

    def _gemm(self, task: np.void, op: np.void, cluster: str, costs: CoreCosts) -> TaskCost:
        m, k, mr = int(op["m"]), int(op["k"]), int(op["lhs_mr"])
        if task["kind"] == TaskKind.EXPERT_GEMM:
            m = rows_of_expert(m, int(op["experts"]), int(task["begin2"]))
        strips = (int(task["begin0"]), int(task["end0"]))
        panels = int(task["end1"]) - int(task["begin1"])
        rows = self._strip_rows(m, mr, *strips)
        weight_bytes = float(panels * NR * k * F32_BYTES)
        # The tile of the first rows brings the weights in; the tiles of the other rows find them in a cache.
        footprint = self._pass_bytes if strips[0] == 0 else 2 * weight_bytes
        weights = Transfer(self._level(cluster, footprint), weight_bytes)
        lhs_bytes, out_bytes = float(rows * k * F32_BYTES), float(rows * panels * NR * F32_BYTES)
        lhs = Transfer(self._level(cluster, lhs_bytes), lhs_bytes)
        out = Transfer(self._level(cluster, self._buffer_bytes(op["output0"])), out_bytes)
        compute_s = costs.gemm_s(m, mr, strips, panels, k)
        if task["kind"] == TaskKind.EXPERT_GEMM:
            compute_s += costs.pack_s(rows * k)
        if weights.level == DRAM:
            compute_s += costs.exposed_s("gemm_f32", weight_bytes)
        return TaskCost(compute_s, 0.0, (weights, lhs, out))

    def _gemv(self, task: np.void, op: np.void, cluster: str, costs: CoreCosts) -> TaskCost:
        panels = int(task["end1"]) - int(task["begin1"])
        weights = Transfer(
            self._level(cluster, self._pass_bytes), float(panels * NR * int(op["k"]) * F32_BYTES)
        )
        return TaskCost(costs.gemv_s(panels, int(op["k"])), 0.0, (weights,))

    def _attention(self, task: np.void, op: np.void, cluster: str, costs: CoreCosts) -> TaskCost:
        begin, end, past, head_dim = (
            int(v) for v in (task["begin0"], task["end0"], op["past"], op["head_dim"])
        )
        kv_heads = int(task["end1"]) - int(task["begin1"])
        units = kv_heads * (int(task["end2"]) - int(task["begin2"]))
        group = int(op["heads"]) // int(op["kv_heads"])
        rows = (end - begin) * group * units
        compute_s = units * costs.attention_s(AttentionShape(begin, end, past, group, head_dim))
        per_key = 2.0 * head_dim * F32_BYTES * units
        # Old keys were last read a whole pass ago; the first tasks in line (those of the last tokens) bring them in.
        first = end == int(op["tokens"])
        old_level = self._level(cluster, self._pass_bytes if first else 2 * per_key * (past + end))
        new_level = self._level(cluster, 2 * self._buffer_bytes(op["input1"]))
        return TaskCost(
            compute_s,
            0.0,
            tuple(
                t
                for t in (
                    Transfer(old_level, per_key * past),
                    Transfer(new_level, per_key * end + 2.0 * rows * head_dim * F32_BYTES),
                )
                if t.n_bytes > 0
            ),
        )

    def _elementwise(
        self, kind: TaskKind, task: np.void, op: np.void, cluster: str, costs: CoreCosts
    ) -> TaskCost:
        rows, width, tensors = int(task["end0"]) - int(task["begin0"]), int(op["n"]), 2
        if kind is TaskKind.KV_APPEND:
            rows *= int(task["end2"]) - int(task["begin2"])
            width = 2 * int(op["kv_heads"]) * int(op["head_dim"])
        elif kind is TaskKind.EXPERT_COMBINE:
            tensors = 1 + int(op["experts_per_token"])
        elif kind in (TaskKind.ADD, TaskKind.SWIGLU):
            tensors = 3
        elif kind is TaskKind.ARGMAX:
            tensors = 1
        compute_s = costs.elementwise_s(_ELEMENTWISE[kind], rows, rows * width)
        return self._move(cluster, compute_s, float(tensors * F32_BYTES * rows * width), op)
