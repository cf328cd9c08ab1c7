"""Libraries that the user gives for a phone: out of an AAR, told by what they export."""

from __future__ import annotations

import hashlib
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from ..errors import LatkitError, UsageError
from ..files import write_atomically
from .elf import SharedLibrary, is_elf, read_abi, read_shared_library

MAX_BYTES = 1 << 30
"""The largest library, and the largest AAR, that is read."""

MAX_ENTRIES = 10_000
"""The most files an AAR may have; runtimes' have some dozens."""

RuntimeName = Literal["onnxruntime", "litert"]
RUNTIME_ENTRY_POINTS: Mapping[str, RuntimeName] = {
    "OrtGetApiBase": "onnxruntime",
    "TfLiteInterpreterCreate": "litert",
}
"""The exported function that tells which runtime a library is."""

INTERESTING = ("Ort", "TfLite")
WHERE_TO_GET = (
    "the AAR of com.microsoft.onnxruntime:onnxruntime-android (ONNX Runtime), or of "
    "com.google.ai.edge.litert:litert 1.x or org.tensorflow:tensorflow-lite (TFLite)"
)

_ENTRY = re.compile(r"jni/([A-Za-z0-9_-]+)/(lib[A-Za-z0-9_.+-]+\.so)")


@dataclass(frozen=True, slots=True)
class RuntimeLibrary:
    """A runtime's library, ready to be pushed to a phone.

    `path` is a copy that never changes, named after its `sha256`; `source` is what the user gave,
    with the entry where that was an AAR. `exports` are the names of the runtime's own functions.
    `extra` are other libraries of the same AAR that it needs, those that need none first: the
    order to load them in, since a loader finds a library again by the name that it bears inside.
    """

    runtime: RuntimeName
    path: Path
    sha256: str
    abi: str
    source: str
    exports: frozenset[str]
    extra: tuple[Path, ...] = ()

    @property
    def runner_name(self) -> Literal["onnxruntime", "tflite"]:
        """What the program on the phone calls this runtime."""
        return "tflite" if self.runtime == "litert" else "onnxruntime"


