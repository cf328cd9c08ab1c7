"""Files that hold tensors: a training run to continue, or weights that were trained.

First line: JSON with format, version and the sha256 of the rest; then a `torch.save` archive,
which is read with `weights_only=True` and thus never runs code.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from pathlib import Path
from typing import Any

import torch

from ..devices.errors import DamagedFileError, UsageError
from ..devices.files import write_atomically


def write_tensors(path: Path, kind: str, version: int, body: dict[str, Any]) -> None:
    """Write `body` (tensors and plain values, nested) to `path`, whole or not at all.

    Raises `LatkitError` where the file can't be written.
    """
    archive = io.BytesIO()
    torch.save(body, archive)
    content = archive.getvalue()
    head = {
        "format": f"latkit.{kind}",
        "version": version,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    write_atomically(path, json.dumps(head).encode() + b"\n" + content)


def read_tensors(path: Path, kind: str, version: int) -> dict[str, Any]:
    """Read what `write_tensors` wrote, of this kind and at most of this version; on the CPU.

    Raises `UsageError` where there is no such file or it is of another kind, `DamagedFileError`
    where it is damaged or newer.
    """
    try:
        head, _, content = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from error
    damaged = f"{path} is damaged. Delete it: what it held is then trained again."
    try:
        found = json.loads(head)
        found_format, found_version = found["format"], found["version"]
        intact = found["sha256"] == hashlib.sha256(content).hexdigest()
        newer = found_version > version
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedFileError(damaged) from error
    if not intact:
        raise DamagedFileError(damaged)
    if found_format != f"latkit.{kind}":
        raise UsageError(f"{path} is a {found_format} file; a latkit.{kind} file is needed here")
    if newer:
        raise DamagedFileError(
            f"{path} has version {found_version} of {found_format}; this latkit reads up to "
            f"{version}. Install a newer latkit, or delete the file."
        )
    try:
        body = torch.load(io.BytesIO(content), "cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise DamagedFileError(damaged) from error
    if not isinstance(body, dict):
        raise DamagedFileError(damaged)
    return body
