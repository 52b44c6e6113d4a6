"""The operator graph: every operator of one phase with its tensors, in an order they can be executed in.

Tensors are named after the operator that writes them ("layers.3.q_proj.out") or after what they hold
("layers.3.q_proj.weight", "layers.3.k_cache", "tokens"). The graph knows each one's shape, format and role,
and with that how many bytes an operator reads and writes. Every byte is counted once per operator: a cached
key is read once for all query heads that share it, an embedding table only where it is gathered, of the
experts only those that a token reaches. An operator with fewer rows than its input reads the last rows of
each sequence.

The order of operators, and what is computed for which rows, is `smesim.workload.unfold`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from smesim.errors import WorkloadError
from smesim.workload.config import ModelConfig
from smesim.workload.operators import Embed, GroupedLinear, KvAppend, Operator, expected_experts_reached
from smesim.workload.phase import Phase
from smesim.workload.tensors import DTypes, Role, TensorSpec
from smesim.workload.unfold import Unfolding

__all__ = ["DTypes", "OperatorGraph", "Role", "TensorSpec", "build_graph"]

Rows = Literal["all", "logits"]
LmHeadRows = Literal["last", "all"]
Routing = Sequence[npt.NDArray[np.integer]]


@dataclass(frozen=True)
class Block:
    """Operators of one layer that follow one another, or of none. A block that `is_again` is the one before it once
    more, but for the layer's number in the names."""

    operators: tuple[Operator, ...]
    is_again: bool


