"""Plans on disk: what is written is read back, and what is wrong is said with file, key and what is accepted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from smesim.errors import PlanError, SmesimError
from smesim.plan.lower import lower
from smesim.plan.schema import PipelinePlan, Plan, Reason, RunnerUp, TileShape, load_plan
from smesim.workload import DType
from tests.plan.plans import plans, small_plan, with_entry


@settings(max_examples=25, deadline=None)
@given(plan=plans())
def test_invariant_8_a_plan_read_back_equals_the_one_written(plan: Plan, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    plan.save(path)
    read = load_plan(path)
    assert read == plan
    assert read.fingerprint() == plan.fingerprint()
    assert lower(read).fingerprint() == lower(plan).fingerprint()


def test_everything_that_a_plan_can_hold_is_read_back(tmp_path: Path) -> None:
    runner_up = RunnerUp(mode="matrix", predicted_s=1e-4)
    plan = with_entry(
        with_driver(small_plan(threads=2)),
        "attention",
        mode="cooperative",
        workers=(0, 1),
        pipeline=PipelinePlan(depth=2, query_block=32, key_block=64, lanes=3, qk="matrix", pv="matrix"),
        past_split=1,
        reason=Reason(bound="compute", predicted_s=1e-5, runners_up=(runner_up,)),
    )
    plan.save(tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == plan


def test_different_plans_have_different_fingerprints() -> None:
    plan = small_plan()
    others = [small_plan("prefill:21"), small_plan(threads=3), with_entry(plan, "q_proj", tile=TileShape(m=1, n=16))]
    assert len({p.fingerprint() for p in [plan, *others]}) == 4
    assert plan.fingerprint() == small_plan().fingerprint()


def test_a_plan_builds_the_graph_that_it_was_made_for() -> None:
    plan = small_plan("prefill:20,past=3,batch=2")
    graph = plan.graph()
    assert (graph.phase.tokens, graph.phase.past, graph.phase.batch, graph.layers) == (20, 3, 2, 2)
    assert tuple(graph.sites) == tuple(entry.site for entry in plan.operators)


PIPELINE = PipelinePlan(depth=2, query_block=32, key_block=64)


@pytest.mark.parametrize(
    ("phase", "site", "changes", "message"),
    [
        ("prefill:20", "q_proj", {"pipeline": PIPELINE}, "pipeline is given for linear; accepted: none"),
        (
            "prefill:20", "attention", {"pipeline": PIPELINE.model_copy(update={"pv": "matrix"})},
            "pipeline has stages for cpu and matrix, its workers are of role cpu; accepted: workers of the stages'",
        ),
        ("prefill:20", "attention", {"pipeline": PIPELINE, "shares": (1.0, 2.0)}, "has a pipeline and shares"),
        (
            "prefill:20", "attention", {"pipeline": PIPELINE, "assignment": "static_then_shared"},
            "has a pipeline and assignment 'static_then_shared'; accepted: 'static' or 'shared', without shares",
        ),
        ("prefill:20", "attention", {"past_split": 2}, "past_split is 2; accepted: 1, but for fused attention of one"),
        ("decode:20", "attention", {"past_split": 2, "pipeline": PIPELINE}, "past_split is 2; accepted: 1, but for"),
        ("decode:20", "add", {"past_split": 2}, "past_split is 2; accepted: 1"),
    ],
)  # fmt: skip
def test_stages_are_for_attention_and_workers_of_their_roles(
    phase: str, site: str, changes: dict[str, object], message: str
) -> None:
    plan = small_plan(phase)
    site = next(entry.site for entry in plan.operators if site in {entry.site, entry.kind})
    with pytest.raises(PlanError, match=re.escape(f"operators[{site}]") + ".*" + re.escape(message)):
        lower(with_entry(plan, site, **changes))


def test_keys_of_a_block_are_whole_panels(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    text = with_entry(small_plan(), "attention", pipeline=PIPELINE).to_json()
    path.write_text(text.replace('"key_block": 64', '"key_block": 40'))
    with pytest.raises(PlanError, match=r"pipeline\.key_block.*multiple of 16"):
        load_plan(path)


@pytest.mark.parametrize(
    ("mode", "workers"), [("matrix", (1,)), ("cpu", (0,)), ("cpu", (0, 1)), ("cooperative", (1,)), ("matrix", (0, 1))]
)
def test_a_mode_needs_workers_of_its_roles(mode: str, workers: tuple[int, ...]) -> None:
    plan = with_entry(with_driver(small_plan(threads=2)), "attention", mode=mode, workers=workers)
    with pytest.raises(PlanError, match=rf"operators\[attention\]\.mode is '{mode}', but its workers are of role"):
        lower(plan)


def test_a_cooperative_plan_has_the_same_tasks_as_any_other() -> None:
    plan = small_plan(threads=2)
    mixed = with_driver(plan)
    ours, theirs = lower(mixed), lower(plan)
    assert ours.workers["role"].tolist() == [1, 0]
    assert (ours.tasks == theirs.tasks).all()


def with_driver(plan: Plan) -> Plan:
    """The plan with its first worker driving unit 0, and the mode of each operator as its workers then ask for."""
    driver = plan.workers[0].model_copy(update={"role": "matrix", "unit": 0})
    modes = {(0,): "matrix", (1,): "cpu", (0, 1): "cooperative", (1, 0): "cooperative"}
    entries = tuple(o.model_copy(update={"mode": modes[o.workers]}) for o in plan.operators)
    return plan.model_copy(update={"workers": (driver, *plan.workers[1:]), "operators": entries})


@pytest.mark.parametrize(
    ("key", "dtype"), [("weights_dtype", DType.F16), ("activations_dtype", DType.F16), ("kv_dtype", DType.BF16)]
)
def test_a_dtype_without_kernels_is_refused(key: str, dtype: DType) -> None:
    with pytest.raises(PlanError, match=rf"{key}.* {dtype}.*; accepted: f32"):
        lower(small_plan().model_copy(update={key: dtype}))


# -- bad plans


def _set(*keys: str | int, to: object) -> Callable[[dict[str, Any]], None]:
    def change(raw: Any) -> None:
        for key in keys[:-1]:
            raw = raw[key]
        raw[keys[-1]] = to

    return change


def _drop(*keys: str | int) -> Callable[[dict[str, Any]], None]:
    def change(raw: Any) -> None:
        for key in keys[:-1]:
            raw = raw[key]
        del raw[keys[-1]]

    return change


def _add(**changes: object) -> Callable[[dict[str, Any]], None]:
    """Append the first operator once more, changed."""
    return lambda raw: raw["operators"].append(raw["operators"][0] | changes)


SITE = [entry.site for entry in small_plan().operators].index("q_proj")
Q = ("operators", SITE)

# What is changed in the file, and what the message must say: the key, and what would be accepted.
BAD_PLANS: dict[str, tuple[Callable[[dict[str, Any]], None], list[str]]] = {
    "another version": (_set("schema_version", to=2), ["schema_version", "2", "version 1"]),
    "no version": (_drop("schema_version"), ["schema_version", "None", "version 1"]),
    "unknown key": (_set("tuning", to=1), ["tuning"]),
    "missing key": (_drop("chip"), ["chip", "required"]),
    "phase": (_set("phase", to="prefil:3"), ["phase", "prefil:3", "prefill:TOKENS"]),
    "phase beyond the model": (_set("phase", to="decode:99999999"), ["phase", "99999999", "at most"]),
    "layers": (_set("layers", to=0), ["layers", "greater than or equal to 1"]),
    "more layers than the model": (_set("layers", to=3), ["layers is 3", "1..2"]),
    "model": (_set("model", "kv_heads", to=3), ["model", "kv_heads (3)", "multiple"]),
    "dtype": (_set("weights_dtype", to="f99"), ["weights_dtype", "f99", "q4_0"]),
    "no workers": (_set("workers", to=[]), ["workers", "at least 1"]),
    "role": (_set("workers", 0, "role", to="gpu"), ["workers.0.role", "gpu", "'cpu' or 'matrix'"]),
    "core": (_set("workers", 0, "core", to=-1), ["workers.0.core", "-1", "greater than or equal to 0"]),
    "huge core": (_set("workers", 0, "core", to=2**40), ["workers.0.core", "less than or equal to 65535"]),
    "mode": (_set(*Q, "mode", to="gpu"), [f"operators.{SITE}.mode", "gpu", "cooperative"]),
    "kind": (_set(*Q, "kind", to="conv"), ["operators[q_proj].kind", "'conv'", "'linear'"]),
    "kernel": (_set(*Q, "kernel", to="magic"), ["operators[q_proj].kernel", "'magic'", "gemm_f32"]),
    "gemv of many rows": (_set(*Q, "kernel", to="gemv_f32"), ["operators[q_proj].kernel", "accepted: gemm_f32"]),
    "tile": (_set(*Q, "tile", "m", to=0), [f"operators.{SITE}.tile.m", "greater than or equal to 1"]),
    "fraction": (_set(*Q, "tile", "m", to=1.5), [f"operators.{SITE}.tile.m", "1.5", "integer"]),
    "assignment": (_set(*Q, "assignment", to="guided"), [f"operators.{SITE}.assignment", "guided", "'static'"]),
    "no worker": (_set(*Q, "workers", to=[]), ["operators[q_proj].workers is empty", "0..1"]),
    "worker": (_set(*Q, "workers", to=[0, 2]), ["operators[q_proj].workers has 2", "0..1"]),
    "worker twice": (_set(*Q, "workers", to=[1, 1]), ["operators[q_proj].workers", "twice"]),
    "number of shares": (_set(*Q, "shares", to=[1.0]), ["operators[q_proj].shares has 1", "one for each of its 2"]),
    "negative share": (_set(*Q, "shares", to=[2.0, -1.0]), [f"operators.{SITE}.shares.1", "than or equal to 0"]),
    "no share": (_set(*Q, "shares", to=[0.0, 0.0]), ["operators[q_proj].shares", "above 0"]),
    "NaN": (_set(*Q, "shares", to=[float("nan"), 1.0]), [f"operators.{SITE}.shares.0", "finite number"]),
    "strip": (_set(*Q, "lhs_layout", to="lhs_f32_m0"), [f"operators.{SITE}.lhs_layout", "lhs_f32_m0", "pattern"]),
    "unpacked": (_set(*Q, "lhs_layout", to="row_major"), ["operators[q_proj].lhs_layout", "lhs_f32_m6"]),
    "packed add": (
        _set("operators", 0, "lhs_layout", to="lhs_f32_m6"),
        ["operators[embed].lhs_layout", "'row_major'"],
    ),
    "packed output": (_set(*Q, "out_layout", to="lhs_f32_m6"), ["operators[q_proj].out_layout", "'row_major'"]),
    "output layout": (_set("operators", 1, "out_layout", to="lhs_f64_m6"), ["operators.1.out_layout", "lhs_f64_m6"]),
    "layout reuse": (_set("layout_reuse", to="some"), ["layout_reuse", "some", "'shared_packs'"]),
    "packed output without reuse": (
        _set("layout_reuse", to="shared_packs"), ["operators[attn_norm].out_layout", "'shared_packs'", "'row_major'"],
    ),
    "rhs": (_set(*Q, "rhs_layout", to="row_major"), ["operators[q_proj].rhs_layout", "'rhs_f32_n16'"]),
    "missing site": (_drop(*Q), ["operators", "'q_proj'", "k_proj"]),
    "site twice": (_set(*Q, "site", to="k_proj"), ["operators", "'q_proj'", "k_proj"]),
    "unknown site": (_add(site="x"), ["'x'", "accepted: embed"]),
    "repeated site": (_add(), ["operators[embed]", "each site once"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_PLANS)
def test_a_bad_plan_is_refused_with_file_key_and_what_is_accepted(case: str, tmp_path: Path) -> None:
    change, wanted = BAD_PLANS[case]
    raw = json.loads(small_plan().to_json())
    change(raw)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(PlanError) as error:
        load_plan(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for part in wanted:
        assert part in message


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "null", '"plan"', "{}", "[" * 100_000, "1" * 5000])
def test_what_is_no_plan_at_all_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(PlanError, match="plan"):
        load_plan(path)


@pytest.mark.parametrize("cut", [1, 100, 1000, -2])
def test_a_truncated_plan_is_refused_with_its_line(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(small_plan().to_json()[:cut])
    with pytest.raises(PlanError, match=r"plan\.json: line \d+: not JSON"):
        load_plan(path)


@pytest.mark.parametrize("name", ["nothing-here.json", "."])
def test_a_plan_that_cannot_be_read_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="expected a plan"):
        load_plan(tmp_path / name)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match="not text; expected a plan"):
        load_plan(path)


def test_a_plan_made_in_memory_is_held_to_the_same_rules() -> None:
    with pytest.raises(PlanError, match=r"operators\[q_proj\]\.workers has 7"):
        lower(with_entry(small_plan(), "q_proj", workers=(7,)))


def test_planners_refuse_formats_that_they_have_no_kernels_for() -> None:
    from smesim.plan.planners import cpu_only
    from smesim.workload import DTypes, Phase, build_graph
    from tests.sim.chips import two_core_chip
    from tests.workload.workload_models import tiny

    graph = build_graph(tiny(), Phase.prefill(4), DTypes(weights=DType.S8))
    with pytest.raises(SmesimError, match="weights of s8 asked for; accepted: f32, bf16"):
        cpu_only(graph, two_core_chip())
