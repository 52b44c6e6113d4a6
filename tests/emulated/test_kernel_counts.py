"""Instructions of the kernels, counted by the emulator, held against what the design of each kernel says."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from smesim.counts import KernelCount, count_leaves
from smesim.emulation import EmulatedDevice, Features
from smesim.errors import DeviceError
from smesim.instructions import InstructionClass
from tests.emulated.conftest import Run

OUTER_PRODUCT, LOAD, STORE = InstructionClass.OUTER_PRODUCT, InstructionClass.LOAD, InstructionClass.STORE
ZA_MOVE, VECTOR = InstructionClass.ZA_MOVE, InstructionClass.VECTOR
F32_BYTES = 4
LOADS_OF_FOUR_VECTORS = ((0xFFE08000, 0xA0008000), (0xFFF08000, 0xA0408000))
"""Masks and values of SME2's contiguous loads, at an address plus a register, or plus what the instruction says."""
LOAD_OF_ROW, STORE_OF_COLUMN = (0xFFE08000, 0xE0800000), (0xFFE08000, 0xE0A08000)
"""The same of a horizontal slice of a tile of 32-bit numbers from memory, and of a vertical one to it."""

SME2 = tuple(EmulatedDevice(svl) for svl in (128, 512, 1024, 2048))
SME1 = tuple(EmulatedDevice(svl, Features.SME1) for svl in (128, 512, 2048))
NO_SME = EmulatedDevice(features=Features.NONE)
GEMV_N, GEMV_K = 128, 256
GEMV_SHAPE = f"1x{GEMV_N}x{GEMV_K}"
CALLS = ("gemm_f32:64x64x1024", f"gemv_f32:{GEMV_SHAPE}", "attn_qk:32x64x128", "attn_pv:32x64x128",
         "pack_lhs:32x16x64", "pack_rhs:16x32x64", "gemm_f32:32x32x64")  # fmt: skip
WORDS = {"gemm_bf16": 2, "gemm_f16": 2, "gemm_s8": 4}
"""Products that take so many neighbouring k in one word."""
WORDS_SIZE = 512
WORDS_CALLS = tuple(f"{kernel}:{WORDS_SIZE}x{WORDS_SIZE}x{WORDS_SIZE}" for kernel in WORDS)
CALLS_OF_SME = (f"gemv_s8:{GEMV_SHAPE}", f"gemv_q4:{GEMV_SHAPE}")
Counts = dict[str, KernelCount]


def tile_shapes(device: EmulatedDevice) -> list[tuple[int, int, int]]:
    """Shapes of whole tiles and of parts, whose strips are all more than one vector high."""
    tile = 2 * device.svl_bits // 32
    return [(tile, tile, 33), (2 * tile, 3 * tile - 1, 64), (tile - 1, 1, 5), (3 * tile - 2, 17, 2)]


def tile_calls(device: EmulatedDevice) -> list[str]:
    return [f"gemm_f32:{m}x{n}x{k}" for m, n, k in tile_shapes(device)]


def all_counts(device: EmulatedDevice) -> Counts:
    calls = [*CALLS, *([] if device == NO_SME else [*CALLS_OF_SME, *tile_calls(device)])]
    calls += WORDS_CALLS if device in {SME2[1], SME1[1]} else ()
    return dict(zip(calls, count_leaves(device, None, calls), strict=True))


@pytest.fixture(scope="module")
def counts() -> Iterator[Callable[[EmulatedDevice], Counts]]:
    """What each device counts; all its calls in one emulated process, as many of these at a time as there are cores."""
    pool = ThreadPoolExecutor(os.cpu_count())
    found: Mapping[EmulatedDevice, Future[Counts]] = {
        device: pool.submit(all_counts, device) for device in (*SME2, *SME1, NO_SME)
    }
    yield lambda device: found[device].result()
    pool.shutdown(cancel_futures=True)


def times_of(counted: KernelCount, *patterns: tuple[int, int]) -> int:
    """How often an instruction was executed whose word, masked, is the value of a pattern."""
    return sum(
        times for word, times in counted.words.items() if any(word & mask == value for mask, value in patterns)
    )


def name_of(device: EmulatedDevice) -> str:
    return f"{device.features}-{device.svl_bits}"


@pytest.mark.parametrize("device", [*SME2, *SME1], ids=name_of)
def test_outer_products_of_a_gemm_are_those_of_its_tiles(
    device: EmulatedDevice, counts: Callable[[EmulatedDevice], Counts]
) -> None:
    """Four for each k and each tile of two vectors by two, whole or not."""
    tile = 2 * device.svl_bits // 32
    found = [counts(device)[call].counts[OUTER_PRODUCT] for call in tile_calls(device)]
    assert found == [4 * math.ceil(m / tile) * math.ceil(n / tile) * k for m, n, k in tile_shapes(device)]


