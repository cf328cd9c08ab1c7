"""Phones over adb: finds the adb program, lists what it sees, opens a link to one phone.

Only the files of this folder call adb. The adb server is shared with everything
else on this computer (Android Studio, other people's scripts), so nothing here ever ends it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import DeviceError, UsageError
from .call import Finished, LinkLostError, call
from .link import AdbLink

SERVER_PORT = 5037
SERVER_TIMEOUT_S = 3.0

_HOW_TO_GET = (
    "Install it (`apt install adb`, `brew install android-platform-tools`, or "
    "`pip install adbutils`, which carries one), or name it: ADBUTILS_ADB_PATH=/path/to/adb"
)

_ADVICE = {
    "unauthorized": (
        "unlock the phone and accept its dialog `Allow USB debugging?`; if none is shown, choose "
        "`Revoke USB debugging authorizations` in its developer options and plug it in again"
    ),
    "authorizing": "it is still asking for leave: unlock the phone, accept the dialog, try again",
    "connecting": "it is still connecting: try again in a few seconds",
    "offline": (
        "it does not answer: plug it in again, or switch USB debugging off and on; for one on the "
        "network, `adb disconnect` it, then `adb connect` it"
    ),
    "no permissions": (
        "this user may not open its USB device: install the udev rules "
        "(`apt install android-sdk-platform-tools-common`), join the group plugdev, log in anew "
        "and plug the phone in again"
    ),
    "bootloader": "it stands in the bootloader: start Android (`fastboot reboot`)",
    "recovery": "it stands in recovery mode: start Android (`adb reboot`)",
    "rescue": "it stands in rescue mode: start Android (`adb reboot`)",
    "sideload": "it stands in sideload mode: start Android (`adb reboot`)",
}


@dataclass(frozen=True, slots=True)
class AdbDevice:
    """What `adb devices -l` tells of one phone. `state` is `device` where it can be used."""

    serial: str
    state: str
    properties: Mapping[str, str]

    @property
    def advice(self) -> str | None:
        """What to do so that it can be used; `None` where it can be."""
        if self.state == "device":
            return None
        return _ADVICE.get(self.state, "start Android on it and plug it in again")

    def __str__(self) -> str:
        model = self.properties.get("model")
        named = f"{self.serial} ({model.replace('_', ' ')})" if model else self.serial
        return named if self.state == "device" else f"{named}: {self.state}"


def find_adb(given: Path | None = None) -> Path:
    """The adb program: `given`, else ADBUTILS_ADB_PATH, else PATH's, else the `adbutils` package's.

    Raises `UsageError` where `given` is no program, and `DeviceError` where there is none at all
    or ADBUTILS_ADB_PATH names none.
    """
    if given is not None:
        found = shutil.which(given)
        if found is None:
            raise UsageError(f"there is no adb program at {given}. {_HOW_TO_GET}")
        return Path(found)
    named = os.environ.get("ADBUTILS_ADB_PATH")
    if named:
        found = shutil.which(named)
        if found is None:
            raise DeviceError(f"ADBUTILS_ADB_PATH names no program: {named}. Correct or unset it")
        return Path(found)
    found = shutil.which("adb")
    if found is not None:
        return Path(found)
    # The package is looked up, not imported: its import costs and does more than is wanted.
    package = importlib.util.find_spec("adbutils")
    for folder in (package and package.submodule_search_locations) or ():
        for name in ("adb", "adb.exe"):
            carried = Path(folder) / "binaries" / name
            if os.access(carried, os.X_OK):
                return carried
    raise DeviceError(f"phones are reached through adb, and there is none here. {_HOW_TO_GET}")


def parse_devices(output: str) -> list[AdbDevice]:
    """Read what `adb devices -l` printed, by any version.

    Raises `DeviceError` where it is no list of devices.
    """
    lines = iter(output.split("\n"))
    for line in lines:
        # Older versions tell before the list that they start their server.
        if line.startswith("List of devices attached"):
            break
    else:
        raise DeviceError(f"adb listed no devices but said: {output.strip()[-300:]!r}")
    devices = []
    for line in lines:
        match = _DEVICE.fullmatch(line.rstrip())
        if match is None or line.startswith("* daemon "):
            continue
        properties = dict(
            word.split(":", 1) for word in match["rest"].split() if _PROPERTY.fullmatch(word)
        )
        devices.append(AdbDevice(match["serial"], match["state"], properties))
    return devices


# A name found by mDNS may carry a number of its own: `adb-SERIAL-xyz (2)._adb-tls-connect._tcp`.
_DEVICE = re.compile(
    r"(?P<serial>\(no serial number\)|\S+(?: \(\d+\)\.\S+)?)"
    r"\s+(?P<state>no permissions|\S+)(?P<rest>.*)"
)
_PROPERTY = re.compile(r"[a-z_]+:\S+")


class Adb:
    """The adb program of this computer. Every call ends within its bound, `timeout_s` by default.

    Raises `DeviceError` where there is no adb.
    """

    def __init__(self, path: Path | None = None, *, timeout_s: float = 30.0) -> None:
        self.path = find_adb(path)
        self.timeout_s = timeout_s
        self._server_checked = False

    def version(self) -> str:
        """The program's version, as `36.0.0-13206524`."""
        said = self._call("version").stdout.decode(errors="replace")
        match = re.search(r"^Version (\S+)", said, re.MULTILINE)
        return match[1] if match else said.partition("\n")[0].strip()

    def devices(self) -> list[AdbDevice]:
        """All phones that the adb server sees, in whatever state."""
        self._check_server()
        finished = self._call("devices", "-l")
        if finished.exit_code != 0:
            raise DeviceError(f"`adb devices` failed: {finished.text}")
        return parse_devices(finished.stdout.decode(errors="replace"))

    def connect(self, serial: str | None) -> AdbLink:
        """Open a link to the phone with this serial; `None`: to the only one there is.

        The link holds the phone for this process until it is closed. Raises `DeviceError` where
        there is none, which one is not clear, it is not ready, too old, or used by another latkit.
        """
        device = _choose(self.devices(), serial)
        if device.advice is not None:
            raise DeviceError(f"phone {device.serial} is {device.state}: {device.advice}")
        features = self._call("-s", device.serial, "features")
        if features.exit_code != 0:
            raise LinkLostError(f"asking phone {device.serial} what it can: {features.text}")
        if "shell_v2" not in features.stdout.decode(errors="replace").split():
            raise DeviceError(
                f"phone {device.serial} is too old: its adb has no shell_v2 (Android 7 or newer "
                "has it)"
            )
        return AdbLink(self.path, device.serial, timeout_s=self.timeout_s)

    def _call(self, *arguments: str) -> Finished:
        doing = f"asking adb for `{' '.join(arguments)}`"
        return call(self.path, arguments, timeout_s=self.timeout_s, doing=doing)

    def _check_server(self) -> None:
        """Refuse where our first call would end a server that others use.

        A client that meets a server of another protocol version kills it and starts its own.
        """
        if self._server_checked:
            return
        running = _server_version(*_server_address())
        if running is not None:
            said = self._call("version").stdout.decode(errors="replace")
            match = re.search(r"^Android Debug Bridge version 1\.0\.(\d+)", said, re.MULTILINE)
            own = int(match[1]) if match else None
            if own != running:
                raise DeviceError(
                    f"an adb server of protocol version {running} is running, and {self.path} is "
                    f"of version {own}: calling it would end the server for everybody. Use the "
                    "adb that started the server (ADBUTILS_ADB_PATH=/path/to/it), or end the "
                    "server yourself when nobody needs it"
                )
        self._server_checked = True


