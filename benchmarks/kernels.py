"""The native kernels against numpy (OpenBLAS) and torch: every figure is a ratio of times taken in one run.

    python benchmarks/kernels.py                     # all cases on one thread
    python benchmarks/kernels.py --threads 2         # and how our own GEMM scales
    python benchmarks/kernels.py --only gemm --json
    python benchmarks/kernels.py --only lowp         # bf16, f16 and int8 against our own f32
    python benchmarks/kernels.py --only blocks       # weights in blocks of 4 and 8 bits

A case has contestants that do the same work on the same numbers. Their repetitions are interleaved, so that a machine
that slows down for a while slows all of them; best and median are reported. ``ratio`` is the peer's time over ours:
above one we are faster. Times of GEMM include packing the left factor; the right one, the weight, is packed once at
load, as in a model. Peers get as many threads as we do.
"""

import argparse
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

GEMM_SHAPES = [(3072, 3072), (8192, 3072), (3072, 8192), (1024, 3072)]
GEMM_ROWS = [8, 32, 128, 512]
GEMM_TARGETS = {8: 1.3, 128: 0.9, 512: 0.9}
LM_HEAD = (128256, 3072)
GEMV_TARGET = 0.8  # of the bandwidth that the reading loop reaches
ATTENTION = {"heads": 24, "kv_heads": 8, "head_dim": 128}
ATTENTION_TOKENS = [128, 512, 2048]
ATTENTION_TARGETS = {512: 1 / 0.7}
SCALING_TARGET = 1.8
LOWP_ROWS = [8, 128, 512]
LOWP_TARGETS = {"bf16": 0.9, "f16": 0.9, "s8": 1.3}  # of our own f32, with AVX2, which multiplies neither
LOWP_BYTES = {"bf16": 2, "f16": 2, "s8": 1}
BLOCKS_TARGETS = {4: 1.5, 8: 1.2}  # of our own f32, with AVX2
BLOCK = 32
F16_BYTES = 2
Contestants = Mapping[str, Callable[[], object]]

NR = 16
ALIGNMENT_BYTES = 64
PARTS_A_THREAD = 8


@dataclass(frozen=True)
class Result:
    """One contestant pair of one case; rates are of our best time."""

    case: str
    peer: str
    ours_best_s: float
    ours_median_s: float
    peer_best_s: float
    peer_median_s: float
    rate: float
    rate_unit: str
    target: float | None

    @property
    def ratio(self) -> float:
        return self.peer_best_s / self.ours_best_s

    @property
    def ratio_of_medians(self) -> float:
        return self.peer_median_s / self.ours_median_s


