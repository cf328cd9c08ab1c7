"""Which adb is called, and which never: the program, its server, the phone of another latkit."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from latkit.devices import DeviceError, UsageError
from latkit.devices.adb import Adb, AdbDevice, LinkLostError, find_adb
from latkit.devices.adb import client as adb_module
from latkit.devices.adb.lock import PhoneLock


def program(path, script="exit 0"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def nothing_installed(monkeypatch, tmp_path):
    monkeypatch.delenv("ADBUTILS_ADB_PATH", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(adb_module.importlib.util, "find_spec", lambda name: None)


def test_adb_is_looked_for_at_four_places_in_this_order(monkeypatch, tmp_path):
    package = tmp_path / "site" / "adbutils"
    carried = program(package / "binaries" / "adb")
    (package / "__init__.py").write_text("raise AssertionError('looked up, not imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "adbutils", raising=False)
    monkeypatch.delenv("ADBUTILS_ADB_PATH", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_adb() == carried
    on_path = program(tmp_path / "bin" / "adb")
    assert find_adb() == on_path
    named = program(tmp_path / "named" / "adb-36")
    monkeypatch.setenv("ADBUTILS_ADB_PATH", str(named))
    assert find_adb() == named
    given = program(tmp_path / "given" / "adb")
    assert find_adb(given) == given


@pytest.mark.usefixtures("nothing_installed")
def test_without_adb_the_error_says_how_to_get_one():
    with pytest.raises(DeviceError, match=r"apt install adb.*pip install adbutils"):
        Adb()


def test_a_path_that_is_no_program_is_named(monkeypatch, tmp_path):
    with pytest.raises(UsageError, match=r"no adb program at .*nowhere"):
        find_adb(tmp_path / "nowhere")
    monkeypatch.setenv("ADBUTILS_ADB_PATH", str(tmp_path / "gone"))
    with pytest.raises(DeviceError, match="ADBUTILS_ADB_PATH names no program"):
        find_adb()


def test_a_file_that_can_t_run_is_an_error_of_the_device(tmp_path):
    broken = tmp_path / "adb"
    broken.write_bytes(b"\0\1\2")
    broken.chmod(0o755)
    with pytest.raises(DeviceError, match="can't start adb"):
        Adb(broken).version()


class Server:
    """Listens as an adb server would, and answers a client in whatever way is wanted."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._connections = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._connections.append(connection)
            self.asked.append(connection.recv(100))
            if self.answer is not None:
                connection.sendall(self.answer)
                connection.close()

    def close(self):
        for one in (self._socket, *self._connections):
            one.close()


