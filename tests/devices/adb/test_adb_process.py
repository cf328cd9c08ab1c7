"""Programs on a phone that are talked to over the real adb clients, also when the link breaks."""

from __future__ import annotations

import threading
import time

import pytest
from latkit.devices import UsageError
from latkit.devices.adb import Adb, LinkLostError
from phone.faults import CutAt, Garbage, StallAt
from phone.fixtures import both_adb_versions

pytestmark = both_adb_versions

STALLED_S = 2.0
"""Bound of calls where the link stalls."""


@pytest.fixture
def link(phone):
    with Adb().connect(phone.serial) as link:
        yield link


ECHO = 'while read -r line; do echo "got $line"; [ "$line" = quit ] && exit 5; done; exit 6'


def remote_processes(link, text):
    listed = link.script('for p in /proc/[0-9]*; do tr "\\0" " " <$p/cmdline; echo; done')
    return [line for line in listed.stdout.splitlines() if text in line]


def all_gone(link, text):
    """Whether the last process with `text` in its arguments goes in time."""
    until = time.monotonic() + 20
    while remote_processes(link, text) and time.monotonic() < until:
        time.sleep(0.1)
    return remote_processes(link, text) == []


def test_a_program_is_talked_to_line_by_line(link):
    process = link.start(["sh", "-c", "echo noise >&2; " + ECHO, "marked"])
    for text in ("one", " two  'three' ", "$(reboot)", "é"):
        process.write_line(text)
        assert process.read_line(10) == f"got {text.strip()}"
    assert process.exit_code is None
    process.write_line("quit")
    assert process.read_line(10) == "got quit"
    assert process.read_line(10) is None
    assert process.exit_code == 5
    assert process.stderr_tail == "noise\n"
    process.write_line("to nobody")
    assert process.read_line(10) is None
    process.end()
    process.end()


@pytest.mark.parametrize(
    ("output", "lines"),
    [
        ("", []),
        ("a", ["a"]),
        ("a\\n", ["a"]),
        ("a\\n\\n", ["a", ""]),
        ("\\n\\nb", ["", "", "b"]),
        ("\\n", [""]),
    ],
)
def test_a_program_s_lines_come_exactly(link, output, lines):
    process = link.start(["printf", output])
    for line in lines:
        assert process.read_line(10) == line
    assert process.read_line(10) is None
    assert process.exit_code == 0
    process.end()


def test_a_program_s_words_are_its_own(link):
    words = ["a b", "'", "$(reboot)", ";", "*", ""]
    process = link.start(["printf", "%s\\n", *words])
    assert [process.read_line(10) for _ in words] == words
    process.end()


def test_a_program_that_is_not_there_ends_with_its_code(link):
    process = link.start(["/data/none"])
    assert process.read_line(10) is None
    assert process.exit_code == 127
    assert "/data/none" in process.stderr_tail
    process.end()


def test_no_line_in_time_is_no_lost_link(link):
    process = link.start(["sh", "-c", ECHO])
    with pytest.raises(TimeoutError):
        process.read_line(0.1)
    process.write_line("still there")
    assert process.read_line(10) == "got still there"
    process.end()


def test_more_than_a_line_is_not_written(link):
    process = link.start(["cat"])
    with pytest.raises(UsageError, match="more than a line"):
        process.write_line("a\nb")
    process.end()


def test_what_a_program_writes_to_standard_error_is_kept_in_bounds(link):
    process = link.start(["sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x >&2; echo end >&2"])
    assert process.read_line(20) is None
    process.end()
    assert process.stderr_tail.endswith("xxend\n")
    assert len(process.stderr_tail) < 10_000


@pytest.mark.parametrize("program", ["sleep 997", "trap '' HUP; while :; do sleep 0.1; done"])
def test_an_ended_program_does_not_linger(link, program):
    process = link.start(["sh", "-c", "echo begun; " + program, "lingering"])
    assert process.read_line(10) == "begun"
    assert remote_processes(link, "lingering") != []
    process.end()
    assert all_gone(link, "lingering")
    with pytest.raises(LinkLostError):
        process.read_line(1)


def test_a_program_sees_the_end_of_its_input_when_the_link_is_cut(phone, link):
    process = link.start(["sh", "-c", ECHO, "reader"])
    process.write_line("one")
    assert process.read_line(10) == "got one"
    phone.cut()
    with pytest.raises(LinkLostError, match="running sh on phone"):
        process.read_line(10)
    with pytest.raises(LinkLostError):
        process.write_line("two")
    with pytest.raises(LinkLostError):
        process.read_line(10)
    assert process.exit_code is None
    process.end()
    phone.reconnect()
    assert all_gone(link, "reader")


@pytest.mark.parametrize(
    "fault",
    [CutAt("open", 0, "shell"), CutAt("shell_output", 0, "echo"), CutAt("shell_output", 1, "echo")],
    ids=str,
)
def test_a_program_whose_end_does_not_come_is_a_lost_link(phone, link, fault):
    phone.arm(fault)
    process = link.start(["sh", "-c", "echo a; sleep 0.2; echo b"])
    with pytest.raises(LinkLostError, match="the link broke"):
        for _ in range(9):
            process.read_line(10)
    process.end()


@pytest.mark.parametrize(
    ("line", "change"),
    [
        (0, lambda line: b"more " + line),
        (0, lambda line: line[:-1] + b" more\n"),
        (3, lambda line: b"more " + line),
        (3, lambda line: line[:-1] + b" more\n"),
        (3, lambda line: line + b"more\n"),
    ],
    ids=["before the first", "after the first", "before", "behind", "after the last"],
)
def test_garbage_around_a_program_s_lines_is_an_error(phone, link, line, change):
    phone.arm(Garbage("echo", change, line=line))
    process = link.start(["sh", "-c", "echo a"])
    with pytest.raises(LinkLostError, match="garbage"):
        for _ in range(9):
            process.read_line(10)
    process.end()


def test_a_stalled_link_blocks_neither_writing_nor_reading_nor_the_end(phone):
    with Adb(timeout_s=STALLED_S).connect(phone.serial) as link:
        process = link.start(["cat"])
        process.write_line("a")
        assert process.read_line(10) == "a"
        phone.arm(StallAt("packet", 0))
        with pytest.raises(LinkLostError, match="took no input"):
            for _ in range(1000):
                process.write_line("x" * 100_000)
        with pytest.raises(TimeoutError):
            process.read_line(0.1)
        process.end()


def test_phones_work_side_by_side_while_one_of_them_disappears(two_phones):
    adb, outcomes = Adb(), {}

    def work(phone):
        try:
            with adb.connect(phone.serial) as link:
                process = link.start(["sh", "-c", ECHO])
                for index in range(60):
                    process.write_line(str(index))
                    assert process.read_line(10) == f"got {index}"
                process.end()
                outcomes[phone] = "done"
        except LinkLostError as error:
            outcomes[phone] = str(error)

    two_phones[1].arm(CutAt("packet", 200))
    threads = [threading.Thread(target=work, args=(phone,)) for phone in two_phones]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outcomes[two_phones[0]] == "done"
    assert two_phones[1].serial in outcomes[two_phones[1]]
