"""The runtime's library that the user gives: told by what it exports, taken out of AARs safely."""

import hashlib
import importlib.util
import struct
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from latkit.devices.errors import LatkitError, UsageError
from latkit.devices.phone.runtime_library import open_runtime_library
from phone import libraries

MACHINES = {"x86_64": 62, "arm64-v8a": 183}


def small_library(*exports, needed=(), soname="libsmall.so", abi="x86_64"):
    """The least that a loader takes for a library: one segment, names, symbols, a hash table."""
    names = dict.fromkeys(("", soname, *needed, *exports), 0)
    strings = b""
    for name in names:
        names[name] = len(strings)
        strings += name.encode() + b"\0"
    symbols = bytes(24)
    for name in exports:
        symbols += struct.pack("<IBBHQQ", names[name], 0x12, 0, 1, 0, 0)
    hashes = struct.pack("<II", 1, 1 + len(exports))
    start = 64 + 2 * 56
    places = {5: start, 6: start + len(strings), 4: start + len(strings) + len(symbols)}
    dynamic = [*places.items(), (10, len(strings)), (14, names[soname])]
    dynamic += [(1, names[name]) for name in needed] + [(0, 0)]
    at = places[4] + len(hashes)
    table = b"".join(struct.pack("<qQ", *entry) for entry in dynamic)
    end = at + len(table)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, MACHINES[abi], 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    header += struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, end, end, 4096)
    header += struct.pack("<IIQQQQQQ", 2, 6, at, at, at, len(table), len(table), 8)
    return header + strings + symbols + hashes + table


ORT = small_library("OrtGetApiBase", "OrtSessionOptionsAppendExecutionProvider_Nnapi", "other")
TFLITE = small_library("TfLiteInterpreterCreate", "TfLiteXNNPackDelegateCreate")
LITERT = small_library("LiteRtCreateEnvironment", "LiteRtRunCompiledModel")


