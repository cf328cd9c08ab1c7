"""JSON documents: every file that latkit writes for later, with format, version and checksum.

The checksum covers format, version and body, and a document is read only where its bytes are the
very ones that `write_document` gives for what they say: so any changed byte is noticed, white space
included. At first it covered the body alone; such documents (`BODY_ONLY`) are read still.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..devices.errors import DamagedFileError, UsageError
from ..devices.files import write_atomically

BODY_ONLY = frozenset(
    (f"latkit.{kind}", 1)
    for kind in ("latency_table", "latency_predictor", "search", "exported_model")
)
"""Formats and versions whose documents may have a checksum of the body alone."""


def write_document(path: Path, kind: str, version: int, body: Any) -> None:
    """Write `body` (plain JSON values) to `path`, whole or not at all.

    Raises `LatkitError` where the file can't be written (no space, no permission); what stood at
    `path` before is then still there.
    """
    document = {
        "format": f"latkit.{kind}",
        "version": version,
        "sha256": _checksum([f"latkit.{kind}", version, body]),
        "body": body,
    }
    write_atomically(path, _written(document))


def read_document(path: Path, kind: str, version: int) -> Any:
    """Read the body of a document of this kind, at most of this version.

    Raises `UsageError` where there is no such file or it is of another kind, `DamagedFileError`
    where it is damaged or newer.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from error
    return parse_document(content, str(path), kind, version)


def document_kind(path: Path) -> str:
    """What kind of document a file says that it is; empty where it is none or can't be read."""
    try:
        found = json.loads(path.read_bytes())["format"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    return found.removeprefix("latkit.") if isinstance(found, str) else ""


def parse_document(content: bytes, name: str, kind: str, version: int) -> Any:
    """`read_document` for what a file holds; `name` is what messages call it."""
    try:
        document = json.loads(content)
        found, found_version = document["format"], document["version"]
        body, checksum = document["body"], document["sha256"]
        whole = checksum == _checksum([found, found_version, body])
        old = (found, found_version) in BODY_ONLY and checksum == _checksum(body)
        same = (whole or old) and content == _written(document)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedFileError(
            f"{name} is damaged: it is no complete latkit document. {_REMEDY}"
        ) from error
    if type(found_version) is int and found_version > version and _is_of(found, kind):
        doubt = "" if same else ", or it is damaged: its checksum does not match"
        raise DamagedFileError(
            f"{name} has version {found_version} of {found}; this latkit reads up to {version}. "
            f"Install a newer latkit, which reads version {found_version}{doubt}."
        )
    if not (whole or old):
        raise DamagedFileError(f"{name} is damaged: its checksum does not match. {_REMEDY}")
    if not same:
        raise DamagedFileError(
            f"{name} is damaged: it was changed after latkit wrote it, if only its white space or "
            f"order. {_REMEDY}"
        )
    if not _is_of(found, kind):
        raise UsageError(f"{name} is a {found} file; a latkit.{kind} file is needed here")
    if type(found_version) is not int or found_version < 1:
        raise DamagedFileError(f"{name} is damaged: {found_version!r} is no version. {_REMEDY}")
    return body


_REMEDY = "Make it again, or take another copy of it."


def _is_of(found: object, kind: str) -> bool:
    return found == f"latkit.{kind}"


def _written(document: Any) -> bytes:
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def _checksum(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
