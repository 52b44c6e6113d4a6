"""Where the bytes of a program are found: which level of the memory hierarchy an operand comes from or goes to.

Where bytes are follows from how much else is touched before they are touched again. Weights and old keys and values
are read once a pass, so they lie in the nearest level that holds all of them (a model: DRAM). Activations were just
written, so they lie in the nearest level that holds their tensor.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from smesim.hwmodel.chip import DRAM, Chip, ClusterInstance
from smesim.hwmodel.kept import kept_with
from smesim.plan.program import OpRow, Program
from smesim.plan.reuse import reuse_distances, touched_bytes


class Places:
    """The levels of a chip's clusters as one program fills them. `write_factor` times as many bytes are moved as are
    written: a line that is in no cache is read first."""

    def __init__(
        self, chip: Chip, program: Program, clusters: Iterable[ClusterInstance], effects: Collection[str]
    ) -> None:
        self._program = program
        self._levels = {
            instance.name: [
                (level, chip.cache(level, instance.cluster.name).size_bytes.value)
                for level in chip.levels(instance.cluster.name)
                if level != DRAM
            ]
            for instance in clusters
        }
        self.distances = kept_with(program, "distances", lambda: reuse_distances(program))
        self.touched_bytes = kept_with(program, "touched bytes", lambda: touched_bytes(program))
        self._pass_bytes = float(self.touched_bytes.sum() + program.elsewhere_bytes)
        # Between two touches of a byte lies all that was touched between, and the rest of its buffer.
        self._far_bytes = kept_with(
            program,
            "far bytes",
            lambda: {
                slot: (far + self.touched_bytes[program.ops[slot]]).tolist() for slot, far in self.distances.items()
            },
        )
        self._found: dict[tuple[str, int, str], str] = {}
        self.write_factor = 2.0 if "write_allocate" in effects else 1.0

    def level(self, cluster: str, footprint_bytes: float) -> str:
        """The nearest level that holds so many bytes, which are used again and again."""
        for level, size_bytes in self._levels[cluster]:
            if footprint_bytes <= size_bytes:
                return level
        return DRAM

    def slot_level(self, cluster: str, op: int, slot: str) -> str:
        """Where the operator finds (or puts) one of its buffers."""
        key = (cluster, op, slot)
        if key not in self._found:
            self._found[key] = self.level(cluster, float(self._far_bytes[slot][op]))
        return self._found[key]

    def old_keys_level(self, cluster: str, op: OpRow) -> str:
        """Where keys and values of earlier passes are found: they were last read a whole pass ago."""
        return self.level(cluster, self._pass_bytes + float(self._program.buffers["n_bytes"][op.input1]))