def _choose(devices: list[AdbDevice], serial: str | None) -> AdbDevice:
    listed = "; ".join(map(str, devices)) or "none"
    if serial is not None:
        for device in devices:
            if device.serial == serial:
                return device
        hint = f"; `adb connect {serial}` first" if re.fullmatch(r"\S+:\d+", serial) else ""
        raise DeviceError(f"there is no phone {serial} on adb{hint}. Phones there: {listed}")
    if not devices:
        raise DeviceError(
            "adb sees no phone. Plug one in, switch on `USB debugging` in its developer options, "
            "and accept the dialog that it shows"
        )
    if len(devices) > 1:
        raise DeviceError(f"adb sees several phones; name one as adb:SERIAL: {listed}")
    return devices[0]


def _server_address() -> tuple[str, int]:
    """Where adb's client looks for its server, from the variables that it reads."""
    spec = os.environ.get("ADB_SERVER_SOCKET")
    if spec:
        match = re.fullmatch(r"tcp:(?:(.+):)?(\d+)", spec)
        if match is None:
            raise DeviceError(f"ADB_SERVER_SOCKET={spec} is no tcp:HOST:PORT; unset it")
        return match[1] or "127.0.0.1", int(match[2])
    host = os.environ.get("ANDROID_ADB_SERVER_ADDRESS") or "127.0.0.1"
    port = os.environ.get("ANDROID_ADB_SERVER_PORT") or str(SERVER_PORT)
    if not port.isdecimal():
        raise DeviceError(f"ANDROID_ADB_SERVER_PORT={port} is no port; correct or unset it")
    return host, int(port)


def _server_version(host: str, port: int) -> int | None:
    """Protocol version of the running server; `None` where none runs."""
    try:
        with socket.create_connection((host, port), timeout=SERVER_TIMEOUT_S) as connection:
            connection.sendall(b"000chost:version")
            answer = b""
            while len(answer) < 12:
                piece = connection.recv(64)
                if not piece:
                    break
                answer += piece
    except ConnectionRefusedError:
        return None
    except OSError as error:
        raise DeviceError(f"the adb server at {host}:{port} does not answer: {error}") from None
    match = re.fullmatch(rb"OKAY0004([0-9a-fA-F]{4})", answer)
    if match is None:
        raise DeviceError(f"what listens at {host}:{port} is no adb server: {answer!r}")
    return int(match[1], 16)
