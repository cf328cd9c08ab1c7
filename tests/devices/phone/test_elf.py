"""The reader of shared libraries: what real ones export, and that damage is only ever an error."""

import shutil
import struct
import subprocess
from pathlib import Path

import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.errors import UsageError
from latkit.devices.phone.elf import read_abi, read_shared_library

CAPI = Path(onnxruntime.__file__).parent / "capi"
(ONNX_RUNTIME,) = CAPI.glob("libonnxruntime.so*")
SMALL = (CAPI / "libonnxruntime_providers_shared.so").read_bytes()
LIBRARY = """
int exported(void) { return 1; }
int exported_value = 2;
__attribute__((weak)) int weak(void) { return 3; }
__attribute__((visibility("hidden"))) int hidden(void) { return 4; }
__attribute__((visibility("protected"))) int guarded(void) { return 5; }
static int private_one(void) { return 6; }
int uses(void) { extern int missing(void); return private_one() + hidden() + missing(); }
"""


def test_onnx_runtimes_library_is_read():
    library = read_shared_library(ONNX_RUNTIME.read_bytes(), "it")
    assert "OrtGetApiBase" in library.exports
    assert library.soname == "libonnxruntime.so.1"
    assert "libc.so.6" in library.needed


@pytest.mark.parametrize("hashes", ["sysv", "gnu", "both"])
@pytest.mark.parametrize("stripped", [False, True])
def test_exports_are_what_others_can_look_up(tmp_path, hashes, stripped):
    """Also where section headers are gone, as a loader needs none of them."""
    if shutil.which("gcc") is None:
        pytest.skip("needs the Debian package gcc")
    (tmp_path / "library.c").write_text(LIBRARY)
    command = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libmine.so", f"-Wl,--hash-style={hashes}"]
    subprocess.run([*command, "library.c", "-o", "it.so", "-lm"], cwd=tmp_path, check=True)
    content = (tmp_path / "it.so").read_bytes()
    if stripped:
        content = content[:40] + bytes(8) + content[48:58] + bytes(6) + content[64:]
    library = read_shared_library(content, "it.so")
    offered = {"exported", "exported_value", "weak", "guarded", "uses"}
    assert library.exports - {"_init", "_fini", "__bss_start", "_edata", "_end"} == offered
    assert library.soname == "libmine.so"


@pytest.mark.parametrize(
    ("machine", "abi"),
    [(183, "arm64-v8a"), (62, "x86_64"), (40, "armeabi-v7a"), (3, "x86"), (8, "unknown")],
)
def test_the_processor_is_named_as_android_does(machine, abi):
    content = SMALL[:18] + struct.pack("<H", machine) + SMALL[20:]
    assert read_abi(content, "it").startswith(abi)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a shared library"),
        (b"MZ" + bytes(100), "not a shared library"),
        (SMALL[:19], "not a shared library"),
        (SMALL[:64], "damaged"),
        (SMALL[: len(SMALL) // 4], "damaged"),
        (SMALL[:16] + b"\x02\0" + SMALL[18:], "shared object"),
        (SMALL[:4] + b"\x01" + SMALL[5:], "64-bit"),
        (SMALL[:5] + b"\x02" + SMALL[6:], "little-endian"),
        (SMALL[:56] + bytes(2) + SMALL[58:], "no dynamic section"),
    ],
)
def test_what_is_no_library_is_an_error_that_says_why(content, words):
    with pytest.raises(UsageError, match=words):
        read_shared_library(content, "it")


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_damage_is_an_error_or_harmless(data):
    """Bytes changed in the headers and tables, and the end cut off."""
    content = bytearray(SMALL)
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, 0x600) | st.integers(0, len(content) - 1))
        content[place] = data.draw(st.sampled_from([0, 1, 0x7F, 0xFF]) | st.integers(0, 255))
    end = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    try:
        library = read_shared_library(bytes(content[:end]), "it")
    except UsageError:
        return
    assert all(isinstance(name, str) for name in library.exports)


@given(st.binary(max_size=400))
def test_anything_that_begins_like_a_library_is_an_error(tail):
    with pytest.raises(UsageError):
        read_shared_library(SMALL[:20] + tail, "it")