@dataclass(frozen=True)
class OperatorGraph:
    """All operators of a model's phase, in an executable order, and the tensors they touch."""

    config: ModelConfig
    phase: Phase
    dtypes: DTypes
    layers: int
    operators: tuple[Operator, ...]
    tensors: Mapping[str, TensorSpec]
    elsewhere_bytes: float = 0.0
    """Of a part of a model: what the rest of it reads and writes, and caches see, before the part is run again."""
    routed: bool = False
    """Whether experts get the rows that the router chooses, whichever these are."""

    def operator(self, name: str) -> Operator:
        """The operator of this name; WorkloadError if there is none."""
        try:
            return self._by_name[name]
        except KeyError:
            raise WorkloadError(
                f"no operator {name!r} in {self.config.name}, {self.phase}; names are like "
                f"{', '.join(list(self._by_name)[:3])}"
            ) from None

    @cached_property
    def _by_name(self) -> dict[str, Operator]:
        return {operator.name: operator for operator in self.operators}

    @cached_property
    def sites(self) -> dict[str, tuple[Operator, ...]]:
        """Operators grouped by site, in the order of each site's first operator."""
        groups: dict[str, list[Operator]] = {}
        for operator in self.operators:
            groups.setdefault(operator.site, []).append(operator)
        return {site: tuple(group) for site, group in groups.items()}

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The operators, cut where the layer changes."""
        bounds = [0]
        bounds += [i for i in range(1, len(self.operators)) if self.operators[i].layer != self.operators[i - 1].layer]
        bounds.append(len(self.operators))
        found: list[Block] = []
        before: list[tuple[object, ...]] = []
        for begin, end in pairwise(bounds):
            operators = self.operators[begin:end]
            content = [self._content(operator) for operator in operators]
            is_again = operators[0].layer is not None and content == before
            found.append(Block(operators, is_again))
            before = content
        return tuple(found)

    def _content(self, operator: Operator) -> tuple[object, ...]:
        """All that there is to know of an operator, layers counted from its own."""
        layer = 0 if operator.layer is None else operator.layer

        def tensors(names: tuple[str, ...]) -> list[tuple[object, ...]]:
            specs = [self.tensors[name] for name in names]
            return [(_as_seen_from(layer, spec.name), spec.shape, spec.dtype, spec.role) for spec in specs]

        facts = {f.name: getattr(operator, f.name) for f in fields(operator) if f.name not in ("name", "layer")}
        for port in ("inputs", "weights", "outputs"):
            facts[port] = tensors(facts[port])
        return (operator.kind, *facts.items())

    def alone(self, site: str) -> OperatorGraph:
        """The first operator of a site and nothing else: what it reads is there, as the prompt is."""
        operator = self.sites[site][0]
        moved = zip(self.operators, self._moved_bytes, strict=True)
        elsewhere = sum(n_bytes for other, n_bytes in moved if other is not operator)
        names = (*operator.inputs, *operator.weights, *operator.outputs)
        tensors = {name: self.tensors[name] for name in names}
        return replace(
            self, layers=1, operators=(operator,), tensors=tensors, elsewhere_bytes=self.elsewhere_bytes + elsewhere
        )

    def read_bytes(self, operator: Operator, role: Role | None = None) -> float:
        """Bytes that the operator must read, of one role or of all.

        A whole number, but for the expert weights of a random routing: there it is the expectation.
        """
        names = operator.inputs + operator.weights
        return sum(self._touched_bytes(operator, self.tensors[n]) for n in names if self._is(n, role))

    def write_bytes(self, operator: Operator, role: Role | None = None) -> int:
        """Bytes that the operator must write, of one role or of all."""
        outputs = (self.tensors[n] for n in operator.outputs if self._is(n, role))
        if isinstance(operator, KvAppend):
            return sum(operator.cache_rows * tensor.row_bytes for tensor in outputs)
        return sum(tensor.bytes for tensor in outputs)

    def moved_bytes(self, operator: Operator) -> float:
        """Bytes read and written."""
        return self.read_bytes(operator) + self.write_bytes(operator)

    def total_flop(self) -> int:
        """FLOP of all operators."""
        return self._flop

    def total_moved_bytes(self) -> float:
        """Bytes that all operators read and write."""
        return sum(self._moved_bytes)

    @cached_property
    def _flop(self) -> int:
        return sum(operator.flop for operator in self.operators)

    @cached_property
    def _moved_bytes(self) -> tuple[float, ...]:
        return tuple(self.moved_bytes(operator) for operator in self.operators)

    def total_read_bytes(self, role: Role | None = None) -> float:
        """Bytes that all operators read."""
        return sum(self.read_bytes(operator, role) for operator in self.operators)

    def total_write_bytes(self, role: Role | None = None) -> int:
        """Bytes that all operators write."""
        return sum(self.write_bytes(operator, role) for operator in self.operators)

    def resident_bytes(self, role: Role) -> int:
        """Bytes of all distinct tensors of a role, e.g. the weights, or the KV cache after the phase."""
        return sum(tensor.bytes for tensor in self.tensors.values() if tensor.role is role)

    def _is(self, name: str, role: Role | None) -> bool:
        return role is None or self.tensors[name].role is role

    def _touched_bytes(self, operator: Operator, tensor: TensorSpec) -> float:
        if tensor.role is Role.WEIGHT:
            if isinstance(operator, Embed):
                return operator.rows * tensor.row_bytes
            if isinstance(operator, GroupedLinear):
                return operator.experts_reached * operator.n * tensor.row_bytes
            return tensor.bytes
        if tensor.role is Role.ACTIVATION:
            return min(operator.activation_rows, tensor.rows) * tensor.row_bytes
        return tensor.bytes


def _as_seen_from(layer: int, name: str) -> str:
    """A tensor's name with the number of its layer counted from another one's."""
    parts = name.split(".", 2)
    if parts[0] != "layers":
        return name
    return f"{int(parts[1]) - layer}.{parts[2]}"


def build_graph(
    config: ModelConfig,
    phase: Phase,
    dtypes: DTypes = DTypes(),  # noqa: B008 - frozen
    *,
    layers: int | None = None,
    last_layer_rows: Rows = "all",
    lm_head_rows: LmHeadRows = "last",
    routing: Routing | None = None,
    routed: bool = False,
) -> OperatorGraph:
    """All operators of one phase.

    `layers` takes only the first so many layers. `last_layer_rows="logits"` lets the last layer compute,
    after its output projection, only the rows whose logits are wanted; `lm_head_rows` says which those are.
    `routing` has per layer an integer array (tokens of all sequences, experts_per_token) of the experts
    chosen; without it the number of experts reached is the expectation for random routing, or where it is
    `routed`, by the router while it runs, the most that there can be. Raises WorkloadError.
    """
    n_layers = config.layers if layers is None else layers
    if not 1 <= n_layers <= config.layers:
        raise WorkloadError(f"layers is {n_layers}; accepted for {config.name}: 1..{config.layers}")
    if phase.context > config.max_position:
        raise WorkloadError(
            f"phase {phase} reaches position {phase.context}; {config.name} has at most {config.max_position}"
        )
    if last_layer_rows not in ("all", "logits"):
        raise WorkloadError(f"last_layer_rows is {last_layer_rows!r}; accepted: all, logits")
    if lm_head_rows not in ("last", "all"):
        raise WorkloadError(f"lm_head_rows is {lm_head_rows!r}; accepted: last, all")
    if routing is not None:
        _check_routing(config, phase, n_layers, routing)
    logit_rows = phase.rows if lm_head_rows == "all" else phase.batch
    model = Unfolding(config, phase, dtypes, routed)
    stream = model.embed()
    for layer in range(n_layers):
        drops_rows = last_layer_rows == "logits" and layer == n_layers - 1
        rows = logit_rows if drops_rows else phase.rows
        stream = model.attention_block(layer, stream, rows)
        chosen = None if routing is None else routing[layer]
        reached = _experts_reached(config, phase, rows, chosen)
        if routed:
            reached = float(min(config.experts, rows * config.experts_per_token))
        stream = model.feed_forward_block(layer, stream, rows, reached)
    model.head(stream, logit_rows)
    return OperatorGraph(config, phase, dtypes, n_layers, tuple(model.operators), model.tensors, routed=routed)


def _check_routing(config: ModelConfig, phase: Phase, layers: int, routing: Routing) -> None:
    if not config.is_moe:
        raise WorkloadError(f"routing is given; {config.name} has no experts to route to")
    if len(routing) != layers:
        raise WorkloadError(f"routing has {len(routing)} layers; the graph has {layers}")
    shape = (phase.rows, config.experts_per_token)
    for layer, chosen in enumerate(routing):
        where = f"routing of layer {layer}"
        if chosen.shape != shape or not np.issubdtype(chosen.dtype, np.integer):
            given = f"{chosen.dtype} {chosen.shape}"
            raise WorkloadError(f"{where} is {given}; accepted: integers {shape} (tokens, experts)")
        low, high = int(chosen.min()), int(chosen.max())
        if low < 0 or high >= config.experts:
            raise WorkloadError(f"{where} names experts {low}..{high}; accepted: 0..{config.experts - 1}")
        ordered = np.sort(chosen, axis=1)
        if (ordered[:, 1:] == ordered[:, :-1]).any():
            raise WorkloadError(f"{where} sends a token to one expert twice; accepted: distinct experts")


def _experts_reached(
    config: ModelConfig, phase: Phase, rows: int, chosen: npt.NDArray[np.integer] | None
) -> float:
    if not config.is_moe:
        return 0.0
    if chosen is None:
        return expected_experts_reached(rows, config.experts, config.experts_per_token)
    rows_apart = phase.rows // rows
    return float(len(np.unique(chosen[rows_apart - 1 :: rows_apart])))