@pytest.mark.parametrize(
    ("device", "loads_of_16", "more"), [(SME2[1], 4, 1.15), (SME1[1], 12, 1.03)], ids=["sme2", "sme1"]
)
def test_outer_products_are_almost_half_of_what_a_gemm_does(
    device: EmulatedDevice, loads_of_16: int, more: float, counts: Callable[[EmulatedDevice], Counts]
) -> None:
    """At SVL 512 four outer products need four vectors, of which SME2 loads four at a time, SME alone two of rows."""
    counted = counts(device)["gemm_f32:64x64x1024"].counts
    assert counted[OUTER_PRODUCT] == 4 * 2 * 2 * 1024
    assert counted[OUTER_PRODUCT] >= 0.45 * sum(counted.values())
    of_operands = counted[OUTER_PRODUCT] * loads_of_16 // 16
    assert of_operands <= counted[LOAD] <= more * of_operands
    assert counted[STORE] >= 64 * 64 * F32_BYTES // (512 // 8)


@pytest.mark.parametrize("call", WORDS_CALLS)
@pytest.mark.parametrize("device", [SME2[1], SME1[1]], ids=name_of)
def test_low_precision_has_fewer_outer_products_by_what_is_in_a_word(
    call: str, device: EmulatedDevice, counts: Callable[[EmulatedDevice], Counts]
) -> None:
    """And what ends a tile weighs the more, most of all for int8: scaling a vector of sums takes five instructions."""
    counted = counts(device)[call].counts
    kernel = call.partition(":")[0]
    assert counted[OUTER_PRODUCT] == 4 * (WORDS_SIZE // 32) ** 2 * WORDS_SIZE // WORDS[kernel]
    assert counted[OUTER_PRODUCT] >= 0.4 * sum(counted.values())


@pytest.mark.parametrize(("kernel", "bits"), [("gemv_s8", 8), ("gemv_q4", 4)])
def test_a_product_of_integers_with_a_vector_reads_each_weight_once(
    kernel: str, bits: int, counts: Callable[[EmulatedDevice], Counts]
) -> None:
    counted = counts(SME2[1])[f"{kernel}:{GEMV_SHAPE}"]
    assert times_of(counted, *LOADS_OF_FOUR_VECTORS) * 4 * 512 == GEMV_N * GEMV_K * bits


@pytest.mark.parametrize("device", SME2, ids=name_of)
def test_a_product_with_a_vector_reads_each_weight_once(
    device: EmulatedDevice, counts: Callable[[EmulatedDevice], Counts]
) -> None:
    counted = counts(device)[CALLS[1]]
    of_weights = times_of(counted, *LOADS_OF_FOUR_VECTORS)
    assert of_weights * 4 * device.svl_bits // 8 == GEMV_N * GEMV_K * F32_BYTES
    # And x once for every four panels of 16 columns, a number at a time; the rest adds up what belongs together.
    assert counted.counts[LOAD] - of_weights <= 1.25 * (GEMV_N // 64 * GEMV_K) + 8 * GEMV_N
    assert counted.counts[OUTER_PRODUCT] == 0


def test_packing_takes_rows_in_and_gives_columns_out_a_vector_at_a_time(
    counts: Callable[[EmulatedDevice], Counts],
) -> None:
    for call in ("pack_lhs:32x16x64", "pack_rhs:16x32x64"):
        counted = counts(SME2[1])[call]
        assert times_of(counted, LOAD_OF_ROW) == times_of(counted, STORE_OF_COLUMN) == 32 * 64 // 16
        assert counted.counts[OUTER_PRODUCT] == 0


def test_the_products_of_attention_have_the_outer_products_of_a_gemm(
    counts: Callable[[EmulatedDevice], Counts],
) -> None:
    found = [counts(SME2[1])[call].counts[OUTER_PRODUCT] for call in ("attn_qk:32x64x128", "attn_pv:32x64x128")]
    assert found == [4 * 2 * 128] * 2


def test_kernels_of_the_cores_are_counted_too(counts: Callable[[EmulatedDevice], Counts]) -> None:
    counted = counts(NO_SME)["gemm_f32:32x32x64"]
    assert (counted.isa, counted.svl_bits) == ("neon", 0)
    assert counted.counts[OUTER_PRODUCT] == counted.counts[ZA_MOVE] == 0
    assert 32 * 32 * 64 // 4 <= counted.counts[VECTOR] <= 1.1 * (32 * 32 * 64 // 4)
    (beside_sme,) = count_leaves(SME2[0], "neon", ["gemm_f32:32x32x64"])
    assert beside_sme.words == counted.words


def test_a_count_is_printed_as_json_and_is_the_same_each_time(
    emulate: Callable[..., Run], counts: Callable[[EmulatedDevice], Counts]
) -> None:
    ended = emulate("--svl", "512", "--count", "gemm_f32", "--shape", "32x32x64", "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert list(found) == ["kernel", "shape", "svl_bits", "isa", "counts"]
    assert (found["kernel"], found["shape"], found["svl_bits"], found["isa"]) == ("gemm_f32", "32x32x64", 512, "sme2")
    assert found["counts"] == counts(SME2[1])["gemm_f32:32x32x64"].counts


def test_kernels_that_the_processor_lacks_are_refused_with_those_that_it_has() -> None:
    refusal = "no gemm_f32 of 'sme2' on this processor; accepted for --isa: sme, neon, portable"
    with pytest.raises(DeviceError, match=refusal):
        count_leaves(SME1[0], "sme2", ["gemm_f32:8x8x8"])
