"""Drawn plans: any model and phase, divided in any way that the schema allows."""

from __future__ import annotations

from hypothesis import strategies as st

from smesim.plan.planners import cpu_only
from smesim.plan.schema import OperatorPlan, Plan, TileShape
from smesim.workload import DType, DTypes, ModelConfig, Phase, build_graph
from tests.sim.chips import two_core_chip
from tests.workload.workload_models import models, phases, tiny

CHIP = two_core_chip(cores=4)


def small_plan(phase: str = "prefill:20", model: ModelConfig | None = None, threads: int = 2, layers: int = 2) -> Plan:
    graph = build_graph(model or tiny(), Phase.parse(phase), layers=layers)
    return cpu_only(graph, CHIP, threads)


def with_entry(plan: Plan, site: str, **changes: object) -> Plan:
    """The plan with fields of one site's entry replaced."""
    entries = tuple(e.model_copy(update=changes) if e.site == site else e for e in plan.operators)
    return plan.model_copy(update={"operators": entries})


@st.composite
def _entries(draw: st.DrawFn, entry: OperatorPlan, n_workers: int) -> OperatorPlan:
    workers = draw(st.lists(st.integers(0, n_workers - 1), min_size=1, unique=True))
    shares = st.lists(st.floats(0, 9), min_size=len(workers), max_size=len(workers)).filter(lambda s: sum(s) > 1e-3)
    changes: dict[str, object] = {
        "tile": TileShape(m=draw(st.integers(1, 30)), n=draw(st.integers(1, 100))),
        "assignment": draw(st.sampled_from(["static", "shared", "static_then_shared"])),
        "workers": tuple(workers),
        "shares": tuple(draw(st.one_of(st.just([]), shares))),
    }
    if entry.lhs_layout.startswith("lhs_"):
        before = entry.lhs_layout.partition("_m")
        group = "k2" if before[0] == "lhs_bf16" else ""
        changes["lhs_layout"] = f"{before[0]}_m{draw(st.integers(1, 14))}{group}"
    return entry.model_copy(update=changes)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    model, phase, threads = draw(models()), draw(phases(largest=30)), draw(st.integers(1, 4))
    options = {"last_layer_rows": draw(st.sampled_from(["all", "logits"]))}
    options["lm_head_rows"] = draw(st.sampled_from(["last", "all"]))
    dtypes = DTypes(weights=draw(st.sampled_from([DType.F32, DType.BF16])))
    plan = cpu_only(build_graph(model, phase, dtypes, **options), CHIP, threads, **options)
    return plan.model_copy(update={"operators": tuple(draw(_entries(e, threads)) for e in plan.operators)})
