"""JSON documents: every file that latkit writes for later, with format, version and checksum."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..devices.errors import DamagedFileError, UsageError
from ..devices.files import write_atomically


def write_document(path: Path, kind: str, version: int, body: Any) -> None:
    """Write `body` (plain JSON values) to `path`, whole or not at all.

    Raises `LatkitError` where the file can't be written (no space, no permission); what stood at
    `path` before is then still there.
    """
    document = {
        "format": f"latkit.{kind}",
        "version": version,
        "sha256": _checksum(body),
        "body": body,
    }
    write_atomically(path, json.dumps(document, indent=1, sort_keys=True).encode() + b"\n")


def read_document(path: Path, kind: str, version: int) -> Any:
    """Read the body of a document of this kind, at most of this version.

    Raises `UsageError` where there is no such file or it is of another kind, `DamagedFileError`
    where it is damaged or newer.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from error
    try:
        document = json.loads(text)
        found, found_version = document["format"], document["version"]
        body, checksum = document["body"], document["sha256"]
        newer = found_version > version
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedFileError(
            f"{path} is damaged: it is no complete latkit document. Make it again from the store."
        ) from error
    if checksum != _checksum(body):
        raise DamagedFileError(
            f"{path} is damaged: its checksum does not match. Make it again from the store."
        )
    if found != f"latkit.{kind}":
        raise UsageError(f"{path} is a {found} file; a latkit.{kind} file is needed here")
    if newer:
        raise DamagedFileError(
            f"{path} has version {found_version} of {found}; this latkit reads up to {version}. "
            "Install a newer latkit."
        )
    return body


def _checksum(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
