"""Buffers: what is written is read back, random weights depend on the seed alone, and the bill is said beforehand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smesim.errors import DeviceError
from smesim.exec import bf16
from smesim.exec.allocation import HUGE_PAGE_BYTES, allocate
from smesim.exec.device import Device, native
from smesim.exec.executor import NativeExecutor
from smesim.exec.memory import HEADROOM, MemoryBill, check_fits, memory_bill
from smesim.exec.tensors import Tensors
from smesim.plan.lower import lower
from smesim.plan.planners import cpu_only
from smesim.plan.program import BufferRole, Layout, Program
from smesim.workload import DType, ModelConfig, Phase, build_graph, catalog
from smesim.workload.graph import Role
from tests.exec.native_models import (
    CHIP,
    CORES,
    DEVICE,
    Cut,
    cut_plan,
    execute,
    little,
    little_models,
    little_phases,
    make_case,
)
from tests.oracles.reference_model import to_bf16

ffi, lib = native()


def program_of(model: ModelConfig, phase: Phase | str, threads: int = 1) -> Program:
    return lower(cut_plan(model, Phase.parse(phase) if isinstance(phase, str) else phase, Cut(threads=threads)))


@settings(max_examples=25, deadline=None)
@given(model=little_models(), phase=little_phases())
def test_buffers_have_the_sizes_that_the_kernels_count_with(model: ModelConfig, phase: Phase) -> None:
    program = program_of(model, phase)
    for name, facts in zip(program.buffer_names, program.buffers, strict=True):
        rows, columns, floats = int(facts["rows"]), int(facts["columns"]), int(facts["n_bytes"]) // 4
        heads = phase.batch * model.kv_heads
        match Layout(facts["layout"]):
            case Layout.RHS_PACKED:
                assert floats == lib.sms_rhs_size(rows, columns)
            case Layout.K_PACKED:
                assert floats == heads * lib.sms_k_cache_size(rows, columns)
                assert rows >= phase.context
            case Layout.V_PACKED:
                assert floats == heads * lib.sms_v_cache_size(rows, columns)
            case _:
                assert floats == rows * columns, name


def test_weights_and_packed_activations_in_bf16_have_the_sizes_that_the_kernels_count_with() -> None:
    program = lower(cut_plan(little(), Phase.prefill(9), Cut(weights=DType.BF16)))
    for name, facts in zip(program.buffer_names, program.buffers, strict=True):
        rows, columns, n_bytes = int(facts["rows"]), int(facts["columns"]), int(facts["n_bytes"])
        match Layout(facts["layout"]):
            case Layout.RHS_PACKED:
                assert n_bytes == 2 * lib.sms_rhs_grouped_size(rows, columns, lib.SMS_BF16_GROUP)
            case Layout.LHS_PACKED:
                assert n_bytes == 2 * lib.sms_lhs_grouped_size(rows, columns, lib.SMS_BF16_GROUP)
            case Layout.ROW_MAJOR if name != "embed.weight":
                assert n_bytes == 4 * rows * columns, name


@settings(max_examples=25, deadline=None)
@given(model=little_models(), phase=little_phases(), seed=st.integers(0, 2**32 - 1))
def test_every_layout_reads_back_what_was_written(model: ModelConfig, phase: Phase, seed: int) -> None:
    program = program_of(model, phase)
    tensors = Tensors(program, DEVICE)
    rng = np.random.default_rng(seed)
    for name, facts in zip(program.buffer_names, program.buffers, strict=True):
        if facts["layout"] == Layout.LHS_PACKED:
            continue
        shape = tuple(int(facts[axis]) for axis in ("rows", "columns"))
        if facts["role"] == BufferRole.KV:
            shape = (phase.batch * model.kv_heads, *shape)
        written = rng.integers(0, 99, shape).astype(np.float32)
        tensors.write(name, written)
        np.testing.assert_array_equal(tensors.read(name).reshape(shape), written)


def test_packed_weights_are_packed_as_the_kernels_pack_them() -> None:
    model = little()
    case = make_case(model, Phase.prefill(3), Cut(), seed=0)
    tensors = Tensors.from_arrays(case.program, model, DEVICE, case.arrays)
    weight = case.arrays["layers.0.q_proj.weight"]
    n, k = weight.shape
    packed = np.empty(lib.sms_rhs_size(n, k), np.float32)
    pointers = [ffi.from_buffer("float *", a) for a in (weight, packed)]
    lib.sms_kernels_best().pack_rhs(pointers[0], k, n, k, 0, lib.sms_rhs_panels(n), pointers[1])
    held = tensors.arrays[case.program.buffer_index("layers.0.q_proj.weight")].view(np.float32)
    np.testing.assert_array_equal(held, packed)


WRONG = {
    "layers.0.q_proj.weight": (np.zeros((60, 36), np.float32), r"shape \(60, 36\); accepted: 2220 elements"),
    "layers.0.k_cache": (np.zeros((1, 3, 4, 10), np.float32), r"shape \(1, 3, 4, 10\); accepted: 2 heads in all"),
    "layers.0.v_cache": (np.zeros((1, 2, 99, 10), np.float32), r"at most 32 positions"),
    "tokens": (np.array([0, 1, 61]), r"'tokens' has tokens 0\.\.61; accepted: 0\.\.60"),
}


@pytest.mark.parametrize("name", WRONG)
def test_arrays_that_do_not_fit_are_refused(name: str) -> None:
    case = make_case(little(), Phase.prefill(3, past=20), Cut(), seed=0)
    array, message = WRONG[name]
    with pytest.raises(DeviceError, match=message):
        Tensors.from_arrays(case.program, case.plan.model, DEVICE, case.arrays | {name: array})


@pytest.mark.parametrize("name", ["tokens", "final_norm.weight"])
def test_arrays_that_are_missing_are_named(name: str) -> None:
    case = make_case(little(), Phase.prefill(3), Cut(), seed=0)
    del case.arrays[name]
    with pytest.raises(DeviceError, match=f"no array for '{name}'"):
        Tensors.from_arrays(case.program, case.plan.model, DEVICE, case.arrays)


def test_packed_activations_are_neither_written_nor_read() -> None:
    case = make_case(little(), Phase.prefill(3), Cut(), seed=0)
    tensors = Tensors(case.program, DEVICE)
    name = next(name for name in case.program.buffer_names if ".lhs_f32_m" in name)
    with pytest.raises(DeviceError, match="not for reading"):
        tensors.read(name)
    with pytest.raises(DeviceError, match="written by tasks only"):
        tensors.write(name, np.zeros((3, 37), np.float32))


# -- random weights


def random(program: Program, model: ModelConfig, seed: int = 7, device: Device = DEVICE, share=None) -> Tensors:
    return Tensors.random(program, model, device, seed, share=share)


def weights(program: Program) -> list[str]:
    return [n for n, f in zip(program.buffer_names, program.buffers, strict=True) if f["role"] == BufferRole.WEIGHT]


def test_random_weights_are_the_same_for_every_phase_thread_count_and_instruction_set() -> None:
    model = little(layers=2, architecture="qwen2", qkv_bias=True)
    base = program_of(model, "prefill:9")
    expected = random(base, model)
    portable = tuple(kernels for kernels in DEVICE.kernels if kernels.isa == "portable")
    slow = dataclasses.replace(DEVICE, cores=DEVICE.cores[:1], kernels=portable)
    for program, device in (
        (program_of(model, "decode:30", CORES), DEVICE),
        (program_of(model, "prefill:9,batch=2", CORES), slow),
    ):
        other = random(program, model, device=device)
        for name in weights(base):
            np.testing.assert_array_equal(other.read(name), expected.read(name))


def test_random_weights_do_not_depend_on_their_layout() -> None:
    """The embedding is packed where it is the head as well, and row major where it is not."""
    tied, untied = (little(tied_embeddings=t) for t in (True, False))
    one, other = (random(program_of(m, "prefill:3"), m).read("embed.weight") for m in (tied, untied))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("piece_bytes", [1, bf16.PIECE_BYTES])
def test_random_weights_in_bf16_are_those_in_f32_rounded(
    tied: bool, piece_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = little(tied_embeddings=tied)
    monkeypatch.setattr(bf16, "PIECE_BYTES", piece_bytes)
    plans = (cut_plan(model, Phase.prefill(3), Cut(weights=weights)) for weights in (DType.F32, DType.BF16))
    exact, rounded = (random(lower(plan), model) for plan in plans)
    for name in weights(program_of(model, "prefill:3")):
        expected = exact.read(name).astype(np.float64)
        expected = to_bf16(expected) if expected.shape[0] > 1 else expected
        np.testing.assert_array_equal(rounded.read(name), expected)


def test_another_seed_gives_other_weights_and_tensors_of_one_seed_differ() -> None:
    model = little(layers=2)
    program = program_of(model, "prefill:9")
    one, two = random(program, model, 1), random(program, model, 2)
    for name in weights(program):
        assert not np.array_equal(one.read(name), two.read(name))
    assert not np.array_equal(one.read("layers.0.q_proj.weight"), one.read("layers.1.q_proj.weight"))
    assert not np.array_equal(one.read("layers.0.gate_proj.weight"), one.read("layers.0.up_proj.weight"))


def test_random_weights_keep_the_size_of_what_passes_through() -> None:
    model = little(d_model=512, d_ff=512)
    program = program_of(model, "prefill:9")
    tensors = random(program, model)
    weight = tensors.read("layers.0.gate_proj.weight")
    assert weight.std() * 512**0.5 == pytest.approx(1.0, rel=0.01)
    assert abs(weight.mean()) * 512 < 1
    assert tensors.read("final_norm.weight").mean() == pytest.approx(1.0, abs=0.05)
    tokens = tensors.read("tokens")
    assert tokens.min() >= 0
    assert tokens.max() < model.vocab


def test_a_run_on_random_weights_is_finite_and_repeats() -> None:
    model = little(layers=3, d_ff=1, vocab=1)  # products of one column are still products
    plan = cut_plan(model, Phase.parse("prefill:9,past=7,batch=2"), Cut(threads=CORES))
    program = lower(plan)
    results = []
    for _ in range(2):
        tensors = random(program, model)
        NativeExecutor(DEVICE).run(program, tensors, plan)
        results.append(tensors.arrays)
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


def test_filling_reports_all_bytes_that_it_fills() -> None:
    model = little(layers=2)
    program = program_of(model, "prefill:9")
    seen: list[int] = []
    Tensors.random(program, model, DEVICE, 0, seen.append)
    matrices = [f for f in program.buffers if f["role"] == BufferRole.WEIGHT and f["rows"] > 1]
    assert sum(seen) >= sum(int(f["n_bytes"]) for f in matrices)
    assert sum(seen) <= int(program.buffers["n_bytes"].sum())


def test_programs_of_one_model_share_their_weights() -> None:
    model = little(layers=2)
    prefill, decode = program_of(model, "prefill:9"), program_of(model, "decode:30")
    first = random(prefill, model)
    second = random(decode, model, share=first)
    for name in weights(prefill):
        theirs, ours = (t.arrays[p.buffer_index(name)] for t, p in ((first, prefill), (second, decode)))
        assert np.shares_memory(theirs, ours)
    for one, other in zip(random(decode, model).arrays, second.arrays, strict=True):
        np.testing.assert_array_equal(one, other)
    caches = [t.arrays[p.buffer_index("layers.0.k_cache")] for t, p in ((first, prefill), (second, decode))]
    assert not np.shares_memory(*caches)


def test_weights_of_another_size_are_not_shared() -> None:
    one, other = little(), little(d_model=45)
    first = random(program_of(one, "prefill:3"), one)
    program = program_of(other, "prefill:3")
    for mine, fresh in zip(random(program, other, share=first).arrays, random(program, other).arrays, strict=True):
        np.testing.assert_array_equal(mine, fresh)


def test_shared_weights_give_the_same_results() -> None:
    model = little()
    case = make_case(model, Phase.prefill(5), Cut(), seed=0)
    _, tensors = execute(case)
    shared = Tensors(case.program, DEVICE, tensors)
    shared.write("tokens", case.arrays["tokens"])
    for table in ("rope.cos", "rope.sin"):
        shared.write(table, tensors.read(table))
    NativeExecutor(DEVICE).run(case.program, shared, case.plan)
    np.testing.assert_array_equal(shared.read("lm_head.out[1x61]"), tensors.read("lm_head.out[1x61]"))


# -- memory


@pytest.mark.parametrize("n_bytes", [0, 1, 4096, HUGE_PAGE_BYTES, HUGE_PAGE_BYTES + 1])
def test_memory_is_zeroed_and_aligned_to_huge_pages(n_bytes: int) -> None:
    array = allocate(n_bytes)
    assert array.shape == (n_bytes,)
    assert not array.any()
    if n_bytes:
        assert array.ctypes.data % HUGE_PAGE_BYTES == 0


def test_the_bill_counts_every_buffer_once() -> None:
    program = program_of(little(layers=2), "prefill:9,past=3")
    bill = memory_bill(program, scratch_bytes=1000)
    assert bill.total_bytes == int(program.buffers["n_bytes"].sum()) + 1000
    named = dict(zip(program.buffer_names, program.buffers["n_bytes"].tolist(), strict=True))
    assert bill.kv_bytes == sum(n for name, n in named.items() if "_cache" in name)
    assert bill.packed_bytes == sum(n for name, n in named.items() if ".lhs_f32_m" in name)
    assert bill.weights_bytes == sum(n for name, n in named.items() if name.endswith((".weight", ".bias")))


def test_the_bill_has_all_experts_also_those_that_get_no_rows() -> None:
    model = catalog.load("qwen3-30b-a3b")
    graph = build_graph(model, Phase.decode(9), layers=3)
    bill = memory_bill(lower(cpu_only(graph, CHIP)), scratch_bytes=0)
    assert bill.weights_bytes == graph.resident_bytes(Role.WEIGHT)
    assert bill.weights_bytes > 3 * 128 * 3 * 768 * 2048 * 4


def test_the_executors_bill_has_scratch_for_each_worker() -> None:
    executor = NativeExecutor(DEVICE)
    bills = [executor.check(program_of(little(), "prefill:9", threads)) for threads in (1, CORES)]
    assert bills[0].scratch_bytes > 0
    assert bills[1].scratch_bytes == CORES * bills[0].scratch_bytes


def test_what_does_not_fit_is_refused_with_the_bill() -> None:
    program = program_of(little(layers=2), "prefill:9")
    small = dataclasses.replace(DEVICE, available_bytes=100_000)
    with pytest.raises(DeviceError) as error:
        NativeExecutor(small).check(program)
    message = str(error.value)
    assert "\n" not in message
    for part in ("weights", "packed", "KV cache", "activations", "scratch", "100 kB are available", "--layers"):
        assert part in message


def test_the_limit_leaves_room_for_python() -> None:
    bill = MemoryBill(weights_bytes=90, packed_bytes=2, kv_bytes=1, activations_bytes=1, scratch_bytes=1)
    check_fits(bill, round(95 / HEADROOM))
    with pytest.raises(DeviceError):
        check_fits(bill, 99)


def test_weights_that_are_in_memory_already_are_not_counted_again() -> None:
    model = little(layers=2)
    prefill, decode = program_of(model, "prefill:9"), program_of(model, "decode:9")
    tensors = random(prefill, model)
    needed = NativeExecutor(DEVICE).check(decode).total_bytes
    left = dataclasses.replace(DEVICE, available_bytes=needed - tensors.shared_bytes(decode) // 2)
    executor = NativeExecutor(left)
    with pytest.raises(DeviceError):
        executor.check(decode)
    executor.check(decode, share=tensors)
    other = little(layers=2, d_model=70)
    with pytest.raises(DeviceError):
        executor.check(decode, share=random(program_of(other, "prefill:9"), other))
