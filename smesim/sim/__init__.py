"""Program + chip -> trace, by discrete-event simulation on SimPy.

`SimExecutor` (`executor`) is the way in; `effects` lists what can be switched off. Below it: what a task
costs on its core (`costing`), how transfers share links (`fluid`), who waits for whom (`engine`), and how the
segments of a program follow one another (`timeline`).
"""

from smesim.sim.effects import ALL_EFFECTS, EFFECTS, without
from smesim.sim.executor import SimExecutor

__all__ = ["ALL_EFFECTS", "EFFECTS", "SimExecutor", "without"]
