"""Reads which symbols a shared object defines for others, and which it wants from them.

Two formats, as far as one question needs them: ELF's table of dynamic symbols (Linux and
the BSDs) and Mach-O's symbol table (macOS), both little-endian with 64 bits. There is a
reader here because binutils knows only the formats of the system that it was made for.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

ELF_MAGIC = b"\x7fELF\x02\x01"
ELF_DYNAMIC_SYMBOLS = 11  # a section's type
ELF_LOCAL, ELF_WEAK = 0, 2  # a symbol's binding
ELF_VISIBILITY, ELF_HIDDEN = 3, (1, 2)  # a mask, and the two that nobody outside sees

MACH_O_MAGIC = b"\xcf\xfa\xed\xfe"
MACH_O_SYMBOL_TABLE = 2  # a load command
MACH_O_DEBUG, MACH_O_PRIVATE, MACH_O_TYPE, MACH_O_EXTERNAL = 0xE0, 0x10, 0x0E, 0x01


class Symbols(NamedTuple):
    """The names that cross the border of a shared object, as C spells them."""

    exported: set[str]
    wanted: set[str]


def read_name(content: bytes, start: int) -> str:
    """Return the name that ends at the first NUL behind [start]."""
    return content[start : content.index(b"\0", start)].decode("ascii")


def read_elf(content: bytes) -> Symbols:
    """Read the table that the dynamic linker reads."""
    symbols = Symbols(set(), set())
    (table,) = struct.unpack_from("<Q", content, 40)
    header_size, header_count = struct.unpack_from("<HH", content, 58)
    headers = [
        struct.unpack_from("<IIQQQQIIQQ", content, table + number * header_size)
        for number in range(header_count)
    ]
    for _, kind, _, _, offset, size, names, _, _, entry_size in headers:
        if kind != ELF_DYNAMIC_SYMBOLS:
            continue
        names_offset = headers[names][4]
        for place in range(offset, offset + size, entry_size):
            name, info, other, section = struct.unpack_from("<IBBH", content, place)
            binding = info >> 4
            if binding == ELF_LOCAL or other & ELF_VISIBILITY in ELF_HIDDEN:
                continue
            if section != 0:
                symbols.exported.add(read_name(content, names_offset + name))
            elif binding != ELF_WEAK:  # those are allowed to be nowhere
                symbols.wanted.add(read_name(content, names_offset + name))
    return symbols


def read_mach_o(content: bytes) -> Symbols:
    """Read the symbol table; each name has an underscore more than in C."""
    symbols = Symbols(set(), set())
    (command_count,) = struct.unpack_from("<I", content, 16)
    place = 32
    for _ in range(command_count):
        command, size = struct.unpack_from("<II", content, place)
        if command == MACH_O_SYMBOL_TABLE:
            offset, count, names_offset = struct.unpack_from("<III", content, place + 8)
            for entry in range(offset, offset + count * 16, 16):
                name, kind = struct.unpack_from("<IB", content, entry)
                if kind & (MACH_O_DEBUG | MACH_O_PRIVATE) or not kind & MACH_O_EXTERNAL:
                    continue
                found = symbols.exported if kind & MACH_O_TYPE else symbols.wanted
                found.add(read_name(content, names_offset + name).removeprefix("_"))
        place += size
    return symbols


def read_symbols(content: bytes) -> Symbols:
    """Return the symbols of a shared object; ValueError if it is in neither format."""
    if content.startswith(ELF_MAGIC):
        return read_elf(content)
    if content.startswith(MACH_O_MAGIC):
        return read_mach_o(content)
    raise ValueError("neither a 64-bit ELF nor a 64-bit Mach-O file, or not little-endian")
