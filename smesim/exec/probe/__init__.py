"""Measures this machine and writes its chip file.

Three kinds of measurement, each by the code that later does the work:

- `loops`: what the multiply-add pipes and every level of the memory give at best;
- `little_models`: two small transformers of odd widths, run by the native executor with one thread and with all,
  their tasks timed one by one;
- `fit`: the coefficients of `hwmodel.cost` that explain those times best.

No product in the little models has the shape of one of a catalogue model, so predicting one is never repeating a
measurement.
"""

from smesim.exec.probe.chipfile import probe
from smesim.exec.probe.stand_in import probe_with_stand_in

__all__ = ["probe", "probe_with_stand_in"]
