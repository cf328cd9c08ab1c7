"""pytest fixtures: phones for the tests, and a private adb server for each version of adb.

A test that takes `phone`, `two_phones` or `make_phone` runs once, with the newest adb there is;
marked with `both_adb_versions`, it runs with each.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from . import libraries, sandbox
from .phone import EmulatedPhone
from .spec import PhoneSpec

ADB_PACKAGES = {"adbutils": "pip install adbutils", "debian": "apt-get install adb"}
both_adb_versions = pytest.mark.parametrize("adb_server", ["debian", "adbutils"], indirect=True)
"""Run a test with Debian's adb (29) and with the one inside of adbutils (36)."""

MakePhone = Callable[..., EmulatedPhone]


@dataclass(frozen=True)
class AdbServer:
    """A private adb server, and the one client that may speak to it."""

    adb: Path
    port: int
    settings: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """The environment that this adb is to run in."""
        return {**os.environ, **self.settings}

    def run(self, *words: str, **keywords: Any) -> subprocess.CompletedProcess[bytes]:
        """Run this adb against this server."""
        told: dict[str, Any] = {"capture_output": True, "timeout": 60, **keywords}
        told |= {"env": self.environment, "check": False}
        done: subprocess.CompletedProcess[bytes] = subprocess.run([str(self.adb), *words], **told)
        return done


@pytest.fixture(scope="session")
def adb_binaries() -> dict[str, Path]:
    """The adb clients of this machine: `debian` (29) and `adbutils` (36)."""
    package = importlib.util.find_spec("adbutils")
    installed = [Path(package.origin).parent] if package and package.origin else []
    places = [("adbutils", folder / "binaries/adb") for folder in installed]
    places += [("adbutils", libraries.PHONE / "adbutils/binaries/adb")]
    places += [("debian", Path("/usr/bin/adb"))]
    return {name: path for name, path in reversed(places) if os.access(path, os.X_OK)}


@pytest.fixture(scope="session")
def adb_servers(adb_binaries: dict[str, Path]) -> Iterator[Callable[[str], AdbServer]]:
    """Give the private server of an adb, started when it is first asked for."""
    servers: dict[str, AdbServer] = {}
    with tempfile.TemporaryDirectory(prefix="adb-server-") as home:

        def server(name: str) -> AdbServer:
            if name not in adb_binaries:
                pytest.skip(f"this adb is not here; {ADB_PACKAGES[name]}")
            if name not in servers:
                servers[name] = start_server(adb_binaries[name], Path(home) / name)
            return servers[name]

        yield server
        for each in servers.values():
            each.run("kill-server")


def start_server(adb: Path, home: Path) -> AdbServer:
    """Start a private server whose keys and log lie in `home`, a folder that is made."""
    home.mkdir()
    port = _free_port()
    settings = {"ANDROID_ADB_SERVER_PORT": str(port), "ADBUTILS_ADB_PATH": str(adb)}
    settings |= {"HOME": str(home)}  # where its key is
    settings |= {"ADB_USB": "0", "ADB_EMU": "0", "ADB_MDNS": "0"}  # it sees our phones only
    server = AdbServer(adb, port, settings)
    # The server keeps the output that it is started with, so a pipe would never end.
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    own = {**server.environment, "TMPDIR": str(home)}  # where its log is
    started = subprocess.run([str(adb), "start-server"], env=own, timeout=60, check=False, **quiet)
    if started.returncode:
        pytest.fail(f"{adb} does not start its server; see {home}")
    return server


@pytest.fixture
def adb_server(
    request: pytest.FixtureRequest,
    adb_binaries: dict[str, Path],
    adb_servers: Callable[[str], AdbServer],
    monkeypatch: pytest.MonkeyPatch,
) -> AdbServer:
    """A private adb server; the code under test finds it, and its adb, by the environment."""
    wanted = getattr(request, "param", None) or next(reversed(adb_binaries), "debian")
    server = adb_servers(wanted)
    for name, value in server.settings.items():
        monkeypatch.setenv(name, value)
    for name in ("ANDROID_SERIAL", "ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return server


@pytest.fixture(scope="session")
def phone_systems(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the /system that all phones of an ABI share."""
    built: dict[str, Path] = {}
    home = os.environ.get("HOME", "/")

    def system(abi: str) -> Path:
        if abi not in built:
            if problem := sandbox.missing(abi):
                pytest.skip(problem)
            folder = tmp_path_factory.mktemp(f"system-{abi}")
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("HOME", home)  # where the compiler's cache is
                built[abi] = sandbox.build_system(folder, abi)
        return built[abi]

    return system


@pytest.fixture
def make_phone(
    adb_server: AdbServer, phone_systems: Callable[[str], Path], tmp_path: Path
) -> Iterator[MakePhone]:
    """Start a phone: `make_phone(model="Pixel 8", sdk=33)`; the fields are those of PhoneSpec."""
    phones: list[EmulatedPhone] = []

    def make(**fields: Any) -> EmulatedPhone:
        number = len(phones) + 1
        spec = PhoneSpec(**{"serial_number": f"SANDBOX{number:04}", **fields})
        system = phone_systems(spec.abi)
        folder = tmp_path / f"phone-{number}"
        adb, port = adb_server.adb, adb_server.port
        phone = EmulatedPhone(folder, spec, adb=adb, server_port=port, system=system)
        phones.append(phone)
        return phone.start()

    yield make
    for phone in phones:
        phone.stop()


@pytest.fixture
def phone(make_phone: MakePhone) -> EmulatedPhone:
    """A started phone."""
    return make_phone()


@pytest.fixture
def two_phones(make_phone: MakePhone) -> tuple[EmulatedPhone, EmulatedPhone]:
    """Two started phones of different makes, on one adb server."""
    return make_phone(model="First"), make_phone(model="Second", manufacturer="Other")


def _free_port() -> int:
    """A port for a server; high, so not one of those that adb looks for emulators at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
