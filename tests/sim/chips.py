"""A chip of round figures with fitted kernels, so that every effect has something to act on."""

from __future__ import annotations

import json
from typing import Any

from smesim.hwmodel.chip import Chip

DRAM_BYTES_PER_S = 20e9
CORE_BYTES_PER_S = 15e9  # one core cannot draw all of DRAM, two would draw more than there is
PEAK_FLOP_PER_S = 96e9
DISPATCH_S = 5e-7
BARRIER_S = 4e-6

MR, NR, KC = 6, 16, 256
KSTEP_S = 2 * MR * NR / PEAK_FLOP_PER_S / 0.9  # of a full micro-tile, at nine tenths of the peak


def _quantity(value: float, unit: str) -> dict[str, Any]:
    return {"value": value, "unit": unit, "provenance": "data_sheet", "source": "test"}


def two_core_chip(*, cores: int = 2, with_caches: bool = True) -> Chip:
    """Equal cores around one DRAM, with a private and a shared cache in between if asked for."""
    gemm = {
        "mr": float(MR),
        "nr": float(NR),
        "kc": float(KC),
        "s_per_tile": 5e-8,
        "s_per_streamed_byte": 1e-11,
    }
    # A strip of fewer rows takes longer than its share: two fifths of the time are there whatever the height.
    gemm |= {f"s_per_kstep_h{h}": KSTEP_S * (0.4 + 0.6 * h / MR) for h in range(1, MR + 1)}
    loads = {"DRAM": _quantity(CORE_BYTES_PER_S, "B/s")}
    if with_caches:
        loads |= {"L2": _quantity(60e9, "B/s"), "L3": _quantity(30e9, "B/s")}
    core = {
        "name": "core",
        "isa": "avx2",
        "clock_hz": _quantity(3e9, "Hz"),
        "flop_per_s": {"f32": _quantity(PEAK_FLOP_PER_S, "FLOP/s")},
        "load_bytes_per_s": loads,
        "kernels": [
            {
                "name": "gemm_f32",
                "isa": "avx2",
                "parameters": {name: _quantity(value, "1") for name, value in gemm.items()},
            },
            {
                "name": "attention_f32",
                "isa": "avx2",
                "parameters": {"serial_share": _quantity(0.5, "1")},
            },
            {
                "name": "add_f32",
                "isa": "avx2",
                "parameters": {
                    "s_per_element": _quantity(2e-10, "s/element"),
                    "s_per_shared_byte": _quantity(1e-9, "s/B"),
                },
            },
        ],
    }
    caches = [
        {"name": "L2", "scope": "core", "clusters": ["c"], "size_bytes": _quantity(512e3, "B")},
        {
            "name": "L3",
            "scope": "chip",
            "clusters": ["c"],
            "size_bytes": _quantity(16e6, "B"),
            "bandwidth_bytes_per_s": _quantity(40e9, "B/s"),
        },
    ]
    return Chip.model_validate(
        {
            "schema_version": 1,
            "name": "two-core",
            "description": "a chip of round figures",
            "provenance_note": "made up",
            "memory": {
                "bandwidth_bytes_per_s": _quantity(DRAM_BYTES_PER_S, "B/s"),
                "capacity_bytes": _quantity(64e9, "B"),
            },
            "sync": {
                "dispatch_s": _quantity(DISPATCH_S, "s"),
                "barrier_s": _quantity(BARRIER_S, "s"),
                "fork_s": _quantity(1e-6, "s"),
            },
            "caches": caches if with_caches else [],
            "clusters": [
                {
                    "name": "c",
                    "structure": {"provenance": "data_sheet", "source": "test"},
                    "core_count": cores,
                    "core": core,
                    "multi_core_factors": [{"threads": 2, "factor": _quantity(0.9, "1")}],
                }
            ],
        }
    )


UNIT_FLOP_PER_S = 1e12
UNIT_CLOCK_HZ = 2e9
UNIT_LOAD_BYTES_PER_S = 300e9
WIDE_MEMORY_BYTES_PER_S = 250e9  # so that products of short prompts are bound by compute


def unit_chip(
    *, useful_drivers: float = 1.0, accumulators: float = 4.0, load_bytes_per_s: float = UNIT_LOAD_BYTES_PER_S
) -> Chip:
    """Four cores of `two_core_chip` and one SME2 unit that they share."""
    data = two_core_chip(cores=4).model_dump(mode="json", exclude_none=True)
    data["memory"]["bandwidth_bytes_per_s"] = _quantity(WIDE_MEMORY_BYTES_PER_S, "B/s")
    data["clusters"][0]["matrix_units"] = [
        {
            "name": "sme",
            "kind": "sme2",
            "structure": {"provenance": "data_sheet", "source": "test"},
            "svl_bits": 512,
            "clock_hz": _quantity(UNIT_CLOCK_HZ, "Hz"),
            "flop_per_s": {"f32": _quantity(UNIT_FLOP_PER_S, "FLOP/s")},
            "vector_flop_per_s": {"f32": _quantity(100e9, "FLOP/s")},
            "accumulators": {"f32": _quantity(accumulators, "tiles")},
            "latency_cycles": {"f32": _quantity(4, "cycles")},
            "load_bytes_per_s": {
                "L2": _quantity(load_bytes_per_s, "B/s"),
                "DRAM": _quantity(load_bytes_per_s / 2, "B/s"),
            },
            "store_bytes_per_s": {"L2": _quantity(150e9, "B/s"), "DRAM": _quantity(10e9, "B/s")},
            "mode_switch_s": _quantity(2e-8, "s"),
            "useful_drivers": _quantity(useful_drivers, "threads"),
            "oversubscription": [
                {"threads": 2, "factor": _quantity(0.8, "1")},
                {"threads": 4, "factor": _quantity(0.5, "1")},
            ],
        }
    ]
    return Chip.model_validate_json(json.dumps(data))
