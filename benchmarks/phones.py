"""The phone that a benchmark times: the user's, or an emulated one that is started for it."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latkit.devices.adb import find_adb
from latkit.devices.options import DeviceOptions

TESTS = Path(__file__).resolve().parent.parent / "tests"


def add_phone_options(parser: argparse.ArgumentParser) -> None:
    """Which phone, and with which runtime."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--device", metavar="ADDRESS", help="a phone: adb:SERIAL, or adb")
    which.add_argument(
        "--emulated", action="store_true", help="the emulated phone of tests/phone, on this host"
    )
    parser.add_argument(
        "--runtime-library", type=Path, metavar="FILE", help=".aar or .so; needed with --device"
    )
    parser.add_argument(
        "--runtime",
        default="onnxruntime",
        choices=("onnxruntime", "litert"),
        help="with --emulated and no --runtime-library: whose library of the tests is taken",
    )


@contextmanager
def phone(arguments: argparse.Namespace) -> Iterator[tuple[str, DeviceOptions]]:
    """Address and options of the phone that was asked for; an emulated one ends with the block."""
    if not arguments.emulated:
        yield arguments.device, DeviceOptions(runtime_library=arguments.runtime_library)
        return
    sys.path.insert(0, str(TESTS))
    from phone import libraries
    from phone.fixtures import start_server
    from phone.phone import EmulatedPhone

    found = {
        "onnxruntime": libraries.onnxruntime_library,
        "litert": libraries.tflite_library,
    }
    library = arguments.runtime_library or found[arguments.runtime]()
    with tempfile.TemporaryDirectory(prefix="latkit-phone-") as name:
        adb = find_adb()
        server = start_server(adb, Path(name) / "home")
        os.environ |= {"ANDROID_ADB_SERVER_PORT": str(server.port), "ADBUTILS_ADB_PATH": str(adb)}
        try:
            with EmulatedPhone(Path(name) / "phone", adb=adb, server_port=server.port) as it:
                yield f"adb:{it.serial}", DeviceOptions(runtime_library=library)
        finally:
            server.run("kill-server")
