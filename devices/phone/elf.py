"""Reads a shared library's processor, needs and exported names, as a loader would find them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import UsageError

MAGIC = b"\x7fELF"
ABIS = {183: "arm64-v8a", 62: "x86_64", 243: "riscv64", 40: "armeabi-v7a", 3: "x86"}
"""Android's name of the processors (`e_machine`) that a library may be for."""

_SHARED_OBJECT = 3
_LOAD, _DYNAMIC = 1, 2
_NEEDED, _HASH, _STRINGS, _SYMBOLS, _STRINGS_SIZE, _SONAME = 1, 4, 5, 6, 10, 14
_GNU_HASH = 0x6FFFFEF5
_EXPORTED_BINDINGS = {1, 2, 10}
"""Global, weak, and GNU's unique."""

_DYNAMIC_ENTRY = struct.Struct("<qQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")


@dataclass(frozen=True, slots=True)
class SharedLibrary:
    """What a 64-bit shared library says of itself.

    `needed` are the names of other libraries that it asks the loader for, `exports` the functions
    and variables that it offers, by name.
    """

    abi: str
    soname: str | None
    needed: tuple[str, ...]
    exports: frozenset[str]


def is_elf(content: bytes) -> bool:
    """Whether this is the beginning of an ELF file."""
    return content.startswith(MAGIC)


def read_abi(content: bytes, name: str) -> str:
    """Android's name for the processor that this ELF file is for, 32-bit ones too.

    `name` is what messages call the file. Raises `UsageError` where it is not an ELF file.
    """
    if not is_elf(content) or len(content) < 20:
        raise UsageError(
            f"{name} is not a shared library (an ELF file); give a library built for the phone"
        )
    order = ">" if content[5] == 2 else "<"
    machine = int(struct.unpack_from(f"{order}H", content, 18)[0])
    return ABIS.get(machine, f"unknown (ELF machine {machine})")


def read_shared_library(content: bytes, name: str) -> SharedLibrary:
    """Read the dynamic section of a 64-bit, little-endian shared library.

    Section headers aren't needed: a stripped library may have none. `name` is what messages call
    the file. Raises `UsageError` where it is no such library, or is damaged.
    """
    abi = read_abi(content, name)
    if content[4:6] != b"\x02\x01":
        raise UsageError(
            f"{name} is for {abi}, which is not a 64-bit, little-endian processor; "
            "give an arm64-v8a or x86_64 library"
        )
    try:
        return _read(content, abi)
    except (struct.error, ValueError, OverflowError) as error:
        raise UsageError(
            f"{name} can't be read as a shared library ({error}); it is damaged or cut off, "
            "so get it again"
        ) from error


def _read(content: bytes, abi: str) -> SharedLibrary:
    (kind,) = struct.unpack_from("<H", content, 16)
    if kind != _SHARED_OBJECT:
        raise ValueError(f"its ELF type is {kind}, not that of a shared object")
    segments = list(_segments(content))
    loaded = [(address, offset, size) for tag, offset, address, size in segments if tag == _LOAD]
    dynamic = [(offset, size) for tag, offset, _, size in segments if tag == _DYNAMIC]
    if not dynamic:
        raise ValueError("it has no dynamic section")
    single, needed = _dynamic_entries(content, *dynamic[0])
    for tag, what in (
        (_STRINGS, "strings"),
        (_STRINGS_SIZE, "strings' size"),
        (_SYMBOLS, "symbols"),
    ):
        if tag not in single:
            raise ValueError(f"its dynamic section names no {what}")
    start = _file_offset(single[_STRINGS], loaded)
    strings = _part(content, start, single[_STRINGS_SIZE])
    symbols = _file_offset(single[_SYMBOLS], loaded)
    count = _symbol_count(content, single, loaded)
    return SharedLibrary(
        abi=abi,
        soname=_string(strings, single[_SONAME]) if _SONAME in single else None,
        needed=tuple(_string(strings, offset) for offset in needed),
        exports=frozenset(_exports(_part(content, symbols, count * _SYMBOL.size), strings)),
    )


def _segments(content: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Kind, file offset, address and size in the file of each segment."""
    (table,) = struct.unpack_from("<Q", content, 32)
    entry_size, count = struct.unpack_from("<HH", content, 54)
    if entry_size != _PROGRAM_HEADER.size:
        raise ValueError("its program headers have an unknown size")
    for entry in _PROGRAM_HEADER.iter_unpack(_part(content, table, count * entry_size)):
        yield entry[0], entry[2], entry[3], entry[5]


def _dynamic_entries(content: bytes, offset: int, size: int) -> tuple[dict[int, int], list[int]]:
    """The entries that occur once, by tag, and the string offsets of the libraries needed."""
    single: dict[int, int] = {}
    needed: list[int] = []
    size -= size % _DYNAMIC_ENTRY.size
    for tag, value in _DYNAMIC_ENTRY.iter_unpack(_part(content, offset, size)):
        if tag == 0:
            break
        if tag == _NEEDED:
            needed.append(value)
        else:
            single.setdefault(tag, value)
    return single, needed


def _symbol_count(
    content: bytes, single: dict[int, int], loaded: list[tuple[int, int, int]]
) -> int:
    """How many symbols there are, which only the hash tables tell."""
    if _HASH in single:
        _, count = struct.unpack_from("<II", content, _file_offset(single[_HASH], loaded))
        return int(count)
    if _GNU_HASH not in single:
        raise ValueError("it has no hash table of symbols")
    table = _file_offset(single[_GNU_HASH], loaded)
    buckets, first, bloom_words, _ = struct.unpack_from("<IIII", content, table)
    starts = table + 16 + 8 * bloom_words
    chains = starts + 4 * buckets
    last = max(item for (item,) in struct.iter_unpack("<I", _part(content, starts, 4 * buckets)))
    if last < first:
        return int(first)
    # The chain of the last bucket ends at the first entry whose lowest bit is set.
    while not struct.unpack_from("<I", content, chains + 4 * (last - first))[0] & 1:
        last += 1
    return int(last) + 1


def _exports(symbols: bytes, strings: bytes) -> Iterator[str]:
    for name, info, _, section, _, _ in _SYMBOL.iter_unpack(symbols):
        if section and info >> 4 in _EXPORTED_BINDINGS:
            yield _string(strings, name)


def _file_offset(address: int, loaded: list[tuple[int, int, int]]) -> int:
    """Where in the file stands what a loader puts at this address."""
    for start, offset, size in loaded:
        if start <= address < start + size:
            return offset + address - start
    raise ValueError(f"nothing of the file is loaded at {address:#x}")


def _part(content: bytes, offset: int, size: int) -> bytes:
    if offset + size > len(content):
        raise ValueError(f"it ends at byte {len(content)}, and says that it goes on")
    return content[offset : offset + size]


def _string(strings: bytes, offset: int) -> str:
    end = strings.index(b"\0", offset)
    return strings[offset:end].decode("utf-8")
