"""Where the bytes of a program are found: which level of the memory hierarchy an operand comes from or goes to.

Where bytes are follows from how much else is touched before they are touched again. Weights and old keys and values
are read once a pass, so they lie in the nearest level that holds all of them (a model: DRAM). Activations were just
written, so they lie in the nearest level that holds their tensor.
"""

from __future__ import annotations

from collections.abc import Collection

from smesim.hwmodel.chip import DRAM, Chip
from smesim.hwmodel.kept import kept_with
from smesim.plan.program import OpRow
from smesim.sim.facts import Facts


class Places:
    """The levels of a chip's clusters as one program fills them. `write_factor` times as many bytes are moved as are
    written: a line that is in no cache is read first."""

    def __init__(self, chip: Chip, facts: Facts, effects: Collection[str]) -> None:
        self._facts = facts
        self._levels = kept_with(chip, "cache sizes", lambda: _sizes(chip))
        self._own = kept_with(chip, "own caches", lambda: _own(chip))
        self._found: dict[tuple[str, int, str], str] = {}
        self.write_factor = 2.0 if "write_allocate" in effects else 1.0

    def level(self, cluster: str, footprint_bytes: float) -> str:
        """The nearest level that holds so many bytes, which are used again and again."""
        for level, size_bytes in self._levels[cluster]:
            if footprint_bytes <= size_bytes:
                return level
        return DRAM

    def is_far(self, cluster: str, level: str) -> bool:
        """Whether a level is none of a core's own caches: what comes from there is partly waited for."""
        return level not in self._own[cluster]

    def slot_level(self, cluster: str, op: int, slot: str) -> str:
        """Where the operator finds (or puts) one of its buffers."""
        key = (cluster, op, slot)
        if key not in self._found:
            self._found[key] = self.level(cluster, self._facts.far_bytes[slot][op])
        return self._found[key]

    def old_keys_level(self, cluster: str, op: OpRow) -> str:
        """Where keys and values of earlier passes are found: they were last read a whole pass ago."""
        return self.level(cluster, self._facts.pass_bytes + float(self._facts.rows.buffer_row(op.input1)[0]))


def _sizes(chip: Chip) -> dict[str, list[tuple[str, float]]]:
    """The caches of each cluster, nearest first: name and bytes."""
    return {
        instance.name: [
            (level, chip.cache(level, instance.cluster.name).size_bytes.value)
            for level in chip.levels(instance.cluster.name)
            if level != DRAM
        ]
        for instance in chip.instances
    }


def _own(chip: Chip) -> dict[str, frozenset[str]]:
    """The caches of each cluster that a core has for itself."""
    return {
        instance.name: frozenset(
            level
            for level in chip.levels(instance.cluster.name)
            if level != DRAM and chip.cache(level, instance.cluster.name).scope == "core"
        )
        for instance in chip.instances
    }