def open_runtime_library(path: Path, abi: str, cache: Path) -> RuntimeLibrary:
    """Read the library for the processor `abi` from an AAR or a .so, and copy it into `cache`.

    Only entries named exactly like jni/ABI/libNAME.so are read from an AAR, none beyond
    `MAX_BYTES`, and no name of it becomes a path. Raises `UsageError` where the file can't be
    used: not there, damaged, for another processor, of no known runtime or of several.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UsageError(f"{path} has {size} bytes; a library has at most {MAX_BYTES}")
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            if is_elf(start):
                return _from_library(path, file.read(MAX_BYTES), abi, cache)
            if start[:2] != b"PK":
                raise UsageError(
                    f"{path} is neither an AAR nor a shared library; give {WHERE_TO_GET}"
                )
            return _from_archive(path, file, abi, cache)
    except OSError as error:
        raise UsageError(
            f"can't read the library {path}: {error.strerror}; give {WHERE_TO_GET}"
        ) from error


def _from_library(path: Path, content: bytes, abi: str, cache: Path) -> RuntimeLibrary:
    found = read_abi(content, str(path))
    if found != abi:
        raise UsageError(f"{path} is built for {found}, and the phone needs {abi}")
    library = read_shared_library(content, str(path))
    runtime = _runtime(library, str(path))
    if runtime is None:
        raise _unusable(str(path), {path.name: library})
    stored, sha256 = _store(content, cache)
    return RuntimeLibrary(runtime, stored, sha256, abi, str(path), _interesting(library.exports))


def _from_archive(path: Path, file: BinaryIO, abi: str, cache: Path) -> RuntimeLibrary:
    try:
        with zipfile.ZipFile(file) as archive:
            contents = _read_entries(path, archive, abi)
    # What the zip reader raises on damage differs with what is damaged.
    except (
        *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError),
        *(ValueError, OverflowError, LookupError),
    ) as error:
        raise UsageError(
            f"{path} can't be read as an AAR ({error}); it is damaged or cut off, so get it again"
        ) from error
    places = {name: f"jni/{abi}/{name} of {path}" for name in contents}
    libraries = {
        name: read_shared_library(content, places[name]) for name, content in contents.items()
    }
    for name, library in libraries.items():
        if library.abi != abi:
            raise UsageError(f"{places[name]} is built for {library.abi}; get it again")
    candidates = {
        name: runtime
        for name, library in libraries.items()
        if (runtime := _runtime(library, places[name])) is not None
    }
    if len(candidates) > 1:
        raise UsageError(
            f"{path} holds several that fit for {abi}: {', '.join(sorted(candidates))}. "
            "Take the one that you want out of it (an AAR is a zip file) and give the .so"
        )
    if not candidates:
        raise _unusable(f"{path} ({abi})", libraries)
    ((name, runtime),) = candidates.items()
    stored, sha256 = _store(contents[name], cache)
    return RuntimeLibrary(
        runtime=runtime,
        path=stored,
        sha256=sha256,
        abi=abi,
        source=f"{path}!/jni/{abi}/{name}",
        exports=_interesting(libraries[name].exports),
        extra=tuple(_store(contents[item], cache)[0] for item in _needed(name, libraries)),
    )


def _read_entries(path: Path, archive: zipfile.ZipFile, abi: str) -> dict[str, bytes]:
    """The libraries for `abi`, by name; `UsageError` lists those that are there instead."""
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise UsageError(f"{path} has {len(entries)} entries; a runtime's AAR has some dozens")
    matches = [(_ENTRY.fullmatch(entry.filename), entry) for entry in entries]
    found = [(match[1], match[2], entry) for match, entry in matches if match]
    chosen = [(name, entry) for there, name, entry in found if there == abi]
    if not chosen:
        there = ", ".join(sorted({item[0] for item in found}))
        raise UsageError(
            f"{path} has no library for {abi}"
            + (f"; it has some for {there}" if there else f", nor for others; give {WHERE_TO_GET}")
        )
    if len({name for name, _ in chosen}) < len(chosen):
        raise UsageError(f"{path} has two entries of the same name; get it again")
    if sum(entry.file_size for _, entry in chosen) > MAX_BYTES:
        raise UsageError(f"the libraries for {abi} in {path} are larger than {MAX_BYTES} bytes")
    contents = {}
    for name, entry in chosen:
        with archive.open(entry) as file:
            contents[name] = file.read(entry.file_size + 1)
        if len(contents[name]) != entry.file_size:
            raise UsageError(f"{entry.filename} of {path} is not as long as it says; get it again")
    return contents


def _runtime(library: SharedLibrary, where: str) -> RuntimeName | None:
    """The runtime whose entry point is exported, if one is."""
    found = [runtime for entry, runtime in RUNTIME_ENTRY_POINTS.items() if entry in library.exports]
    if len(found) > 1:
        raise UsageError(f"{where} exports several runtimes; give {WHERE_TO_GET}")
    return found[0] if found else None


def _unusable(where: str, libraries: Mapping[str, SharedLibrary]) -> UsageError:
    """Why none of these libraries is a runtime's."""
    if any(
        export.startswith("LiteRt") for library in libraries.values() for export in library.exports
    ):
        return UsageError(
            f"{where} exports only LiteRt* functions: LiteRT 2.x has no TfLite C interface, which "
            f"the program on the phone uses. Give {WHERE_TO_GET}"
        )
    return UsageError(
        f"{where} exports neither {' nor '.join(RUNTIME_ENTRY_POINTS)}, so it is no runtime that "
        f"can be timed (looked at: {', '.join(sorted(libraries))}). Give {WHERE_TO_GET}"
    )


def _needed(name: str, libraries: Mapping[str, SharedLibrary]) -> list[str]:
    """The others that this one needs, directly or through others, those that need none first."""
    by_soname = {library.soname or item: item for item, library in libraries.items()}
    seen: set[str] = set()
    ordered: list[str] = []
    # Each library waits twice: first to let its needs go before, then to be taken itself.
    waiting = [(name, False)]
    while waiting:
        item, is_done = waiting.pop()
        if is_done:
            ordered.append(item)
        elif item not in seen:
            seen.add(item)
            waiting.append((item, True))
            others = (by_soname.get(other, other) for other in libraries[item].needed)
            waiting += [(other, False) for other in others if other in libraries]
    return ordered[:-1]


def _interesting(exports: frozenset[str]) -> frozenset[str]:
    return frozenset(name for name in exports if name.startswith(INTERESTING))


def _store(content: bytes, cache: Path) -> tuple[Path, str]:
    """Keep a copy under its checksum; a damaged copy from before is written again."""
    sha256 = hashlib.sha256(content).hexdigest()
    path = cache / f"{sha256}.so"
    try:
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
            return path, sha256
    except OSError as error:
        raise LatkitError(f"can't read {path}: {error.strerror}; delete it") from error
    write_atomically(path, content)
    return path, sha256
