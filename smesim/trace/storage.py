"""Traces on disk: what is read back equals what was written, to the last bit of every float.

- `.json`: one object with format, meta, and the three frames column by column; texts as categories and codes.
- `.csv`: the tasks as ordinary CSV under one header line `# {...}`, which has everything else as JSON. So
  `pandas.read_csv(path, comment="#")` just reads the tasks.
- `.parquet`: the tasks as a Parquet table whose schema metadata has the same header; needs pyarrow.

Floats are written with as many digits as it takes to read the same float back; an unknown value (NaN) is null
in JSON and empty in CSV. A file is written whole or not at all. The header has the number of tasks, so a file
that was cut off is recognised as such.
"""

from __future__ import annotations

import importlib
import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from smesim.errors import TraceError
from smesim.files import check_writable, first_validation_problem, read_text, write_atomically
from smesim.trace.schema import DEPENDENCY_COLUMNS, LINK_COLUMNS, TASK_COLUMNS, Trace, TraceMeta

if TYPE_CHECKING:
    import pandas as pd

FORMAT = "smesim-trace"
SUFFIXES = (".json", ".csv", ".parquet")
_EXPECTED = "a trace written by smesim"
_PARQUET_KEY = b"smesim-trace"


def write_trace(trace: Trace, path: Path | str) -> None:
    """Write a trace; the suffix picks the form. Raises TraceError (suffix, no pyarrow) or SmesimError
    (disk)."""
    path = Path(path)
    writers: dict[str, Callable[[Trace], str | bytes]]
    writers = {".json": _to_json, ".csv": _to_csv, ".parquet": _to_parquet}
    write_atomically(path, writers[_suffix(path)](trace))


def check_trace_path(path: Path | str) -> None:
    """Raise what `write_trace` would raise for a path, to be asked before work whose trace would be lost."""
    if _suffix(Path(path)) == ".parquet":
        _pyarrow("pyarrow")
    check_writable(Path(path))


def read_trace(path: Path | str) -> Trace:
    """Read a trace. Raises TraceError, naming the file and what is wrong with it."""
    path = Path(path)
    readers = {".json": _from_json, ".csv": _from_csv, ".parquet": _from_parquet}
    reader = readers[_suffix(path)]
    try:
        return reader(path)
    except TraceError as error:
        message = str(error)
        raise TraceError(message if message.startswith(str(path)) else f"{path}: {message}") from None


def _suffix(path: Path) -> str:
    if path.suffix not in SUFFIXES:
        raise TraceError(f"{path}: a trace file ends in {', '.join(SUFFIXES)}, not in {path.suffix!r}")
    return path.suffix


def _columns(frame: pd.DataFrame) -> dict[str, Any]:
    """A frame as JSON-ready columns."""
    columns: dict[str, Any] = {}
    for name, values in frame.items():
        if values.dtype == "category":
            codes = values.cat.codes.tolist()
            columns[str(name)] = {"categories": values.cat.categories.tolist(), "codes": codes}
        else:
            numbers = values.tolist()
            has_nan = values.dtype.kind == "f" and bool(values.isna().any())
            columns[str(name)] = [None if math.isnan(x) else x for x in numbers] if has_nan else numbers
    return columns


def _parse_columns(name: str, given: object, dtypes: Mapping[str, str]) -> dict[str, Any]:
    """Inverse of `_columns`; what the values are is left to Trace.build."""
    if not isinstance(given, dict):
        raise TraceError(f"{name}: columns are needed")
    columns: dict[str, Any] = {}
    for column, values in given.items():
        dtype = dtypes.get(column)
        try:
            if dtype == "category":
                categories = np.array(values["categories"], dtype=object)
                codes = np.asarray(values["codes"], dtype=np.int64)
                if codes.size and codes.min() < 0:
                    raise IndexError
                columns[column] = categories[codes] if codes.size else []
            elif dtype == "float64":
                columns[column] = np.array(values, dtype=np.float64)
            else:
                columns[column] = list(values)
        except (TypeError, ValueError, KeyError, IndexError):
            raise TraceError(f"{name}: column {column!r} does not hold {dtype} values") from None
    return columns


def _header(trace: Trace) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "rows": len(trace.tasks),
        "meta": trace.meta.model_dump(mode="json"),
        "links": _columns(trace.links),
        "dependencies": _columns(trace.dependencies),
    }


def _check_format(content: object) -> dict[str, Any]:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise TraceError(f"not a trace; expected {_EXPECTED} (format {FORMAT!r})")
    return cast(dict[str, Any], content)