def interleave(contestants: Contestants, repeats: int) -> dict[str, list[float]]:
    """Seconds of every repetition of every contestant, in turns, after one warm-up each."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for repeat in range(repeats + 1):
        for name, run in contestants.items():
            begin = time.perf_counter()
            run()
            if repeat > 0:
                times[name].append(time.perf_counter() - begin)
    return times


def compare(
    case: str, contestants: Contestants, repeats: int, work: float, unit: str, target: float | None
) -> Iterator[Result]:
    """A result for each peer of the contestant named ``ours``; work is in units of 1e9."""
    times = interleave(contestants, repeats)
    ours = times.pop("ours")
    for peer, theirs in times.items():
        yield Result(
            case, peer, min(ours), statistics.median(ours), min(theirs), statistics.median(theirs),
            work / min(ours), unit, target,
        )  # fmt: skip


def pin(core: int | None) -> None:
    """Keep the calling thread on a core, where the system lets us."""
    if core is not None:
        os.sched_setaffinity(0, {core})


class Bench:
    """The chosen kernels, the peers' threads, and the arrays' addresses."""

    def __init__(self, isa: str | None, threads: int, repeats: int) -> None:
        import numpy as np
        from smesim.exec._native import ffi, lib

        self.np, self.ffi, self.lib = np, ffi, lib
        self.kernels: Any = lib.sms_kernels_find(isa.encode()) if isa else lib.sms_kernels_best()
        if self.kernels == ffi.NULL:
            sys.exit(f"kernels {isa!r} are not compiled in, or this machine cannot run them")
        self.lowp: Any = lib.sms_lowp_find(isa.encode()) if isa else lib.sms_lowp_best()
        self.blocks: Any = lib.sms_blocks_find(isa.encode()) if isa else lib.sms_blocks_best()
        self.threads, self.repeats = threads, repeats
        cores = iter(sorted(os.sched_getaffinity(0))[:threads]) if hasattr(os, "sched_getaffinity") else iter(())
        self.pool = ThreadPoolExecutor(threads, initializer=lambda: pin(next(cores, None)))
        self.rng = np.random.default_rng(0)

    def aligned(self, *shape: int, dtype: str = "float32") -> Any:
        size = int(self.np.prod(shape)) * self.np.dtype(dtype).itemsize
        memory = self.np.empty(size + ALIGNMENT_BYTES, self.np.uint8)
        begin = -memory.ctypes.data % ALIGNMENT_BYTES
        return memory[begin : begin + size].view(dtype).reshape(shape)

    def normal(self, *shape: int) -> Any:
        out = self.aligned(*shape)
        out[:] = self.rng.standard_normal(shape, dtype=self.np.float32)
        return out

    def pointer(self, array: Any) -> Any:
        names = {"float32": "float *", "uint16": "uint16_t *", "int8": "int8_t *", "uint8": "uint8_t *"}
        return self.ffi.cast(names[str(array.dtype)], array.ctypes.data)

    def split(self, count: int, threads: int, work: Callable[[int, int], object]) -> None:
        """Calls work(begin, end) on parts of range(count), several a thread; a leaf runs without the GIL.

        Threads stay on cores of their own and draw the parts from a queue, as the workers of a program do.
        """
        if threads == 1:
            work(0, count)
            return
        pieces = min(count, PARTS_A_THREAD * threads)
        parts = iter([(i * count // pieces, (i + 1) * count // pieces) for i in range(pieces)])
        lock = threading.Lock()

        def draw() -> None:
            while True:
                with lock:
                    part = next(parts, None)
                if part is None:
                    return
                work(*part)

        for job in [self.pool.submit(draw) for _ in range(threads)]:
            job.result()

    def packed(self, w: Any) -> Any:
        n, k = w.shape
        out = self.aligned(-(-n // NR) * NR * k)
        self.kernels.pack_rhs(self.pointer(w), k, n, k, 0, -(-n // NR), self.pointer(out))
        return out

    def gemm(self, x: Any, lhs: Any, rhs: Any, c: Any, threads: int) -> None:
        kernels, (m, k), n = self.kernels, x.shape, c.shape[1]
        mr = int(kernels.mr)
        strips = -(-m // mr)
        a, b, out = self.pointer(lhs), self.pointer(rhs), self.pointer(c)
        self.split(strips, threads, lambda s0, s1: kernels.pack_lhs(self.pointer(x), k, m, k, mr, s0, s1, a))
        self.split(
            -(-n // NR),
            threads,
            lambda p0, p1: kernels.gemm(a, m, k, mr, b, n, self.ffi.NULL, out, n, 0, strips, p0, p1),
        )

    def gemm_cases(self) -> Iterator[Result]:
        for n, k in GEMM_SHAPES:
            w = self.normal(n, k)
            rhs = self.packed(w)
            for m in GEMM_ROWS:
                x, lhs, c, numpy_c = self.normal(m, k), self.aligned(m * k), self.aligned(m, n), self.aligned(m, n)
                contestants: dict[str, Callable[[], object]] = {
                    "ours": partial(self.gemm, x, lhs, rhs, c, self.threads),
                    "numpy": partial(self.np.matmul, x, w.T, out=numpy_c),
                }
                if torch := import_torch(self.threads):
                    torch_x, torch_w = torch.from_numpy(x), torch.from_numpy(w)
                    contestants["torch"] = partial(torch.nn.functional.linear, torch_x, torch_w)
                label, work = f"gemm m={m} n={n} k={k}", 2 * m * n * k / 1e9
                for result in compare(label, contestants, self.repeats, work, "GFLOP/s", None):
                    yield replace(result, target=GEMM_TARGETS.get(m) if result.peer == "numpy" else None)
                self.np.testing.assert_allclose(c, numpy_c, atol=1e-4 * k**0.5)

    def scaling_cases(self) -> Iterator[Result]:
        """Our products on all threads against one, and beside them, in the same turns, as many multiply-adds that
        touch no memory: what the machine gives to more threads at that time, whatever they do."""
        for n, k in GEMM_SHAPES:
            rhs = self.packed(self.normal(n, k))
            for m in (128, 512):
                x, lhs, c = self.normal(m, k), self.aligned(m * k), self.aligned(m, n)
                flop = 2 * m * n * k
                turns = flop // self.kernels.fma_flop
                contestants = {
                    "ours": partial(self.gemm, x, lhs, rhs, c, self.threads),
                    "ours, 1 thread": partial(self.gemm, x, lhs, rhs, c, 1),
                    "multiply-adds": partial(self.split, turns, self.threads, self.multiply_add),
                    "multiply-adds, 1 thread": partial(self.split, turns, 1, self.multiply_add),
                }
                times = interleave(contestants, self.repeats)
                where = f"m={m} n={n} k={k} on {self.threads}"
                for name, target in (("ours", SCALING_TARGET / 2 * self.threads), ("multiply-adds", None)):
                    what = "gemm" if name == "ours" else "multiply-adds, as many as gemm"
                    of_all, of_one = times[name], times[f"{name}, 1 thread"]
                    yield Result(
                        f"{what} {where}", f"{name}, 1 thread", min(of_all), statistics.median(of_all), min(of_one),
                        statistics.median(of_one), flop / 1e9 / min(of_all), "GFLOP/s", target,
                    )  # fmt: skip

    def multiply_add(self, begin: int, end: int) -> None:
        self.kernels.fma_peak(end - begin)

    def gemv_cases(self) -> Iterator[Result]:
        n, k = LM_HEAD
        kernels, none = self.kernels, self.ffi.NULL
        weights = self.aligned(n, k)
        panels = n // NR
        address = self.pointer(weights)
        kernels.fill_rhs(address, n, k, 0, panels, 1, 1.0)
        x, y = self.normal(k), self.aligned(n)
        contestants: dict[str, Callable[[], object]] = {
            "ours": lambda: self.split(
                panels,
                self.threads,
                lambda p0, p1: kernels.gemv(self.pointer(x), address, n, k, none, self.pointer(y), p0, p1),
            ),
            "reading alone": lambda: self.split(
                n, self.threads, lambda n0, n1: kernels.read_bandwidth(address + n0 * k, (n1 - n0) * k, 1)
            ),
            "numpy": lambda: self.np.dot(weights, x, out=y),
        }
        for result in compare(f"gemv n={n} k={k}", contestants, self.repeats, n * k * 4 / 1e9, "GB/s", None):
            yield replace(result, target=GEMV_TARGET if result.peer == "reading alone" else None)

    def lowp_cases(self) -> Iterator[Result]:
        """Products of bf16, f16 and int8, packing and quantising of the left factor included, against our own f32."""
        lowp, none, p, mr = self.lowp, self.ffi.NULL, self.pointer, int(self.lowp.mr)
        for n, k in GEMM_SHAPES:
            w, rhs = self.normal(n, k), self.aligned(n, k)
            w8, w_scale = self.aligned(n, k, dtype="int8"), self.aligned(n)
            floats = {"bf16": self.aligned(n, k, dtype="uint16"), "f16": self.aligned(n, k, dtype="uint16")}
            self.kernels.pack_rhs(p(w), k, n, k, 0, n // NR, p(rhs))
            for number, w16 in floats.items():
                getattr(lowp, f"pack_rhs_{number}")(p(w), k, n, k, 0, n // NR, p(w16))
            lowp.pack_rhs_s8(p(w), k, n, k, 0, n // NR, p(w8), p(w_scale))
            for m in LOWP_ROWS:
                x, lhs, c, strips = self.normal(m, k), self.aligned(m * k), self.aligned(m, n), -(-m // mr)
                x16, x8, x_scale = self.aligned(m, k, dtype="uint16"), self.aligned(m, k, dtype="int8"), self.aligned(m)
                f32 = partial(self.gemm, x, lhs, rhs, c, self.threads)
                products: dict[str, tuple[Callable[[], object], Callable[[int, int], object]]] = {
                    number: (
                        partial(getattr(lowp, f"pack_lhs_{number}"), p(x), k, m, k, mr, 0, strips, p(x16)),
                        partial(getattr(lowp, f"gemm_{number}"), p(x16), m, k, mr, p(w16), n, none, p(c), n, 0, strips),
                    )
                    for number, w16 in floats.items()
                }
                products["s8"] = (
                    partial(lowp.quantize_lhs_s8, p(x), k, m, k, mr, 0, strips, p(x8), p(x_scale)),
                    partial(lowp.gemm_s8, p(x8), p(x_scale), m, k, mr, p(w8), p(w_scale), n, none, p(c), n, 0, strips),
                )
                for number, (pack, gemm) in products.items():
                    ours = partial(self.pack_and_multiply, pack, gemm, n // NR)
                    label, work = f"gemm {number} m={m} n={n} k={k}", 2 * m * n * k / 1e9
                    target = LOWP_TARGETS[number] if m >= LOWP_ROWS[1] else None
                    yield from compare(label, {"ours": ours, "our f32": f32}, self.repeats, work, "GFLOP/s", target)
        yield from self.lowp_gemv_cases()

    def pack_and_multiply(self, pack: Callable[[], object], gemm: Callable[[int, int], object], panels: int) -> None:
        pack()
        self.split(panels, self.threads, gemm)

    def lowp_gemv_cases(self) -> Iterator[Result]:
        """The weights are one block of memory, read as each dtype in turn: what they are does not matter here."""
        (n, k), p, none = LM_HEAD, self.pointer, self.ffi.NULL
        weights, scale = self.aligned(n, k), self.aligned(n)
        weights[:], scale[:] = 0.0, 1.0
        x, x8, y = self.normal(k), self.aligned(k, dtype="int8"), self.aligned(n)
        as_16_bits, as_s8 = (self.ffi.cast(kind, p(weights)) for kind in ("uint16_t *", "int8_t *"))
        x8[:] = 1
        gemvs: dict[str, Callable[[int, int], object]] = {
            "bf16": partial(self.lowp.gemv_bf16, p(x), as_16_bits, n, k, none, p(y)),
            "f16": partial(self.lowp.gemv_f16, p(x), as_16_bits, n, k, none, p(y)),
            "s8": partial(self.lowp.gemv_s8, p(x8), 1.0, as_s8, p(scale), n, k, none, p(y)),
        }
        for number, gemv in gemvs.items():
            n_bytes = n * k * LOWP_BYTES[number]
            contestants: dict[str, Callable[[], object]] = {
                "ours": partial(self.split, n // NR, self.threads, gemv),
                "reading alone": partial(self.split, n_bytes // 4, self.threads, partial(self.read, p(weights))),
            }
            label = f"gemv {number} n={n} k={k}"
            yield from compare(label, contestants, self.repeats, n_bytes / 1e9, "GB/s", GEMV_TARGET)

    def blocks_leaf(self, name: str, bits: int) -> Any:
        return getattr(self.blocks, f"{name}_q{bits}")

    def blocks_cases(self) -> Iterator[Result]:
        """Products of weights in blocks, quantising of the left factor included, against our own f32."""
        none, p, mr = self.ffi.NULL, self.pointer, int(self.blocks.mr)
        for n, k in GEMM_SHAPES:
            w, rhs = self.normal(n, k), self.aligned(n, k)
            self.kernels.pack_rhs(p(w), k, n, k, 0, n // NR, p(rhs))
            for bits, dtype in ((4, "uint8"), (8, "int8")):
                packed = self.aligned(n * k * bits // 8, dtype=dtype)
                scale = self.aligned(n * k // BLOCK, dtype="uint16")
                self.blocks_leaf("pack_rhs", bits)(p(w), k, n, k, 0, n // NR, p(packed), p(scale))
                for m in LOWP_ROWS:
                    x, lhs, c, strips = self.normal(m, k), self.aligned(m * k), self.aligned(m, n), -(-m // mr)
                    x8, x_scale = self.aligned(m, k, dtype="int8"), self.aligned(m, k // BLOCK)
                    pack = partial(self.blocks.quantize_lhs_q8, p(x), k, m, k, mr, 0, strips, p(x8), p(x_scale))
                    gemm = partial(
                        self.blocks_leaf("gemm", bits),
                        *(p(x8), p(x_scale), m, k, mr, p(packed), p(scale), n, none, p(c), n, 0, strips),
                    )
                    contestants: dict[str, Callable[[], object]] = {
                        "ours": partial(self.pack_and_multiply, pack, gemm, n // NR),
                        "our f32": partial(self.gemm, x, lhs, rhs, c, self.threads),
                    }
                    label, work = f"gemm q{bits} m={m} n={n} k={k}", 2 * m * n * k / 1e9
                    target = BLOCKS_TARGETS[bits] if m >= LOWP_ROWS[1] else None
                    yield from compare(label, contestants, self.repeats, work, "GFLOP/s", target)
        yield from self.blocks_gemv_cases()

    def blocks_gemv_cases(self) -> Iterator[Result]:
        """As with low precision, what the weights are does not matter here."""
        (n, k), p, none = LM_HEAD, self.pointer, self.ffi.NULL
        weights, scale = self.aligned(n, k // 4 + k // BLOCK // 2), self.aligned(n, k // BLOCK, dtype="uint16")
        weights[:], scale[:] = 0.0, 0
        x8, x_scale, y = self.aligned(k, dtype="int8"), self.aligned(k // BLOCK), self.aligned(n)
        x8[:], x_scale[:] = 1, 1.0
        for bits, kind in ((4, "uint8_t *"), (8, "int8_t *")):
            as_blocks, n_bytes = self.ffi.cast(kind, p(weights)), n * k * bits // 8 + scale.size * F16_BYTES
            gemv = partial(
                self.blocks_leaf("gemv", bits), p(x8), p(x_scale), as_blocks, p(scale), n, k, none, p(y)
            )  # fmt: skip
            contestants: dict[str, Callable[[], object]] = {
                "ours": partial(self.split, n // NR, self.threads, gemv),
                "reading alone": partial(self.split, n_bytes // 4, self.threads, partial(self.read, p(weights))),
            }
            label = f"gemv q{bits} n={n} k={k}"
            yield from compare(label, contestants, self.repeats, n_bytes / 1e9, "GB/s", GEMV_TARGET)

    def read(self, numbers: Any, begin: int, end: int) -> None:
        self.kernels.read_bandwidth(numbers + begin, end - begin, 1)

    def attend(self, tokens: int, addresses: list[Any], head0: int, head1: int) -> None:
        """Causal attention of the KV heads head0 .. head1 over one prompt."""
        heads, d = ATTENTION["heads"], ATTENTION["head_dim"]
        group = heads // ATTENTION["kv_heads"]
        q, k_cache, v_cache, out, scratch = addresses
        room = self.kernels.attention_scratch(group, d)
        for head in range(head0, head1):
            at, cache = head * group * d, head * tokens * d
            self.kernels.attention(
                q + at, heads * d, k_cache + cache, v_cache + cache, out + at, heads * d, 0, tokens, 0, group, d,
                tokens, scratch + head * room,
            )  # fmt: skip

    def attention_cases(self) -> Iterator[Result]:
        torch = import_torch(self.threads)
        if torch is None:
            return
        kernels = self.kernels
        heads, kv_heads, d = ATTENTION["heads"], ATTENTION["kv_heads"], ATTENTION["head_dim"]
        group = heads // kv_heads
        sdpa = torch.nn.functional.scaled_dot_product_attention
        for tokens in ATTENTION_TOKENS:
            q, k, v = (self.normal(tokens, h * d) for h in (heads, kv_heads, kv_heads))
            k_cache, v_cache = (self.aligned(kv_heads * tokens * d) for _ in "kv")
            out = self.aligned(tokens, heads * d)
            scratch = self.aligned(kv_heads, kernels.attention_scratch(group, d))
            kernels.kv_append(
                self.pointer(k), kv_heads * d, self.pointer(v), kv_heads * d, tokens, 0, 0, kv_heads, d, tokens,
                self.pointer(k_cache), self.pointer(v_cache),
            )  # fmt: skip

            addresses = [self.pointer(array) for array in (q, k_cache, v_cache, out, scratch)]
            attend = partial(self.attend, tokens, addresses)
            tq, tk, tv = (torch.from_numpy(a).view(1, tokens, -1, d).transpose(1, 2).contiguous() for a in (q, k, v))
            rk, rv = tk.repeat_interleave(group, 1), tv.repeat_interleave(group, 1)
            contestants: dict[str, Callable[[], object]] = {
                "ours": partial(self.split, kv_heads, self.threads, attend),
                "torch, grouped heads": partial(sdpa, tq, tk, tv, is_causal=True, enable_gqa=True),
                "torch, repeated heads": partial(sdpa, tq, rk, rv, is_causal=True),
            }
            work = 4 * d * heads * tokens * (tokens + 1) / 2 / 1e9
            target = ATTENTION_TARGETS.get(tokens)
            yield from compare(f"attention tokens={tokens}", contestants, self.repeats, work, "GFLOP/s", target)
            expected = sdpa(tq, rk, rv, is_causal=True).transpose(1, 2).reshape(tokens, -1).numpy()
            self.np.testing.assert_allclose(out, expected, atol=1e-4)


def import_torch(threads: int) -> Any:
    """torch on so many threads, or None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(threads)
    return torch


