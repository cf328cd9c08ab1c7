from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices import DeviceError
from latkit.devices.adb import Adb, LinkLostError, ShellResult
from latkit.devices.phone import settings as phone_settings
from latkit.devices.phone.settings import prepared
from phone.faults import CutAt
from phone.fixtures import both_adb_versions

COMMANDS = {
    "settings": """
file=$FOLDER/setting-$3
case $1 in
  get) if [ -e "$file" ]; then cat "$file"; else echo null; fi ;;
  delete) [ -e "$FOLDER/settings-refused" ] && exit 1; rm -f "$file" ;;
  put) [ -e "$FOLDER/settings-refused" ] && exit 1; echo "$4" > "$file" ;;
esac""",
    "svc": """
case $3 in
  true) echo 7 > "$FOLDER/setting-stay_on_while_plugged_in" ;;
  false) echo 0 > "$FOLDER/setting-stay_on_while_plugged_in" ;;
esac""",
    "cmd": """
if [ -e "$FOLDER/cmd-says" ]; then cat "$FOLDER/cmd-says"; exit "$(cat "$FOLDER/cmd-exits")"; fi
echo "$3" > "$FOLDER/fixed" """,
    "input": """
echo "$*" > "$FOLDER/input" """,
}
"""The phone's commands, with files in $FOLDER for its state. The one named in `cut` ends it all."""


class FakePhone:
    """A link to a shell of this host with the commands of a phone."""

    def __init__(self, folder, shell):
        self.folder = folder
        self.shell = shell
        self.calls = 0
        self.complains = False
        self.gone = False
        self.cut_at = None
        for name, body in COMMANDS.items():
            script = folder / name
            cut = f'[ "$(cat "$FOLDER/cut" 2>/dev/null)" = {name} ] && kill -9 0\n'
            script.write_text(f"#!/bin/sh\n{cut}{body}\n")
            script.chmod(0o755)

    def script(self, script, *words, timeout_s=None):
        self.calls += 1
        if self.gone:
            raise LinkLostError("the link is gone")
        if self.cut_at and self.calls == self.cut_at[0]:
            (self.folder / "cut").write_text(self.cut_at[1])
        environment = {"PATH": f"{self.folder}:/usr/bin:/bin", "FOLDER": str(self.folder)}
        command = [*self.shell, "-c", script, "latkit", *words]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, start_new_session=True
        )
        if done.returncode < 0:
            self.gone = True
            raise LinkLostError("the link broke off in the middle")
        assert self.complains or done.stderr == ""
        return ShellResult(done.returncode, done.stdout, done.stderr)

    @property
    def stay_on(self):
        file = self.folder / "setting-stay_on_while_plugged_in"
        return file.read_text().strip() if file.exists() else "null"

    @stay_on.setter
    def stay_on(self, value):
        (self.folder / "setting-stay_on_while_plugged_in").write_text(f"{value}\n")

    @property
    def fixed(self):
        file = self.folder / "fixed"
        return file.read_text().strip() if file.exists() else None

    def refuse_fixed(self, says, exit_code):
        (self.folder / "cmd-says").write_text(says)
        (self.folder / "cmd-exits").write_text(str(exit_code))

    def cut(self, call, command):
        """Break the link at `command` in the script that is run as the `call`-th from now."""
        self.cut_at = (self.calls + call, command)

    def reconnect(self):
        self.gone = False
        (self.folder / "cut").unlink(missing_ok=True)


@pytest.fixture
def note(tmp_path, monkeypatch):
    path = tmp_path / "data/latkit/changed-settings.json"
    monkeypatch.setattr(phone_settings, "NOTE", str(path))
    return path


@pytest.fixture
def fake(tmp_path, note):
    return FakePhone(tmp_path, ["sh"])


