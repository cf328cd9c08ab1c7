"""The phone of the tests behaves as a phone does, seen through two real adb clients."""

import subprocess
import threading
import time

import pytest

from phone.faults import CutAt, DiskFull, Garbage, StallAt
from phone.fixtures import both_adb_versions
from phone.sandbox import Core

pytestmark = both_adb_versions
FOLDER = "/data/local/tmp"


class Adb:
    """adb, spoken to one phone."""

    def __init__(self, server, phone):
        self.server, self.phone = server, phone

    def run(self, *words, **keywords):
        return self.server.run("-s", self.phone.serial, *words, **keywords)

    def shell(self, command, **keywords):
        return self.run("shell", command, **keywords)

    def text(self, command):
        """What a command wrote, which must have gone well."""
        done = self.shell(command)
        assert (done.returncode, done.stderr) == (0, b""), done
        return done.stdout.decode()

    def state(self):
        """What `adb devices` calls the phone; None when it isn't listed."""
        lines = self.server.run("devices").stdout.decode().splitlines()
        listed = dict(line.split("\t") for line in lines if "\t" in line)
        return listed.get(self.phone.serial)

    def start(self, command):
        """An interactive command."""
        words = [str(self.server.adb), "-s", self.phone.serial, "shell", "-T", command]
        pipe = subprocess.PIPE
        environment = self.server.environment
        return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)


@pytest.fixture
def adb(adb_server, phone):
    return Adb(adb_server, phone)


