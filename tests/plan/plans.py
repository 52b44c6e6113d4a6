"""Drawn plans: any model and phase, divided in any way that the schema allows."""

from __future__ import annotations

from hypothesis import strategies as st

from smesim.plan.layout import LayoutReuse, with_out_layouts
from smesim.plan.planners import cpu_only
from smesim.plan.schema import OperatorPlan, Plan, TileShape
from smesim.workload import ModelConfig, Phase, build_graph
from tests.sim.chips import two_core_chip
from tests.workload.workload_models import models, phases, tiny

CHIP = two_core_chip(cores=4)
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


@st.composite
def _entries(draw: st.DrawFn, entry: OperatorPlan, n_workers: int, strips: int) -> OperatorPlan:
    workers = draw(st.lists(st.integers(0, n_workers - 1), min_size=1, unique=True))
    shares = st.lists(st.floats(0, 9), min_size=len(workers), max_size=len(workers)).filter(lambda s: sum(s) > 1e-3)
    changes: dict[str, object] = {
        "tile": TileShape(m=draw(st.integers(1, 30)), n=draw(st.integers(1, 100))),
        "assignment": draw(st.sampled_from(["static", "shared", "static_then_shared"])),
        "workers": tuple(workers),
        "shares": tuple(draw(st.one_of(st.just([]), shares))),
    }
    if entry.lhs_layout.startswith("lhs_"):
        changes["lhs_layout"] = f"lhs_f32_m{strips or draw(st.integers(1, 14))}"
    return entry.model_copy(update=changes)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    model, phase, threads = draw(models()), draw(phases(largest=30)), draw(st.integers(1, 4))
    options = {"last_layer_rows": draw(st.sampled_from(["all", "logits"]))}
    options["lm_head_rows"] = draw(st.sampled_from(["last", "all"]))
    graph = build_graph(model, phase, **options)
    plan = cpu_only(graph, CHIP, threads, layout_reuse=draw(st.sampled_from(REUSE)), **options)
    strips = draw(st.integers(0, 14))  # all alike, so that much is written packed, or each its own
    entries = tuple(draw(_entries(e, threads, strips)) for e in plan.operators)
    return plan.model_copy(update={"operators": with_out_layouts(graph, entries, plan.layout_reuse)})
