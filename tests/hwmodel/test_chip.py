"""The chip: numbering, levels, tile geometry, and which descriptions are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError
from small_chip import quantity

from smesim.errors import ChipError
from smesim.hwmodel import library
from smesim.hwmodel.chip import Chip, FactorPoint, MatrixUnit, factor_at

Data = dict[str, Any]


def test_cores_and_units_are_numbered_through_the_chip(small: Chip) -> None:
    assert [(i.name, list(i.cores)) for i in small.instances] == [
        ("big0", [0, 1]),
        ("big1", [2, 3]),
        ("little", [4]),
    ]
    assert small.core_count == 5
    assert [(u.index, u.name, u.cores) for u in small.unit_instances] == [
        (0, "big0.sme0", (0, 1)),
        (1, "big1.sme0", (2, 3)),
    ]
    assert small.instance_of(3).name == "big1"
    with pytest.raises(IndexError, match=r"core 5 of small: accepted 0\.\.4"):
        small.instance_of(5)


def test_a_kernel_whose_products_take_no_time_is_refused(small_data: Data) -> None:
    kernel = {"name": "gemm_f32", "isa": "neon", "parameters": {"s_per_kstep_h1": quantity(0.0, "s")}}
    small_data["clusters"][0]["core"]["kernels"] = [kernel]
    with pytest.raises(ValidationError, match=r"s_per_kstep_h1: 0\.0 s given; accepted: a time above 0"):
        Chip.model_validate(small_data)


def test_a_unit_of_core_scope_belongs_to_each_core(small_data: Data) -> None:
    small_data["clusters"][0]["matrix_units"][0]["scope"] = "core"
    units = Chip.model_validate(small_data).unit_instances
    assert [(u.name, u.cores) for u in units] == [
        ("big0.sme0", (0,)),
        ("big0.sme1", (1,)),
        ("big1.sme0", (2,)),
        ("big1.sme1", (3,)),
    ]


def test_two_units_in_each_core(small_data: Data) -> None:
    small_data["clusters"][0] |= {"count": 1}
    unit_of(small_data).update(scope="core", count=2)
    units = Chip.model_validate(small_data).unit_instances
    assert [(u.name, u.cores) for u in units] == [
        ("big.sme0", (0,)),
        ("big.sme1", (0,)),
        ("big.sme2", (1,)),
        ("big.sme3", (1,)),
    ]


def test_a_unit_may_be_driven_from_other_clusters(small_data: Data) -> None:
    small_data["clusters"][0]["count"] = 1
    small_data["clusters"][0]["matrix_units"][0]["driver_clusters"] = ["big", "little"]
    (unit,) = Chip.model_validate(small_data).unit_instances
    assert unit.cores == (0, 1, 2)


def test_levels_are_those_the_cluster_is_served_by(small: Chip) -> None:
    assert small.levels("big") == ("L1", "L2", "L3", "DRAM")
    assert small.levels("little") == ("L3", "DRAM")
    assert small.cache("L3", "little").size_bytes.value == 8e6
    with pytest.raises(KeyError, match="small has L3, DRAM"):
        small.cache("L2", "little")


@pytest.mark.parametrize("svl_bits", [128, 256, 512, 1024, 2048])
def test_sme_tiles_follow_from_the_vector_length(small_data: Data, svl_bits: int) -> None:
    small_data["clusters"][0]["matrix_units"][0]["svl_bits"] = svl_bits
    unit = Chip.model_validate(small_data).clusters[0].matrix_units[0]
    words = svl_bits // 32
    assert unit.tile("f32").model_dump() == {"rows": words, "columns": words, "depth": 1}
    assert unit.tile("bf16").model_dump() == {"rows": words, "columns": words, "depth": 2}
    assert unit.tile("s8").model_dump() == {"rows": words, "columns": words, "depth": 4}
    assert unit.tile("f64").model_dump() == {"rows": words // 2, "columns": words // 2, "depth": 1}


def test_too_few_accumulators_leave_the_pipeline_empty(small: Chip) -> None:
    unit = small.clusters[0].matrix_units[0]
    assert [unit.rate_flop_per_s("f32", tiles) for tiles in (1, 2, 4, 8)] == [250e9, 500e9, 1000e9, 1000e9]
    assert [unit.rate_flop_per_s("s8", tiles) for tiles in (1, 2)] == [2000e9, 4000e9]


def test_factors_are_linear_between_points_and_flat_beyond(small: Chip) -> None:
    points = small.clusters[0].multi_core_factors
    assert [factor_at(points, threads) for threads in (1, 2, 3, 9)] == pytest.approx([1.0, 0.9, 0.8, 0.8])
    assert factor_at((), 7) == 1.0


def test_factor_at_one_thread_can_be_given() -> None:
    alone = FactorPoint.model_validate({"threads": 1, "factor": quantity(0.5, "1")})
    assert factor_at([alone], 1) == 0.5


def unit_of(data: Data) -> Data:
    found: Data = data["clusters"][0]["matrix_units"][0]
    return found


def set_at(*path: str | int, value: Any) -> Callable[[Data], None]:
    def change(data: Data) -> None:
        inner: Any = data
        for part in path[:-1]:
            inner = inner[part]
        inner[path[-1]] = value

    return change


def drop(*path: str | int) -> Callable[[Data], None]:
    def change(data: Data) -> None:
        inner: Any = data
        for part in path[:-1]:
            inner = inner[part]
        del inner[path[-1]]

    return change


def twice(*path: str | int) -> Callable[[Data], None]:
    def change(data: Data) -> None:
        inner: Any = data
        for part in path:
            inner = inner[part]
        inner.append(inner[0])

    return change


def split_chip_cache(data: Data) -> None:
    """One L3 for each cluster, but both of chip scope: two links would have one name."""
    data["caches"][2]["clusters"] = ["big"]
    data["caches"].append({**data["caches"][2], "clusters": ["little"]})


UNIT = ("clusters", 0, "matrix_units", 0)
BAD_CHIPS: list[tuple[str, Callable[[Data], None], list[str]]] = [
    ("version", set_at("schema_version", value=2), ["schema_version: 2 given", "accepted: 1"]),
    ("no version", drop("schema_version"), ["schema_version: missing", "required"]),
    ("no clusters", set_at("clusters", value=[]), ["clusters: none given", "at least one"]),
    ("no cores", set_at("clusters", 0, "core_count", value=0), ["clusters[0].core_count: 0 given", "1"]),
    ("text", set_at("clusters", 0, "core_count", value="4"), ["core_count: '4' given", "integer"]),
    ("a list", set_at("memory", value=[]), ["memory: [] given"]),
    ("unknown key", set_at("memory", "speed", value=1), ["memory: unknown key 'speed'", "bandwidth_bytes"]),
    (
        "bare number",
        set_at("memory", "capacity_bytes", value=1e9),
        ["memory.capacity_bytes: 1000000000.0 given"],
    ),
    (
        "unit",
        set_at("memory", "capacity_bytes", "unit", value="GB"),
        ["memory.capacity_bytes: unit 'GB' given", "accepted:"],
    ),
    (
        "unit of another field",
        set_at("memory", "capacity_bytes", "unit", value="B/s"),
        ["memory.capacity_bytes: unit 'B/s' given; accepted: 'B'"],
    ),
    (
        "nan",
        set_at("clusters", 0, "core", "clock_hz", "value", value=float("nan")),
        ["clusters[0].core.clock_hz.value: nan given", "finite"],
    ),
    (
        "negative",
        set_at("sync", "fork_s", "value", value=-1.0),
        ["sync.fork_s: -1 given; accepted: zero or more"],
    ),
    (
        "dtype",
        set_at("clusters", 0, "core", "flop_per_s", "f8", value={}),
        ["clusters[0].core.flop_per_s.f8: 'f8' given", "'f32'"],
    ),
    (
        "above the data sheet",
        set_at("memory", "bandwidth_bytes_per_s", "value", value=2e11),
        ["memory.bandwidth_bytes_per_s: 2e+11 given; accepted: at most the data sheet's 1e+11"],
    ),
    (
        "cluster of a cache",
        set_at("caches", 1, "clusters", value=["huge"]),
        ["caches[1].clusters: 'huge' given; accepted: big, little"],
    ),
    ("DRAM as a cache", set_at("caches", 0, "name", value="DRAM"), ["caches[0].name: 'DRAM' given"]),
    ("two equal caches", set_at("caches", 0, "name", value="L2"), ["'big': name: 'L2' given twice"]),
    ("two equal clusters", set_at("clusters", 1, "name", value="big0"), ["name: 'big0' given twice"]),
    (
        "level",
        set_at("clusters", 1, "core", "load_bytes_per_s", "L2", value=quantity(1.0, "B/s")),
        ["clusters[1].core.load_bytes_per_s: 'L2' given; accepted: L3, DRAM"],
    ),
    (
        "no DRAM",
        drop("clusters", 0, "core", "load_bytes_per_s", "DRAM"),
        ["clusters[0].core.load_bytes_per_s: DRAM is missing"],
    ),
    (
        "drivers",
        set_at(*UNIT, "driver_clusters", value=["huge"]),
        ["clusters[0].matrix_units[0].driver_clusters: 'huge' given"],
    ),
    ("vector length", set_at(*UNIT, "svl_bits", value=384), ["svl_bits = 384 given", "a power of two"]),
    ("no vector length", drop(*UNIT, "svl_bits"), ["svl_bits = None given"]),
    ("AMX with SVL", set_at(*UNIT, "kind", value="intel-amx"), ["svl_bits given", "tiles instead"]),
    (
        "tiles of SME",
        set_at(*UNIT, "tiles", value={"f32": {"rows": 16, "columns": 16, "depth": 1}}),
        ["tiles given", "svl_bits decides"],
    ),
    (
        "accumulators",
        drop(*UNIT, "accumulators", "s8"),
        ["accumulators: f32 given; accepted: one for each of f32, s8"],
    ),
    (
        "latencies",
        drop(*UNIT, "latency_cycles", "f32"),
        ["latency_cycles: s8 given; accepted: one for each of f32, s8"],
    ),
    (
        "level of stores",
        set_at(*UNIT, "store_bytes_per_s", "L4", value=quantity(1.0, "B/s")),
        ["matrix_units[0].store_bytes_per_s: 'L4' given; accepted: L1, L2, L3, DRAM"],
    ),
    (
        "level of several drivers",
        set_at(*UNIT, "multi_driver_load_bytes_per_s", "L4", value=quantity(1.0, "B/s")),
        ["matrix_units[0].multi_driver_load_bytes_per_s: 'L4' given"],
    ),
    ("two equal units", twice("clusters", 0, "matrix_units"), ["matrix_units: name: 'sme' given twice"]),
    (
        "two chip-wide caches of a name",
        split_chip_cache,
        ["caches of scope 'chip': name: 'L3' given twice"],
    ),
    (
        "oversubscription out of order",
        set_at(*UNIT, "oversubscription", value=[
            {"threads": n, "factor": quantity(0.9, "1")} for n in (2, 2)
        ]),
        ["oversubscription: threads [2, 2] given", "each number once"],
    ),
    ("kind", set_at(*UNIT, "kind", value="sme3"), ["kind: 'sme3' given", "'sme2'"]),
    (
        "factors out of order",
        set_at("clusters", 0, "multi_core_factors", value=[
            {"threads": n, "factor": quantity(0.9, "1")} for n in (4, 2)
        ]),
        ["multi_core_factors: threads [4, 2] given", "ascending"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "expected"), [case[1:] for case in BAD_CHIPS], ids=[case[0] for case in BAD_CHIPS]
)
def test_wrong_chips_are_refused_in_one_line(
    small_data: Data, change: Callable[[Data], None], expected: list[str], tmp_path: Any
) -> None:
    change(small_data)
    path = tmp_path / "mine.toml"
    path.write_text(library.dump_table(small_data), encoding="utf-8")
    with pytest.raises(ChipError) as caught:
        library.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for part in expected:
        assert part in message


def test_other_kinds_state_their_tiles(small_data: Data) -> None:
    unit_of(small_data)["kind"] = "intel-amx"
    del unit_of(small_data)["svl_bits"]
    unit_of(small_data)["tiles"] = {
        "f32": {"rows": 14, "columns": 32, "depth": 1},
        "s8": {"rows": 14, "columns": 32, "depth": 4},
    }
    unit = MatrixUnit.model_validate(unit_of(small_data))
    assert unit.tile("s8").model_dump() == {"rows": 14, "columns": 32, "depth": 4}


def test_other_kinds_need_a_tile_for_each_dtype(small_data: Data) -> None:
    unit_of(small_data).update(kind="intel-amx", tiles={"s8": {"rows": 16, "columns": 16, "depth": 64}})
    del unit_of(small_data)["svl_bits"]
    with pytest.raises(ValidationError, match="tiles: s8 given; accepted: one for each of f32, s8"):
        MatrixUnit.model_validate(unit_of(small_data))


def test_a_stand_in_is_a_core_with_kernels_of_its_own(small_data: Data) -> None:
    unit = unit_of(small_data)
    del unit["svl_bits"]
    tiles = {dtype: {"rows": 6, "columns": 16, "depth": 1} for dtype in unit["flop_per_s"]}
    unit |= {"kind": "stand-in", "tiles": tiles}
    with pytest.raises(ValidationError, match=r"scope 'cluster', isa None .* accepted: scope 'core', the isa"):
        MatrixUnit.model_validate(unit)
    unit |= {"scope": "core", "isa": "avx2"}
    with pytest.raises(ValidationError, match="accumulators or latency_cycles given for kind 'stand-in'"):
        MatrixUnit.model_validate(unit)
    del unit["accumulators"], unit["latency_cycles"]
    assert MatrixUnit.model_validate(unit).tile("f32").rows == 6
    assert Chip.model_validate(small_data).has_stand_in
    assert not library.load("apple-m4").has_stand_in


def test_a_copy_with_other_clusters_has_their_instances() -> None:
    chip = library.load("apple-m4")
    assert len(chip.instances) == len(chip.unit_instances) == 2
    copied = chip.model_copy(update={"clusters": chip.clusters[:1]})
    assert [instance.cluster for instance in copied.instances] == list(chip.clusters[:1])
    assert len(copied.unit_instances) == 1
