"""What is changed on a phone while it measures (awake, fixed clocks), and put back afterwards."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..adb import FOLDER
from ..errors import DeviceError, LatkitError
from .shell import Shell, label, put, read_sections

NOTE = f"{FOLDER}/changed-settings.json"
"""On the phone: the values to put back. It is there as long as they have not been."""

NOTE_FORMAT, NOTE_VERSION = "latkit-changed-settings", 1
NOTE_LENGTH = 300

RESTORE_TIMEOUT_S = 20.0
"""Short: what went wrong before is often the link, and its error waits to be told."""

LOOK_SCRIPT = r"""
nonce=$1
mark() { echo; echo "$nonce $1"; }
mark stay_on
settings get global stay_on_while_plugged_in 2>&1 | head -n 5
mark note
if [ -e "$2" ]; then cat "$2"; echo; echo end; fi
exit 0
"""

CHANGE_SCRIPT = r"""
nonce=$1
mark() { echo; echo "$nonce $1"; }
mark note
mkdir -p "${2%/*}" && printf '%s\n' "$3" > "$2.part" && mv -f "$2.part" "$2" || exit 1
echo written
mark stay_on
if [ "$4" = yes ]; then
  said=$(svc power stayon true 2>&1)
  settings get global stay_on_while_plugged_in 2>&1 | head -n 5
  printf '%s\n' "$said"
fi
input keyevent KEYCODE_WAKEUP >/dev/null 2>&1
mark fixed
cmd power set-fixed-performance-mode-enabled true 2>&1
echo "exit $?"
"""
"""The note comes first: a run that is cut off anywhere leaves it behind for the next one."""

RESTORE_SCRIPT = r"""
nonce=$1
mark() { echo; echo "$nonce $1"; }
mark fixed
said=$(cmd power set-fixed-performance-mode-enabled false 2>&1)
code=$?
[ "$4" = yes ] || code=0
printf '%s\n' "$said"
echo "exit $code"
mark stay_on
case $3 in
  '') ;;
  null) svc power stayon false; settings delete global stay_on_while_plugged_in ;;
  0) svc power stayon false ;;
  *) settings put global stay_on_while_plugged_in "$3" ;;
esac >/dev/null 2>&1
now=
[ -n "$3" ] && now=$(settings get global stay_on_while_plugged_in 2>&1 | head -n 5)
printf '%s\n' "$now"
mark restored
if [ "$code" = 0 ]; then
  case $3/$now in
    "$now/$now" | null/0) rm -f "$2"; [ -e "$2" ] || echo yes ;;
  esac
fi
exit 0
"""
"""Unset (`null`) and 0 are the same to Android. Some makers let only `svc` write the setting."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """The value of stay_on_while_plugged_in to put back; `None`: it can't be read, so it stays."""

    stay_on: str | None


@contextmanager
def prepared(link: Shell) -> Iterator[dict[str, Any]]:
    """Keep the phone awake and its clocks fixed while the block runs; put all back afterwards.

    Awake: a key wakes it (Android 5+), and `svc power stayon` keeps the screen on while it is
    plugged in (the setting stay_on_while_plugged_in; Android 4.2+). Clocks: `cmd power
    set-fixed-performance-mode-enabled` (Android 11+, where the maker supports it), off again
    afterwards, as it is after each start of a phone. What can't be done is no error.

    Yields what was done: `kept_awake` and `fixed_performance` (whether; `..._reason` why not),
    `stay_on_setting` (the value to put back), `found_changed` (an earlier run was cut off and left
    its note: the values of that note are put back), and, after the block, `restored` with
    `restored_reason`. Where putting back fails, the note stays on the phone and the next `prepared`
    does it; an error of the block is raised as it was, with that reason as its note.

    Raises `DeviceError` where the phone can't be reached or asked to begin with.
    """
    done: dict[str, Any] = {}
    plan = _look(link, done)
    if plan is None:
        yield done
        return
    changed = True  # Until it is known better: a link that breaks in between leaves changes.
    try:
        changed = _change(link, plan, done)
        yield done
    except BaseException as error:
        if changed:
            _restore(link, plan, done)
            if not done["restored"]:
                error.add_note(done["restored_reason"])
        raise
    if changed:
        _restore(link, plan, done)


def put_back(link: Shell) -> None:
    """Put back what a run that was cut off left changed on the phone, if there is such."""
    if link.script('[ -e "$1" ]', NOTE).exit_code == 0:
        with prepared(link):
            pass


