"""A small chip to break and to count on: round figures, one cluster with a matrix unit, one without."""

from __future__ import annotations

from typing import Any

SOURCE = {"provenance": "data_sheet", "source": "test"}


def quantity(value: float, unit: str, **more: Any) -> dict[str, Any]:
    return {"value": value, "unit": unit, **SOURCE, **more}


def gigabytes_per_s(value: float) -> dict[str, Any]:
    return quantity(value * 1e9, "B/s")


def small_chip_data() -> dict[str, Any]:
    """Two equal clusters "big" of two cores with one SME unit each, and one core "little" without."""
    unit = {
        "name": "sme",
        "kind": "sme2",
        "structure": SOURCE,
        "svl_bits": 512,
        "clock_hz": quantity(2e9, "Hz"),
        "flop_per_s": {"f32": quantity(1000e9, "FLOP/s"), "s8": quantity(4000e9, "FLOP/s")},
        "accumulators": {"f32": quantity(4, "tiles"), "s8": quantity(2, "tiles")},
        "latency_cycles": {"f32": quantity(4, "cycles"), "s8": quantity(4, "cycles")},
        "load_bytes_per_s": {"L2": gigabytes_per_s(200), "DRAM": gigabytes_per_s(40)},
        "multi_driver_load_bytes_per_s": {"L2": gigabytes_per_s(300), "DRAM": gigabytes_per_s(50)},
        "store_bytes_per_s": {"DRAM": gigabytes_per_s(20)},
        "mode_switch_s": quantity(1e-8, "s"),
        "useful_drivers": quantity(1, "threads"),
    }
    big = {
        "name": "big-core",
        "isa": "neon",
        "clock_hz": quantity(4e9, "Hz"),
        "flop_per_s": {"f32": quantity(100e9, "FLOP/s"), "f16": quantity(200e9, "FLOP/s")},
        "load_bytes_per_s": {
            "L1": gigabytes_per_s(150),
            "L2": gigabytes_per_s(100),
            "DRAM": gigabytes_per_s(30),
        },
        "kernels": [{"name": "gemm_f32", "isa": "neon", "parameters": {"mr": quantity(6, "1")}}],
    }
    little = {
        "name": "little-core",
        "isa": "neon",
        "clock_hz": quantity(2e9, "Hz"),
        "flop_per_s": {"f32": quantity(30e9, "FLOP/s")},
        "load_bytes_per_s": {"DRAM": gigabytes_per_s(10)},
    }
    return {
        "schema_version": 1,
        "name": "small",
        "description": "a chip of round figures",
        "provenance_note": "made up",
        "memory": {
            "bandwidth_bytes_per_s": gigabytes_per_s(90),
            "spec_bandwidth_bytes_per_s": gigabytes_per_s(100),
            "capacity_bytes": quantity(1e9, "B"),
        },
        "sync": {name: quantity(1e-6, "s") for name in ("dispatch_s", "barrier_s", "fork_s")},
        "caches": [
            {"name": "L1", "scope": "core", "clusters": ["big"], "size_bytes": quantity(65536, "B")},
            {
                "name": "L2",
                "scope": "cluster",
                "clusters": ["big"],
                "size_bytes": quantity(4e6, "B"),
                "bandwidth_bytes_per_s": gigabytes_per_s(320),
            },
            {
                "name": "L3",
                "scope": "chip",
                "clusters": ["big", "little"],
                "size_bytes": quantity(8e6, "B"),
                "bandwidth_bytes_per_s": gigabytes_per_s(120),
            },
        ],
        "clusters": [
            {
                "name": "big",
                "structure": SOURCE,
                "count": 2,
                "core_count": 2,
                "core": big,
                "multi_core_factors": [{"threads": 3, "factor": quantity(0.8, "1")}],
                "matrix_units": [unit],
            },
            {"name": "little", "structure": SOURCE, "core_count": 1, "core": little},
        ],
    }
