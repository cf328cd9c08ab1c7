"""Runs a command beside emulated phones: `PYTHONPATH=tests python -m phone [-n 2] COMMAND ...`.

The words PHONE, PHONE2, ... of the command become the phones' addresses, adb:SERIAL. The command
finds them through a private adb server, which ends with it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from latkit.devices.adb import find_adb

from .fixtures import start_server
from .phone import EmulatedPhone, PhoneSpec


def main() -> int:
    """Start the phones, run the command, end them; the command's exit code."""
    parser = argparse.ArgumentParser(prog="phone", description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--phones", type=int, default=1, help="how many phones")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="latkit-phone-") as name, ExitStack() as stack:
        folder, adb = Path(name), find_adb()
        server = start_server(adb, folder / "home")
        stack.callback(server.run, "kill-server")
        os.environ["ANDROID_ADB_SERVER_PORT"] = str(server.port)
        words = {}
        for number in range(1, arguments.phones + 1):
            spec = PhoneSpec(serial_number=f"SANDBOX{number:04}")
            phone = EmulatedPhone(folder / f"phone{number}", spec, adb=adb, server_port=server.port)
            stack.enter_context(phone)
            words["PHONE" if number == 1 else f"PHONE{number}"] = f"adb:{phone.serial}"
        command = [words.get(word, word) for word in arguments.command]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