def content(size):
    """Bytes that differ from piece to piece."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]


# -- the shell ---------------------------------------------------------------------------------


def test_devices_lists_model_and_product(adb, adb_server):
    line = next(
        line
        for line in adb_server.run("devices", "-l").stdout.decode().splitlines()
        if line.startswith(adb.phone.serial)
    )
    assert " device product:pixeltest model:Pixel_Test device:pixeltest " in line


def test_shell_gives_output_errors_and_exit_code(adb):
    done = adb.shell("echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    assert adb.phone.commands == ["echo out; echo err >&2; exit 3"]


def test_a_signal_shows_in_the_exit_code(adb):
    assert adb.shell("kill -9 $$").returncode == 128 + 9


def test_exec_out_gives_raw_bytes(adb):
    assert adb.run("exec-out", "printf 'a\\r\\n\\000b'").stdout == b"a\r\n\0b"


def test_commands_reach_the_shell_as_one_line(adb):
    adb.run("shell", "echo", "a  b", "'c  d'")
    assert adb.phone.commands == ["echo a  b 'c  d'"]


def test_input_comes_whole_and_ends(adb):
    data = content(1_000_000)
    done = adb.run("shell", "-T", "cat; echo err >&2", input=data)
    assert done.stdout == data
    assert done.stderr == b"err\n"


def test_much_output_comes_whole(adb):
    done = adb.shell("yes 0123456 | head -c 10000000")
    assert done.stdout == b"0123456\n" * 1_250_000


def test_a_command_that_reads_no_input_is_not_held_up_by_it(adb):
    assert adb.run("shell", "-T", "echo done", input=content(2_000_000)).stdout == b"done\n"


def test_a_conversation_goes_line_by_line_and_ends_with_its_input(adb):
    process = adb.start("while read -r line; do echo got $line; done; exit 7")
    for word in (b"one", b"two"):
        process.stdin.write(word + b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"got " + word + b"\n"
    process.communicate(timeout=20)
    assert process.returncode == 7


def test_several_commands_run_at_once(adb):
    processes = [adb.start(f"read -r go; echo {number}") for number in range(5)]
    for process in processes:
        process.stdin.write(b"go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=20)[0] for process in processes] == [
        b"%d\n" % number for number in range(5)
    ]


# -- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 300 * 1024, 20 * 1024 * 1024])
def test_files_come_back_as_they_went(adb, tmp_path, size):
    there, back = tmp_path / "there file", tmp_path / "back"
    there.write_bytes(content(size))
    assert adb.run("push", str(there), f"{FOLDER}/a b").returncode == 0
    assert (adb.phone.data / "local/tmp/a b").read_bytes() == there.read_bytes()
    assert adb.run("pull", f"{FOLDER}/a b", str(back)).returncode == 0
    assert back.read_bytes() == there.read_bytes()


def test_many_files_go_into_a_folder_and_back(adb, tmp_path):
    files = [tmp_path / f"file {number}" for number in range(40)]
    for number, file in enumerate(files):
        file.write_bytes(content(number * 1000))
    adb.text(f"mkdir {FOLDER}/many")
    done = adb.run("push", *map(str, files), f"{FOLDER}/many")
    assert done.returncode == 0
    assert adb.text(f"ls {FOLDER}/many | wc -l").strip() == "40"
    adb.run("pull", f"{FOLDER}/many", str(tmp_path / "back"))
    for file in files:
        assert (tmp_path / "back" / file.name).read_bytes() == file.read_bytes()


def test_a_missing_folder_is_made_by_a_push(adb, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    assert adb.run("push", str(file), f"{FOLDER}/new/deep/file").returncode == 0
    assert adb.text(f"cat {FOLDER}/new/deep/file") == "abc"


def test_a_pushed_program_runs(adb, tmp_path):
    program = tmp_path / "program"
    program.write_text("#!/system/bin/sh\necho ran\n")
    program.chmod(0o755)
    adb.run("push", str(program), f"{FOLDER}/program")
    assert adb.text(f"{FOLDER}/program") == "ran\n"


def test_what_is_not_the_users_can_not_be_written(adb, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    done = adb.run("push", str(file), "/system/file")
    assert done.returncode != 0
    assert b"Permission denied" in done.stdout + done.stderr
    for place in ("/system/file", "/data/file", "/sys/file"):
        assert adb.shell(f"echo a > {place}").returncode != 0


def test_pull_of_a_missing_file_fails(adb, tmp_path):
    assert adb.run("pull", f"{FOLDER}/none", str(tmp_path / "none")).returncode != 0


def test_links_out_of_the_phone_lead_nowhere(adb, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("host's own")
    adb.text(f"ln -s {secret} {FOLDER}/link; ln -s {tmp_path} {FOLDER}/folder")
    assert adb.shell(f"cat {FOLDER}/link").returncode != 0
    for name in ("link", "folder/secret"):
        assert adb.run("pull", f"{FOLDER}/{name}", str(tmp_path / "got")).returncode != 0


# -- what goes wrong ---------------------------------------------------------------------------


def test_a_full_disk_leaves_part_of_a_file(adb, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(content(1_000_000))
    adb.phone.arm(DiskFull(after_bytes=100_001))
    for name, size in (("one", 100_001), ("two", 0)):
        done = adb.run("push", str(file), f"{FOLDER}/{name}")
        assert done.returncode != 0
        assert b"No space left on device" in done.stdout + done.stderr
        assert (adb.phone.data / "local/tmp" / name).stat().st_size == size
    adb.phone.clear_faults()
    assert adb.run("push", str(file), f"{FOLDER}/one").returncode == 0


def commands_of_a_visit(adb, folder):
    """Push, run, pull: whether each of the three went well as far as its result tells."""
    file, back = folder / "file", folder / "back"
    back.unlink(missing_ok=True)
    pushed = adb.run("push", str(file), f"{FOLDER}/file").returncode == 0
    shown = adb.shell("echo output").stdout == b"output\n"
    adb.run("pull", f"{FOLDER}/file", str(back))
    pulled = back.exists() and back.read_bytes() == file.read_bytes()
    return pushed, shown, pulled


def test_positions_are_counted_so_that_each_can_be_cut(adb, tmp_path):
    (tmp_path / "file").write_bytes(content(150_000))
    assert commands_of_a_visit(adb, tmp_path) == (True, True, True)
    adb.phone.reset_counters()
    assert commands_of_a_visit(adb, tmp_path) == (True, True, True)
    counted = adb.phone.counters
    assert counted["open"] == 3
    assert counted["send_bytes"] == counted["receive_bytes"] == 150_000
    assert counted["shell_output"] >= 2
    assert counted["packet"] > 20
    for kind, total in counted.items():
        # The last packets only say good-bye, and not all of them come every time.
        last = total // 2 if kind == "packet" else total - 1
        for index in sorted({0, total // 3, last}):
            fault = CutAt(kind, index)
            adb.phone.arm(fault)
            results = commands_of_a_visit(adb, tmp_path)
            assert adb.phone.fired == [fault]
            assert results != (True, True, True), fault
            assert adb.state() == "offline"
            adb.phone.clear_faults()
            adb.phone.reconnect()
            assert adb.state() == "device"
    assert commands_of_a_visit(adb, tmp_path) == (True, True, True)


def test_a_cut_push_leaves_exactly_what_came_before(adb, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(content(300_000))
    adb.phone.arm(CutAt("send_bytes", 123_457))
    assert adb.run("push", str(file), f"{FOLDER}/file").returncode != 0
    assert (adb.phone.data / "local/tmp/file").read_bytes() == content(300_000)[:123_457]


def test_a_fault_is_for_what_matches_only(adb):
    adb.phone.arm(CutAt("open", 1, match="second"))
    assert adb.text("echo first") == "first\n"
    assert adb.text("echo second") == "second\n"
    assert adb.text("echo third") == "third\n"
    assert adb.shell("echo second").stdout == b""
    assert adb.state() == "offline"
    assert len(adb.phone.commands) == 3


def test_a_cut_ends_the_command_on_the_phone(adb):
    process = adb.start("cat; echo ended > /data/local/tmp/after")
    process.stdin.write(b"line\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"line\n"
    adb.phone.cut()
    assert process.stdout.read() == b""
    process.communicate(timeout=20)
    adb.phone.reconnect()
    assert adb.text("while pidof cat; do usleep 1000; done; echo gone").endswith("gone\n")


def test_a_client_that_is_killed_ends_the_command_on_the_phone(adb):
    process = adb.start("echo here; sleep 1000")
    assert process.stdout.readline() == b"here\n"
    process.kill()
    process.communicate(timeout=20)
    assert adb.text("while pgrep -x sleep; do usleep 1000; done; echo gone").endswith("gone\n")


def test_a_stalled_phone_answers_nothing_until_reconnected(adb):
    adb.phone.arm(StallAt("shell_output", 0))
    for _ in range(2):
        with pytest.raises(subprocess.TimeoutExpired):
            adb.shell("echo a", timeout=0.5)
    assert adb.state() == "device"
    adb.phone.reconnect()
    assert adb.text("echo a") == "a\n"


def test_an_unauthorized_phone_lets_nobody_in_until_it_is_allowed(adb):
    adb.phone.become_unauthorized()
    assert adb.state() == "unauthorized"
    done = adb.shell("echo a")
    assert done.returncode != 0
    assert b"unauthorized" in done.stderr
    adb.phone.reconnect()
    assert adb.text("echo a") == "a\n"


def test_a_removed_phone_is_listed_no_more(adb):
    adb.phone.remove()
    assert adb.state() is None
    adb.phone.reconnect()
    assert adb.state() == "device"


def test_a_phone_can_come_back_while_a_command_waits_for_it(adb):
    adb.phone.remove()
    thread = threading.Timer(0.3, adb.phone.reconnect)
    thread.start()
    assert adb.run("wait-for-device", "shell", "echo back").stdout == b"back\n"
    thread.join()


def test_lines_of_output_can_be_changed(adb):
    adb.phone.arm(Garbage("seq 5", b"NaN\n", line=1))
    assert adb.text("seq 5") == "1\nNaN\n3\n4\n5\n"
    assert adb.text("seq 5") == "1\n2\n3\n4\n5\n"
    adb.phone.arm(Garbage("seq", lambda line: line * 2, line=6, lines=2))
    assert adb.text("seq 5; seq 5") == "1\n2\n3\n4\n5\n1\n2\n2\n3\n3\n4\n5\n"
    adb.phone.clear_faults()
    adb.phone.arm(Garbage("seq", b"\xff\xfe", lines=100))
    assert adb.shell("seq 2; printf 3").stdout == b"\xff\xfe" * 3


def test_two_phones_share_a_server(adb_server, two_phones, tmp_path):
    first, second = (Adb(adb_server, phone) for phone in two_phones)
    file = tmp_path / "file"
    file.write_bytes(content(100_000))
    assert first.text("getprop ro.product.model") == "First\n"
    assert second.text("getprop ro.product.model") == "Second\n"
    first.run("push", str(file), f"{FOLDER}/file")
    assert second.shell(f"ls {FOLDER}/file").returncode != 0
    first.phone.cut()
    for _ in range(200):  # the server notices in its own time
        if first.state() == "offline":
            break
        time.sleep(0.05)
    assert (first.state(), second.state()) == ("offline", "device")
    assert second.text("getprop ro.serialno") == "SANDBOX0002\n"


# -- what the phone tells ------------------------------------------------------------------------


def test_properties_come_one_at_a_time_and_all(adb_server, make_phone):
    strange = {"a.strange": 'it\'s $(a) `b`; "c" [d]\ne', "ro.soc.model": None}
    adb = Adb(adb_server, make_phone(sdk=30, properties=strange))
    assert adb.text("getprop a.strange") == strange["a.strange"] + "\n"
    assert adb.text("getprop ro.soc.model; getprop none fallback") == "\nfallback\n"
    listed = adb.text("getprop")
    assert "[ro.build.version.release]: [11]\n" in listed
    assert "[ro.boot.qemu]: [1]\n" in listed
    assert f"[a.strange]: [{strange['a.strange']}]\n" in listed
    assert "ro.soc.model" not in listed


def test_temperatures_follow_what_is_set_and_the_script(adb):
    adb.phone.set_temperature("skin", 44.5)
    adb.phone.set_thermal_script([1, (3, {"skin": 51.0, "cpu0": 90.5})])
    told = [adb.text("dumpsys thermalservice") for _ in range(3)]
    assert ["Thermal Status: 1" in told[0], "Thermal Status: 3" in told[1]] == [True, True]
    assert "Temperature{mValue=44.5, mType=3, mName=skin, mStatus=1}" in told[0]
    assert "Temperature{mValue=90.5, mType=0, mName=cpu0, mStatus=3}" in told[1]
    assert told[2] == told[1]
    assert adb.phone.calls == ["dumpsys thermalservice"] * 3


def test_power_is_kept_in_files_that_a_test_sees(adb):
    adb.text("svc power stayon true; settings put global low_power 1; input keyevent KEYCODE_SLEEP")
    adb.text("cmd power set-fixed-performance-mode-enabled true")
    assert adb.phone.state("settings/global/low_power") == "1"
    assert adb.phone.state("fixed_performance") == "true"
    told = adb.text("dumpsys power; settings get global stay_on_while_plugged_in")
    assert "mWakefulness=Asleep" in told
    assert "mStayOn=true" in told
    assert told.endswith("\n7\n")
    adb.text("settings delete global low_power")
    assert adb.text("settings get global low_power") == "null\n"


def test_battery_is_told_as_set(adb):
    adb.phone.set_state("charging", "ac")
    adb.phone.set_state("battery_level", 12)
    told = adb.text("dumpsys battery")
    assert "  AC powered: true\n  USB powered: false\n" in told
    assert "  level: 12\n" in told
    assert "  temperature: 285\n" in told


def test_an_older_phone_has_no_fixed_performance_mode(adb_server, make_phone):
    command = "cmd power set-fixed-performance-mode-enabled true"
    old = Adb(adb_server, make_phone(sdk=28))
    assert old.shell(command).returncode == 255
    assert b"Can't find service" in old.shell("dumpsys thermalservice").stderr
    without = Adb(adb_server, make_phone(fixed_performance=False))
    assert without.shell(command).returncode == 255


def test_cores_are_those_of_the_specification(adb_server, make_phone):
    cores = (Core(1_000_000, 300), Core(1_000_000, 300), Core(3_000_000, 1024, online=False))
    adb = Adb(adb_server, make_phone(cores=cores))
    cpu = "/sys/devices/system/cpu"
    assert adb.text(f"cat {cpu}/possible {cpu}/online") == "0-2\n0-1\n"
    assert adb.text(f"cat {cpu}/cpu2/cpufreq/cpuinfo_max_freq") == "3000000\n"
    adb.phone.set_frequency(1, 700_000)
    assert adb.text(f"cat {cpu}/cpu1/cpufreq/scaling_cur_freq") == "700000\n"


def test_the_shell_is_androids_user_in_androids_folders(adb):
    assert adb.text("id -u; pwd; echo $PATH") == "2000\n/\n/system/bin\n"
    assert adb.text("taskset 1 nproc") == "1\n"
    assert adb.text("printf abc | sha256sum").startswith("ba7816bf8f01cfea414140de5dae2223")
    assert adb.shell("ls /root /home /work").stdout == b""
