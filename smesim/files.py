"""Reading and writing files so that a failure leaves nothing half done and says one clear thing."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from smesim.errors import SmesimError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: a killed or failed run leaves the old file, or none.

    A link is followed; what is no regular file (a pipe, /dev/stdout) is written to, not replaced. Raises SmesimError
    with the reason (no such folder, disk full, no permission).
    """
    write_pieces_atomically(path, [content.encode() if isinstance(content, str) else content])


def write_pieces_atomically(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """The same for what is too large to be in memory at once: the pieces are written as they come."""
    try:
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            with target.open("wb") as file:
                file.writelines(pieces)
        else:
            _replace(target, pieces)
    except OSError as error:
        raise SmesimError(f"cannot write {path}: {error.strerror or error}") from None


def check_writable(path: Path) -> None:
    """SmesimError if a file could not be written there; to be asked before work whose result would be lost."""
    try:
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not target.exists():
            _make_folder(target.parent)
            tempfile.TemporaryFile(dir=target.parent).close()
    except OSError as error:
        raise SmesimError(f"cannot write {path}: {error.strerror or error}") from None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None


def _replace(target: Path, pieces: Iterable[bytes | memoryview]) -> None:
    _make_folder(target.parent)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def read_text(path: Path, error_type: type[SmesimError], what: str) -> str:
    """The text of a file, or one error of the given type that says why it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise error_type(f"{path}: not text; expected {what}") from None
    except OSError as error:
        raise error_type(f"{path}: {error.strerror or error}; expected {what}") from None


def first_validation_problem(error: ValidationError) -> str:
    """The first problem pydantic found, as one line: key, what is wrong, what was given."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"]) or "(top level)"
    given = repr(problem["input"])
    shown = given if len(given) <= 80 else given[:77] + "..."
    return f"{key}: {problem['msg']} (given: {shown})"
