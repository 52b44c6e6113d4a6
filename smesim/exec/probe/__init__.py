"""Measures this machine and writes its chip file.

Three kinds of measurement, each by the code that later does the work:

- `loops`: what the multiply-add pipes and every level of the memory give at best;
- `little_models`: two small transformers of odd widths, run by the native executor with one thread and with all,
  their tasks timed one by one;
- `fit`: the coefficients of `hwmodel.cost` that explain those times best.

The widths, row counts and contexts of the little models are none that a real model has, so that predicting a real
model is never repeating a measurement.
"""

from smesim.exec.probe.chipfile import probe

__all__ = ["probe"]
