"""The runner's binaries: built anew they are the same bytes, and what Android asks of a program."""

import hashlib
import shutil
import struct
from pathlib import Path

import pytest
from latkit.devices import DeviceError, runner
from latkit.devices.runner import ABIS, PREBUILT, PROGRAM, build, runner_path
from phone import libraries

MACHINES = {"arm64-v8a": 183, "x86_64": 62}
LOAD, DYNAMIC, INTERPRETER, NOTE, STACK = 1, 2, 3, 4, 0x6474E551
NEEDED, STRINGS, SYMBOLS, SONAME, TEXT_RELOCATIONS = 1, 5, 6, 14, 22
PAGE_BYTES = 16384


class Elf:
    """What a loader reads of a 64-bit program."""

    def __init__(self, data):
        self.data = data
        assert data[:6] == b"\x7fELF\x02\x01"
        self.kind, self.machine = struct.unpack_from("<HH", data, 16)
        (start,) = struct.unpack_from("<Q", data, 32)
        size, count = struct.unpack_from("<HH", data, 54)
        self.segments = [
            struct.unpack_from("<IIQQQQQQ", data, start + index * size) for index in range(count)
        ]
        ((_, _, offset, _, _, length, _, _),) = self.of(DYNAMIC)
        self.dynamic = list(struct.iter_unpack("<QQ", data[offset : offset + length]))

    def of(self, kind):
        return [segment for segment in self.segments if segment[0] == kind]

    def content(self, kind):
        return [self.data[item[2] : item[2] + item[5]] for item in self.of(kind)]

    def values(self, tag):
        return [value for found, value in self.dynamic if found == tag]

    def at(self, address):
        """Where in the file this address is."""
        for _, _, offset, start, _, length, _, _ in self.of(LOAD):
            if start <= address < start + length:
                return address - start + offset
        raise AssertionError("no such address")

    def string(self, offset):
        start = self.at(self.values(STRINGS)[0]) + offset
        return self.data[start : self.data.index(b"\0", start)].decode()

    def undefined(self):
        """Names that the program wants of libraries."""
        start, end = self.at(self.values(SYMBOLS)[0]), self.at(self.values(STRINGS)[0])
        names = set()
        # The hash table may stand between symbols and strings; symbols end where they stop
        # being undefined functions.
        for offset in range(start + 24, end, 24):
            name, _, _, section, value, _ = struct.unpack_from("<IBBHQQ", self.data, offset)
            if section or value or not name:
                break
            names.add(self.string(name))
        return names


@pytest.fixture(params=ABIS)
def abi(request):
    return request.param


@pytest.fixture
def elf(abi):
    return Elf(runner_path(abi).read_bytes())


def test_the_binaries_are_what_their_sources_give(abi, tmp_path, monkeypatch):
    """Built twice, in folders of other names and depths: not a byte depends on where."""
    zig = libraries.zig()
    digests = set()
    for folder in (tmp_path / "one", tmp_path / "another one/deeper"):
        (folder / "temporary").mkdir(parents=True)
        monkeypatch.setattr("tempfile.tempdir", str(folder / "temporary"))
        path = build.build(abi, folder / "made", zig)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
        assert list((folder / "temporary").iterdir()) == []
    assert digests == {hashlib.sha256(runner_path(abi).read_bytes()).hexdigest()}


def test_it_is_a_position_independent_program_for_the_right_processor(abi, elf):
    assert (elf.kind, elf.machine) == (3, MACHINES[abi])
    assert elf.content(INTERPRETER) == [b"/system/bin/linker64\0"]


def test_it_fits_pages_of_16_kilobytes(elf):
    for _, _, offset, address, _, _, _, alignment in elf.of(LOAD):
        assert alignment >= PAGE_BYTES
        assert offset % PAGE_BYTES == address % PAGE_BYTES


def test_nothing_in_it_is_both_writable_and_executable(elf):
    assert all(segment[1] & 3 != 3 for segment in elf.of(LOAD))
    ((_, flags, *_),) = elf.of(STACK)
    assert not flags & 1
    assert not elf.values(TEXT_RELOCATIONS)


def test_it_says_that_it_is_for_android_7(elf):
    notes = [note for note in elf.content(NOTE) if b"Android\0" in note]
    assert [struct.unpack("<III8sI", note) for note in notes] == [(8, 4, 1, b"Android\0", 24)]
    assert not any(b"GNU\0" in note for note in elf.content(NOTE)), "a build id varies"


def test_it_wants_only_the_c_library_and_few_functions_of_it(elf):
    assert [elf.string(value) for value in elf.values(NEEDED)] == ["libc.so", "libdl.so"]
    functions = {name for names in build.STAND_INS.values() for name in names.split()}
    assert elf.undefined() == functions


def test_stand_ins_have_the_names_of_the_real_libraries(abi, tmp_path):
    zig = libraries.zig()
    for library in build.STAND_INS:
        made = build._stand_in(library, zig, build.target_words(abi), tmp_path)
        stand_in = Elf((tmp_path / made).read_bytes())
        assert stand_in.string(stand_in.values(SONAME)[0]) == library


def test_the_committed_binary_is_found_for_each_abi(abi):
    path = runner_path(abi)
    assert path == PREBUILT / abi / PROGRAM
    assert path.stat().st_size < 100_000


@pytest.mark.parametrize("other", ["armeabi-v7a", "x86", "../x86_64", ""])
def test_an_abi_without_a_binary_is_an_error(other):
    with pytest.raises(DeviceError, match="arm64-v8a, x86_64"):
        runner_path(other)


@pytest.mark.parametrize("damage", ["binary", "checksums", "no binary", "no checksums"])
def test_a_binary_that_is_not_the_released_one_is_an_error(damage, tmp_path, monkeypatch, abi):
    copy = tmp_path / "prebuilt"
    shutil.copytree(PREBUILT, copy)
    monkeypatch.setattr(runner, "PREBUILT", copy)
    assert runner_path(abi).is_relative_to(copy)
    binary, checksums = copy / abi / PROGRAM, copy / runner.CHECKSUMS
    path = binary if "binary" in damage else checksums
    if damage.startswith("no "):
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[::2] = b"0" * len(data[::2])
        path.write_bytes(data)
    with pytest.raises(DeviceError, match="build"):
        runner_path(abi)


def test_without_zig_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DeviceError, match=r"pip install ziglang==0\.17\.1"):
        build.find_zig()


def test_another_zig_is_refused(monkeypatch):
    zig = libraries.zig()
    monkeypatch.syspath_prepend(zig.parents[1])
    assert build.find_zig() == zig
    monkeypatch.setattr(build, "ZIG_VERSION", "0.1.0")
    with pytest.raises(
        DeviceError, match=r"zig 0\.1\.0, not 0\.17\.1; pip install ziglang==0\.1\.0"
    ):
        build.find_zig()


def test_what_the_compiler_says_is_in_the_error(monkeypatch, tmp_path, abi):
    zig = libraries.zig()
    source = tmp_path / "source"
    shutil.copytree(build.SOURCE, source)
    with (source / "timing.c").open("a") as file:
        file.write("int broken(void) { return nothing_here; }\n")
    monkeypatch.setattr(build, "SOURCE", source)
    with pytest.raises(DeviceError, match="nothing_here"):
        build.build(abi, tmp_path / "made", zig)
    assert not list(Path(tmp_path / "made").iterdir())
