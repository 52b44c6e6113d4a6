"""Which tensors share a buffer, and how each buffer lies in memory.

Weights, KV caches and routings have a buffer each. Activations of different layers share one, found by the name without
its layer and the shape: an engine would reuse the memory, and what is in the caches depends on it. Rotary operators
work in place, so their output is their input's buffer.
"""

from __future__ import annotations

import math
import re

import numpy as np

from smesim.hwmodel.kept import kept_with
from smesim.plan.formats import product_format
from smesim.plan.layout import LhsLayout
from smesim.plan.program import BUFFER_DTYPE, BufferRole, BufferRow, Layout, Number
from smesim.plan.records import Array
from smesim.plan.tiles import NR, kv_capacity
from smesim.workload.dtypes import DType
from smesim.workload.graph import OperatorGraph, Role, TensorSpec
from smesim.workload.operators import Attention, GroupedLinear, KvAppend, Linear, Rope, Router

_NUMBERS = {
    DType.F32: Number.F32, DType.BF16: Number.BF16, DType.F16: Number.F16, DType.S8: Number.S8, DType.I32: Number.F32,
    DType.Q8_0: Number.Q8_0, DType.Q4_0: Number.Q4_0, DType.Q4_1: Number.Q4_1,
}  # fmt: skip

_LAYER_PREFIX = re.compile(r"^layers\.\d+\.")

_ROLES = {
    Role.WEIGHT: BufferRole.WEIGHT,
    Role.ACTIVATION: BufferRole.ACTIVATION,
    Role.KV: BufferRole.KV,
    Role.INDEX: BufferRole.INDEX,
}

# The embedding starts the stream of residuals that every layer reads and writes; it shares the layers' buffer.
_RESIDUAL_STREAM = "ffn_add.out"

ROPE_TABLES = ("rope.cos", "rope.sin")

ROUTING_COLUMNS = 3
"""What a routing table says of each row of an expert; see `native/runtime/experts.h`."""


def _caches_of(operator: KvAppend | Attention) -> tuple[str, ...]:
    """The tensors of keys and values that an operator writes or reads."""
    return operator.outputs if isinstance(operator, KvAppend) else operator.inputs[1:]


def is_routing(buffer_name: str) -> bool:
    """Whether a buffer holds which rows go to which experts. Like the tokens it is given to a run, not computed."""
    return buffer_name.endswith(".routing")


