"""Reading a sweep's results: all parts as one table, and the questions that tables of points are asked.

    frame = read_results(Path("out/gemm"))
    best_of(frame, ["chip", "tokens"], "time_s")         # of each chip and length the fastest row
    pareto_front(frame, ["time_s", "-tokens_per_s"])     # rows that none beats in everything
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from smesim.errors import SweepError
from smesim.sweep.store import PARTS, pyarrow, read_manifest

if TYPE_CHECKING:  # the processes that answer points read no results
    import pandas as pd


def read_results(folder: Path) -> pd.DataFrame:
    """All rows that a sweep has written so far, in the order of their points; SweepError if it is no such folder."""
    read_manifest(folder)
    dataset = pyarrow("pyarrow.dataset")
    files = sorted(str(path) for path in folder.glob(f"{PARTS}/*/part-*.parquet"))
    if not files:
        raise SweepError(f"{folder} has no results yet; accepted: a folder that 'smesim sweep' wrote to")
    partitioning = dataset.partitioning(flavor="hive")
    base = str(folder / PARTS)
    table = dataset.dataset(files, format="parquet", partitioning=partitioning, partition_base_dir=base).to_table()
    frame: pd.DataFrame = table.to_pandas()
    return frame.sort_values("point", ignore_index=True)


def matching(frame: pd.DataFrame, query: str) -> pd.DataFrame:
    """The rows that a query of pandas holds for: "chip == 'apple-m4' and tokens > 64"; SweepError if it is none."""
    import pandas as pd

    try:
        found = frame.query(query)
    except Exception as error:  # pandas raises what Python raises at the expression, whatever that is
        raise SweepError(f"--query {query!r}: {error}; accepted: a pandas query over {_names(frame)}") from None
    if not isinstance(found, pd.DataFrame):
        raise SweepError(f"--query {query!r}: gives one value; accepted: a condition over {_names(frame)}")
    return found


def best_of(frame: pd.DataFrame, groups: Sequence[str], by: str) -> pd.DataFrame:
    """Of each group of equal values the row that has least of a column; most with a "-" before it."""
    column = by.removeprefix("-")
    check_columns(frame, [*groups, column], numbers=[column])
    known = frame[frame[column].notna()]
    best = known.sort_values(column, ascending=column == by, kind="stable")
    return best.drop_duplicates(list(groups)).sort_values(list(groups), kind="stable")


def pareto_front(frame: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """The rows that no other beats: none is as good in all objectives and better in one.

    Less is better, more with a "-" before the name. Rows that lack one of them are left out. Sorted by the first.
    """
    columns = [name.removeprefix("-") for name in objectives]
    check_columns(frame, columns, numbers=columns)
    known = frame.dropna(subset=columns)
    signs = np.array([-1.0 if name.startswith("-") else 1.0 for name in objectives])
    costs = known[columns].to_numpy(dtype=np.float64) * signs
    order = np.lexsort(costs.T[::-1])
    front = np.empty((len(costs), len(columns)))
    kept: list[int] = []
    # In this order nobody is beaten by a later row, and whom a beaten row beats, those that beat it beat too.
    for row in order:
        cost = costs[row]
        before = front[: len(kept)]
        beaten = (before <= cost).all(axis=1) & (before < cost).any(axis=1)
        if not beaten.any():
            front[len(kept)] = cost
            kept.append(int(row))
    return known.iloc[kept]


def pivoted(frame: pd.DataFrame, rows: str, columns: str, values: str) -> pd.DataFrame:
    """A table with a row for each value of one column and a column for each of another; the least where several fit."""
    import pandas as pd

    check_columns(frame, [rows, columns, values], numbers=[values])
    table = frame.pivot_table(index=rows, columns=columns, values=values, aggfunc="min")
    table.columns = pd.Index([f"{columns}={value}" for value in table.columns])
    return table.reset_index()


def check_columns(frame: pd.DataFrame, names: Sequence[str], numbers: Sequence[str] = ()) -> None:
    """SweepError unless a table has all these columns, and numbers in some of them."""
    import pandas as pd

    for name in names:
        if name not in frame.columns:
            raise SweepError(f"column {name!r} asked for; accepted: {_names(frame)}")
    for name in numbers:
        if not pd.api.types.is_numeric_dtype(frame[name]):
            known = ", ".join(c for c in frame.columns if pd.api.types.is_numeric_dtype(frame[c]))
            raise SweepError(f"column {name!r} asked for as a number; accepted: {known}")


def plotted(frame: pd.DataFrame, x: str, y: str, colour: str | None, title: str) -> str:
    """An HTML page with one column over another, a line for each value of a third."""
    try:
        import plotly.graph_objects as go
    except ModuleNotFoundError:
        raise SweepError("a plot needs plotly: pip install 'smesim[dashboard]'") from None
    import pandas as pd

    check_columns(frame, [x, y] if colour is None else [x, y, colour], numbers=[y])
    figure = go.Figure()
    groups = [("", frame)] if colour is None else [(str(name), rows) for name, rows in frame.groupby(colour)]
    for name, rows in groups:
        ordered = rows.sort_values(x, kind="stable")
        figure.add_scatter(x=ordered[x], y=ordered[y], name=name, mode="lines+markers")
    spread = frame[y].max() > 20 * frame[y].min() > 0
    figure.update_layout(title=title, xaxis_title=x, yaxis_title=y, yaxis_type="log" if spread else "linear")
    if pd.api.types.is_numeric_dtype(frame[x]) and frame[x].max() > 20 * frame[x].min() > 0:
        figure.update_xaxes(type="log")
    return str(figure.to_html(include_plotlyjs=True))


def _names(frame: pd.DataFrame) -> str:
    return ", ".join(map(str, frame.columns))
