"""Columns of results as Arrow's memory: a list of values becomes an array without asking what it is a list of.

`pyarrow.array` would look whether it is handed something of pandas, and for that import pandas: as much again as all
that a process needs before it can answer its first point.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

_FLOAT, _INTEGER = "d", "q"


def arrow_column(pa: Any, kind: Any, values: Sequence[Any]) -> Any:
    """An array of values of one type of Arrow: text, f64, int64 or bool; None is null."""
    there = [value is not None for value in values]
    present = None if all(there) else _bits(pa, there)
    if kind == pa.bool_():
        return pa.Array.from_buffers(kind, len(values), [present, _bits(pa, list(map(bool, values)))])
    if kind == pa.string():
        encoded = [b"" if value is None else _as_text(value).encode() for value in values]
        ends = pa.py_buffer(array("i", accumulate(map(len, encoded), initial=0)))
        return pa.Array.from_buffers(kind, len(values), [present, ends, pa.py_buffer(b"".join(encoded))])
    numbers = values if present is None else [0 if value is None else value for value in values]
    code = _FLOAT if kind == pa.float64() else _INTEGER
    return pa.Array.from_buffers(kind, len(values), [present, pa.py_buffer(array(code, numbers))])


def _bits(pa: Any, flags: Sequence[bool]) -> Any:
    return pa.py_buffer(np.packbits(np.array(flags, bool), bitorder="little").tobytes())


def _as_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
