"""The symbols of a Mach-O library, macOS's form of one, as far as tests ask for them.

The layout is that of Apple's `<mach-o/loader.h>` and `<mach-o/nlist.h>`: a header, then load commands, one of which
says where the table of symbols lies; others name the libraries that are loaded too.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAGIC_64, CPU_ARM64, DYLIB, BUNDLE = 0xFEEDFACF, 0x0100000C, 6, 8
LC_SYMTAB, LC_LOAD_DYLIB, LC_CODE_SIGNATURE = 0x2, 0xC, 0x1D
HEADER, COMMAND, SYMTAB, SYMBOL = "<IiiIIIII", "<II", "<IIII", "<IBBHQ"
DEBUGGING, KIND, UNDEFINED = 0xE0, 0x0E, 0x00
FOUND_IN_ANY = 0xFE
"""Ordinal of the library of a symbol that is looked up everywhere when it is loaded."""


@dataclass(frozen=True)
class MachO:
    """What a library offers and what it needs."""

    cpu: int
    filetype: int
    libraries: tuple[str, ...]
    """Loaded with it, in the order of their ordinals, which begin at 1."""
    defined: frozenset[str]
    needed: dict[str, int]
    """Symbols from elsewhere, each with the ordinal of its library."""
    is_signed: bool


def read_macho(content: bytes) -> MachO:
    magic, cpu, _, filetype, commands, *_ = struct.unpack_from(HEADER, content)
    assert magic == MAGIC_64, "a Mach-O file of 64 bits"
    libraries, symbols, is_signed = [], [], False
    at = struct.calcsize(HEADER)
    for _ in range(commands):
        command, size = struct.unpack_from(COMMAND, content, at)
        if command == LC_LOAD_DYLIB:
            libraries.append(text_at(content, at + struct.unpack_from("<I", content, at + 8)[0]))
        elif command == LC_SYMTAB:
            first, count, strings, _ = struct.unpack_from(SYMTAB, content, at + 8)
            step = struct.calcsize(SYMBOL)
            for entry in range(first, first + count * step, step):
                name, kind, _, described, _ = struct.unpack_from(SYMBOL, content, entry)
                if not kind & DEBUGGING:
                    symbols.append((text_at(content, strings + name), kind & KIND, described >> 8))
        is_signed |= command == LC_CODE_SIGNATURE
        at += size
    return MachO(
        cpu=cpu,
        filetype=filetype,
        libraries=tuple(libraries),
        defined=frozenset(name for name, kind, _ in symbols if kind != UNDEFINED),
        needed={name: ordinal for name, kind, ordinal in symbols if kind == UNDEFINED},
        is_signed=is_signed,
    )


def text_at(content: bytes, offset: int) -> str:
    return content[offset : content.index(b"\0", offset)].decode()
