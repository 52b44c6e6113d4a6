"""Results on disk: a folder with a manifest and Parquet files, each the rows of a stretch of points.

    out/gemm/sweep.json                                              what was asked, and a hash of what it depends on
    out/gemm/points/question=base/part-000000000-000000500.parquet   the rows of the numbers 0 to 499

A part is there whole or not at all, so whatever ends a run (kill -9, a full disk) leaves parts that are complete, and
the names of the parts say which numbers are still to do: nothing is lost but what was under way, and nothing is done
twice.
Folders are named as other readers of Parquet (pandas, Dask, DuckDB) expect a column that is the same for all rows.
"""

from __future__ import annotations

import importlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smesim import __version__
from smesim.errors import SweepError
from smesim.files import read_text, write_atomically
from smesim.sweep.columns import arrow_column
from smesim.sweep.points import Points
from smesim.sweep.schema import KEYS, Sweep

MANIFEST, PARTS = "sweep.json", "points"
_PART = re.compile(r"part-(\d+)-(\d+)\.parquet")
_NUMBERS = {"time_s", "tokens_per_s", "flop", "flop_per_s", "moved_bytes", "memory_bytes"}
_COUNTS = {"point", "workers", "units"}
FAILURES_SHOWN = 5

Chunk = tuple[int, int]
"""The numbers of some points: from the first to before the second; all of one question."""


def pyarrow(module: str) -> Any:
    """A module of pyarrow; SweepError says how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise SweepError("results of a sweep are Parquet, which needs pyarrow: pip install 'smesim[sweep]'") from None


@dataclass(frozen=True)
class Failure:
    """A point that raised, with its inputs."""

    point: int
    values: dict[str, Any]
    error: str


@dataclass(frozen=True)
class Packet:
    """The rows of a chunk as whoever answered them hands them over: the content of a part, how many rows there are in
    it, how many of them raised, and the first of those."""

    content: bytes
    answered: int
    failed: int
    failures: tuple[Failure, ...]


class Packer:
    """Makes packets of rows, so that nobody has to look at each of them after the worker that answered it."""

    def __init__(self, sweep: Sweep, columns: Sequence[str]) -> None:
        self._keys = sweep.keys
        self._schema = schema(sweep, columns)

    def packet(self, rows: Sequence[dict[str, Any]]) -> Packet:
        raised = [row for row in rows if row["error"] is not None]
        shown = (
            Failure(row["point"], {key: row[key] for key in self._keys if key in row}, row["error"])
            for row in raised[:FAILURES_SHOWN]
        )
        return Packet(self.content(rows), len(rows), len(raised), tuple(shown))

    def content(self, rows: Sequence[dict[str, Any]]) -> bytes:
        """Rows as the content of a Parquet file."""
        pa, buffer = pyarrow("pyarrow"), io.BytesIO()
        columns = [arrow_column(pa, field.type, [row.get(field.name) for row in rows]) for field in self._schema]
        table = pa.Table.from_arrays(columns, schema=self._schema)
        pyarrow("pyarrow.parquet").write_table(table, buffer, compression="zstd")
        return buffer.getvalue()


class Store:
    """The folder of one sweep's results."""

    def __init__(self, folder: Path, sweep: Sweep) -> None:
        self._folder = folder
        self._sweep = sweep

    def open(self, fingerprint: str, resume: bool) -> list[Chunk]:
        """Makes the folder ready and says which numbers it has already.

        SweepError if it has results and none are to be resumed, or if they are of other inputs.
        """
        done = sorted(self._parts())
        manifest = self._folder / MANIFEST
        if manifest.exists():
            if not resume:
                raise SweepError(f"{self._folder} has results of a sweep; accepted: --resume, or another folder")
            if read_manifest(self._folder).get("fingerprint") != fingerprint:
                raise SweepError(
                    f"{self._folder} has results of another sweep file, chip, model or version of smesim;"
                    " accepted: the same ones as before, or another folder"
                )
            for left_over in self._folder.glob(f"{PARTS}/*/.part-*"):
                left_over.unlink(missing_ok=True)
        elif done:
            raise SweepError(f"{self._folder} has parts but no {MANIFEST}; accepted: the folder as a sweep left it")
        content = {
            "name": self._sweep.name,
            "description": self._sweep.description,
            "version": __version__,
            "fingerprint": fingerprint,
            "count": Points(self._sweep).count,
            "sweep": self._sweep.model_dump(mode="json"),
        }
        write_atomically(manifest, json.dumps(content, indent=1) + "\n")
        return done

    def write(self, question: str, chunk: Chunk, content: bytes) -> None:
        """The part of a chunk; one without points leaves an empty part, so that it is known to be done."""
        name = f"part-{chunk[0]:09d}-{chunk[1]:09d}.parquet"
        write_atomically(self._folder / PARTS / f"question={question}" / name, content)

    def _parts(self) -> Iterator[Chunk]:
        for path in self._folder.glob(f"{PARTS}/*/part-*.parquet"):
            if match := _PART.fullmatch(path.name):
                yield int(match[1]), int(match[2])


def schema(sweep: Sweep, columns: Sequence[str]) -> Any:
    """The types of all columns: the same in every part, whatever its rows have."""
    pa = pyarrow("pyarrow")
    of_kind = {str: pa.string(), int: pa.int64(), bool: pa.bool_(), tuple: pa.string()}
    types: dict[str, Any] = {"point": pa.int64()}
    for key in sweep.keys:
        types[key] = of_kind[KEYS[key]] if key in KEYS else pa.float64() if _all_numbers(sweep, key) else pa.string()
    for name in columns:
        types[name] = pa.float64() if name in _NUMBERS else pa.int64() if name in _COUNTS else pa.string()
    types |= dict.fromkeys(("error", "inputs", "version"), pa.string())
    return pa.schema(list(types.items()))


def _all_numbers(sweep: Sweep, key: str) -> bool:
    values = Points(sweep).all_values(key)
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a folder of results says of itself; SweepError if it is none."""
    text = read_text(folder / MANIFEST, SweepError, "a folder that 'smesim sweep' wrote")
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise SweepError(f"{folder / MANIFEST}: not JSON; accepted: a folder that 'smesim sweep' wrote")
    return content


def left_to_do(points: Points, done: Sequence[Chunk], size: int) -> list[Chunk]:
    """The numbers that no part has, in chunks of at most `size` numbers that are all of one question."""
    chunks: list[Chunk] = []
    at = 0
    for first, end in (*done, (points.count, points.count)):
        while at < first:
            question_end = (at // points.per_question + 1) * points.per_question
            upto = min(first, at + size, question_end)
            chunks.append((at, upto))
            at = upto
        at = max(at, end)
    return chunks