def as_dict(result: Result) -> dict[str, object]:
    return {**asdict(result), "ratio": result.ratio, "ratio_of_medians": result.ratio_of_medians}


def print_result(result: Result) -> None:
    verdict = ""
    if result.target is not None:
        verdict = f"{'>=' if result.ratio >= result.target else 'BELOW'} {result.target:.2f}"
    print(
        f"{result.case:32} {result.rate:7.1f} {result.rate_unit:8} {result.ours_best_s * 1e3:9.3f} ms  "
        f"{result.peer:22} {result.peer_best_s * 1e3:9.3f} ms  ratio {result.ratio:5.2f} "
        f"(medians {result.ratio_of_medians:5.2f})  {verdict}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    groups_of_cases = ["gemm", "gemv", "attention", "lowp", "blocks", "scaling"]
    parser.add_argument("--only", choices=groups_of_cases, help="one group of cases")
    parser.add_argument("--isa", help="kernels to use; the best of this machine without it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    options = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = str(options.threads)  # read when numpy is imported
    bench = Bench(options.isa, options.threads, options.repeats)
    groups = {"gemm": bench.gemm_cases, "gemv": bench.gemv_cases, "attention": bench.attention_cases}
    if bench.lowp != bench.ffi.NULL:
        groups["lowp"] = bench.lowp_cases
    if bench.blocks != bench.ffi.NULL:
        groups["blocks"] = bench.blocks_cases
    if options.threads > 1:
        groups["scaling"] = bench.scaling_cases
    if options.only and options.only not in groups:
        parser.error("--only scaling needs --threads above 1, --only lowp and blocks an ISA that has such kernels")
    isa = bench.ffi.string(bench.kernels.isa).decode()
    results = []
    for name, cases in groups.items():
        if options.only in (None, name):
            for result in cases():
                results.append(result)
                if not options.json:
                    print_result(result)
    if options.json:
        document = {"isa": isa, "threads": options.threads, "results": [as_dict(result) for result in results]}
        json.dump(document, sys.stdout, indent=1)
        print()


if __name__ == "__main__":
    main()
