"""What can go wrong on the way to the phone, and at which position of the traffic it does.

Positions are counted from the moment at which a fault is armed, so a test runs once with nothing
armed, reads `EmulatedPhone.counters`, and then sweeps over the same positions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["open", "packet", "send_bytes", "receive_bytes", "shell_output"]


@dataclass(frozen=True)
class CutAt:
    """The link is reset at the `index`-th position (from 0) of a kind, before it happens.

    Kinds: `open` (a service is asked for; it is not started), `packet` (any packet of the
    protocol, both ways), `send_bytes` (`index` bytes of pushed data are in the file),
    `receive_bytes` (`index` bytes of pulled data were read), `shell_output` (a packet of a
    command's output, errors or exit code). Only what concerns a service, path or command with
    `match` in it counts. The phone is gone afterwards, until `EmulatedPhone.reconnect`.
    """

    kind: Kind
    index: int = 0
    match: str = ""


@dataclass(frozen=True)
class StallAt:
    """As `CutAt`, but the socket stays open and nothing is read or answered from there on."""

    kind: Kind
    index: int = 0
    match: str = ""


@dataclass(frozen=True)
class Garbage:
    """Standard output of commands with `match` in them is changed from its `line`-th line on.

    `change` is what to put in the line's place, or a function of the line; both with its newline.
    Lines are counted over all such commands; `lines` is how many in a row are changed.
    """

    match: str
    change: bytes | Callable[[bytes], bytes]
    line: int = 0
    lines: int = 1

    def of(self, line: bytes) -> bytes:
        """What is sent in this line's place."""
        return self.change(line) if callable(self.change) else self.change


@dataclass(frozen=True)
class DiskFull:
    """After so many more bytes of pushed data, all pushes fail; the last file stays partial."""

    after_bytes: int = 0
    match: str = ""


Fault = CutAt | StallAt | Garbage | DiskFull


@dataclass
class _Armed:
    fault: Fault
    passed: int = 0


@dataclass
class Faults:
    """Counts what passes and says when an armed fault is due."""

    counters: Counter[str] = field(default_factory=Counter)
    fired: list[Fault] = field(default_factory=list)
    _armed: list[_Armed] = field(default_factory=list)

    def arm(self, *faults: Fault) -> None:
        """Add faults; their positions are counted from now."""
        self._armed += [_Armed(fault) for fault in faults]

    def clear(self) -> None:
        """Take away all that is armed, and forget what fired."""
        self._armed.clear()
        self.fired.clear()

    def reach(self, kind: Kind, label: str, amount: int = 1) -> tuple[int, CutAt | StallAt | None]:
        """How much of `amount` passes, and the fault that stops the rest."""
        due: list[tuple[int, _Armed]] = []
        for armed in self._armed:
            fault = armed.fault
            if isinstance(fault, CutAt | StallAt) and fault.kind == kind and fault.match in label:
                if armed.passed + amount > fault.index:
                    due.append((fault.index - armed.passed, armed))
                armed.passed += amount
        if not due:
            self.counters[kind] += amount
            return amount, None
        passing, first = min(due, key=lambda pair: pair[0])
        self.counters[kind] += passing
        self._fire(first)
        assert isinstance(first.fault, CutAt | StallAt)
        return passing, first.fault

    def space(self, path: str, amount: int) -> int:
        """How many of `amount` bytes still fit on the phone's disk."""
        for armed in self._armed:
            if isinstance(armed.fault, DiskFull) and armed.fault.match in path:
                fits = max(0, min(amount, armed.fault.after_bytes - armed.passed))
                armed.passed += amount
                if fits < amount and armed.fault not in self.fired:
                    self.fired.append(armed.fault)
                return fits
        return amount

    def changes_output(self, command: str) -> bool:
        """Whether this command's standard output is to be looked at line by line."""
        return any(isinstance(a.fault, Garbage) and a.fault.match in command for a in self._armed)

    def line(self, command: str, line: bytes) -> bytes:
        """What is sent in the place of a line of output."""
        for armed in list(self._armed):
            fault = armed.fault
            if not isinstance(fault, Garbage) or fault.match not in command:
                continue
            position = armed.passed - fault.line
            armed.passed += 1
            if position >= 0:
                line = fault.of(line)
                if fault not in self.fired:
                    self.fired.append(fault)
            if position + 1 >= fault.lines:
                self._armed.remove(armed)
        return line

    def _fire(self, armed: _Armed) -> None:
        self._armed.remove(armed)
        self.fired.append(armed.fault)
