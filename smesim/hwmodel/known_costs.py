"""The costs of a chip's cores and units, each worked out once: planners and simulator ask for the same ones again and
again."""

from __future__ import annotations

from collections.abc import Collection

from smesim.hwmodel.chip import Chip, Cluster, UnitInstance
from smesim.hwmodel.cost import CoreCosts
from smesim.hwmodel.kept import kept_with
from smesim.hwmodel.unit_cost import UnitCosts


def core_costs(chip: Chip, name: str, cluster: Cluster, effects: Collection[str], busy_cores: int) -> CoreCosts:
    """The costs of a core that `stand_in.computing_core` names."""
    key = ("core", name, frozenset(effects), busy_cores)
    return kept_with(chip, key, lambda: CoreCosts(cluster, effects, busy_cores))


def unit_costs(chip: Chip, unit: UnitInstance, core: CoreCosts, effects: Collection[str]) -> UnitCosts:
    """The costs of a matrix unit whose drivers' cores have the costs `core`, which are among the known ones."""
    key = ("unit", unit.index, id(core), frozenset(effects))
    return kept_with(chip, key, lambda: UnitCosts(chip, unit, core, effects))