@pytest.mark.parametrize("shell", ["dash", "mksh"])
@pytest.mark.parametrize("original", ["0", "3", None])
def test_a_phone_is_awake_and_fixed_while_prepared_and_as_before_afterwards(
    tmp_path, note, shell, original
):
    if shutil.which(shell) is None:
        pytest.skip(f"needs the Debian package {shell}")
    fake = FakePhone(tmp_path, [shell])
    if original is not None:
        fake.stay_on = original
    with prepared(fake) as done:
        assert fake.stay_on == "7"
        assert fake.fixed == "true"
        assert (tmp_path / "input").read_text() == "keyevent KEYCODE_WAKEUP\n"
        assert json.loads(note.read_text())["stay_on"] == (original or "null")
    assert fake.stay_on == (original or "null")
    assert fake.fixed == "false"
    assert not note.exists()
    assert list(note.parent.iterdir()) == []
    assert done == {
        "found_changed": False,
        "stay_on_setting": original or "null",
        "kept_awake": True,
        "fixed_performance": True,
        "restored": True,
    }


@pytest.mark.parametrize("error", [ValueError("of the block"), KeyboardInterrupt()])
def test_a_phone_is_restored_after_an_exception(fake, note, error):
    fake.stay_on = "3"
    with pytest.raises(type(error)) as caught, prepared(fake):
        raise error
    assert caught.value is error
    assert not hasattr(error, "__notes__")
    assert (fake.stay_on, fake.fixed, note.exists()) == ("3", "false", False)


def test_a_generator_that_is_not_run_to_its_end_restores_the_phone(fake, note):
    fake.stay_on = "1"

    def rounds():
        with prepared(fake):
            yield from range(3)

    running = rounds()
    next(running)
    running.close()
    assert (fake.stay_on, fake.fixed, note.exists()) == ("1", "false", False)


def test_a_link_lost_in_the_end_is_told_and_the_next_run_restores(fake, note):
    fake.stay_on = "1"
    with prepared(fake) as done:
        fake.gone = True
    assert done["restored"] is False
    assert "the link is gone" in done["restored_reason"]
    assert fake.stay_on == "7"

    fake.reconnect()
    with prepared(fake) as done:
        assert done["found_changed"] is True
        assert done["stay_on_setting"] == "1"
    assert done["restored"] is True
    assert (fake.stay_on, fake.fixed, note.exists()) == ("1", "false", False)


def test_a_link_lost_in_the_end_does_not_hide_the_error_of_the_block(fake):
    error = LinkLostError("at round 3")
    with pytest.raises(LinkLostError, match="at round 3") as caught, prepared(fake):
        fake.gone = True
        raise error
    assert caught.value is error
    assert "could not be put back (the link is gone)" in error.__notes__[0]


@pytest.mark.parametrize("command", ["settings", "svc", "input", "cmd"])
def test_a_link_cut_while_the_phone_is_changed_loses_no_original_value(fake, note, command):
    fake.stay_on = "2"
    fake.cut(2, command)
    with pytest.raises(LinkLostError, match="in the middle"), prepared(fake):
        pytest.fail("not reached")
    assert note.exists()
    fake.reconnect()
    with prepared(fake) as done:
        assert done["found_changed"] is True
        assert fake.stay_on == "7"
    assert (fake.stay_on, fake.fixed, note.exists()) == ("2", "false", False)


@pytest.mark.parametrize("command", ["cmd", "svc", "settings"])
def test_a_link_cut_while_the_phone_is_restored_is_made_up_for(fake, note, command):
    fake.stay_on = "0"
    with prepared(fake) as done:
        fake.cut(1, command)
    assert done["restored"] is False
    assert note.exists()
    fake.reconnect()
    with prepared(fake):
        pass
    assert (fake.stay_on, fake.fixed, note.exists()) == ("0", "false", False)


@pytest.mark.parametrize(
    ("says", "exit_code"),
    [
        ("Failed to set FIXED_PERFORMANCE mode\nThis is likely because Power HAL AIDL ...\n", 255),
        ("Unknown command: set-fixed-performance-mode-enabled\n", 255),
        ("No shell command implementation.\n", 0),
        ("cmd: Can't find service: power\n", 20),
    ],
)
def test_a_phone_without_fixed_performance_mode_is_no_error(fake, note, says, exit_code):
    fake.refuse_fixed(says, exit_code)
    with prepared(fake) as done:
        assert done["fixed_performance"] is False
        assert says.splitlines()[0] in done["fixed_performance_reason"]
        assert done["kept_awake"] is True
    assert done["restored"] is True
    assert not note.exists()


