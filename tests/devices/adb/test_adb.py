"""A phone over the real adb clients: found, told apart, asked, and its link broken."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from latkit.devices import DeviceError
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


def test_the_phone_is_listed_with_its_model(phone):
    adb = Adb()
    [device] = [one for one in adb.devices() if one.serial == phone.serial]
    assert device.state == "device"
    assert device.properties["model"] == "Pixel_Test"
    assert adb.version().startswith(("29.", "36."))


def test_a_command_gives_output_errors_and_exit_code(phone, link):
    result = link.script("echo out; echo err >&2; exit 3")
    assert (result.exit_code, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert link.shell(["true"]).exit_code == 0
    assert link.shell(["no such program"]).exit_code == 127
    assert link.script('exec "$1" -c "$2"', "sh", "exit 200").exit_code == 200


@pytest.mark.parametrize("output", ["", "a", "a\n", "a\n\n", "\n", "\n\n", "  a\r\n", "é\n"])
def test_output_comes_exactly(link, output):
    assert link.shell(["printf", "%s", output]).stdout == output


def test_output_that_is_no_text_and_much_output_come(link):
    assert link.shell(["printf", "\\377\\000\\n"]).stdout == "\ufffd\0\n"
    much = link.script('i=0; while [ $i -lt "$1" ]; do echo "line $i"; i=$((i+1)); done', "20000")
    assert much.stdout == "".join(f"line {index}\n" for index in range(20000))


def test_a_command_has_no_input_to_wait_for(link):
    assert link.shell(["cat"]).stdout == ""


def test_a_long_line_arrives_whole(link):
    text = "x'" * 5000
    assert link.shell(["printf", "%s", text]).stdout == text


NASTY = [" ", "'", '"', ";", "$(reboot)", "`reboot`", "\n", "\\", "*", "~", "&", "|", "#", "é", "%"]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    words=st.lists(
        st.lists(st.sampled_from(NASTY), max_size=6).map("".join)
        | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
        min_size=1,
        max_size=4,
    )
)
def test_words_reach_the_phone_as_they_are_and_nothing_else_does(phone, link, words):
    phone.commands.clear()
    result = link.shell(["printf", "%s\\0", *words])
    assert result.stdout == "".join(f"{word}\0" for word in words)
    assert result.stderr == ""
    assert len(phone.commands) == 1
    assert link.script("printf '%s\\0' \"$@\"", *words).stdout == result.stdout


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=st.lists(st.sampled_from(NASTY), max_size=6).map("".join))
def test_a_property_is_text_and_never_runs(phone, link, value):
    phone.set_state("properties/ro.test", value)
    told = link.shell(["getprop", "ro.test"]).stdout
    again = link.shell(["printf", "%s", told]).stdout
    assert again == told
    assert value.strip() in told


def test_two_phones_are_told_apart(two_phones):
    adb = Adb()
    with pytest.raises(DeviceError, match="several") as caught:
        adb.connect(None)
    with adb.connect(two_phones[0].serial) as one, adb.connect(two_phones[1].serial) as other:
        assert one.shell(["getprop", "ro.product.model"]).stdout == "First\n"
        assert other.shell(["getprop", "ro.product.model"]).stdout == "Second\n"
    for phone, model in zip(two_phones, ("First", "Second"), strict=True):
        assert f"{phone.serial} ({model})" in str(caught.value)


def test_the_only_phone_needs_no_serial(phone):
    with Adb().connect(None) as link:
        assert link.serial == phone.serial


def test_a_phone_in_use_is_refused_until_it_is_let_go(phone):
    adb = Adb()
    with adb.connect(phone.serial), pytest.raises(DeviceError, match="in use by another latkit"):
        adb.connect(phone.serial)
    adb.connect(phone.serial).close()


def test_an_unauthorized_phone_comes_with_advice(phone):
    phone.become_unauthorized()
    with pytest.raises(DeviceError, match="unlock the phone and accept"):
        Adb().connect(phone.serial)
    phone.reconnect()
    Adb().connect(phone.serial).close()


def test_a_phone_that_is_gone_is_offline_or_missing(phone):
    phone.cut()
    with pytest.raises(DeviceError, match=r"is offline: .*plug it in"):
        Adb().connect(phone.serial)
    phone.remove()
    with pytest.raises(DeviceError, match=rf"adb connect {phone.serial}"):
        Adb().connect(phone.serial)


@pytest.mark.parametrize(
    "fault",
    [
        CutAt("open", 0, "shell"),
        CutAt("shell_output", 0, "echo"),
        CutAt("shell_output", 1, "echo"),
        StallAt("open", 0, "shell"),
        StallAt("shell_output", 0, "echo"),
    ],
    ids=str,
)
def test_a_command_whose_end_does_not_come_is_a_lost_link(phone, fault):
    with Adb(timeout_s=STALLED_S).connect(phone.serial) as link:
        phone.arm(fault)
        with pytest.raises(LinkLostError, match="listing"):
            link.script("echo a; sleep 0.2; echo b", doing="listing")


def test_a_command_that_never_ends_is_a_lost_link(link):
    with pytest.raises(LinkLostError, match="running sleep on phone"):
        link.shell(["sleep", "100"], timeout_s=0.5)
    assert link.shell(["true"]).exit_code == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.rstrip(b"\n") + b" more\n",
        lambda line: line + b"more\n",
        lambda line: b"more " + line,
        lambda line: line[:-2] + b"x\n",
    ],
    ids=["longer", "after", "before", "no number"],
)
def test_garbage_around_the_end_is_an_error(phone, link, change):
    phone.arm(Garbage("echo", change, line=2))
    with pytest.raises(LinkLostError, match="garbled"):
        link.script("echo a")


def test_an_end_that_is_overwritten_is_a_lost_link(phone, link):
    phone.arm(Garbage("echo", b"\xff\xfe\n", line=1, lines=5))
    with pytest.raises(LinkLostError, match="the link broke"):
        link.script("echo a")