def _look(link: Shell, done: dict[str, Any]) -> _Plan | None:
    """What is to be put back; `None` where that can't be known and so nothing may be changed."""
    sections = read_sections(link, LOOK_SCRIPT, NOTE)
    current = sections.get("stay_on", "")
    stay_on = current if _is_stay_on(current) else None
    note = sections.get("note", "")
    done["found_changed"] = bool(note)
    if note:
        try:
            noted = _read_note(note)
        except ValueError as error:
            reason = (
                f"{NOTE} on the phone can't be read ({error}): it is damaged, or a newer latkit "
                "wrote it. Look at the phone's developer options, then remove that file."
            )
            for name in ("kept_awake", "fixed_performance", "restored"):
                done[name] = False
                done[f"{name}_reason"] = reason
            return None
        stay_on = noted if noted is not None else stay_on
    put(
        done,
        "stay_on_setting",
        stay_on,
        f"`settings get global stay_on_while_plugged_in` said: {label(current)[:80] or 'nothing'}",
    )
    return _Plan(stay_on)


def _change(link: Shell, plan: _Plan, done: dict[str, Any]) -> bool:
    """Whether the phone was changed: not without a note."""
    note = {"format": NOTE_FORMAT, "version": NOTE_VERSION, "stay_on": plan.stay_on}
    words = (NOTE, json.dumps(note), "no" if plan.stay_on is None else "yes")
    sections = read_sections(link, CHANGE_SCRIPT, *words)
    if sections.get("note") != "written":
        reason = f"the note {NOTE} can't be written on the phone (is its storage full?)"
        for name in ("kept_awake", "fixed_performance"):
            done[name] = False
            done[f"{name}_reason"] = reason
        return False
    now, _, said = sections.get("stay_on", "").partition("\n")
    done["kept_awake"] = _is_stay_on(now) and now not in ("0", "null")
    if not done["kept_awake"]:
        said = label(said)[:80] or f"stay_on_while_plugged_in is {label(now)[:80]!r}"
        done["kept_awake_reason"] = done.get("stay_on_setting_reason") or f"after stayon: {said}"
    # Older versions answer an unknown command with a complaint and exit code 0.
    fixed = sections.get("fixed", "")
    done["fixed_performance"] = fixed == "exit 0"
    if not done["fixed_performance"]:
        done["fixed_performance_reason"] = f"cmd power said: {label(fixed) or 'nothing'}"
    return True


def _restore(link: Shell, plan: _Plan, done: dict[str, Any]) -> None:
    """Put all back; where that fails, say so in `done` instead of raising."""
    # It is switched off in any case; only where it was on for sure must that succeed.
    was_fixed = "yes" if done.get("fixed_performance") else "no"
    words = (NOTE, plan.stay_on or "", was_fixed)
    try:
        sections = read_sections(link, RESTORE_SCRIPT, *words, timeout_s=RESTORE_TIMEOUT_S)
        if sections.get("restored") != "yes":
            now, said = label(sections.get("stay_on", "")), label(sections.get("fixed", ""))
            raise DeviceError(
                f"stay_on_while_plugged_in is {now[:80]!r} and should be {plan.stay_on!r}; "
                f"fixed-performance mode: {said[:120]!r}"
            )
    except (LatkitError, OSError) as error:
        done["restored"] = False
        done["restored_reason"] = (
            f"the phone's settings could not be put back ({error}); the next run on it does that"
        )
    else:
        done["restored"] = True


def _is_stay_on(text: str) -> bool:
    """Whether it is a value of stay_on_while_plugged_in: bits for AC, USB, wireless, dock."""
    return text == "null" or re.fullmatch(r"[0-9]{1,3}", text, re.ASCII) is not None


def _read_note(text: str) -> str | None:
    """The value to put back; raises `ValueError` where the note isn't one of ours."""
    content, _, end = text.rpartition("\n")
    if end != "end" or len(content) > NOTE_LENGTH:
        raise ValueError("it is cut off, or too long")
    note = json.loads(content)
    if not isinstance(note, dict) or note.get("format") != NOTE_FORMAT:
        raise ValueError("it is something else")
    if note.get("version") != NOTE_VERSION:
        raise ValueError(f"its version is {label(str(note.get('version')))[:20]}")
    stay_on = note.get("stay_on")
    if stay_on is not None and not (isinstance(stay_on, str) and _is_stay_on(stay_on)):
        raise ValueError("its value is none of the setting's")
    return stay_on