@pytest.fixture
def server(monkeypatch, request):
    server = Server(request.param)
    for name in ("ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.port))
    monkeypatch.setattr(adb_module, "SERVER_TIMEOUT_S", 0.5)
    yield server
    server.close()


VERSION_41 = "echo Android Debug Bridge version 1.0.41; echo Version 29.0.6-debian"


@pytest.mark.parametrize("server", [b"OKAY00040028"], indirect=True)
@pytest.mark.parametrize("spelling", ["port", "socket", "socket with host"])
def test_a_server_of_another_version_is_left_alone(monkeypatch, tmp_path, server, spelling):
    if spelling != "port":
        host = "127.0.0.1:" if spelling == "socket with host" else ""
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")
        monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:{host}{server.port}")
    called = tmp_path / "called"
    adb = Adb(program(tmp_path / "adb", f'echo "$1" >>{called}; {VERSION_41}'))
    with pytest.raises(DeviceError, match=r"version 40 is running.*version 41.*ADBUTILS_ADB_P"):
        adb.connect(None)
    assert called.read_text().split() == ["version"]
    assert server.asked == [b"000chost:version"]


@pytest.mark.parametrize("server", [b"OKAY00040029"], indirect=True)
def test_a_server_of_the_same_version_is_used(tmp_path, server):
    script = f'if [ "$1" = version ]; then {VERSION_41}; else echo List of devices attached; fi'
    adb = Adb(program(tmp_path / "adb", script))
    assert adb.devices() == []
    assert adb.version() == "29.0.6-debian"


@pytest.mark.parametrize("server", [b"HTTP/1.1 400 Bad Request\r\n", None], indirect=True)
def test_what_is_no_adb_server_is_not_called(tmp_path, server):
    adb = Adb(program(tmp_path / "adb", VERSION_41))
    with pytest.raises(DeviceError, match=r"is no adb server|does not answer"):
        adb.devices()


def test_a_server_that_can_t_be_asked_is_not_called(monkeypatch, tmp_path):
    monkeypatch.setenv("ADB_SERVER_SOCKET", "vsock:3:5037")
    with pytest.raises(DeviceError, match="unset it"):
        Adb(program(tmp_path / "adb", VERSION_41)).devices()


@pytest.fixture
def listing(monkeypatch, tmp_path):
    """An adb whose list is given. A real one shows such states only of hardware."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(free.getsockname()[1]))

    def make(*lines, features="shell_v2"):
        text = "\\n".join(["List of devices attached", *lines, ""])
        script = f"case \"$*\" in *features) echo {features};; *) printf '{text}\\n';; esac"
        return Adb(program(tmp_path / "adb", script))

    return make


@pytest.mark.parametrize(
    ("state", "advice"),
    [
        ("unauthorized", "unlock the phone and accept"),
        ("offline", "plug it in again"),
        ("no permissions; see [http://a.b/c.html]", "udev"),
        ("bootloader", "fastboot reboot"),
        ("recovery", "start Android"),
        ("sideload", "start Android"),
        ("authorizing", "unlock"),
        ("something-new", "start Android"),
    ],
)
def test_a_phone_that_is_not_ready_comes_with_advice(listing, state, advice):
    adb = listing(f"ABC {state} usb:1-1")
    assert advice in adb.devices()[0].advice
    with pytest.raises(DeviceError, match=f"ABC is {state.partition(';')[0]}: .*{advice}"):
        adb.connect("ABC")
    with pytest.raises(DeviceError, match=advice):
        adb.connect(None)


def test_which_phone_is_meant_is_never_guessed(listing):
    two = listing("ABC device model:Pixel_7", "DEF unauthorized")
    with pytest.raises(DeviceError, match=r"several.*ABC \(Pixel 7\); DEF: unauthorized"):
        two.connect(None)
    with pytest.raises(DeviceError, match=r"no phone XYZ.*ABC \(Pixel 7\)"):
        two.connect("XYZ")
    with pytest.raises(DeviceError, match=r"adb connect 10.0.0.7:5555"):
        two.connect("10.0.0.7:5555")
    with pytest.raises(DeviceError, match="USB debugging"):
        listing().connect(None)


def test_a_phone_without_exit_codes_is_too_old(listing):
    with pytest.raises(DeviceError, match=r"too old.*shell_v2"):
        listing("ABC device", features="cmd").connect("ABC")


def test_what_is_no_list_is_no_empty_list(listing, tmp_path):
    adb = listing()
    program(adb.path, "echo cannot connect to daemon")
    with pytest.raises(DeviceError, match="cannot connect to daemon"):
        adb.devices()
    program(adb.path, "echo List of devices attached; exit 1")
    with pytest.raises(DeviceError, match="failed"):
        adb.devices()


def test_an_adb_that_hangs_is_ended(listing, tmp_path):
    adb = listing()
    mine = tmp_path / "pid"
    program(adb.path, f"echo $$ >{mine}; exec sleep 600")
    adb.timeout_s = 0.5
    with pytest.raises(LinkLostError, match="no answer within"):
        adb.devices()
    with pytest.raises(ProcessLookupError):
        os.kill(int(mine.read_text()), 0)


def test_an_interrupt_of_the_terminal_reaches_no_adb(tmp_path):
    # It goes to a whole session, and an adb that is at work might be the one that holds a server.
    adb = Adb(program(tmp_path / "adb", "echo Version $(ps -o sid= -p $$)"))
    assert int(adb.version()) != os.getsid(0)


def test_a_ready_phone_needs_no_advice():
    assert AdbDevice("A", "device", {}).advice is None


def test_a_phone_is_held_by_one_process_until_that_ends(tmp_path):
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from latkit.devices.adb.lock import PhoneLock\n"
        "lock = PhoneLock('AB C', Path(sys.argv[1]))\nprint('held', flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout.readline() == "held\n"
            with pytest.raises(DeviceError, match=f"another latkit .process {other.pid}"):
                PhoneLock("AB C", tmp_path)
            PhoneLock("AB D", tmp_path).close()
        finally:
            other.send_signal(signal.SIGKILL)
    mine = PhoneLock("AB C", tmp_path)
    with pytest.raises(DeviceError, match="another latkit"):
        PhoneLock("AB C", tmp_path)
    mine.close()
    mine.close()
    PhoneLock("AB C", tmp_path).close()


def test_a_lock_folder_that_can_t_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="lock file"):
        PhoneLock("A", tmp_path / "file" / "locks")
