"""A plan says how every operator is divided: which unit, which tiles, which workers, which layouts.

It is an object that can be seen, forced, saved, compared, predicted, executed and replayed. Operators of identical
layers share one entry, found by their *site* ("q_proj" is the query projection of every layer). A plan carries its
model and phase, so that a plan file alone can be simulated on any chip or executed on a machine.

Modes: `cpu` runs on workers that compute on their core's vector pipes, `matrix` on workers that drive a matrix unit,
`cooperative` on both. Assignments: `static` fixes who runs which tile; `shared` lets the workers draw tiles from one
queue; `static_then_shared` fixes the first part by `shares` and draws the tail.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smesim.errors import PlanError, WorkloadError
from smesim.files import first_validation_problem, read_text, write_atomically
from smesim.plan.formats import (
    QUANTIZE_KERNEL,
    QUANTIZED_ROWS,
    RHS_PATTERN,
    ProductFormat,
    cache_number,
    operator_format,
    weights_format,
)
from smesim.plan.layout import LHS_PATTERN, ROW_MAJOR, LayoutReuse, can_write, unpacked_output, writes_packed
from smesim.workload.config import ModelConfig
from smesim.workload.dtypes import DType
from smesim.workload.graph import DTypes, OperatorGraph, build_graph
from smesim.workload.operators import Attention, Embed, GroupedLinear, Linear, Operator, Quantize, Router
from smesim.workload.phase import Phase

SCHEMA_VERSION = 1

Mode = Literal["cpu", "matrix", "cooperative"]
Role = Literal["cpu", "matrix"]
Assignment = Literal["static", "shared", "static_then_shared"]
Partition = Literal["columns", "rows"]
_ROLES_OF_MODE: dict[Mode, set[Role]] = {"cpu": {"cpu"}, "matrix": {"matrix"}, "cooperative": {"cpu", "matrix"}}
Positive = Annotated[int, Field(ge=1)]
Index = Annotated[int, Field(ge=0, le=65535)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class WorkerPlan(_Part):
    """One thread: the core it is pinned to and what it does there."""

    role: Role = Field(description="'cpu' computes on its core, 'matrix' drives a matrix unit")
    cluster: str = Field(description="cluster of the chip that the core belongs to")
    core: Index = Field(description="index of the core, counted over all clusters of the chip")
    unit: Index | None = Field(default=None, description="matrix unit it drives, counted over the chip")


    def __hash__(self) -> int:
        return self.core if self.unit is None else -2 - self.core  # no two workers of a plan are on one core


class TileShape(_Part):
    """One macro-tile of an operator: rows x columns of its output (or tokens x heads for attention)."""

    m: Positive = Field(description="rows (tokens) in a tile")
    n: Positive = Field(description="columns (KV heads for attention) in a tile")


class PipelinePlan(_Part):
    """Attention as stages with a bounded ring between them; each stage runs on the operator's workers of its role."""

    depth: Positive = Field(description="blocks that a ring holds between its first stage and its last")
    query_block: Positive = Field(description="query tokens in a block")
    key_block: Annotated[int, Field(ge=16, multiple_of=16)] = Field(description="keys in a block, whole panels of 16")
    lanes: Positive = Field(default=1, description="rings side by side; one for each worker of a stage keeps all busy")
    qk: Role = Field(default="cpu", description="role of the stage that multiplies queries and keys")
    softmax: Role = Field(default="cpu", description="role of the stage that masks and exponentiates the scores")
    pv: Role = Field(default="cpu", description="role of the stage that multiplies weights and values")

    @property
    def roles(self) -> set[Role]:
        return {self.qk, self.softmax, self.pv}


class RunnerUp(_Part):
    """An alternative that the planner looked at and did not take."""

    mode: Mode
    pipeline: bool = Field(default=False, description="attention in stages")
    predicted_s: float = Field(ge=0, description="analytic time of one instance, seconds")


class Reason(_Part):
    """Why the planner chose as it did."""

    bound: str = Field(description="what limits the operator: 'compute', 'bandwidth' or 'overhead'")
    predicted_s: float = Field(ge=0, description="analytic time of one instance, seconds")
    runners_up: tuple[RunnerUp, ...] = ()


