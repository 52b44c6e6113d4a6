"""Caches of the first core as the system reports them (Linux sysfs), or nothing where it does not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_SYSFS = Path("/sys/devices/system/cpu")
_SUFFIXES = {"K": 1024, "M": 1024**2, "G": 1024**3}


@dataclass(frozen=True)
class CacheFacts:
    """A data or unified cache: its level, its size, and the cores that share it."""

    level: int
    size_bytes: int
    shared_by: frozenset[int]


def caches(core: int) -> tuple[CacheFacts, ...]:
    """Caches of one core, nearest first."""
    found = []
    for folder in sorted((_SYSFS / f"cpu{core}" / "cache").glob("index*")):
        try:
            if (folder / "type").read_text().strip() == "Instruction":
                continue
            size = (folder / "size").read_text().strip()
            found.append(
                CacheFacts(
                    level=int((folder / "level").read_text()),
                    size_bytes=int(size[:-1]) * _SUFFIXES[size[-1]],
                    shared_by=frozenset(_cpu_list((folder / "shared_cpu_list").read_text())),
                )
            )
        except (OSError, ValueError, KeyError, IndexError):
            continue  # a cache that the system does not describe is a cache that the model does without
    return tuple(sorted(found, key=lambda cache: cache.level))


def threads_per_core() -> int:
    """Hardware threads of the first core; 1 where the system does not say."""
    try:
        return len(_cpu_list((_SYSFS / "cpu0" / "topology" / "thread_siblings_list").read_text()))
    except (OSError, ValueError):
        return 1


def _cpu_list(text: str) -> list[int]:
    cores: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cores += range(int(first), int(last or first) + 1)
    return cores
