"""Predictions held against published measurements: records, adapters that turn them into questions, statistics, fits.

`records` reads a file of measurements; an adapter (`adapters`) sees a record's question and never its value, runs the
public API for it and gives a number in the record's unit, or says why it cannot; `statistics` judges the answers and
`report` shows them. `fitting` lays the free parameters of chips and engines through the calibration rows.
"""