class OperatorPlan(_Part):
    """How the operators of one site are divided."""

    site: str
    kind: str
    mode: Mode = "cpu"
    kernel: str = Field(description="kernel family, e.g. 'gemm_f32', 'gemv_bf16', 'attention_f32'")
    tile: TileShape
    assignment: Assignment = "static"
    workers: tuple[int, ...] = Field(description="indices into Plan.workers")
    shares: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        default=(), description="share of the tiles per worker; empty means equal"
    )
    packers: tuple[int, ...] = Field(
        default=(),
        description="indices of the workers that pack its left operand, or keys and values, drivers by their units;"
        " empty means its own workers, for keys and values by the vectors of their cores",
    )
    lhs_layout: str = Field(default=ROW_MAJOR, pattern=rf"^({ROW_MAJOR}|{LHS_PATTERN})$")
    rhs_layout: str = Field(default=ROW_MAJOR, pattern=rf"^({ROW_MAJOR}|{RHS_PATTERN})$")
    out_layout: str = Field(
        default=ROW_MAJOR,
        pattern=rf"^({ROW_MAJOR}|{LHS_PATTERN})$",
        description="how a norm or activation writes its output: row major, or packed as those read it that follow",
    )
    partition: Partition = Field(default="columns", description="what of a product the shares and pools are parts of")
    grain: Positive = Field(default=1, description="panels (strips, of rows) that a tile which is drawn has at least")
    pipeline: PipelinePlan | None = None
    past_split: Positive = Field(default=1, description="parts of the past that attention of one token is divided into")
    reason: Reason | None = None


@dataclass(frozen=True)
class Division:
    """What a plan says of who does what: its workers, and how each operator is divided among them."""

    workers: tuple[WorkerPlan, ...]
    operators: tuple[OperatorPlan, ...]
    layout_reuse: LayoutReuse


class Plan(_Part):
    """One model phase, divided over workers."""

    schema_version: Literal[1] = 1
    model: ModelConfig
    phase: str
    weights_dtype: DType = DType.F32
    head_dtype: DType | None = Field(default=None, description="of the last product's weights; null: as the others")
    activations_dtype: DType = DType.F32
    kv_dtype: DType = DType.F32
    layers: Positive = Field(description="layers in the plan; may be fewer than the model has")
    last_layer_rows: Literal["all", "logits"] = "all"
    lm_head_rows: Literal["last", "all"] = "last"
    routed: bool = Field(default=False, description="experts get the rows that the router chooses, not given ones")
    layout_reuse: LayoutReuse = Field(default="full", description="who packs operands, see smesim.plan.layout")
    chip: str
    chip_fingerprint: str
    planner: str
    stand_in: bool = Field(
        default=False, description="the chip's matrix unit is a stand-in, and its cores run narrow kernels beside it"
    )
    workers: tuple[WorkerPlan, ...] = Field(min_length=1)
    operators: tuple[OperatorPlan, ...]

    def graph(self) -> OperatorGraph:
        """The operators that this plan divides."""
        return build_graph(
            self.model,
            Phase.parse(self.phase),
            DTypes(self.weights_dtype, self.activations_dtype, self.kv_dtype, self.head_dtype),
            layers=self.layers,
            last_layer_rows=self.last_layer_rows,
            lm_head_rows=self.lm_head_rows,
            routed=self.routed,
        )

    def site(self, site: str) -> OperatorPlan:
        """The entry of one site; PlanError names the sites there are."""
        for operator in self.operators:
            if operator.site == site:
                return operator
        known = ", ".join(operator.site for operator in self.operators)
        raise PlanError(f"plan has no entry for site {site!r}; it has {known}")

    def fingerprint(self) -> str:
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        return self.model_dump_json(indent=1) + "\n"

    def save(self, path: Path) -> None:
        write_atomically(path, self.to_json())


