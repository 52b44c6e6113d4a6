"""What happened, when: traces of both executors, their comparison, and its exports.

`schema` says what a trace is, `storage` keeps it, `operators` adds it up per operator, `compare` lays
prediction and measurement side by side. What draws and prints is imported by name, since it needs more:
`table` (rich), `report` (plotly, when called), `perfetto`.
"""

from smesim.trace.compare import Comparison, ComparisonReport, ErrorBudget, Timing, WholePart, compare
from smesim.trace.operators import operator_times, site_times
from smesim.trace.schema import Trace, TraceMeta
from smesim.trace.statistics import Statistics
from smesim.trace.storage import read_trace, write_trace

__all__ = [
    "Comparison",
    "ComparisonReport",
    "ErrorBudget",
    "Statistics",
    "Timing",
    "Trace",
    "TraceMeta",
    "WholePart",
    "compare",
    "operator_times",
    "read_trace",
    "site_times",
    "write_trace",
]
