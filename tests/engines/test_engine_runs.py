"""Engines lower to programs that the simulator runs, and what makes each slow is a mechanism that can be switched
off."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from smesim.engines import profile as profiles
from smesim.engines.formats import weight_format
from smesim.engines.gemm import Product, on_cores, on_units, rows_alias
from smesim.engines.llm import Run, layer_program, phase_seconds, threads_on, tokens_per_s
from smesim.engines.lowering import Chunk, Cost, Stage, Thread, lower_stages
from smesim.errors import SmesimError
from smesim.hwmodel import library
from smesim.plan.program import ANY_WORKER, TaskKind
from smesim.sim.effects import ALL_EFFECTS
from smesim.workload import Phase, catalog
from tests.command_line import CommandLine

M1, PRO = library.load("apple-m1"), library.load("apple-m4-pro")
SMALL = catalog.load("llama-3.2-1b")


def run(engine: str, phase: Phase, threads: int, weights: str = "q4_0", without: set[str] | None = None) -> Run:
    effects = ALL_EFFECTS - (without or set())
    return Run(profiles.load(engine), PRO, SMALL, phase, weight_format(weights), threads, effects)


def stages(shared: bool) -> list[Stage]:
    slow_and_fast = {"slow": Cost(4e-3), "fast": Cost(1e-3)}
    chunks = [Chunk(slow_and_fast, None if shared else i % 2) for i in range(5)]
    return [Stage("first", TaskKind.GEMM, chunks), Stage("second", TaskKind.GEMM, [Chunk({"fast": Cost(2e-3)}, 1)])]


@pytest.mark.parametrize(("shared", "first_s"), [(False, 12e-3), (True, 4e-3)])
def test_chunks_are_dealt_or_drawn_and_stages_follow_each_other(shared: bool, first_s: float) -> None:
    lowered = lower_stages(M1, [Thread(0, "slow"), Thread(1, "fast")], stages(shared), "test")
    tasks = lowered.program.tasks
    assert (tasks["worker"][:5] == ANY_WORKER).all() == shared
    timeline = lowered.timeline(meeting_s=1e-6)
    # Of five drawn chunks the slow worker does one while the fast one does four.
    assert np.nanmax(timeline.end_s[:5]) == pytest.approx(first_s)
    assert timeline.start_s[6] == pytest.approx(first_s + 1e-6)
    assert lowered.seconds(meeting_s=0.0) == pytest.approx(first_s + 2e-3)


@pytest.mark.parametrize(("engine", "threads"), [("llama-cpp-hybrid", 6), ("llama-cpp-sme", 12), ("llama-cpp-neon", 3)])
def test_the_end_is_that_of_the_timeline_to_the_last_bit(engine: str, threads: int) -> None:
    layer = layer_program(run(engine, Phase.prefill(128), threads))
    assert layer.seconds(1e-6, 1e-7) == np.nanmax(layer.timeline(1e-6, 1e-7).end_s)


def test_an_engine_has_what_its_base_has_unless_it_says_otherwise() -> None:
    neon, sme, hybrid = (profiles.load(f"llama-cpp-{name}") for name in ("neon", "sme", "hybrid"))
    assert hybrid.core == sme.core == neon.core
    assert hybrid.matrix == sme.matrix
    assert (neon.chunks_per_thread, sme.chunks_per_thread, hybrid.chunks_per_thread) == (4, 0, 4)
    for name in profiles.names():
        assert profiles.load(name).name == name
    with pytest.raises(SmesimError, match=r"unknown engine 'ggml'; accepted: accelerate, "):
        profiles.load("ggml")
    with pytest.raises(ValidationError, match="unknown key"):
        profiles.profile_of({**profiles.load_document("rten"), "speed": 1}, None)


def test_engines_are_listed(smesim: CommandLine) -> None:
    listed = {each["name"]: each for each in smesim("engines", "--json").json()}
    assert tuple(listed) == profiles.names()
    assert {"q4_0", "w2"} <= set(listed["t-mac"]["core"])
    assert "llama-cpp-hybrid" in smesim("engines").out


def test_rows_of_a_power_of_two_fall_on_few_sets() -> None:
    assert rows_alias(4 * 4096) == rows_alias(4 * 24576) == 1.0
    assert rows_alias(4 * 2112) == pytest.approx(1 / 8)


def seconds(engine: str, m: int, n: int, k: int, without: set[str] | None = None, **how: bool) -> float:
    effects = ALL_EFFECTS - (without or set())
    return on_units(profiles.load(engine), "f32", PRO, [0], Product(m, n, k, **how), effects).seconds(0.0)


def test_packing_in_every_call_is_what_few_rows_pay_for() -> None:
    few, many = ([seconds("accelerate", m, 4096, 7168, **how) for how in ({}, {"packed": True})] for m in (64, 4096))
    assert few[0] / few[1] > 2.0
    assert many[0] / many[1] < 1.1
    assert seconds("accelerate", 64, 4096, 7168, {"operand_traffic"}) < 0.6 * few[0]


def test_a_row_costs_as_much_as_a_tile_of_them() -> None:
    assert seconds("mpgemm", 17, 256, 256) == pytest.approx(seconds("mpgemm", 32, 256, 256))
    assert seconds("mpgemm", 17, 256, 256, {"edge_tiles"}) < 0.6 * seconds("mpgemm", 32, 256, 256)


def test_neon_wins_at_one_row_and_amx_by_sixteen() -> None:
    amx, neon = profiles.load("amx-codebook"), profiles.load("ggml-m1")

    def faster(m: int, without: set[str] | None = None) -> bool:
        effects = ALL_EFFECTS - (without or set())
        on_amx = on_units(amx, "f32", M1, [0], Product(m, 8192, 2048, packed=True), effects).seconds(0.0)
        return on_amx < on_cores(neon, "q4_0", M1, [0], Product(m, 8192, 2048), effects).seconds(0.0)

    assert [faster(m) for m in (1, 16, 64)] == [False, True, True]
    assert faster(1, {"edge_tiles"})  # tiles that would cost by their rows would win at once


def test_a_product_too_small_to_wake_others_for_is_done_alone() -> None:
    ggml = profiles.load("ggml-m1")

    def speedup(m: int, n: int, without: set[str] | None = None) -> float:
        """Of eight threads over one."""
        effects = ALL_EFFECTS - (without or set())
        one, all_of_them = (
            on_cores(ggml, "q4_0", M1, range(cores), Product(m, n, 768), effects).seconds(0.0) for cores in (1, 8)
        )
        return one / all_of_them

    assert speedup(1, 768) == 1.0
    assert 1.0 < speedup(16, 3072) < speedup(64, 3072) < 5.0
    assert speedup(1, 768, {"dispatch"}) > 2.0  # where waking them costs nothing


def test_look_up_tables_pay_by_the_bit_and_formats_may_share_a_kernel() -> None:
    one, two = (tokens_per_s(run("t-mac", Phase.decode(64), 1, name)) for name in ("w4", "w2"))
    assert two / one > 1.5
    plain = [tokens_per_s(run("llama-cpp-2024", Phase.decode(64), 1, name)) for name in ("w4", "w2")]
    assert plain[1] < plain[0]
    names = (profiles.load(name).kernel_of for name in ("t-mac", "llama-cpp-2024"))
    assert [of["w4"] for of in names] == ["table", "q4_0"]


def test_accelerate_is_flat_over_threads_because_they_share_the_unit() -> None:
    accelerate, m4 = profiles.load("accelerate"), library.load("apple-m4")
    product = Product(4096, 4096, 4096)

    def seconds_of(threads: int, without: set[str] | None = None) -> float:
        effects = ALL_EFFECTS - (without or set())
        return on_units(accelerate, "f64", m4, [0] * threads, product, effects).seconds(0.0)

    assert [seconds_of(n) / seconds_of(1) for n in (2, 4)] == pytest.approx([1.0, 1.0], rel=0.02)
    assert seconds_of(4, {"shared_unit"}) < 0.3 * seconds_of(1, {"shared_unit"})


def test_a_unit_is_driven_from_every_cluster_that_may() -> None:
    phone = library.load("phone-d9500")
    asked = Run(profiles.load("llama-cpp-sme"), phone, SMALL, Phase.prefill(64), weight_format("f32"), 8, ALL_EFFECTS)
    assert {thread.unit for thread in threads_on(phone, 8, "all")} == {0}
    assert phase_seconds(asked) > 0.0


def test_wide_panels_leave_the_slow_block_to_finish_alone() -> None:
    panels = profiles.load("amx-panels")
    product = Product(128, 2048, 2048, packed=True)
    runs = (on_units(panels, "f32", M1, [0, 1], product, ALL_EFFECTS, width) for width in (512, 256, 64))
    by_width = [run.seconds(0.0) for run in runs]
    assert by_width[0] > 1.3 * by_width[1] > 1.3 * by_width[2]


def test_sme_alone_falls_beyond_a_thread_for_each_unit_because_threads_take_turns() -> None:
    rates = [tokens_per_s(run("llama-cpp-sme", Phase.prefill(512), t)) for t in (1, 2, 4, 6)]
    assert rates[1] > 1.8 * rates[0]
    assert max(rates[2:]) < rates[1]
    free = [tokens_per_s(run("llama-cpp-sme", Phase.prefill(512), t, without={"oversubscription"})) for t in (2, 4)]
    assert free[1] > free[0]


def test_one_row_through_the_gemm_kernel_gets_half_and_would_not_without_whole_tiles() -> None:
    decode = Phase.decode(64)
    gemm, gemv = (tokens_per_s(run(f"llama-cpp-sme{name}", decode, 1, "f32")) for name in ("-no-gemv", ""))
    assert gemv / gemm > 1.6
    without = tokens_per_s(run("llama-cpp-sme-no-gemv", decode, 1, "f32", {"edge_tiles", "exposed_latency"}))
    assert without == pytest.approx(gemv, rel=0.15)


def test_hybrid_gains_from_cores_that_sme_alone_leaves_idle() -> None:
    sme, hybrid = (tokens_per_s(run(f"llama-cpp-{name}", Phase.prefill(512), 8, "q4_k")) for name in ("sme", "hybrid"))
    assert hybrid > 1.3 * sme
    same = [tokens_per_s(run(f"llama-cpp-{name}", Phase.prefill(512), 1, "q4_k")) for name in ("sme", "hybrid")]
    assert same[0] == pytest.approx(same[1], rel=0.01)


def test_all_cores_meet_late_where_others_run() -> None:
    decode = Phase.decode(64)
    some, everybody = (tokens_per_s(run("llama-cpp-neon", decode, t)) for t in (8, PRO.core_count))
    assert everybody < 0.5 * some
    assert tokens_per_s(run("llama-cpp-neon", decode, PRO.core_count, without={"barrier"})) > 2 * everybody


def test_slow_cores_hold_up_every_meeting() -> None:
    spark, half = library.load("dgx-spark"), catalog.load("qwen2.5-0.5b")

    def rate(threads: int, without: set[str] | None = None) -> float:
        asked = Run(
            profiles.load("llama-cpp-arm"), spark, half, Phase.decode(64), weight_format("q4_0"), threads,
            ALL_EFFECTS - (without or set()),
        )  # fmt: skip
        return tokens_per_s(asked)

    assert rate(16) < 0.9 * rate(10)  # six of sixteen are small
    assert rate(16, {"barrier"}) > rate(10, {"barrier"})


def test_threads_take_big_cores_first_and_equal_clusters_in_turn() -> None:
    kinds = [thread.kind for thread in threads_on(PRO, 12, "first")]
    assert kinds == ["P0+0", "P1+1", *["P0", "P1"] * 4, "E", "E"]
    with pytest.raises(SmesimError, match=r"15 threads asked of apple-m4-pro; accepted: 1\.\.14"):
        threads_on(PRO, 15, "none")


def test_a_layer_can_be_looked_at_as_a_timeline() -> None:
    asked = run("llama-cpp-hybrid", Phase.prefill(128), 4)
    layer = layer_program(asked)
    timeline = layer.timeline(1e-6)
    products = layer.program.tasks["kind"] == TaskKind.GEMM
    assert set(timeline.worker[products].tolist()) == {0, 1, 2, 3}
    assert phase_seconds(asked) > 10 * np.nanmax(timeline.end_s)


def test_what_an_engine_cannot_do_is_refused() -> None:
    with pytest.raises(SmesimError, match=r"engine rten has no kernel for 'q4_0'; accepted: f32, i8mm, udot"):
        phase_seconds(run("rten", Phase.prefill(16), 1))
    with pytest.raises(SmesimError, match="unknown format of weights 'q3'; accepted: f32"):
        weight_format("q3")


def test_advice_ranks_settings_and_says_how_to_get_the_best(smesim: CommandLine) -> None:
    words = ("advise", "--chip", "apple-m4-pro", "--model", "llama-3.2-1b", "--quant", "q4_0")
    advice = smesim(*words, "--json").json()
    assert list(advice) == ["prefill:512", "decode:512"]
    for ranked in advice.values():
        rates = [setting["tokens_per_s"] for setting in ranked]
        assert rates == sorted(rates, reverse=True) or max(rates) - rates[0] < 0.1
    best = advice["prefill:512"][0]
    assert (best["computes"], best["on_units"]) == ("both", 2)
    assert best["environment"] == f"GGML_KLEIDIAI_SME=2 -t {best['threads']}"
    assert "accepted: llama.cpp" in smesim(*words, "--engine", "mlx").refusal()
    assert "accepted: Arm chips" in smesim(*words[:2], "server-spr-amx", *words[3:]).refusal()
    assert "no kernel of llama.cpp for weights of q5_0" in smesim(*words[:-1], "q5_0").refusal()