def load_plan(path: Path) -> Plan:
    """Read a plan file; PlanError says what is wrong, where, and what would be accepted."""
    text = read_text(path, PlanError, "a plan")
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{path}: line {error.lineno}"
        raise PlanError(f"{where}: not JSON ({error.msg}); a plan is written by 'smesim plan'") from None
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{path}: unreadable JSON ({error}); a plan is written by 'smesim plan'") from None
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != SCHEMA_VERSION:
        raise PlanError(f"{path}: schema_version is {version!r}; this smesim reads plans of version {SCHEMA_VERSION}")
    try:
        plan = Plan.model_validate_json(text)
    except ValidationError as error:
        raise PlanError(f"{path}: {first_validation_problem(error)}") from None
    try:
        graph = plan.graph()
    except WorkloadError as error:
        raise PlanError(f"{path}: {error}") from None
    check_plan(plan, graph, str(path))
    return plan


def check_plan(plan: Plan, graph: OperatorGraph, where: str = "plan") -> None:
    """Hold what pydantic cannot: references between the parts, and to the operators of the graph."""
    try:
        weights_format(graph)
    except PlanError as error:
        raise PlanError(f"{where}: weights_dtype: {error}") from None
    if plan.activations_dtype is not DType.F32:
        raise PlanError(f"{where}: activations_dtype is {plan.activations_dtype!s}; accepted: f32")
    try:
        cache_number(plan.kv_dtype)
    except PlanError as error:
        raise PlanError(f"{where}: kv_dtype: {error}") from None
    cores = [worker.core for worker in plan.workers]
    for core in cores:
        if cores.count(core) > 1:
            raise PlanError(f"{where}: workers name core {core} twice; accepted: a core of its own for each worker")
    given = [operator.site for operator in plan.operators]
    sites = ", ".join(graph.sites)
    for site in graph.sites:
        if site not in given:
            raise PlanError(f"{where}: operators has no entry for site {site!r}; accepted: one for each of {sites}")
    for site in given:
        if given.count(site) > 1:
            raise PlanError(f"{where}: operators[{site}] is given twice; accepted: each site once")
        if site not in graph.sites:
            raise PlanError(f"{where}: operators names site {site!r}; accepted: {sites}")
    for operator in plan.operators:
        at = f"{where}: operators[{operator.site}]"
        if not operator.workers:
            raise PlanError(f"{at}.workers is empty; name at least one of 0..{len(plan.workers) - 1}")
        for key, workers in (("workers", operator.workers), ("packers", operator.packers)):
            for worker in workers:
                if not 0 <= worker < len(plan.workers):
                    raise PlanError(f"{at}.{key} has {worker}; the plan has workers 0..{len(plan.workers) - 1}")
            if len(set(workers)) != len(workers):
                raise PlanError(f"{at}.{key} names a worker twice: {workers}")
        if operator.shares and len(operator.shares) != len(operator.workers):
            raise PlanError(
                f"{at}.shares has {len(operator.shares)} values;"
                f" accepted: one for each of its {len(operator.workers)} workers"
            )
        if operator.shares and not sum(operator.shares) > 0:
            raise PlanError(f"{at}.shares add up to {sum(operator.shares):g}; accepted: a sum above 0")
        roles = {plan.workers[worker].role for worker in operator.workers}
        # Who drives a matrix unit has a core too, for what is done row by row; products there would go to the unit.
        by_rows = not isinstance(graph.sites[operator.site][0], Linear | GroupedLinear | Attention)
        if roles != _ROLES_OF_MODE[operator.mode] and not (by_rows and operator.mode == "cpu"):
            raise PlanError(
                f"{at}.mode is {operator.mode!r}, but its workers are of role {' and '.join(sorted(roles))};"
                " accepted: cpu with cpu workers, matrix with matrix workers, cooperative with both"
            )
        _check_kernel(operator, graph, at)
        unpacked = unpacked_output(graph.sites[operator.site][0])
        if plan.layout_reuse != "full" and operator.out_layout != unpacked:
            raise PlanError(
                f"{at}.out_layout is {operator.out_layout!r}; accepted with layout_reuse {plan.layout_reuse!r}:"
                f" {unpacked!r}"
            )
        _check_stages(operator, graph.sites[operator.site][0], roles, at)


