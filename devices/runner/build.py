"""Builds the program that runs on the phone: `python -m latkit.devices.runner.build`.

Android's NDK is not needed. zig carries a C compiler and a linker for all platforms; the C library
of Android is only named, by stand-ins that hold the names of its functions, and is the phone's own
when the program runs. The same sources give the same bytes, wherever they are built.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import DeviceError
from . import ABIS, CHECKSUMS, PREBUILT, PROGRAM

ZIG_VERSION = "0.17.1"
SOURCE = Path(__file__).parent / "source"
API_LEVEL = 24
"""Android 7.0."""

TARGETS = {"arm64-v8a": "aarch64", "x86_64": "x86_64"}

STAND_INS = {
    "libc.so": """__libc_init _exit calloc clock_gettime close dup dup2 free ftruncate getrusage
        memcpy memset open pread pwrite read realloc sched_getaffinity sched_setaffinity
        snprintf strchr strcmp strlen strncmp strstr strtod strtol unlink vsnprintf write""",
    "libdl.so": "dlerror dlopen dlsym",
}
"""The libraries that the program asks for, and the functions that it uses of them."""

COMPILE = """-c -std=c11 -O2 -g0 -fPIE -fvisibility=hidden -ffreestanding -nostdinc
    -fno-sanitize=all -fno-stack-protector -fno-asynchronous-unwind-tables -fno-unwind-tables
    -fno-ident -Wall -Wextra -Werror"""
LINK = """-pie --dynamic-linker /system/bin/linker64 -z max-page-size=16384 -z noexecstack -z relro
    -z now --hash-style=gnu --build-id=none --gc-sections --no-undefined --strip-all"""


def find_zig() -> Path:
    """The compiler of the installed package `ziglang`, of the one version that is known to do."""
    package = importlib.util.find_spec("ziglang")
    advice = f"pip install ziglang=={ZIG_VERSION}"
    if package is None or package.origin is None:
        raise DeviceError(f"the runner is built by zig, which is not installed; {advice}")
    zig = Path(package.origin).parent / ("zig.exe" if os.name == "nt" else "zig")
    found = _run([str(zig), "version"], Path.cwd()).strip()
    if found != ZIG_VERSION:
        raise DeviceError(f"the runner is built by zig {ZIG_VERSION}, not {found}; {advice}")
    return zig


def build(abi: str, folder: Path, zig: Path | None = None) -> Path:
    """Build the runner for `abi` into `folder`; `DeviceError` with what zig said if it can't be."""
    zig = zig or find_zig()
    target = target_words(abi)
    headers = ["-isystem", str(zig.parent / "lib/include")]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="latkit-runner-") as name:
        work = Path(name)
        # Relative paths in a folder of its own: no path of this machine gets into the program.
        for path in SOURCE.iterdir():
            shutil.copyfile(path, work / path.name)
        objects: list[str] = []
        for path in sorted(work.glob("*.c")):
            objects.append(f"{path.stem}.o")
            _run(
                [str(zig), "cc", *target, *COMPILE.split(), *headers, path.name, "-o", objects[-1]],
                work,
            )
        libraries = [_stand_in(library, zig, target, work) for library in STAND_INS]
        _run([str(zig), "ld.lld", *LINK.split(), *objects, *libraries, "-o", PROGRAM], work)
        return Path(shutil.move(work / PROGRAM, folder / PROGRAM))


def target_words(abi: str) -> list[str]:
    """What tells zig which phones to compile for: any processor of this kind."""
    return ["-target", f"{TARGETS[abi]}-linux-android.{API_LEVEL}", "-mcpu=baseline"]


def _stand_in(library: str, zig: Path, target: Sequence[str], work: Path) -> str:
    """A shared library that has the names of functions, and nothing behind them."""
    lines = [
        f".globl {function}\n.type {function}, %function\n{function}:"
        for function in STAND_INS[library].split()
    ]
    (work / f"{library}.s").write_text("\n".join([".text", *lines, ""]))
    _run([str(zig), "cc", *target, "-c", f"{library}.s", "-o", f"{library}.o"], work)
    _run([str(zig), "ld.lld", "-shared", "-soname", library, f"{library}.o", "-o", library], work)
    return library


def _run(words: list[str], folder: Path) -> str:
    # A cache of its own, so that nothing built before takes part.
    environment = dict(os.environ, ZIG_GLOBAL_CACHE_DIR="cache", ZIG_LOCAL_CACHE_DIR="cache")
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        raise DeviceError(f"{' '.join(words[1:3])} failed while building the runner: {done.stderr}")
    return done.stdout


def main() -> None:
    """Build for all phones, and write the programs with their checksums into `prebuilt/`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--folder", type=Path, default=PREBUILT, help="where they go")
    folder = parser.parse_args().folder
    lines = []
    for abi in ABIS:
        path = build(abi, folder / abi)
        path.chmod(0o755)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append(f"{digest}  {abi}/{PROGRAM}\n")
        print(f"{abi}: {path.stat().st_size} bytes, sha256 {digest}")
    (folder / CHECKSUMS).write_text("".join(lines))


if __name__ == "__main__":
    main()
