"""The runner by itself: no phone, no adb; glibc's loader stands where Android's would be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from latkit.devices.runner import runner_path

from . import libraries
from .sandbox import LOADERS, arm64_cpuinfo

REPLACED = ("dev", "proc", "system")


@dataclass(frozen=True)
class Ended:
    """What a runner that ended left behind."""

    answers: list[dict[str, Any]]
    exit_code: int
    stderr: str

    def told(self, name: str) -> list[dict[str, Any]]:
        """The answers that have this field."""
        return [answer for answer in self.answers if name in answer]


class BareRunner:
    """Starts the real runner in a sandbox that has little more than the loader to offer.

    The runner may write into `folder`. `progress` is its progress file.
    """

    def __init__(self, folder: Path, abi: str = "x86_64") -> None:
        self.folder = folder
        self.progress = folder / "progress"
        self.log = folder / "progress.log"
        self.program = runner_path(abi)
        self._cpuinfo: Path | None = None
        _require_sandbox()
        emulator: list[str] = []
        search = [str(folder / "shim")]
        if abi == "x86_64":
            libraries.shim(folder / "shim")
        else:
            emulator = [str(libraries.qemu_arm64())]
            libraries.shim_arm64(folder / "shim")
            search.append(str(libraries.ARM64_ROOT / "lib"))
            # ONNX Runtime crashes where this file tells of no arm64 processor.
            self._cpuinfo = folder / "cpuinfo"
            self._cpuinfo.write_text(arm64_cpuinfo(os.cpu_count() or 1, "emulated"))
        loader = LOADERS[abi].resolve()
        self._words = [*self._sandbox(loader), *emulator]
        if emulator:
            self._words += ["-E", f"LD_LIBRARY_PATH={':'.join(search)}"]
        else:
            position = self._words.index("--chdir")
            self._words[position:position] = ["--setenv", "LD_LIBRARY_PATH", ":".join(search)]
        self._words.append(str(self.program))

    def _sandbox(self, loader: Path) -> list[str]:
        words = ["bwrap", "--die-with-parent"]
        for path in sorted(Path("/").iterdir()):
            if path.is_symlink():
                words += ["--symlink", str(path.readlink()), str(path)]
            elif path.is_dir() and path.name not in REPLACED:
                words += ["--ro-bind", str(path), str(path)]
        words += ["--proc", "/proc", "--dev", "/dev", "--bind", str(self.folder), str(self.folder)]
        words += ["--ro-bind", str(loader), "/system/bin/linker64", "--chdir", str(self.folder)]
        if self._cpuinfo is not None:
            words += ["--ro-bind", str(self._cpuinfo), "/proc/cpuinfo"]
        return words

    def words(self, *arguments: str) -> list[str]:
        """The whole command line."""
        return [*self._words, *arguments]

    def __call__(self, *lines: str | bytes, end: bytes = b"quit\n") -> Ended:
        """Give it these commands, and wait for its end."""
        encoded = [line if isinstance(line, bytes) else os.fsencode(line) for line in lines]
        done = subprocess.run(
            self.words(str(self.progress)),
            input=b"".join(line + b"\n" for line in encoded) + end,
            capture_output=True,
            timeout=120,
            check=False,
        )
        answers = [json.loads(line) for line in done.stdout.decode("ascii").splitlines()]
        return Ended(answers, done.returncode, done.stderr.decode("utf-8", "replace"))


def _require_sandbox() -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("there is no bwrap; apt-get install bubblewrap")
    words = ["bwrap", "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    tried = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    if tried.returncode:
        pytest.skip(f"bubblewrap (bwrap) may not make a sandbox here: {tried.stderr.strip()}")


def models(paths: Sequence[Path], eviction_bytes: int = 0) -> list[str]:
    """Commands that name these models, from number 0 on."""
    return [f"model {number} {eviction_bytes} {path}" for number, path in enumerate(paths)]
