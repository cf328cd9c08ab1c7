"""Nothing but the intended command reaches a device's shell, whatever names and values hold."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from latkit.devices import UsageError
from latkit.devices.adb import AdbDevice
from latkit.devices.adb.client import parse_devices
from latkit.devices.adb.shell import AdbShell
from latkit.devices.adb.words import (
    MAXIMUM_LINE_BYTES,
    GarbledAnswerError,
    command,
    framed,
    new_nonce,
    quoted,
    unframed,
)

PIECES = [
    "'", '"', "\\", ";", "&&", "||", "|", "&", "\n", "\r", "\t", " ", "$(touch x)", "`touch x`",
    "${HOME}", "$0", "$$", "#", "!", "!!", "*", "?", "[a-z]", "{a,b}", "~", "~root", "<", ">", ">x",
    "(", ")", "-", "--", "-n", "%s", "\\n", "\\c", "=", "A=b", "if", "\x1b[2J", "\x7f", "é", "日本",
    "\udc80", "\udcff", "/data/local/tmp/a b", "",
]  # fmt: skip

words = st.lists(st.sampled_from(PIECES), max_size=8).map("".join) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30
)
"""A file name or property value that somebody chose badly, or to do harm."""

SHELLS = {
    "dash": ("dash", ["dash"]),
    "bash": ("bash", ["bash"]),
    # Android's own shell.
    "mksh": ("mksh", ["mksh"]),
    "busybox": ("busybox", ["busybox", "sh"]),
}


@pytest.fixture(params=sorted(SHELLS))
def shell(request):
    package, program = SHELLS[request.param]
    if shutil.which(program[0]) is None:
        pytest.skip(f"needs the Debian package {package}")
    return program


def sent(texts):
    return b"".join(text.encode("utf-8", "surrogateescape") + b"\0" for text in texts)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(arguments=st.lists(words, min_size=1, max_size=6))
def test_a_shell_reads_the_words_as_they_were_and_does_nothing_else(shell, tmp_path, arguments):
    nonce = new_nonce()
    line = framed(command(["printf", "%s\\0", *arguments]), nonce)
    finished = subprocess.run([*shell, "-c", line], capture_output=True, cwd=tmp_path, check=False)
    assert unframed(finished.stdout, nonce) == (sent(arguments), 0)
    assert finished.stderr == b""
    assert list(tmp_path.iterdir()) == []


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=words)
def test_a_word_is_never_a_keyword_an_assignment_or_an_option_of_the_shell(shell, tmp_path, name):
    # As a command's name it is looked for as a program; there is none of such a name.
    nonce = new_nonce()
    line = framed(command(["./none-" + name]), nonce)
    finished = subprocess.run([*shell, "-c", line], capture_output=True, cwd=tmp_path, check=False)
    answer = unframed(finished.stdout, nonce)
    assert answer is not None
    assert answer[0] == b""
    assert answer[1] in (126, 127)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_what_no_word_can_hold_is_refused(text):
    with pytest.raises(UsageError):
        quoted(text)


def test_a_line_that_adb_would_cut_is_refused():
    with pytest.raises(UsageError, match="can't be sent"):
        framed(command(["echo", "x" * MAXIMUM_LINE_BYTES]), new_nonce())


@pytest.mark.parametrize("ending", ["exit 7", "(exit 7)", "exec sh -c 'exit 7'", "exit 7; echo no"])
def test_however_a_command_ends_its_last_line_comes(shell, ending):
    nonce = new_nonce()
    line = framed(command(["eval", f"echo out; {ending}"]), nonce)
    finished = subprocess.run([*shell, "-c", line], capture_output=True, check=False)
    assert unframed(finished.stdout, nonce) == (b"out\n", 7)


@given(output=st.binary(max_size=60), code=st.integers(0, 255), cut=st.integers(0, 100))
def test_output_is_exact_or_known_to_be_cut(output, code, cut):
    nonce = new_nonce()
    whole = output + f"\n{nonce} {code}\n".encode()
    assert unframed(whole, nonce) == (output, code)
    shorter = whole[: max(0, len(whole) - 1 - cut)]
    assert unframed(shorter, nonce) is None


@given(garbage=st.binary(min_size=1, max_size=20).filter(lambda text: not text.endswith(b"\n")))
def test_garbage_around_the_last_line_is_noticed(garbage):
    nonce = new_nonce()
    with pytest.raises(GarbledAnswerError):
        unframed(b"out\n" + garbage + f"{nonce} 0\n".encode(), nonce)
    with pytest.raises(GarbledAnswerError):
        unframed(f"out\n{nonce} 0\n".encode() + garbage, nonce)


def test_a_list_of_processes_may_hold_the_nonce():
    nonce = new_nonce()
    listed = b"sh -c " + framed("ps", nonce) + b"\n"
    assert unframed(listed + f"\n{nonce} 0\n".encode(), nonce) == (listed, 0)


@pytest.mark.parametrize("ending", [" 0 0\n", " x\n", "0\n", " \n", " 1234\n", " -1\n"])
def test_a_last_line_that_can_t_be_read_is_noticed(ending):
    nonce = new_nonce()
    with pytest.raises(GarbledAnswerError):
        unframed(f"\n{nonce}{ending}".encode(), nonce)


@pytest.fixture
def adb_that_tells_its_arguments(tmp_path):
    """No real adb tells what it was called with. This one runs the line by a shell, as a phone."""
    program = tmp_path / "adb"
    told = tmp_path / "told"
    program.write_text(f'#!/bin/sh\nprintf \'%s\\0\' "$@" >"{told}"\nshift 4\nexec sh -c "$*"\n')
    program.chmod(0o755)
    return program, told


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    serial=st.text(
        st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20
    ),
    arguments=st.lists(words, max_size=4),
)
def test_adb_is_called_for_this_phone_with_one_line(
    adb_that_tells_its_arguments, serial, arguments
):
    program, told = adb_that_tells_its_arguments
    shell = AdbShell(program, serial, timeout_s=20)
    result = shell.script("""printf '%s\\0' "$@"; exit 3""", *arguments)
    *options, line = told.read_bytes().split(b"\0")[:-1]
    assert options == [b"-s", serial.encode(), b"shell", b"-T"]
    words_quoted = command(["sh", "-c", """printf '%s\\0' "$@"; exit 3""", "latkit", *arguments])
    expected = b"( " + words_quoted.encode("utf-8", "surrogateescape") + b" ); printf "
    assert line.startswith(expected)
    assert re.fullmatch(rb"'\\n%s %d\\n' [0-9a-f]{24} \$\?", line[len(expected) :])
    assert result.exit_code == 3
    printed = sent(arguments) if arguments else b"\0"
    assert result.stdout == printed.decode(errors="replace")


LISTED_29 = """* daemon not running; starting now at tcp:5037
* daemon started successfully
List of devices attached
0A1B2C3D               device usb:1-2 product:oriole model:Pixel_6 device:oriole transport_id:1
127.0.0.1:41234        offline product:x model:Y device:z transport_id:2
????????????           no permissions (user in plugdev group; are your udev rules wrong?); \
see [http://developer.android.com/tools/device.html] usb:3-2 transport_id:3
R58M12                 unauthorized usb:1-3 transport_id:4

"""
LISTED_36 = """List of devices attached
adb-R5CT-abc (2)._adb-tls-connect._tcp device product:a model:SM_G991B device:b transport_id:9
(no serial number)     no permissions; see [http://developer.android.com/tools/device.html] \
usb:1-1 transport_id:2
emulator-5554          device product:sdk model:sdk_gphone64 device:emu64x transport_id:3
very-long-serial-number-of-a-phone recovery usb:1-2 transport_id:4
"""


def test_both_versions_lists_are_read():
    old = parse_devices(LISTED_29)
    assert [(device.serial, device.state) for device in old] == [
        ("0A1B2C3D", "device"),
        ("127.0.0.1:41234", "offline"),
        ("????????????", "no permissions"),
        ("R58M12", "unauthorized"),
    ]
    assert old[0].properties["model"] == "Pixel_6"
    assert old[2].properties == {"usb": "3-2", "transport_id": "3"}
    new = parse_devices(LISTED_36)
    assert [(device.serial, device.state) for device in new] == [
        ("adb-R5CT-abc (2)._adb-tls-connect._tcp", "device"),
        ("(no serial number)", "no permissions"),
        ("emulator-5554", "device"),
        ("very-long-serial-number-of-a-phone", "recovery"),
    ]


@given(
    listed=st.lists(
        st.builds(
            AdbDevice,
            serial=st.text(min_size=1).filter(re.compile(r"[^\s\0]+").fullmatch),
            state=st.sampled_from(["device", "offline", "unauthorized", "recovery", "sideload"]),
            properties=st.dictionaries(
                st.sampled_from(["product", "model", "device", "usb"]),
                st.text(min_size=1).filter(re.compile(r"[^\s\0]+").fullmatch),
            ),
        ),
        max_size=4,
    )
)
def test_serials_and_properties_may_hold_anything_but_space(listed):
    lines = [
        " ".join([f"{device.serial:22} {device.state}", *map(":".join, device.properties.items())])
        for device in listed
    ]
    assert parse_devices("\n".join(["List of devices attached", *lines, "", ""])) == listed
