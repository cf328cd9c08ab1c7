"""The programs that are made for phones run, unchanged, on the phone of the tests."""

from pathlib import Path

import pytest

from phone import libraries

ROOT = Path(__file__).parents[2]
FOLDER = "/data/local/tmp"


@pytest.mark.parametrize("abi", ["x86_64", "arm64-v8a"])
def test_the_runner_runs_on_a_phone_of_its_kind(adb_server, make_phone, abi):
    runner = ROOT / f"devices/runner/prebuilt/{abi}/latkit-runner"
    if abi == "x86_64":
        library = libraries.onnxruntime_library()
    else:
        libraries.qemu_arm64()
        library = libraries.onnxruntime_library_arm64()
    serial = make_phone(abi=abi).serial
    assert adb_server.run("-s", serial, "push", str(runner), str(library), FOLDER).returncode == 0
    words = f"library onnxruntime {FOLDER}/{library.name}\nthreads 1\nload\nquit\n".encode()
    command = f"cd {FOLDER} && chmod 755 latkit-runner && ./latkit-runner {FOLDER}/progress"
    done = adb_server.run("-s", serial, "shell", "-T", command, input=words)
    assert done.returncode == 0, done
    assert b'"runtime_version":"1.' in done.stdout