def _build(header: dict[str, Any], tasks: Mapping[str, Any]) -> Trace:
    try:
        meta = TraceMeta.model_validate(header.get("meta"))
    except ValidationError as error:
        raise TraceError(f"meta: {first_validation_problem(error)}") from None
    rows = header.get("rows")
    found = len(next(iter(tasks.values()), ()))
    if rows != found:
        raise TraceError(f"{rows} tasks are announced and {found} found; the file is not complete")
    return Trace.build(
        meta,
        tasks,
        links=_parse_columns("links", header.get("links"), LINK_COLUMNS),
        dependencies=_parse_columns("dependencies", header.get("dependencies"), DEPENDENCY_COLUMNS),
    )


def _dumps(content: object) -> str:
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def _to_json(trace: Trace) -> str:
    return _dumps({**_header(trace), "tasks": _columns(trace.tasks)}) + "\n"


def _from_json(path: Path) -> Trace:
    text = read_text(path, TraceError, _EXPECTED)
    try:
        content = _check_format(json.loads(text))
    except json.JSONDecodeError as error:
        raise TraceError(
            f"line {error.lineno}, column {error.colno}: {error.msg}; cut off? expected {_EXPECTED}"
        ) from None
    return _build(content, _parse_columns("tasks", content.get("tasks"), TASK_COLUMNS))


def _to_csv(trace: Trace) -> str:
    buffer = io.StringIO()
    buffer.write(f"# {_dumps(_header(trace))}\n")
    trace.tasks.to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue()


def _from_csv(path: Path) -> Trace:
    text = read_text(path, TraceError, _EXPECTED)
    import pandas as pd

    first, _, rest = text.partition("\n")
    try:
        header = _check_format(json.loads(first.removeprefix("#")))
    except json.JSONDecodeError:
        raise TraceError(f"line 1 is not the JSON header; expected {_EXPECTED}") from None
    if not rest.endswith("\n"):
        raise TraceError("the last line has no end; the file is not complete")
    try:
        # As texts, since not every pandas reads a float to its last bit; float() does.
        tasks = pd.read_csv(io.StringIO(rest), dtype=object, keep_default_na=False)
    except ValueError as error:  # pandas' ParserError and EmptyDataError are ValueErrors
        raise TraceError(f"not CSV as expected after line 1: {str(error).strip()}") from None
    return _build(header, {str(name): _parse_texts(str(name), values) for name, values in tasks.items()})


def _parse_texts(column: str, values: pd.Series[Any]) -> NDArray[Any]:
    """A column of texts in the dtype of its name; columns that are unknown are left to Trace.build."""
    dtype = TASK_COLUMNS.get(column, "category")
    texts = values.to_numpy(dtype=object)
    if dtype == "category":
        return texts
    try:
        if dtype == "float64":
            return np.where(texts == "", "nan", texts).astype(np.float64)
        return texts.astype(np.int64)
    except ValueError as error:
        raise TraceError(f"tasks: column {column!r} must hold {dtype}: {error}") from None


def _pyarrow(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise TraceError(
            "Parquet needs pyarrow: pip install pyarrow; .json and .csv need nothing more"
        ) from None


def _to_parquet(trace: Trace) -> bytes:
    pyarrow, parquet = _pyarrow("pyarrow"), _pyarrow("pyarrow.parquet")
    table = pyarrow.Table.from_pandas(trace.tasks, preserve_index=False)
    table = table.replace_schema_metadata(
        {**table.schema.metadata, _PARQUET_KEY: _dumps(_header(trace)).encode()}
    )
    buffer = pyarrow.BufferOutputStream()
    parquet.write_table(table, buffer)
    return bytes(buffer.getvalue())


def _from_parquet(path: Path) -> Trace:
    pyarrow, parquet = _pyarrow("pyarrow"), _pyarrow("pyarrow.parquet")
    try:
        table = parquet.read_table(pyarrow.BufferReader(path.read_bytes()))
    except OSError as error:
        raise TraceError(f"{error.strerror or str(error).splitlines()[0]}; expected {_EXPECTED}") from None
    except pyarrow.ArrowException as error:
        raise TraceError(f"{str(error).splitlines()[0]}; expected {_EXPECTED}") from None
    header = (table.schema.metadata or {}).get(_PARQUET_KEY)
    if header is None:
        raise TraceError(f"no {FORMAT} header in its metadata; expected {_EXPECTED}")
    return _build(_check_format(json.loads(header)), {str(k): v for k, v in table.to_pandas().items()})