class _Tensors:
    """What follows from the graph alone: for each tensor the name of its buffer, and the buffer's row."""

    def __init__(self, graph: OperatorGraph) -> None:
        self._specs = graph.tensors
        self._in_place = {o.outputs[0]: o.inputs[0] for o in graph.operators if isinstance(o, Rope)}
        products = (o for o in graph.operators if isinstance(o, Linear | GroupedLinear | Router))
        self._packed_weights = {o.weights[0] for o in products}
        self._caches = {
            name: (layout, o.batch * o.kv_heads, kv_capacity(o.past + o.tokens), o.head_dim)
            for o in graph.operators
            if isinstance(o, KvAppend | Attention)
            for name, layout in zip(_caches_of(o), (Layout.K_PACKED, Layout.V_PACKED), strict=True)
        }
        self._names: dict[str, str] = {}
        self._rows: dict[str, BufferRow] = {}

    def name(self, tensor: str) -> str:
        """Of the buffer that holds a tensor; tensors of one name follow one another in it."""
        if tensor not in self._names:
            self._names[tensor] = self._name(self._in_place.get(tensor, tensor))
        return self._names[tensor]

    def row(self, tensor: str) -> BufferRow:
        """Of the buffer that a tensor is the first to need; of what is written in place that is what was read."""
        if tensor not in self._rows:
            first = self._in_place.get(tensor, tensor)
            self._rows[tensor] = self._row(first, self._specs[first])
        return self._rows[tensor]

    def _name(self, tensor: str) -> str:
        spec = self._specs[tensor]
        if spec.role is not Role.ACTIVATION:
            return tensor
        site = _RESIDUAL_STREAM if tensor == "embed.out" else _LAYER_PREFIX.sub("", tensor)
        return f"{site}[{'x'.join(str(s) for s in spec.shape)}]"

    def _row(self, tensor: str, spec: TensorSpec) -> BufferRow:
        role = _ROLES[spec.role]
        number = _NUMBERS[spec.dtype]
        if tensor in self._packed_weights:
            *experts, n, k = spec.shape
            copies = math.prod(experts)
            return (copies * product_format(spec.dtype).rhs_bytes(n, k), role, Layout.RHS_PACKED, n, k, number)
        if tensor in self._caches:
            layout, heads, capacity, head_dim = self._caches[tensor]
            # Panels of K are positions, which fill them; panels of V are elements of a head, which may not.
            columns = head_dim if layout is Layout.K_PACKED else -(-head_dim // NR) * NR
            return (spec.dtype.bytes_for(heads * capacity * columns), role, layout, capacity, head_dim, number)
        rows = math.prod(spec.shape[:-1])
        return (spec.bytes, role, Layout.ROW_MAJOR, rows, spec.shape[-1], number)


class BufferTable:
    """Buffers of a program, in the order in which they are first needed."""

    def __init__(self, graph: OperatorGraph) -> None:
        self._graph = graph
        self._tensors = kept_with(graph, "tensors", lambda: _Tensors(graph))
        self._index: dict[str, int] = {}
        self._names: list[str] = []
        self._rows: list[BufferRow] = []

    def of(self, tensor: str) -> int:
        """Index of the buffer that holds a tensor of the graph."""
        if tensor in ROPE_TABLES:
            return self._rope_table(tensor)
        name = self.name(tensor)
        if name not in self._index:
            self._add(name, self._tensors.row(tensor))
        return self._index[name]

    def packed(self, tensor: str, layout: LhsLayout) -> int:
        """Index of the buffer for an activation packed as a left operand. There need be none of it row major."""
        name = f"{self.name(tensor)}.{layout.name}"
        if name not in self._index:
            _, role, _, rows, columns, _ = self._tensors.row(tensor)
            self._add(name, _packed_row(role, layout, rows, columns))
        return self._index[name]

    def packed_by_expert(self, tensor: str, layout: LhsLayout, rows: int) -> int:
        """Index of the buffer for the rows of an activation as experts read them: packed, one expert after another."""
        name = f"{self.name(tensor)}.{layout.name}.by_expert"
        if name not in self._index:
            _, role, _, _, columns, _ = self._tensors.row(tensor)
            self._add(name, _packed_row(role, layout, rows, columns))
        return self._index[name]

    def routing(self, of_router: str) -> int:
        """The routing table of the layer that an output of a router, its experts or shares, is of."""
        name = of_router.rpartition("router.")[0] + "routing"
        if name not in self._index:
            rows = math.prod(self._graph.tensors[of_router].shape)
            starts = rows + 1 if self._graph.routed else 0  # of as many experts as there could be
            n_bytes = (rows * ROUTING_COLUMNS + starts) * DType.I32.bytes_for(1)
            self._add(name, (int(n_bytes), BufferRole.INDEX, Layout.ROW_MAJOR, ROUTING_COLUMNS, rows, Number.F32))
        return self._index[name]

    def name(self, tensor: str) -> str:
        """Of the buffer that holds a tensor; tensors of one name follow one another in it."""
        return self._tensors.name(tensor)

    def handover(self, site: str, places: int, elements: int) -> int:
        """The buffer for what the tasks of one operator hand to each other: so many places of f32 elements."""
        name = f"{site}.handover[{places}x{elements}]"
        if name not in self._index:
            n_bytes = int(places * elements * Number.F32.n_bytes)
            self._add(name, (n_bytes, BufferRole.ACTIVATION, Layout.ROW_MAJOR, places, elements, Number.F32))
        return self._index[name]

    def __len__(self) -> int:
        return len(self._names)

    def repeat(self, first: int, end: int, layer: int, again: int) -> bool:
        """Adds the buffers first .. end once more, those of one layer for another one; False, and nothing added, if one
        of them is not a layer's own."""
        prefix = f"layers.{layer}."
        names = self._names[first:end]
        if not all(name.startswith(prefix) for name in names):
            return False
        for name, row in zip(names, self._rows[first:end], strict=True):
            self._add(f"layers.{again}.{name.removeprefix(prefix)}", row)
        return True

    @property
    def rows(self) -> list[BufferRow]:
        return self._rows

    def array(self) -> Array:
        return np.array(self._rows, BUFFER_DTYPE)

    def names(self) -> tuple[str, ...]:
        return tuple(self._names)

    def _add(self, name: str, row: BufferRow) -> None:
        self._index[name] = len(self._names)
        self._names.append(name)
        self._rows.append(row)

    def _rope_table(self, name: str) -> int:
        if name not in self._index:
            ropes = [o for o in self._graph.operators if isinstance(o, Rope)]
            rows, columns = max(o.past + o.tokens for o in ropes), ropes[0].head_dim // 2
            n_bytes = int(rows * columns * Number.F32.n_bytes)
            self._add(name, (n_bytes, BufferRole.TABLE, Layout.ROW_MAJOR, rows, columns, Number.F32))
        return self._index[name]


def _packed_row(role: int, layout: LhsLayout, rows: int, columns: int) -> BufferRow:
    """The row of a packed left operand."""
    return (layout.bytes_for(rows, columns), role, Layout.LHS_PACKED, rows, columns, layout.number)
