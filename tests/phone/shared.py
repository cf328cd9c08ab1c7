"""A phone that the tests of a file share, for those that do not change it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .phone import EmulatedPhone
from .spec import PhoneSpec


@contextmanager
def shared_phone(
    request: pytest.FixtureRequest, folder: Path, abi: str = "x86_64"
) -> Iterator[EmulatedPhone]:
    """A started phone in `folder`; the code under test finds adb by the environment.

    `request` is that of a fixture of a file, to which the phone belongs: it is on the adb server
    as long as that lasts, beside phones that the same file's tests start.
    """
    binaries = request.getfixturevalue("adb_binaries")
    server = request.getfixturevalue("adb_servers")(next(reversed(binaries), "debian"))
    system = request.getfixturevalue("phone_systems")(abi)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for name in ("ANDROID_ADB_SERVER_PORT", "HOME", "ADBUTILS_ADB_PATH"):
            patch.setenv(name, server.environment[name])
        for name in ("ANDROID_SERIAL", "ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_ADDRESS"):
            patch.delenv(name, raising=False)
        with EmulatedPhone(
            folder / "phone",
            PhoneSpec(abi=abi),
            adb=server.adb,
            server_port=server.port,
            system=system,
        ) as phone:
            yield phone