def test_fixed_performance_mode_that_stays_on_keeps_the_note(fake, note):
    with prepared(fake) as done:
        fake.refuse_fixed("Remote exception\n", 255)
    assert done["restored"] is False
    assert "Remote exception" in done["restored_reason"]
    assert note.exists()


def test_a_setting_that_can_not_be_read_is_not_changed(fake, note):
    fake.stay_on = "Security exception: no $(reboot)"
    with prepared(fake) as done:
        assert done["kept_awake"] is False
        assert "Security exception" in done["kept_awake_reason"]
        assert done["fixed_performance"] is True
    assert fake.stay_on == "Security exception: no $(reboot)"
    assert done["restored"] is True
    assert not note.exists()


def test_a_setting_that_is_not_taken_back_is_told_and_noted(fake, note, tmp_path):
    fake.stay_on = "3"
    with prepared(fake) as done:
        (tmp_path / "settings-refused").touch()
    assert done["restored"] is False
    assert "'7' and should be '3'" in done["restored_reason"]
    assert note.exists()


def test_an_unset_setting_that_can_not_be_deleted_ends_as_zero(fake, note, tmp_path):
    (tmp_path / "settings-refused").touch()
    with prepared(fake) as done:
        assert done["stay_on_setting"] == "null"
    assert done["restored"] is True
    assert (fake.stay_on, note.exists()) == ("0", False)


def test_without_a_note_nothing_is_changed(fake, note):
    note.parent.parent.mkdir()
    note.parent.write_text("a file where the folder should be")
    fake.stay_on = "3"
    fake.complains = True
    with prepared(fake) as done:
        assert done["kept_awake"] is done["fixed_performance"] is False
        assert "can't be written" in done["kept_awake_reason"]
    with pytest.raises(ValueError, match="of the block"), prepared(fake):
        raise ValueError("of the block")
    assert (fake.stay_on, fake.fixed) == ("3", None)


GOOD_NOTE = '{"format": "latkit-changed-settings", "version": 1, "stay_on": "1"}'


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "[" * 5000,
        GOOD_NOTE.replace("1,", "2,"),
        GOOD_NOTE.replace('"1"', '"$(reboot)"'),
        GOOD_NOTE.replace('"1"', "1"),
        GOOD_NOTE.replace("latkit-", "other-"),
        GOOD_NOTE[:-1],
    ],
)
def test_a_note_that_can_not_be_read_leaves_the_phone_and_the_note_alone(fake, note, content):
    note.parent.mkdir(parents=True)
    note.write_text(content)
    fake.stay_on = "7"
    with prepared(fake) as done:
        assert done["kept_awake"] is False
        assert str(note) in done["kept_awake_reason"]
    assert done["restored"] is False
    assert (fake.stay_on, fake.fixed) == ("7", None)
    assert note.read_text() == content


@settings(deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["stay_on", "note", "fixed", "restored"]),
            st.sampled_from(["null", "0", "7", "written", "exit 0", "yes", f"{GOOD_NOTE}\n\nend"])
            | st.text(max_size=80),
        ),
        min_size=3,
        max_size=3,
    )
)
def test_no_garbage_of_a_phone_becomes_a_value_to_restore(answers):
    words_sent = []

    class Garbage:
        def script(self, script, *words, timeout_s=None):
            words_sent.append((script, words[1:]))
            sections = answers[len(words_sent) - 1]
            marked = "".join(f"\n{words[0]} {name}\n{text}" for name, text in sections.items())
            return ShellResult(0, marked, "")

    try:
        with prepared(Garbage()) as done:
            pass
    except DeviceError:
        return
    json.dumps(done)
    for script, words in words_sent:
        if script == phone_settings.RESTORE_SCRIPT:
            assert words[1] in ("", "null") or (words[1].isdigit() and len(words[1]) <= 3)
            assert words[2] in ("yes", "no")


