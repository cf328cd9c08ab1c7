"""Where the binaries are of the program that times models on the phone; see `source/main.c`."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import DeviceError

__all__ = ["ABIS", "CHECKSUMS", "PREBUILT", "PROGRAM", "runner_path"]

ABIS = ("arm64-v8a", "x86_64")
"""What Android calls the kinds of processor that there is a binary for."""

PREBUILT = Path(__file__).parent / "prebuilt"
PROGRAM = "latkit-runner"
CHECKSUMS = "SHA256SUMS"


def runner_path(abi: str) -> Path:
    """The binary for phones of this ABI, checked; `DeviceError` without one, or if it changed."""
    if abi not in ABIS:
        raise DeviceError(
            f"there is no runner for phones of ABI {abi}; there are {', '.join(ABIS)}"
        )
    path = PREBUILT / abi / PROGRAM
    advice = "install latkit anew, or run python -m latkit.devices.runner.build"
    try:
        lines = (PREBUILT / CHECKSUMS).read_text("utf-8").splitlines()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DeviceError(f"the runner for {abi} can't be read ({error}); {advice}") from error
    if f"{digest}  {abi}/{PROGRAM}" not in lines:
        raise DeviceError(f"the runner at {path} is not the one that was released; {advice}")
    return path
