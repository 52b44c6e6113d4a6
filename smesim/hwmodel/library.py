"""Chip files: the presets that ship with smesim, and files of one's own.

A chip file is TOML. `load` takes a preset's name or a path; `save` writes the same text for the same chip,
and either the whole file or none of it. What `save` wrote, `load` gives back equal.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Sequence
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from smesim.errors import ChipError
from smesim.files import read_text, write_atomically
from smesim.hwmodel.chip import Chip

_SUFFIX = ".toml"
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SHOWN_CHARACTERS = 60


def names() -> tuple[str, ...]:
    """Names of the presets, sorted."""
    folder = resources.files("smesim.hwmodel") / "presets"
    return tuple(sorted(f.name.removesuffix(_SUFFIX) for f in folder.iterdir() if f.name.endswith(_SUFFIX)))


def load(name_or_path: str | Path, *, also: Sequence[str] = ()) -> Chip:
    """The chip of a preset's name, or of a TOML file.

    A string that ends in `.toml` or has a path separator is a path. Raises ChipError: no such preset (with
    the names there are, and `also`), no such file, not TOML (with the line), or a wrong entry (with its key).
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(_SUFFIX) or "/" in text or os.sep in text:
        return loads(read_text(Path(name_or_path), ChipError, "a chip file in TOML"), where=text)
    if text not in names():
        known = (*names(), *also)
        close = difflib.get_close_matches(text, known, n=1, cutoff=0.4)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ChipError(
            f"unknown chip {text!r}{hint}; accepted: {', '.join(known)}, or a path to a .toml file"
        )
    file = resources.files("smesim.hwmodel") / "presets" / f"{text}{_SUFFIX}"
    return loads(file.read_text(encoding="utf-8"), where=f"preset {text}")


def loads(text: str, *, where: str) -> Chip:
    """The chip in the text of a TOML file; `where` names the file in errors."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ChipError(f"{where}: not TOML: {error}") from error
    except RecursionError:
        raise ChipError(f"{where}: nested too deeply; accepted: a chip file as 'smesim probe' writes it") from None
    try:
        return Chip.model_validate(data)
    except ValidationError as error:
        raise ChipError(f"{where}: {_explain(error)}") from error


def save(chip: Chip, path: str | Path) -> None:
    """Write `chip` as TOML: the whole file appears under its name, or nothing does (SmesimError says why)."""
    write_atomically(Path(path), dumps(chip))


def dumps(chip: Chip) -> str:
    """The chip as TOML text; the same chip always gives the same text."""
    return dump_table(chip.model_dump(mode="json", exclude_defaults=True))


def dump_table(table: dict[str, Any]) -> str:
    """Strings, numbers, booleans, lists and dicts as TOML text, in the order given; no dates, no None."""
    lines: list[str] = []
    _write_table(lines, table, ())
    return "\n".join(lines).lstrip("\n") + "\n"


def fingerprint(chip: Chip) -> str:
    """SHA-256 of the chip's content (64 hex digits): equal for equal chips, whatever the file looks like."""
    return chip.content_hash


def _explain(error: ValidationError) -> str:
    """One line: key, what was given, what is accepted; of the first mistake, and how many more there are."""
    mistakes = error.errors(include_url=False)
    first = mistakes[0]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    key = key.lstrip(".").removesuffix(".[key]")
    if first["type"] == "value_error":
        message = str(first["ctx"]["error"])
    elif first["type"] == "missing":
        message = "missing; accepted: a value, it is required"
    else:
        given = repr(first["input"])
        shown = given if len(given) <= _SHOWN_CHARACTERS else f"{given[:_SHOWN_CHARACTERS]}..."
        message = f"{shown} given; accepted: {first['msg'].removeprefix('Input should be ')}"
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    return f"{key}: {message}{more}" if key else f"{message}{more}"


def _write_table(lines: list[str], table: dict[str, Any], path: tuple[str, ...]) -> None:
    """Entries that fit on a line first, then sub-tables and arrays of tables, as TOML's grammar asks."""
    nested = {key: value for key, value in table.items() if not _fits_a_line(value)}
    for key, value in table.items():
        if key not in nested:
            lines.append(f"{_key(key)} = {_inline(value)}")
    for key, value in nested.items():
        inner = (*path, key)
        header = ".".join(_key(part) for part in inner)
        for entry in value if isinstance(value, list) else (value,):
            lines.append(f"\n[[{header}]]" if isinstance(value, list) else f"\n[{header}]")
            _write_table(lines, entry, inner)


def _fits_a_line(value: Any) -> bool:
    if isinstance(value, dict):
        return all(not isinstance(inner, dict | list) for inner in value.values())
    return not (isinstance(value, list) and any(isinstance(inner, dict) for inner in value))


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(key)} = {_inline(entry)}" for key, entry in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(_inline(entry) for entry in value)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # TOML's basic strings are JSON's, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return _float(value) if isinstance(value, float) else repr(value)


def _float(value: float) -> str:
    """The shortest text that reads back as the same float; rates of 1e9 and more as 1.05e11, not in full."""
    plain = repr(value)
    scientific = f"{Decimal(plain).normalize():e}".replace("e+", "e")
    return scientific if len(scientific) < len(plain) else plain


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _inline(key)
