"""What this machine is, read from files that pretend to be another one."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest

from smesim.errors import DeviceError
from smesim.exec import device as device_module
from smesim.exec.device import Device, KernelTable
from smesim.exec.probe import topology
from smesim.exec.probe.topology import CacheFacts, caches

HERE = Device.here()


def test_this_machine_has_what_every_machine_has() -> None:
    assert HERE.cores
    assert 0 < HERE.available_bytes <= HERE.memory_bytes
    assert HERE.processor
    assert "portable" in {k.isa for k in HERE.kernels if k.supported}
    assert HERE.kernel_table(HERE.isa).supported
    assert not HERE.kernel_table(HERE.isa).test_only


def test_there_are_kernels_for_other_numbers_everywhere() -> None:
    found = device_module.other_kernels()
    assert set(found) == {"bf16, f16 and int8", "blocks of 4 and 8 bits"}
    for isas in found.values():
        assert "portable" in isas
        assert not any(isa.startswith("wide16") for isa in isas)


def table(isa: str, supported: bool = True, test_only: bool = False) -> KernelTable:
    return KernelTable(isa, lanes=4, mr=4, nr=16, kc=256, supported=supported, test_only=test_only)


def test_the_fastest_kernels_that_run_and_are_not_for_tests_are_chosen() -> None:
    kernels = (table("wide", supported=False), table("test", test_only=True), table("fast"), table("slow"))
    assert dataclasses.replace(HERE, kernels=kernels).isa == "fast"


@pytest.mark.parametrize(
    ("isa", "why"), [("wide", "this CPU lacks the instructions"), ("magic", "there are no such kernels in this build")]
)
def test_kernels_that_cannot_run_are_refused_with_those_that_can(isa: str, why: str) -> None:
    machine = dataclasses.replace(HERE, kernels=(table("wide", supported=False), table("fast"), table("slow")))
    with pytest.raises(DeviceError, match=f"kernels '{isa}' cannot run here: {why}; accepted: fast, slow"):
        machine.kernel_table(isa)


MATRIX = KernelTable("tiles", lanes=16, mr=32, nr=16, kc=1024, supported=True, test_only=False, matrix=True)
LACKING = dataclasses.replace(MATRIX, isa="more tiles", supported=False)
WITH_MATRIX = dataclasses.replace(
    HERE, kernels=(LACKING, MATRIX, table("wide", supported=False), table("fast"), table("slow"))
)


def test_kernels_can_be_forced() -> None:
    assert (WITH_MATRIX.isa, WITH_MATRIX.matrix_isa) == ("fast", "tiles")
    forced = dataclasses.replace(WITH_MATRIX, forced_isa="slow", forced_matrix_isa="none")
    forced.check_overrides()
    assert (forced.isa, forced.matrix_isa) == ("slow", None)
    forced = dataclasses.replace(WITH_MATRIX, forced_matrix_isa="tiles")
    forced.check_overrides()
    assert forced.matrix_isa == "tiles"


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"forced_isa": "wide"}, "SMESIM_ISA=wide .* this CPU lacks the instructions; accepted: fast, slow$"),
        ({"forced_isa": "tiles"}, "SMESIM_ISA=tiles .* this build has no such kernels; accepted: fast, slow$"),
        ({"forced_isa": "none"}, "SMESIM_ISA=none .* accepted: fast, slow$"),
        ({"forced_matrix_isa": "more tiles"}, "SMESIM_MATRIX_ISA=more tiles .* lacks .*; accepted: tiles, none$"),
        ({"forced_matrix_isa": "fast"}, "SMESIM_MATRIX_ISA=fast .* no such kernels; accepted: tiles, none$"),
    ],
)
def test_forced_kernels_that_cannot_run_are_refused_with_those_that_can(changes: dict[str, str], refusal: str) -> None:
    with pytest.raises(DeviceError, match=refusal):
        dataclasses.replace(WITH_MATRIX, **changes).check_overrides()  # type: ignore[arg-type]


def test_overrides_come_from_the_environment_and_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMESIM_ISA", "portable")
    monkeypatch.setenv("SMESIM_MATRIX_ISA", "none")
    monkeypatch.setenv("SMESIM_MATRIX_UNITS", "4")
    machine = Device.here()
    assert (machine.isa, machine.matrix_isa, machine.matrix_units.count) == ("portable", None, 4)
    assert machine.overrides == ("SMESIM_ISA=portable", "SMESIM_MATRIX_ISA=none", "SMESIM_MATRIX_UNITS=4")
    monkeypatch.setenv("SMESIM_ISA", "magic")
    with pytest.raises(DeviceError, match=r"SMESIM_ISA=magic .* accepted: .*portable"):
        Device.here()


class FakeFiles:
    """Stands in for the Path class: texts by path, everything else is missing."""

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts

    def __call__(self, path: str) -> FakeFiles:
        return FakeFiles({"": self._texts[path]} if path in self._texts else {})

    def exists(self) -> bool:
        return "" in self._texts

    def read_text(self, encoding: str) -> str:
        if not self.exists():
            raise FileNotFoundError
        return self._texts[""]


ARM = "processor : 0\nFeatures : fp asimd sve sme sme2 i8mm\nCPU implementer : 0x41\n"
SAPPHIRE = "model name : Xeon\nflags : avx2 avx512f amx_tile amx_bf16\n"
PLAIN = "model name : Plain CPU\nflags : sse2 smep\n"


@pytest.mark.parametrize(
    ("cpuinfo", "found"),
    [(ARM, ("Arm SME", "Arm SME2")), (SAPPHIRE, ("Intel AMX",)), (PLAIN, ()), ("", ())],
    ids=["sme2", "amx", "none", "empty"],
)
def test_matrix_extensions_are_read_from_the_processors_flags(
    cpuinfo: str, found: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "Path", FakeFiles({"/proc/cpuinfo": cpuinfo}))
    assert Device.here().matrix_extensions == found


def test_an_arm_core_without_a_name_has_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = "".join(f"CPU implementer : 0x41\nCPU part : {part}\n\n" for part in ("0xd80", "0xd80", "0xd81"))
    monkeypatch.setattr(device_module, "Path", FakeFiles({"/proc/cpuinfo": cores}))
    assert Device.here().processor == "Arm, implementer 0x41, parts 0xd80, 0xd81"


def test_what_sme_may_have_is_read_from_the_processors_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = "Features : asimd smef64f64 sme sme2 sme2p1\n"
    monkeypatch.setattr(device_module, "Path", FakeFiles({"/proc/cpuinfo": cpuinfo}))
    assert Device.here().sme_features == ("sme", "sme2", "sme2p1", "smef64f64")
    monkeypatch.setattr(device_module, "Path", FakeFiles({"/proc/cpuinfo": PLAIN}))
    assert Device.here().sme_features == ()


def test_the_summary_says_whether_there_is_sme() -> None:
    without = dataclasses.replace(HERE, matrix_extensions=())
    assert "no matrix extension (no SME)" in without.summary()
    assert "Arm SME2" in dataclasses.replace(HERE, matrix_extensions=("Arm SME2",)).summary()


def test_a_control_group_may_leave_less_memory_than_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   8000 kB\n", "/sys/fs/cgroup/memory.max": "1000000\n"}
    monkeypatch.setattr(device_module, "Path", FakeFiles(files))
    machine = Device.here()
    assert (machine.memory_bytes, machine.available_bytes) == (1_000_000, 1_000_000)
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    monkeypatch.setattr(device_module, "Path", FakeFiles(files))
    assert Device.here().available_bytes == 8000 * 1024


# -- caches


def fake_sysfs(folder: Path, core: int, entries: list[dict[str, str]]) -> None:
    for i, entry in enumerate(entries):
        index = folder / f"cpu{core}" / "cache" / f"index{i}"
        index.mkdir(parents=True)
        for name, text in entry.items():
            (index / name).write_text(text + "\n")


def test_caches_are_read_nearest_first_without_those_for_instructions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topology, "_SYSFS", tmp_path)
    entries = [
        {"level": "3", "type": "Unified", "size": "32M", "shared_cpu_list": "0-3,8-11"},
        {"level": "1", "type": "Instruction", "size": "64K", "shared_cpu_list": "2"},
        {"level": "1", "type": "Data", "size": "32K", "shared_cpu_list": "2"},
        {"level": "2", "type": "Unified", "size": "512K", "shared_cpu_list": "2,10"},
    ]
    fake_sysfs(tmp_path, 2, entries)
    assert caches(2) == (
        CacheFacts(1, 32 * 1024, frozenset({2})),
        CacheFacts(2, 512 * 1024, frozenset({2, 10})),
        CacheFacts(3, 32 * 1024**2, frozenset({0, 1, 2, 3, 8, 9, 10, 11})),
    )


@pytest.mark.parametrize(
    "broken", [{"size": ""}, {"size": "big"}, {"size": "3X"}, {"level": "one"}, {"shared_cpu_list": "a-b"}], ids=str
)
def test_a_cache_that_is_not_described_is_left_out(
    broken: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topology, "_SYSFS", tmp_path)
    good = {"level": "1", "type": "Data", "size": "32K", "shared_cpu_list": "0"}
    fake_sysfs(tmp_path, 0, [good, good | {"level": "2"} | broken, {"level": "3"}])
    assert [cache.level for cache in caches(0)] == [1]


def test_a_system_that_says_nothing_has_no_known_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology, "_SYSFS", tmp_path)
    assert caches(0) == ()


def test_foreign_load_is_what_the_machine_did_beyond_us(monkeypatch: pytest.MonkeyPatch) -> None:
    from smesim.exec import cpu_time

    monkeypatch.setattr(cpu_time.os, "cpu_count", lambda: 2)
    before = cpu_time.CpuTime(wall_s=10.0, machine_s=100.0, own_s=1.0)
    assert before.foreign_share(cpu_time.CpuTime(12.0, 102.0, 2.0)) == pytest.approx(0.25)  # 1 s of 2 s on 2 cores
    assert before.foreign_share(cpu_time.CpuTime(12.0, 101.0, 2.5)) == 0.0
    assert before.foreign_share(cpu_time.CpuTime(12.0, 199.0, 1.0)) == 1.0


def test_a_system_without_accounts_has_no_foreign_load(monkeypatch: pytest.MonkeyPatch) -> None:
    from smesim.exec import cpu_time

    monkeypatch.setattr(cpu_time, "open", lambda *args, **kwargs: io.StringIO("nonsense"), raising=False)
    now = cpu_time.CpuTime.now()
    assert now.machine_s is None
    assert now.foreign_share(dataclasses.replace(now, wall_s=now.wall_s + 10.0)) is None
