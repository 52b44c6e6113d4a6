"""Single calls of the kernels' leaves, one after the other and with nothing of the native module between them.

This is what the emulator counts (`smesim/counts.py`), so it is a program of its own, run by the emulated Python:

    python -m smesim.exec.leaves sme2 gemm_f32:64x64x64 gemv_f32:1x64x64

Before the first call it prints a line of JSON. ``{"text": [begin, end], "leaves": [address, ...], ...}`` says between
which addresses the module's code lies, and where each leaf begins; ``{"error": ...}`` why there is nothing to call. The
leaves work on zeros: which instructions come next does not depend on the numbers. It imports next to nothing, for in an
emulator imports take most of the time.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import count, takewhile
from typing import Any, NamedTuple

from smesim.errors import DeviceError

Shape = tuple[int, int, int]
"""m, n and k of the product that a kernel computes or packs for."""

BEST_ISA = "best"
"""Of the matrix unit where there is one, else of the cores."""


class Leaf(NamedTuple):
    """Where a kernel is found, and how it is called."""

    registry: str
    """What the names of the C functions begin with that list the tables."""
    field: str
    """Its name in a table."""
    operands: Callable[[Any, Shape], tuple[Any, ...]]
    """All its arguments, from the table and the shape."""
    is_gemv: bool = False


def native() -> tuple[Any, Any]:
    """The (ffi, lib) of the native module; here, because the emulated program is to import nothing else."""
    from smesim.exec._native import ffi, lib

    return ffi, lib


def _zeros(kind: str, size: int) -> Any:
    return native()[0].new(f"{kind}[]", size)


def _gemm(table: Any, shape: Shape) -> tuple[Any, ...]:
    (ffi, lib), (m, n, k) = native(), shape
    lhs, rhs = _zeros("float", lib.sms_lhs_size(m, k)), _zeros("float", lib.sms_rhs_size(n, k))
    tiles = (0, lib.sms_lhs_strips(m, table.mr), 0, lib.sms_rhs_panels(n))
    return lhs, m, k, table.mr, rhs, n, ffi.NULL, _zeros("float", m * n), n, *tiles


def _gemv(table: Any, shape: Shape) -> tuple[Any, ...]:
    (ffi, lib), (_, n, k) = native(), shape
    rhs = _zeros("float", lib.sms_rhs_size(n, k))
    return _zeros("float", k), rhs, n, k, ffi.NULL, _zeros("float", n), 0, lib.sms_rhs_panels(n)


def _gemm_16_bits(table: Any, shape: Shape) -> tuple[Any, ...]:
    (ffi, lib), (m, n, k) = native(), shape
    group = lib.SMS_BF16_GROUP
    lhs = _zeros("uint16_t", lib.sms_lhs_grouped_size(m, k, group))
    rhs = _zeros("uint16_t", lib.sms_rhs_grouped_size(n, k, group))
    tiles = (0, lib.sms_lhs_strips(m, table.mr), 0, lib.sms_rhs_panels(n))
    return lhs, m, k, table.mr, rhs, n, ffi.NULL, _zeros("float", m * n), n, *tiles


def _gemm_s8(table: Any, shape: Shape) -> tuple[Any, ...]:
    (ffi, lib), (m, n, k) = native(), shape
    lhs = _zeros("int8_t", lib.sms_lhs_grouped_size(m, k, lib.SMS_S8_GROUP))
    rhs = _zeros("int8_t", lib.sms_rhs_grouped_size(n, k, lib.SMS_S8_GROUP))
    tiles = (0, lib.sms_lhs_strips(m, table.mr), 0, lib.sms_rhs_panels(n))
    scales = _zeros("float", m), _zeros("float", n)
    return lhs, scales[0], m, k, table.mr, rhs, scales[1], n, ffi.NULL, _zeros("float", m * n), n, *tiles


def _gemv_s8(table: Any, shape: Shape) -> tuple[Any, ...]:
    (ffi, lib), (_, n, k) = native(), shape
    x = _zeros("int8_t", lib.sms_lhs_grouped_size(1, k, lib.SMS_S8_GROUP))
    rhs = _zeros("int8_t", lib.sms_rhs_grouped_size(n, k, lib.SMS_S8_GROUP))
    scales = _zeros("float", n)
    return x, 0.0, rhs, scales, n, k, ffi.NULL, _zeros("float", n), 0, lib.sms_rhs_panels(n)


def _gemv_q4(table: Any, shape: Shape) -> tuple[Any, ...]:
    (ffi, lib), (_, n, k) = native(), shape
    x = _zeros("int8_t", lib.sms_lhs_q8_size(1, k)), _zeros("float", lib.sms_depth_blocks(k))
    rhs = _zeros("uint8_t", lib.sms_rhs_q4_size(n, k)), _zeros("uint16_t", lib.sms_rhs_scales_size(n, k))
    return *x, *rhs, n, k, ffi.NULL, _zeros("float", n), 0, lib.sms_rhs_panels(n)


def _rows_that_see_all(rows: int, keys: int, head_dim: int) -> Any:
    lib = native()[1]
    about = {"rows": rows, "group": rows, "position": keys - 1, "head_dim": head_dim}
    return native()[0].new("struct sms_attention_rows *", {**about, "capacity": lib.sms_rhs_panels(keys) * lib.SMS_NR})


def _qk_block(table: Any, shape: Shape) -> tuple[Any, ...]:
    lib, (rows, keys, head_dim) = native()[1], shape
    at = _rows_that_see_all(rows, keys, head_dim)
    k_cache = _zeros("float", lib.sms_k_cache_size(at.capacity, head_dim))
    return at, _zeros("float", rows * head_dim), k_cache, 0, keys, _zeros("float", rows * keys), keys


def _pv_block(table: Any, shape: Shape) -> tuple[Any, ...]:
    lib, (rows, head_dim, keys) = native()[1], shape
    at = _rows_that_see_all(rows, keys, head_dim)
    v_cache = _zeros("float", lib.sms_v_cache_size(at.capacity, head_dim))
    return at, _zeros("float", rows * keys), keys, v_cache, 0, keys, _zeros("float", rows * head_dim)


def _pack_lhs(table: Any, shape: Shape) -> tuple[Any, ...]:
    lib, (m, _, k) = native()[1], shape
    out = _zeros("float", lib.sms_lhs_size(m, k))
    return _zeros("float", m * k), k, m, k, table.mr, 0, lib.sms_lhs_strips(m, table.mr), out


def _pack_rhs(table: Any, shape: Shape) -> tuple[Any, ...]:
    lib, (_, n, k) = native()[1], shape
    return _zeros("float", n * k), k, n, k, 0, lib.sms_rhs_panels(n), _zeros("float", lib.sms_rhs_size(n, k))


LEAVES = {
    "gemm_f32": Leaf("sms_kernels", "gemm", _gemm),
    "gemm_bf16": Leaf("sms_lowp", "gemm_bf16", _gemm_16_bits),
    "gemm_f16": Leaf("sms_lowp", "gemm_f16", _gemm_16_bits),
    "gemm_s8": Leaf("sms_lowp", "gemm_s8", _gemm_s8),
    "gemv_f32": Leaf("sms_kernels", "gemv", _gemv, is_gemv=True),
    "gemv_s8": Leaf("sms_lowp", "gemv_s8", _gemv_s8, is_gemv=True),
    "gemv_q4": Leaf("sms_blocks", "gemv_q4", _gemv_q4, is_gemv=True),
    "attn_qk": Leaf("sms_kernels", "qk_block", _qk_block),
    "attn_pv": Leaf("sms_kernels", "pv_block", _pv_block),
    "pack_lhs": Leaf("sms_kernels", "pack_lhs", _pack_lhs),
    "pack_rhs": Leaf("sms_kernels", "pack_rhs", _pack_rhs),
}
"""All kernels that can be called alone, by the name that people use."""


MOST_MULTIPLY_ADDS, MOST_NUMBERS = 2**32, 2**28
"""Some minutes of emulation, and 1 GiB of operands."""


def parse_shape(kernel: str, text: str) -> Shape:
    """A shape as it is written, 64x64x64. DeviceError if it is none, or none for that kernel."""
    is_gemv = LEAVES[kernel].is_gemv
    sizes = [int(size) if size.isascii() and size.isdigit() else 0 for size in text.split("x")]
    if len(sizes) != 3 or min(sizes) < 1 or (is_gemv and sizes[0] > 1):
        accepted = "1xNxK, e.g. 1x1024x1024" if is_gemv else "MxNxK, e.g. 64x64x512"
        raise DeviceError(f"{text!r} is no shape for {kernel}; accepted for --shape: {accepted}")
    m, n, k = sizes
    for what, many, most in (
        ("multiply-adds", m * n * k, MOST_MULTIPLY_ADDS),
        ("numbers in its operands", m * k + n * k + m * n, MOST_NUMBERS),
    ):
        if many > most:
            raise DeviceError(f"{text} has {many} {what}; accepted for --shape: up to {most}")
    return m, n, k


def check_calls(calls: Sequence[str]) -> None:
    """DeviceError unless each call is KERNEL:MxNxK, of a kernel that is known."""
    for kernel, _, size in (call.partition(":") for call in calls):
        if kernel not in LEAVES:
            raise DeviceError(f"there is no kernel {kernel!r}; accepted for --count: {', '.join(LEAVES)}")
        parse_shape(kernel, size)


def _tables(registry: str) -> Iterator[tuple[str, Any]]:
    """The tables that run here, fastest first, with their names; none where the build has no such registry."""
    ffi, lib = native()
    if not hasattr(lib, f"{registry}_at"):
        return
    at, supported = (getattr(lib, f"{registry}_{word}") for word in ("at", "supported"))
    for table in takewhile(lambda table: table != ffi.NULL, map(at, count())):
        if supported(table):
            yield ffi.string(table.isa).decode(), table


def _best_isa() -> str:
    """The fastest kernels of the matrix unit, or where there is none, of the cores."""
    tables = list(_tables("sms_kernels"))
    return next((isa for isa, table in tables if table.matrix), tables[0][0])


def table_for(kernel: str, isa: str) -> Any:
    """The table with that kernel of that instruction set; DeviceError, with those that have it, if there is none."""
    ffi, leaf = native()[0], LEAVES[kernel]
    found = {name: table for name, table in _tables(leaf.registry) if getattr(table, leaf.field, ffi.NULL) != ffi.NULL}
    if isa in found:
        return found[isa]
    accepted = ", ".join(found) or "none, this build has no such kernel"
    raise DeviceError(f"there is no {kernel} of {isa!r} on this processor; accepted for --isa: {accepted}")


def _text_around(address: int) -> tuple[int, int]:
    """The addresses between which the code lies that holds an address (Linux)."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            begin, end = (int(bound, 16) for bound in line.split()[0].split("-"))
            if begin <= address < end:
                return begin, end
    raise DeviceError(f"this system does not say what lies at {address:#x}")


def _call(isa: str, calls: list[str]) -> None:
    ffi, lib = native()
    isa = _best_isa() if isa == BEST_ISA else isa
    prepared = []
    for kernel, _, size in (call.partition(":") for call in calls):
        table = table_for(kernel, isa)
        prepared.append(
            (getattr(table, LEAVES[kernel].field), LEAVES[kernel].operands(table, parse_shape(kernel, size)))
        )
    text = _text_around(int(ffi.cast("uintptr_t", lib.sms_kernels_best().gemm)))
    addresses = [int(ffi.cast("uintptr_t", leaf)) for leaf, _ in prepared]
    say({"isa": isa, "svl_bits": lib.sms_cpu_svl_bits(), "text": text, "leaves": addresses})
    for leaf, operands in prepared:
        leaf(*operands)


def say(about: dict[str, Any]) -> None:
    """On standard error, where the emulator's log goes, so that it stands before what it is about."""
    print(json.dumps(about), file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        _call(sys.argv[1], sys.argv[2:])
    except DeviceError as error:
        say({"error": str(error)})
    os._exit(0)  # at once: nothing of the module is to run after the leaves
