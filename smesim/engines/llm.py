"""A phase of a model by an engine: the graph node by node, each divided as the engine divides it.

An engine such as llama.cpp walks its graph with all threads: every node is cut in equal parts, or in chunks drawn from
one counter, and all threads meet behind it. Who drives a matrix unit is decided once for a phase: nobody, the first
thread on each unit with the others computing on their cores (hybrid), or every thread, whatever the number of units.
Threads that take turns on one unit cost it part of its rate.

Layers are alike but for the last, of which only the rows whose logits are wanted go on behind attention. So one layer
of each kind is lowered and simulated, and the phase is their sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from smesim.engines.formats import WeightFormat
from smesim.engines.gemm import Product, UnitKernel, core_weights_per_s, wide_cycles_per_s
from smesim.engines.lowering import Chunk, Cost, Lowered, Stage, Thread, lower_stages
from smesim.engines.profile import CoreKernel, EngineProfile, number
from smesim.errors import SmesimError
from smesim.hwmodel.chip import Chip, factor_at
from smesim.plan.program import TaskKind
from smesim.workload.config import ModelConfig
from smesim.workload.graph import DTypes, build_graph
from smesim.workload.operators import Attention, GroupedLinear, Linear, Operator
from smesim.workload.phase import Phase

ROW_FLOP = 16.0  # arithmetic of a norm, an activation or an addition by element, as in hwmodel.cost
SMALL_CHUNKS = 4  # times as many as an engine wants at least: small enough that nobody waits long for the last
COLUMN_STEP = 64  # columns that SME kernels take together


def threads_on(chip: Chip, count: int, drivers: str) -> tuple[Thread, ...]:
    """`count` threads, big cores first and equal clusters in turn; `drivers` of "none", "first" or "all" drive a unit.

    SmesimError where the chip has fewer cores.
    """
    if not 1 <= count <= chip.core_count:
        raise SmesimError(f"{count} threads asked of {chip.name}; accepted: 1..{chip.core_count}, its cores")
    order: list[int] = []
    for cluster in chip.clusters:
        copies = [instance.cores for instance in chip.instances if instance.cluster.name == cluster.name]
        order += [cores[i] for i in range(cluster.core_count) for cores in copies]
    unit_of = {core: unit.index for unit in chip.unit_instances for core in unit.cores}
    taken: set[int] = set()
    threads = []
    for core in order[:count]:
        unit = unit_of.get(core) if drivers != "none" else None
        if unit in taken and drivers == "first":
            unit = None
        if unit is not None:
            taken.add(unit)
        name = chip.instance_of(core).name
        threads.append(Thread(core, name if unit is None else f"{name}+{unit}", unit))
    return tuple(threads)


@dataclass(frozen=True)
class Run:
    """One phase to predict: what runs, on what, how."""

    profile: EngineProfile
    chip: Chip
    model: ModelConfig
    phase: Phase
    weights: WeightFormat
    threads: int
    effects: frozenset[str]
    kernel: str | None = None


class _Layer:
    """Costs of the nodes of one run, by class of threads."""

    def __init__(self, run: Run) -> None:
        self.run, self.chip, self.effects = run, run.chip, run.effects
        name = run.kernel or run.profile.kernel_of.get(run.weights.name, run.weights.name)
        self.matrix = run.profile.matrix.get(name)
        self.core = run.profile.core.get(name)
        if self.core is None and self.matrix is None:
            known = ", ".join(sorted({*run.profile.core, *run.profile.matrix, *run.profile.kernel_of}))
            raise SmesimError(f"engine {run.profile.name} has no kernel for {name!r}; accepted: {known}")
        self.threads = threads_on(run.chip, run.threads, self._drivers())
        self.kinds = {thread.kind: thread for thread in self.threads}
        clusters = [run.chip.instance_of(thread.core).cluster for thread in self.threads]
        self.busy = {id(c): sum(c is other for other in clusters) for c in clusters}
        crowded = len({t.unit for t in self.threads if t.unit is not None}) < sum(
            t.unit is not None for t in self.threads
        )
        switch = number(self.matrix.switch) if self.matrix is not None else 0.0
        self.unit_rate = 1.0 - switch if crowded and "oversubscription" in run.effects else 1.0
        # A unit may be driven from several clusters: a kernel for each kind of thread, not for each unit.
        self.unit_kernels = {
            kind: UnitKernel(self.matrix, run.chip, run.chip.unit_instances[t.unit], run.effects)
            for kind, t in self.kinds.items() if self.matrix is not None and t.unit is not None
        }  # fmt: skip

    def _drivers(self) -> str:
        run, profile = self.run, self.run.profile
        units = len(run.chip.unit_instances)
        if self.matrix is None or not units:
            return "none"
        if run.phase.tokens == 1:
            too_many = profile.unit_in_decode == "one_thread_each" and run.threads > units
            if profile.unit_in_decode == "never" or (too_many and not self.matrix.any_threads):
                return "none"
            return "all"
        return "first" if profile.hybrid_rows and run.phase.tokens >= profile.hybrid_rows else "all"

    def stages(self, operators: Iterable[Operator]) -> list[Stage]:
        """The nodes of some operators."""
        found: list[Stage] = []
        for operator in operators:
            match operator:
                case Linear():
                    found += self._linear(operator)
                case GroupedLinear():
                    found.append(self._experts(operator))
                case Attention():
                    found += self._attention(operator)
                case _:
                    flop = operator.activation_rows * float(getattr(operator, "dim", 0)) * ROW_FLOP
                    found.append(self._even(operator.site, TaskKind.ADD, flop, 1.0))
        return found

    # -- products

    def _linear(self, operator: Linear) -> list[Stage]:
        bits = self.run.weights.head_bits if operator.site == "lm_head" else self.run.weights.bits
        product = Product(operator.m, operator.n, operator.k, packed=True)
        on_unit = bool(self.unit_kernels)
        stages = []
        if operator.m > 1 and self.matrix is not None and on_unit and self.matrix.pack_lhs is not None:
            packing = operator.m * operator.k * 4.0 * self.matrix.pack_lhs.value
            stages.append(self._pieces(f"{operator.site}.pack", TaskKind.PACK_LHS, packing))
        if operator.m > 1 and not on_unit and self.core is not None and self.core.serial is not None:
            alone = Cost(operator.m * operator.k * 4.0 * self.core.serial.value)
            stages.append(
                Stage(f"{operator.site}.pack", TaskKind.PACK_LHS, [Chunk(dict.fromkeys(self.kinds, alone), 0)])
            )
        stages.append(self._product(operator.site, product, bits / 8.0))
        return stages

    def _product(self, site: str, product: Product, bytes_per_weight: float) -> Stage:
        per_thread = self.run.profile.chunks_per_thread
        drawn = per_thread > 0 and product.m > 1
        if (fixed := self.run.profile.chunk_columns) and drawn:
            # Too few chunks of the fixed width and the engine gives up drawing; many fall together here, to save time.
            drawn = math.ceil(product.n / fixed) >= per_thread * len(self.threads)
            per_thread *= SMALL_CHUNKS
        width = math.ceil(product.n / (len(self.threads) * (per_thread if drawn else 1)))
        if self.unit_kernels and product.m > 1:
            width = math.ceil(width / COLUMN_STEP) * COLUMN_STEP
        parts = [min(width, product.n - begin) for begin in range(0, product.n, width)]
        known: dict[int, dict[str, Cost]] = {}
        chunks = []
        for position, columns in enumerate(parts):
            if columns not in known:
                part = product.columns(columns)
                known[columns] = {kind: self._cost(t, part, bytes_per_weight) for kind, t in self.kinds.items()}
            chunks.append(Chunk(known[columns], None if drawn else position % len(self.threads)))
        return Stage(site, TaskKind.GEMM if product.m > 1 else TaskKind.GEMV, chunks, product.m, product.n, product.k)

    def _cost(self, thread: Thread, product: Product, bytes_per_weight: float) -> Cost:
        n_bytes = product.n * product.k * bytes_per_weight
        if thread.unit is not None:
            kernel = self.unit_kernels[thread.kind]
            if self.run.profile.unit_vectors and kernel.is_vector(product):
                return Cost(n_bytes * number(kernel.kernel.vector), n_bytes, on_unit=True)
            exposed = number(kernel.kernel.exposed) if "exposed_latency" in self.effects else 0.0
            packing = product.n * product.k * kernel.element_bytes * number(kernel.kernel.pack_rhs)
            return Cost(kernel.inner_s(product) + packing, n_bytes, n_bytes * exposed, on_unit=True)
        if self.core is None:
            raise SmesimError(f"engine {self.run.profile.name}: {self.run.weights.name} has no kernel for cores")
        if product.m == 1:
            return Cost(product.n * product.k / self._weights_per_s(self.core, thread), n_bytes)
        return Cost(product.flop / self._core_flop_per_s(self.core, thread), n_bytes)

    def _experts(self, operator: GroupedLinear) -> Stage:
        """Products with the experts that are reached; every row goes to one, and each expert's weights are read
        once."""
        if self.core is None:
            raise SmesimError(f"engine {self.run.profile.name} has no kernel for experts on cores")
        threads = len(self.threads)
        n_bytes = operator.experts_reached * operator.n * operator.k * self.run.weights.bits / 8.0 / threads
        costs = {}
        for kind, thread in self.kinds.items():
            if operator.m <= operator.experts_reached * 1.5:
                seconds = operator.m * operator.n * operator.k / self._weights_per_s(self.core, thread)
            else:
                seconds = operator.flop / self._core_flop_per_s(self.core, thread) / number(self.core.experts, 1.0)
            costs[kind] = Cost(seconds / threads, n_bytes)
        return Stage(operator.site, TaskKind.EXPERT_GEMM, [Chunk(costs, i) for i in range(threads)])

    # -- everything else

    def _attention(self, operator: Attention) -> list[Stage]:
        """Products of queries and keys, softmax, products with values: three nodes, every head and row in equal
        parts."""
        profile = self.run.profile.attention
        if profile is None:
            raise SmesimError(f"engine {self.run.profile.name} says nothing of attention")
        keys = operator.past + operator.tokens
        pairs = operator.batch * operator.heads * operator.tokens * float(keys)
        if profile.causal:
            pairs = operator.batch * float(operator.pairs) * operator.heads if operator.tokens > 1 else pairs
        product = 2.0 * pairs * operator.head_dim
        n_bytes = operator.batch * keys * operator.kv_heads * operator.head_dim * 2.0
        return [
            self._even("attention.qk", TaskKind.ATTENTION_QK, product, profile.gemm.value, n_bytes),
            self._even("attention.softmax", TaskKind.ATTENTION_SOFTMAX, pairs * profile.score.value, 1.0),
            self._even("attention.pv", TaskKind.ATTENTION_PV, product, profile.gemm.value, n_bytes),
        ]

    def _even(self, site: str, kind: TaskKind, flop: float, share: float, n_bytes: float = 0.0) -> Stage:
        """Arithmetic on the cores: products in chunks if the engine draws them, all else in equal parts."""
        per_thread = self.run.profile.chunks_per_thread
        drawn = per_thread > 0 and self.run.phase.tokens > 1 and kind in (TaskKind.ATTENTION_QK, TaskKind.ATTENTION_PV)
        n = len(self.threads) * (per_thread if drawn else 1)
        costs = {
            name: Cost(
                flop / n / (self._peak(t, "f32") * (share if "kernel_efficiency" in self.effects else 1.0)), n_bytes / n
            )
            for name, t in self.kinds.items()
        }
        return Stage(site, kind, [Chunk(costs, None if drawn else i) for i in range(n)])

    def _pieces(self, site: str, kind: TaskKind, seconds: float) -> Stage:
        n = len(self.threads)
        return Stage(site, kind, [Chunk({name: Cost(seconds / n) for name in self.kinds}, i) for i in range(n)])

    # -- rates

    def _factor(self, thread: Thread) -> float:
        cluster = self.chip.instance_of(thread.core).cluster
        if "multi_core" not in self.effects:
            return 1.0
        return factor_at(cluster.multi_core_factors, self.busy[id(cluster)])

    def _peak(self, thread: Thread, arithmetic: str) -> float:
        core = self.chip.instance_of(thread.core).cluster.core
        rates = {str(name): rate.value for name, rate in core.flop_per_s.items()}
        peak = rates.get(arithmetic, rates["f32"])
        if (
            arithmetic == "s8"
        ):  # kernels of quantised weights gain from matrix instructions only where dot products are slow
            peak = min(peak, 4.0 * rates["f32"])
        return peak * self._factor(thread)

    def _core_flop_per_s(self, kernel: CoreKernel, thread: Thread) -> float:
        share = kernel.gemm.value if "kernel_efficiency" in self.effects else 1.0
        return self._peak(thread, kernel.arithmetic) * share

    def _weights_per_s(self, kernel: CoreKernel, thread: Thread) -> float:
        return core_weights_per_s(kernel, self.chip, thread.core, self.run.weights.bits) * self._factor(thread)

    def meeting_s(self) -> float:
        """What the threads pay behind each node: to walk on to the next, which the slowest does last, and to count
        themselves in one by one."""
        meeting = self.run.profile.meeting
        if meeting is None or "barrier" not in self.effects:
            return 0.0
        speeds = [wide_cycles_per_s(self.chip, thread.core) for thread in self.threads]
        slowest = max(speeds) / min(speeds)
        seconds = meeting.node_s.value * slowest + meeting.thread_s.value * len(self.threads)
        return seconds + (meeting.stalled_s.value if len(self.threads) >= self.chip.core_count else 0.0)

    def lowered(self, operators: Iterable[Operator]) -> Lowered:
        shared = "shared_unit" in self.effects
        name = self.run.profile.name
        return lower_stages(self.chip, self.threads, self.stages(operators), name, self.unit_rate, shared)


def phase_seconds(run: Run) -> float:
    """Predicted time of the phase: its layers, the last one with fewer rows, and what comes before and behind them."""
    layer = _Layer(run)
    graph = build_graph(run.model, run.phase, DTypes(), layers=min(2, run.model.layers), last_layer_rows="logits")
    groups: dict[int | None, list[Operator]] = {}
    for operator in graph.operators:
        groups.setdefault(operator.layer, []).append(operator)
    meeting_s = layer.meeting_s()
    seconds = {index: layer.lowered(operators).seconds(meeting_s) for index, operators in groups.items()}
    repeated = run.model.layers - (graph.layers - 1)
    return seconds[None] + repeated * seconds[0] + sum(seconds[i] for i in seconds if i not in (None, 0))


def layer_program(run: Run) -> Lowered:
    """One whole layer as a program, to look at its timeline."""
    layer = _Layer(run)
    graph = build_graph(run.model, run.phase, DTypes(), layers=1)
    return layer.lowered([operator for operator in graph.operators if operator.layer == 0])


def tokens_per_s(run: Run) -> float:
    """Prompt tokens, or generated ones, each second."""
    return run.phase.batch * run.phase.tokens / phase_seconds(run)