def _check_kernel(entry: OperatorPlan, graph: OperatorGraph, at: str) -> None:
    """The kernel of an entry must be one of its kind of operator and of the format of the weights, and the layouts
    those that the kernel reads."""
    operator = graph.sites[entry.site][0]
    numbers = operator_format(graph, operator)
    if entry.kind != operator.kind:
        raise PlanError(f"{at}.kind is {entry.kind!r}; accepted: {operator.kind!r}")
    match operator:
        case Linear():
            kernels: tuple[str, ...] = (numbers.gemm, numbers.gemv) if operator.m == 1 else (numbers.gemm,)
        case GroupedLinear():
            kernels = (numbers.gemm,)
        case Embed():
            kernels = (numbers.embed,)
        case Quantize():
            kernels = (QUANTIZE_KERNEL,)
        case _:
            kernels = (f"{operator.kind}_f32",)
    if entry.kernel not in kernels:
        raise PlanError(f"{at}.kernel is {entry.kernel!r}; accepted: {', '.join(kernels)}")
    if not _can_read(entry, numbers):
        names = f"'{numbers.lhs_layout('<strip height>')}', e.g. '{numbers.lhs_layout(6)}'"
        unpacked = QUANTIZED_ROWS if entry.kernel == numbers.gemv and numbers.is_quantized else ROW_MAJOR
        accepted = names if entry.kernel == numbers.gemm else repr(unpacked)
        raise PlanError(f"{at}.lhs_layout is {entry.lhs_layout!r}; accepted with {entry.kernel}: {accepted}")
    rhs = numbers.rhs_layout if isinstance(operator, Linear | GroupedLinear | Router) else ROW_MAJOR
    if entry.rhs_layout != rhs:
        raise PlanError(f"{at}.rhs_layout is {entry.rhs_layout!r}; accepted with {entry.kernel}: {rhs!r}")
    if entry.partition == "rows" and (entry.kernel != numbers.gemm or isinstance(operator, GroupedLinear)):
        accepted = "'columns'; 'rows' for products of two matrices"
        raise PlanError(f"{at}.partition is 'rows' with {entry.kernel}; accepted: {accepted}")
    if not can_write(operator, entry.out_layout):
        accepted = f"{ROW_MAJOR!r}, or packed f32" if writes_packed(operator) else f"{ROW_MAJOR!r}"
        accepted = f"e.g. {QUANTIZED_ROWS!r}" if isinstance(operator, Quantize) else accepted
        raise PlanError(f"{at}.out_layout is {entry.out_layout!r}; accepted of {operator.kind}: {accepted}")


def _can_read(entry: OperatorPlan, numbers: ProductFormat) -> bool:
    """Whether the kernel of an entry reads its left operand in the entry's layout: one for products of matrices packed,
    one for a vector row major, or quantised."""
    if entry.kernel == numbers.gemm:
        return numbers.strip_height(entry.lhs_layout) is not None
    is_quantized = entry.kernel == numbers.gemv and numbers.is_quantized
    return entry.lhs_layout == (QUANTIZED_ROWS if is_quantized else ROW_MAJOR)


def _check_stages(entry: OperatorPlan, operator: Operator, roles: set[Role], at: str) -> None:
    """Only attention has stages, and only that of one token has a past worth dividing."""
    pipeline = entry.pipeline
    may_be_split = isinstance(operator, Attention) and operator.tokens == 1 and pipeline is None
    if entry.past_split > 1 and not may_be_split:
        raise PlanError(f"{at}.past_split is {entry.past_split}; accepted: 1, but for fused attention of one token")
    if pipeline is None:
        return
    if not isinstance(operator, Attention):
        raise PlanError(f"{at}.pipeline is given for {operator.kind}; accepted: none, but for attention")
    if pipeline.roles != roles:
        raise PlanError(
            f"{at}.pipeline has stages for {' and '.join(sorted(pipeline.roles))}, its workers are of role"
            f" {' and '.join(sorted(roles))}; accepted: workers of the stages' roles, for each at least one"
        )
    if entry.assignment == "static_then_shared" or entry.shares:
        given = "shares" if entry.shares else f"assignment {entry.assignment!r}"
        raise PlanError(f"{at} has a pipeline and {given}; accepted: 'static' or 'shared', without shares")
