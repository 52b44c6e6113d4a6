"""Drawn plans: any model and phase, divided in any way that the schema allows."""

from __future__ import annotations

from hypothesis import strategies as st

from smesim.plan.formats import format_of_kernel
from smesim.plan.layout import LayoutReuse, with_out_layouts
from smesim.plan.planners import cpu_only
from smesim.plan.schema import OperatorPlan, PipelinePlan, Plan, Role, TileShape
from smesim.workload import DType, DTypes, ModelConfig, Phase, build_graph
from tests.sim.chips import two_core_chip
from tests.workload.workload_models import models, phases, tiny

CHIP = two_core_chip(cores=8)
REUSE: tuple[LayoutReuse, ...] = ("full", "shared_packs", "none")


def small_plan(
    phase: str = "prefill:20", model: ModelConfig | None = None, threads: int = 2, layers: int = 2,
    reuse: LayoutReuse = "full",
) -> Plan:  # fmt: skip
    graph = build_graph(model or tiny(), Phase.parse(phase), layers=layers)
    return cpu_only(graph, CHIP, threads, layout_reuse=reuse)


def with_entry(plan: Plan, site: str, **changes: object) -> Plan:
    """The plan with fields of one site's entry replaced, and layouts that fit to it unless they are given."""
    entries = tuple(e.model_copy(update=changes) if e.site == site else e for e in plan.operators)
    if "out_layout" not in changes:
        entries = with_out_layouts(plan.graph(), entries, plan.layout_reuse)
    return plan.model_copy(update={"operators": entries})


def with_drivers(plan: Plan, drivers: int) -> Plan:
    """The plan with its first workers driving matrix units; all operators are left to the others, if there are any."""
    workers = tuple(
        worker.model_copy(update={"role": "matrix", "unit": i}) if i < drivers else worker
        for i, worker in enumerate(plan.workers)
    )
    others = tuple(range(drivers, len(workers)))
    entries = tuple(entry.model_copy(update={"workers": others, "shares": ()}) for entry in plan.operators)
    return plan.model_copy(update={"workers": workers, "operators": entries})


@st.composite
def pipelines(draw: st.DrawFn, roles: tuple[Role, Role, Role] = ("cpu", "cpu", "cpu")) -> PipelinePlan:
    qk, softmax, pv = roles
    return PipelinePlan(
        depth=draw(st.integers(1, 4)), query_block=draw(st.integers(1, 40)), key_block=16 * draw(st.integers(1, 3)),
        lanes=draw(st.integers(1, 4)), qk=qk, softmax=softmax, pv=pv,
    )  # fmt: skip


@st.composite
def _stages(draw: st.DrawFn, tokens: int) -> dict[str, object]:
    """Changes to an attention's entry: none, a pipeline, or parts of the past."""
    way = draw(st.sampled_from(["fused", "pipeline", "parts"]))
    if way == "pipeline":
        assignment = draw(st.sampled_from(["static", "shared"]))
        return {"pipeline": draw(pipelines()), "assignment": assignment, "shares": ()}
    return {"past_split": draw(st.integers(2, 5))} if way == "parts" and tokens == 1 else {}


@st.composite
def _entries(draw: st.DrawFn, entry: OperatorPlan, n_workers: int, strips: int, tokens: int) -> OperatorPlan:
    workers = draw(st.lists(st.integers(0, n_workers - 1), min_size=1, unique=True))
    shares = st.lists(st.floats(0, 9), min_size=len(workers), max_size=len(workers)).filter(lambda s: sum(s) > 1e-3)
    changes: dict[str, object] = {
        "tile": TileShape(m=draw(st.integers(1, 30)), n=draw(st.integers(1, 100))),
        "assignment": draw(st.sampled_from(["static", "shared", "static_then_shared"])),
        "workers": tuple(workers),
        "shares": tuple(draw(st.one_of(st.just([]), shares))),
    }
    if entry.kind in ("linear", "grouped_linear"):
        changes["grain"] = draw(st.integers(1, 4))
    if entry.kind == "linear" and entry.lhs_layout.startswith("lhs_"):
        changes["partition"] = draw(st.sampled_from(["columns", "rows"]))
    if entry.lhs_layout.startswith("lhs_"):
        height = strips or draw(st.integers(1, 14))
        changes["lhs_layout"] = format_of_kernel(entry.kernel).lhs_layout(height)
    if entry.kind == "attention":
        changes |= draw(_stages(tokens))
    return entry.model_copy(update=changes)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    model, phase, threads = draw(models()), draw(phases(largest=30)), draw(st.integers(1, 4))
    options = {"last_layer_rows": draw(st.sampled_from(["all", "logits"]))}
    options["lm_head_rows"] = draw(st.sampled_from(["last", "all"]))
    weights = draw(st.sampled_from([DType.F32, DType.BF16]))
    graph = build_graph(model, phase, DTypes(weights=weights), **options)
    plan = cpu_only(graph, CHIP, threads, layout_reuse=draw(st.sampled_from(REUSE)), **options)
    strips = draw(st.integers(0, 14))  # all alike, so that much is written packed, or each its own
    entries = tuple(draw(_entries(e, threads, strips, phase.tokens)) for e in plan.operators)
    return plan.model_copy(update={"operators": with_out_layouts(graph, entries, plan.layout_reuse)})
