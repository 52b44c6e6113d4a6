"""Reading and writing files so that a failure leaves nothing half done and says one clear thing."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from pydantic import ValidationError

from smesim.errors import SmesimError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: a killed or failed run leaves the old file, or none.

    Raises SmesimError with the reason (no such folder, disk full, no permission).
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise SmesimError(f"cannot write {path}: {error.strerror or error}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(name)
        if isinstance(error, OSError):
            raise SmesimError(f"cannot write {path}: {error.strerror or error}") from None
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
