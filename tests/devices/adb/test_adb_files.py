"""Files to and from a phone over the real adb clients, also when the link breaks on the way."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from latkit.devices import DeviceError, UsageError
from latkit.devices.adb import FOLDER, Adb, LinkLostError
from latkit.devices.adb import files as adb_files
from phone.faults import CutAt, DiskFull, StallAt
from phone.fixtures import both_adb_versions

pytestmark = both_adb_versions

STALLED_S = 2.0
"""Bound of calls where the link stalls."""


NASTY = [" ", "'", '"', ";", "$(reboot)", "`reboot`", "\n", "\\", "*", "~", "&", "|", "#", "é", "%"]


@pytest.fixture
def link(phone):
    with Adb().connect(phone.serial) as link:
        yield link


def make_files(folder, count, size_bytes=1000, seed=0):
    folder.mkdir(exist_ok=True)
    files = [folder / f"model {index}.onnx" for index in range(count)]
    for index, file in enumerate(files):
        content = hashlib.shake_128(f"{seed} {index}".encode()).digest(size_bytes)
        file.write_bytes(content)
    return files


def on_phone(phone):
    folder = phone.data / "local/tmp/latkit"
    return {path.name: path for path in folder.iterdir()}


def assert_all_whole(phone):
    for name, path in on_phone(phone).items():
        assert not name.endswith(".part")
        assert hashlib.sha256(path.read_bytes()).hexdigest() == name.split(".")[0]


def bring_back(phone):
    phone.clear_faults()
    phone.reconnect()


def test_files_are_pushed_once_under_the_name_of_their_content(phone, link, tmp_path):
    files = make_files(tmp_path / "a b", 3)
    remote = link.push([*files, files[0]])
    assert remote[3] == remote[0]
    for file, path in zip(files, remote[:3], strict=True):
        content = file.read_bytes()
        assert path == f"{FOLDER}/{hashlib.sha256(content).hexdigest()}.onnx"
        assert on_phone(phone)[path.rpartition("/")[2]].read_bytes() == content
    assert_all_whole(phone)
    sent = phone.counters["send_bytes"]
    assert link.push(files) == remote[:3]
    link.close()
    with Adb().connect(phone.serial) as later:
        assert later.push(files) == remote[:3]
    assert phone.counters["send_bytes"] == sent


def test_few_calls_push_many_files(monkeypatch, phone, link, tmp_path):
    monkeypatch.setattr(adb_files, "BATCH_FILES", 4)
    monkeypatch.setattr(adb_files, "BATCH_BYTES", 3000)
    files = [*make_files(tmp_path / "small", 9), *make_files(tmp_path / "large", 2, 5000, seed=1)]
    before = phone.counters.get("open", 0)
    assert len(set(link.push(files))) == 11
    assert len(on_phone(phone)) == 11
    # Five batches, each looked for, then pushed and verified.
    assert phone.counters["open"] - before == 15


def test_a_file_that_was_damaged_on_the_phone_is_pushed_anew(phone, link, tmp_path):
    [file] = make_files(tmp_path / "models", 1)
    [remote] = link.push([file])
    link.close()
    on_phone(phone)[remote.rpartition("/")[2]].write_bytes(b"damaged")
    with Adb().connect(phone.serial) as later:
        assert later.push([file]) == [remote]
    assert_all_whole(phone)


def test_a_program_runs_on_the_phone_also_when_it_lies_there_already(link, tmp_path):
    program = tmp_path / "program"
    program.write_text('#!/system/bin/sh\necho ran "$1"\n')
    [remote] = link.push([program])
    assert link.shell([remote]).exit_code == 126
    assert link.push([program], executable=True) == [remote]
    assert link.shell([remote, "it"]).stdout == "ran it\n"
    other = tmp_path / "other"
    other.write_text("#!/system/bin/sh\necho other\n")
    [remote] = link.push([other], executable=True)
    assert link.shell([remote]).stdout == "other\n"


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=st.lists(st.sampled_from([*NASTY, ".", "a", "-"]), min_size=1, max_size=6))
def test_a_file_s_name_never_reaches_the_phone(phone, link, tmp_path, name):
    file = tmp_path / ("".join(name) + ".x")
    file.write_bytes("".join(name).encode())
    phone.commands.clear()
    [remote] = link.push([file])
    assert re.fullmatch(rf"{FOLDER}/[0-9a-f]{{64}}\.x", remote)
    assert all("reboot" not in command for command in phone.commands)
    assert_all_whole(phone)
    odd = file.with_name(file.name + " ;y")
    file.rename(odd)
    assert re.fullmatch(rf"{FOLDER}/[0-9a-f]{{64}}", link.push([odd])[0])


def test_a_file_that_can_t_be_read_is_the_user_s_to_mend(link, tmp_path):
    with pytest.raises(UsageError, match="gone"):
        link.push([tmp_path / "gone"])


def test_a_file_comes_back_as_it_was(link, tmp_path):
    [file] = make_files(tmp_path / "models", 1, 300_000)
    [remote] = link.push([file])
    target = tmp_path / "new folder" / "it's.bin"
    link.pull(remote, target)
    assert target.read_bytes() == file.read_bytes()
    odd = "/data/local/tmp/a b'$(reboot)\n;"
    assert link.script('echo content >"$1"', odd).exit_code == 0
    link.pull(odd, target)
    assert target.read_text() == "content\n"
    assert list(target.parent.iterdir()) == [target]


def test_what_is_not_there_can_t_be_pulled(link, tmp_path):
    target = tmp_path / "target"
    target.write_text("before")
    with pytest.raises(DeviceError, match="there is no such file"):
        link.pull("/data/local/tmp/none", target)
    with pytest.raises(UsageError, match="no absolute path"):
        link.pull("none", target)
    assert target.read_text() == "before"


def test_a_file_that_comes_back_damaged_is_not_kept(link, tmp_path, monkeypatch):
    [remote] = link.push(make_files(tmp_path / "models", 1))
    damage = '\nprintf damage | dd of="$1" conv=notrunc 2>/dev/null'
    monkeypatch.setattr(adb_files, "_DESCRIBE", adb_files._DESCRIBE + damage)
    with pytest.raises(DeviceError, match="arrived damaged"):
        link.pull(remote, tmp_path / "target")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []


def test_a_phone_without_sha256sum_is_told(phone, link, tmp_path, monkeypatch):
    monkeypatch.setattr(adb_files, "_HASHES", "PATH=/none\n" + adb_files._HASHES)
    with pytest.raises(DeviceError, match="no sha256sum"):
        link.push(make_files(tmp_path / "models", 1))


def test_a_full_phone_is_told_and_keeps_no_partial_file(phone, link, tmp_path):
    files = make_files(tmp_path / "models", 3, 100_000)
    phone.arm(DiskFull(after_bytes=150_000))
    with pytest.raises(DeviceError, match=r"no space left.*0.3 MiB \(free: \d+ MiB\)") as caught:
        link.push(files)
    assert not isinstance(caught.value, LinkLostError)
    assert_all_whole(phone)
    phone.clear_faults()
    assert len(link.push(files)) == 3


def test_a_file_that_arrives_damaged_is_removed_and_told(phone, link, tmp_path, monkeypatch):
    damage = 'cd "$1"; for part in *.part; do echo more >>"$part"; done\n'
    monkeypatch.setattr(adb_files, "_ACCEPT", damage + adb_files._ACCEPT)
    with pytest.raises(DeviceError, match="arrived damaged"):
        link.push(make_files(tmp_path / "models", 2))
    assert on_phone(phone) == {}


@pytest.mark.parametrize(
    "fault",
    [
        CutAt("open", 0, "sync:"),
        CutAt("send_bytes", 0),
        CutAt("send_bytes", 150_000),
        CutAt("send_bytes", 299_999),
        CutAt("open", 0, "mode=$2 nonce"),
        CutAt("shell_output", 0, "mode=$2 nonce"),
        CutAt("shell_output", 0, "command -v sha256sum"),
        StallAt("send_bytes", 150_000),
        StallAt("open", 0, "mode=$2 nonce"),
    ],
    ids=str,
)
def test_a_push_that_breaks_off_leaves_no_partial_file(phone, tmp_path, fault):
    files = make_files(tmp_path / "models", 3, 100_000)
    with Adb(timeout_s=STALLED_S).connect(phone.serial) as link:
        phone.arm(fault)
        with pytest.raises(LinkLostError, match=phone.serial):
            link.push(files)
    assert phone.fired == [fault]
    if fault.kind == "send_bytes":
        assert any(name.endswith(".part") for name in on_phone(phone))
    bring_back(phone)
    with Adb().connect(phone.serial) as link:
        assert_all_whole(phone)
        assert len(link.push(files)) == 3
    assert len(on_phone(phone)) == 3
    assert_all_whole(phone)


def test_wherever_a_link_is_cut_the_next_one_mends_it(phone, tmp_path):
    """Every third packet of connecting, pushing, running and pulling."""
    adb = Adb(timeout_s=10)

    def work(seed):
        files = make_files(tmp_path / "models", 2, 70_000, seed=seed)
        with adb.connect(phone.serial) as link:
            remote = link.push(files)
            assert link.script('echo "$1"', "a b").stdout == "a b\n"
            link.pull(remote[1], tmp_path / "pulled")
        assert (tmp_path / "pulled").read_bytes() == files[1].read_bytes()

    phone.reset_counters()
    work(seed=-1)
    packets = phone.counters["packet"]
    assert packets > 30
    for index in range(0, packets, 3):
        phone.arm(CutAt("packet", index))
        try:
            work(seed=index)
        except DeviceError:
            assert phone.fired
        bring_back(phone)
        adb.connect(phone.serial).close()
        assert_all_whole(phone)
        assert [path for path in tmp_path.iterdir() if path.name.endswith(".part")] == []
    work(seed=-1)


def test_a_pull_that_breaks_off_leaves_what_was_there(phone, tmp_path):
    [file] = make_files(tmp_path / "models", 1, 300_000)
    target = tmp_path / "here" / "target"
    target.parent.mkdir()
    target.write_text("before")
    for fault in (CutAt("receive_bytes", 100_000), StallAt("receive_bytes", 100_000)):
        with Adb(timeout_s=STALLED_S).connect(phone.serial) as link:
            [remote] = link.push([file])
            phone.arm(fault)
            with pytest.raises(LinkLostError, match="pulling"):
                link.pull(remote, target)
        assert target.read_text() == "before"
        assert list(target.parent.iterdir()) == [target]
        bring_back(phone)
