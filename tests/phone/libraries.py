"""What tests of the phone need from outside: runtime libraries, zig, arm64, and bionic's stand-in.

The runner asks for Android's C library. glibc's loader, standing at /system/bin/linker64, can
start it all the same when it finds a `libc.so` with bionic's one special function in it.

Each function gives a path, or skips the test and names the package that is missing.
"""

from __future__ import annotations

import fcntl
import importlib.util
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

VENV = Path(sys.prefix)
PHONE = VENV / "phone"
"""Packages for tests of the phone only: `pip install --no-deps --target .venv/phone ...`."""

PHONE_ARM64 = VENV / "phone-arm64"
ARM64_ROOT = Path("/usr/aarch64-linux-gnu")
TFLITE_PACKAGE = "pymicro-wakeword==2.5.0"
ZIG_PACKAGE = "ziglang==0.17.1"

# bionic's loader hands the stack's start to this function; glibc's loader set glibc up before.
SHIM_SOURCE = """
void exit(int);
__attribute__((noreturn)) void __libc_init(
    void *stack, void (*at_exit)(void), int (*start)(int, char **, char **), void *structors)
{
    long count = *(long *)stack;
    char **arguments = (char **)stack + 1;
    exit(start((int)count, arguments, arguments + count + 1));
    __builtin_unreachable();
}
"""


def shim(folder: Path) -> Path:
    """Build `libc.so` and `libdl.so` into `folder`, for x86-64, and give the folder.

    They go onto the loader's library path; the C library itself is the host's own.
    """
    return _shim(folder, "x86_64")


def shim_arm64(folder: Path) -> Path:
    """The same for arm64, to be run by `qemu_arm64`."""
    return _shim(folder, "arm64-v8a")


def _shim(folder: Path, abi: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in (("libc.so", SHIM_SOURCE), ("libdl.so", "")):
        compile_library(source, folder / name, abi)
    return folder


def compile_library(source: str, path: Path, abi: str = "x86_64") -> Path:
    """Compile C into a shared library that asks for glibc, if for anything."""
    text = path.with_suffix(".c")
    text.write_text(source)
    flags = ["-shared", "-fPIC", "-O1", "-fno-builtin", f"-Wl,-soname,{path.name}"]
    subprocess.run(
        [*_compiler(abi), *flags, "-o", str(path), str(text)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    text.unlink()
    return path


def _compiler(abi: str) -> list[str]:
    if abi == "x86_64" and platform.machine() != "x86_64":
        pytest.skip("this host is not x86-64, so the x86_64 runner can't be run")
    name, target = {
        "x86_64": ("gcc", "x86_64-linux-gnu"),
        "arm64-v8a": ("aarch64-linux-gnu-gcc", "aarch64-linux-gnu.2.34"),
    }[abi]
    gcc = shutil.which(name)
    return [gcc] if gcc else [str(zig()), "cc", "-target", target]


def zig() -> Path:
    """The compiler that builds the runner."""
    found = importlib.util.find_spec("ziglang")
    folders = [Path(found.origin).parent] if found and found.origin else []
    for folder in [*folders, PHONE / "ziglang"]:
        if (folder / "zig").is_file():
            return folder / "zig"
    pytest.skip(f"there is no zig; pip install {ZIG_PACKAGE}")


def onnxruntime_library() -> Path:
    """The library inside of the onnxruntime package that this environment has."""
    import onnxruntime

    return _one(Path(onnxruntime.__file__).parent / "capi", "libonnxruntime.so.*", "onnxruntime")


def tflite_library() -> Path:
    """A TensorFlow Lite library that exports the C API, with the XNNPACK delegate in it."""
    return _one(PHONE / "pymicro_wakeword/lib", "libtensorflowlite_c.so", TFLITE_PACKAGE, PHONE)


def onnxruntime_library_arm64() -> Path:
    """The arm64 library of the version that this environment has; fetched when missing."""
    import onnxruntime

    _fetch_arm64("onnxruntime", f"onnxruntime=={onnxruntime.__version__}")
    folder = PHONE_ARM64 / "onnxruntime/capi"
    return _one(folder, f"libonnxruntime.so.{onnxruntime.__version__}", "onnxruntime", PHONE_ARM64)


def tflite_library_arm64() -> Path:
    """The arm64 sister of `tflite_library`; fetched when missing."""
    _fetch_arm64("pymicro_wakeword", TFLITE_PACKAGE)
    folder = PHONE_ARM64 / "pymicro_wakeword/lib"
    return _one(folder, "libtensorflowlite_c.so", TFLITE_PACKAGE, PHONE_ARM64)


def qemu_arm64() -> Path:
    """The program that runs arm64 programs, where arm64's C and C++ libraries are there too."""
    found = shutil.which("qemu-aarch64")
    if found is None:
        pytest.skip("there is no qemu-aarch64; apt-get install qemu-user")
    for package, name in (
        ("libc6-arm64-cross", "ld-linux-aarch64.so.1"),
        ("libstdc++6-arm64-cross", "libstdc++.so.6"),
        ("libgcc-s1-arm64-cross", "libgcc_s.so.1"),
    ):
        if not (ARM64_ROOT / "lib" / name).exists():
            pytest.skip(f"there is no arm64 {name}; apt-get install {package}")
    return Path(found)


def _fetch_arm64(folder: str, package: str) -> None:
    platforms = ["--platform=manylinux_2_28_aarch64", "--platform=manylinux_2_35_aarch64"]
    where = ["--no-deps", "--only-binary=:all:", "--upgrade", f"--target={PHONE_ARM64}"]
    # Tests may run in several processes.
    with (VENV / "phone-arm64.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (PHONE_ARM64 / folder).is_dir():
            subprocess.run(
                [sys.executable, "-m", "pip", "install", "--quiet", *where, *platforms, package],
                check=False,
                timeout=300,
            )


def _one(folder: Path, pattern: str, package: str, target: Path | None = None) -> Path:
    found = sorted(folder.glob(pattern)) if folder.is_dir() else []
    if not found:
        into = f" --no-deps --target {target}" if target else ""
        pytest.skip(f"there is no {pattern}; pip install{into} {package}")
    return found[-1]