def changed(phone):
    """What `prepared` may change on an emulated phone, and whether its note is there."""
    note = phone.data / phone_settings.NOTE.removeprefix("/data/")
    stay_on = phone.state("settings/global/stay_on_while_plugged_in")
    return stay_on, phone.state("fixed_performance"), note.exists()


def test_a_phone_on_a_link_is_prepared_and_restored(phone):
    phone.set_state("settings/global/stay_on_while_plugged_in", 2)
    phone.set_state("wakefulness", "Asleep")
    with Adb().connect(phone.serial) as link, prepared(link) as done:
        assert changed(phone) == ("7", "true", True)
        assert phone.state("wakefulness") == "Awake"
    assert changed(phone) == ("2", "false", False)
    assert done["restored"] is True


def test_a_phone_on_a_link_is_restored_after_an_exception(phone):
    link = Adb().connect(phone.serial)
    with pytest.raises(ValueError, match="of the block"), link, prepared(link):
        raise ValueError("of the block")
    assert changed(phone) == ("0", "false", False)


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"sdk": 29}, "Unknown command"), ({"fixed_performance": False}, "Power HAL")],
)
def test_a_phone_on_a_link_without_fixed_performance_mode(make_phone, fields, said):
    phone = make_phone(**fields)
    with Adb().connect(phone.serial) as link, prepared(link) as done:
        assert done["kept_awake"] is True
        assert said in done["fixed_performance_reason"]
    assert done["restored"] is True
    assert changed(phone) == ("0", "false", False)


@both_adb_versions
@pytest.mark.parametrize(
    "fault",
    [
        CutAt("open", 1, "set-fixed-performance-mode-enabled true"),
        CutAt("shell_output", 0, "set-fixed-performance-mode-enabled true"),
        CutAt("shell_output", 1, "set-fixed-performance-mode-enabled true"),
        CutAt("open", 0, "set-fixed-performance-mode-enabled false"),
        CutAt("shell_output", 0, "set-fixed-performance-mode-enabled false"),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.index}-{fault.match.split()[-1]}",
)
def test_the_next_session_restores_what_a_cut_link_left_changed(phone, fault):
    phone.set_state("settings/global/stay_on_while_plugged_in", 3)
    phone.arm(fault)
    try:
        with Adb().connect(phone.serial) as link, prepared(link) as done:
            pass
        assert done["restored"] is False or not phone.fired
    except LinkLostError:
        assert phone.fired
    phone.clear_faults()
    phone.reconnect()
    with Adb().connect(phone.serial) as link, prepared(link) as done:
        assert done["stay_on_setting"] == "3"
        assert changed(phone) == ("7", "true", True)
    assert done["restored"] is True
    assert changed(phone) == ("3", "false", False)


def test_a_link_cut_within_the_block_is_the_error_that_is_told(phone):
    link = Adb().connect(phone.serial)
    with pytest.raises(LinkLostError) as caught, link, prepared(link):
        phone.cut()
        link.shell(["echo", "of the block"])
    assert "echo" in str(caught.value)
    assert "could not be put back" in caught.value.__notes__[0]
    phone.reconnect()
    with Adb().connect(phone.serial) as link, prepared(link) as done:
        assert done["found_changed"] is True
    assert changed(phone) == ("0", "false", False)


def test_wherever_the_link_is_cut_the_next_session_restores_the_phone(phone):
    phone.set_state("settings/global/stay_on_while_plugged_in", 3)
    for packet in range(0, 300, 3):
        with Adb().connect(phone.serial) as link:
            phone.arm(CutAt("packet", packet))
            with suppress(LinkLostError), prepared(link):
                pass
        was_cut = bool(phone.fired)
        phone.clear_faults()
        phone.reconnect()
        with Adb().connect(phone.serial) as link, prepared(link) as done:
            assert done["stay_on_setting"] == "3"
        assert changed(phone) == ("3", "false", False)
        if not was_cut:
            break
    assert not was_cut
    assert packet >= 30