def aar(path, entries, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("AndroidManifest.xml", "<manifest/>")
        for name, content in entries:
            archive.writestr(name, content)
    return path


def opened(path, tmp_path, abi="x86_64"):
    return open_runtime_library(path, abi, tmp_path / "cache")


def test_a_library_is_kept_under_its_checksum(tmp_path):
    path = libraries.onnxruntime_library()
    library = opened(path, tmp_path)
    content = path.read_bytes()
    assert library.runtime == library.runner_name == "onnxruntime"
    assert library.sha256 == hashlib.sha256(content).hexdigest()
    assert library.path == tmp_path / "cache" / f"{library.sha256}.so"
    assert library.path.read_bytes() == content
    assert library.source == str(path)
    assert library.exports == {"OrtGetApiBase", "OrtSessionOptionsAppendExecutionProvider_CPU"}
    assert library.extra == ()


def test_tensorflow_lites_c_library_is_litert(tmp_path):
    """Real libraries of both processors, by themselves and in an AAR."""
    paths = {
        "x86_64": libraries.tflite_library(),
        "arm64-v8a": libraries.tflite_library_arm64(),
    }
    entries = [(f"jni/{abi}/libtflite.so", path.read_bytes()) for abi, path in paths.items()]
    packed = aar(tmp_path / "tflite.aar", entries)
    for abi, path in paths.items():
        for source in (path, packed):
            library = opened(source, tmp_path, abi)
            assert (library.runtime, library.runner_name) == ("litert", "tflite")
            assert {"TfLiteInterpreterCreate", "TfLiteXNNPackDelegateCreate"} <= library.exports
            assert library.path.read_bytes() == path.read_bytes()
    with pytest.raises(UsageError, match="built for arm64-v8a, and the phone needs x86_64"):
        opened(paths["arm64-v8a"], tmp_path)


def test_litert_2_exports_no_c_interface_of_tflite(tmp_path):
    spec = importlib.util.find_spec("ai_edge_litert")
    (path,) = Path(spec.submodule_search_locations[0]).glob("libLiteRt.so")
    with pytest.raises(UsageError, match=r"only LiteRt\* functions.* 1\.x"):
        opened(path, tmp_path)
    with pytest.raises(UsageError, match=r"only LiteRt\* functions"):
        opened(aar(tmp_path / "litert.aar", [("jni/x86_64/libLiteRt.so", LITERT)]), tmp_path)


def test_the_right_processors_library_is_taken_out_of_an_aar(tmp_path):
    arm = small_library("OrtGetApiBase", abi="arm64-v8a")
    path = aar(
        tmp_path / "onnxruntime.aar",
        [
            ("jni/x86_64/libonnxruntime.so", ORT),
            ("jni/arm64-v8a/libonnxruntime.so", arm),
            ("jni/arm64-v8a/libonnxruntime4j_jni.so", small_library("Java_x", abi="arm64-v8a")),
            ("prefab/modules/x/libs/android.x86_64/libonnxruntime.so", b"not read"),
        ],
    )
    for abi, content in (("x86_64", ORT), ("arm64-v8a", arm)):
        library = opened(path, tmp_path, abi)
        assert library.path.read_bytes() == content
        assert library.abi == abi
        assert library.source == f"{path}!/jni/{abi}/libonnxruntime.so"
    assert "other" not in opened(path, tmp_path).exports


@pytest.mark.parametrize("needed", [["libmiddle.so", "libbase.so"], ["libbase.so", "libmiddle.so"]])
def test_other_libraries_that_it_needs_come_with_it_in_the_order_to_load(tmp_path, needed):
    base = small_library("base", soname="libbase.so", needed=["libc.so"])
    middle = small_library("middle", soname="libmiddle.so", needed=["libbase.so", "libort.so"])
    runtime = small_library("OrtGetApiBase", soname="libort.so", needed=["libc.so", *needed])
    files = {"libort.so": runtime, "libmiddle.so": middle, "libbase.so": base, "libx.so": LITERT}
    path = aar(tmp_path / "it.aar", [(f"jni/x86_64/{name}", body) for name, body in files.items()])
    library = opened(path, tmp_path)
    assert library.path.read_bytes() == runtime
    assert [path.read_bytes() for path in library.extra] == [base, middle]


def test_an_external_delegate_alone_is_no_runtime(tmp_path):
    (tmp_path / "vx.so").write_bytes(small_library("tflite_plugin_create_delegate", "other"))
    with pytest.raises(UsageError, match="neither OrtGetApiBase nor TfLite"):
        opened(tmp_path / "vx.so", tmp_path)


def test_a_damaged_copy_in_the_cache_is_written_again(tmp_path):
    path = aar(tmp_path / "it.aar", [("jni/x86_64/libonnxruntime.so", ORT)])
    library = opened(path, tmp_path)
    library.path.write_bytes(ORT[:100])
    assert opened(path, tmp_path) == library
    assert library.path.read_bytes() == ORT
    assert [item.name for item in library.path.parent.iterdir()] == [library.path.name]


def test_what_is_wrong_with_the_file_is_said(tmp_path):
    with pytest.raises(UsageError, match=r"No such file.*onnxruntime-android"):
        opened(tmp_path / "missing.aar", tmp_path)
    with pytest.raises(UsageError, match="Is a directory"):
        opened(tmp_path, tmp_path)
    (tmp_path / "text.so").write_text("hello, I am a library")
    with pytest.raises(UsageError, match="neither an AAR nor a shared library"):
        opened(tmp_path / "text.so", tmp_path)
    (tmp_path / "arm.so").write_bytes(small_library("OrtGetApiBase", abi="arm64-v8a"))
    with pytest.raises(UsageError, match=r"built for arm64-v8a, and the phone needs x86_64"):
        opened(tmp_path / "arm.so", tmp_path)
    (tmp_path / "both.so").write_bytes(small_library("OrtGetApiBase", "TfLiteInterpreterCreate"))
    with pytest.raises(UsageError, match="exports several"):
        opened(tmp_path / "both.so", tmp_path)
    (tmp_path / "neither.so").write_bytes(small_library("main"))
    with pytest.raises(UsageError, match=r"neither OrtGetApiBase nor TfLite.*neither\.so"):
        opened(tmp_path / "neither.so", tmp_path)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([], "no library for x86_64, nor for others"),
        ([("jni/arm64-v8a/libo.so", ORT), ("jni/armeabi-v7a/libo.so", ORT)], "arm64-v8a, armeabi"),
        ([("jni/x86_64/liba.so", ORT), ("jni/x86_64/libb.so", TFLITE)], r"liba\.so, libb\.so"),
        ([("jni/x86_64/liba.so", small_library("x"))], r"neither OrtGetApiBase.*liba\.so"),
        ([("jni/x86_64/liba.so", b"\x7fELF")], r"jni/x86_64/liba\.so of .* is not a shared"),
        ([("jni/x86_64/liba.so", small_library("x", abi="arm64-v8a"))], "is built for arm64"),
        ([("jni/x86_64/../../liba.so", ORT), ("../jni/x86_64/libb.so", ORT)], "no library for"),
        ([("jni/x86_64/sub/liba.so", ORT), ("JNI/x86_64/libb.so", ORT)], "no library for"),
        ([(f"res/{number}", b"") for number in range(10_001)], "entries"),
    ],
)
def test_what_is_wrong_with_an_aar_is_said(tmp_path, entries, words):
    with pytest.raises(UsageError, match=words):
        opened(aar(tmp_path / "it.aar", entries, zipfile.ZIP_STORED), tmp_path)
    assert not (tmp_path / "cache").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_aar_with_two_entries_of_one_name_is_refused(tmp_path):
    name = "jni/x86_64/libonnxruntime.so"
    with pytest.raises(UsageError, match="same name"):
        opened(aar(tmp_path / "it.aar", [(name, ORT), (name, ORT + b"x")]), tmp_path)


def test_an_entry_that_says_it_is_huge_is_not_read(tmp_path):
    path = aar(tmp_path / "it.aar", [("jni/x86_64/liba.so", ORT)])
    content = path.read_bytes()
    at = content.rindex(b"PK\x01\x02")
    path.write_bytes(content[: at + 24] + struct.pack("<I", 1 << 31) + content[at + 28 :])
    with pytest.raises(UsageError, match="larger than"):
        opened(path, tmp_path)


def test_an_encrypted_entry_is_an_error(tmp_path):
    path = aar(tmp_path / "it.aar", [("jni/x86_64/liba.so", ORT)])
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match="can't be read as an AAR"):
        opened(path, tmp_path)


@given(st.data())
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damage_to_an_aar_is_only_ever_our_own_error(tmp_path, data):
    """Bytes changed anywhere, and the file cut off anywhere."""
    whole = BytesIO()
    aar(whole, [("jni/x86_64/libonnxruntime.so", ORT), ("jni/x86_64/libx.so", LITERT)])
    content = bytearray(whole.getvalue())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    path = tmp_path / "it.aar"
    path.write_bytes(content[:end])
    try:
        library = opened(path, tmp_path)
    except LatkitError as error:
        assert str(error)
        return
    assert hashlib.sha256(library.path.read_bytes()).hexdigest() == library.sha256
