"""How a layer of a staged space is chosen: by one choice between operations, or by one a property.

TuNAS (Bender et al. 2020) names both kinds: ProxylessNAS's layers are one choice each, those of
its MobileNetV3-like space are a choice of kernel, one of expansion and one of squeeze-excite.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ...devices.errors import UsageError
from ..choices import SKIP, Choice, Kind, Option

KEEP = "keep"
"""The option of a layer that has choices of its own."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What a layer can be: an inverted residual block."""

    kernel: int
    expansion: int
    squeeze_excite: bool = False

    @property
    def name(self) -> str:
        """How the choice's option is called."""
        return f"mbconv k{self.kernel} e{self.expansion}" + (" se" if self.squeeze_excite else "")


class LayerChoices(Protocol):
    """The choices of one layer."""

    def choices(self, name: str, may_skip: bool) -> Iterator[Choice]:
        """The choices of the layer called `name`; the first has the option `skip` where it may."""

    def operation(self, options: Sequence[Option]) -> Operation | None:
        """The operation of these options, one for each choice; `None` where it is skipped."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """One choice, between operations; no choice where there is but one."""

    operations: tuple[Operation, ...]

    def choices(self, name: str, may_skip: bool) -> Iterator[Choice]:
        """As `LayerChoices`."""
        options = [operation.name for operation in self.operations] + [SKIP] * may_skip
        if len(options) > 1:
            yield Choice(name, tuple(options))

    def operation(self, options: Sequence[Option]) -> Operation | None:
        """As `LayerChoices`."""
        if not options:
            return self.operations[0]
        found = {operation.name: operation for operation in self.operations}
        return None if options[0] == SKIP else found[str(options[0])]


@dataclass(frozen=True, slots=True)
class Properties:
    """A choice for each property that has more than one option."""

    kernels: tuple[int, ...]
    expansions: tuple[int, ...]
    squeeze_excite: tuple[bool, ...] = (False,)

    def choices(self, name: str, may_skip: bool) -> Iterator[Choice]:
        """As `LayerChoices`; a layer that may not be skipped has no choice `name`."""
        if may_skip:
            yield Choice(name, (KEEP, SKIP))
        when = {name: (KEEP,)} if may_skip else {}
        for suffix, options in self._open():
            # An expansion is a width: that of the middle channels.
            kind: Kind = "width" if suffix == "expansion" else "operation"
            yield Choice(f"{name}.{suffix}", options, when, kind)

    def operation(self, options: Sequence[Option]) -> Operation | None:
        """As `LayerChoices`."""
        chosen = list(options)
        if len(chosen) > len(self._open()) and chosen.pop(0) == SKIP:
            return None
        named = dict(zip((suffix for suffix, _ in self._open()), chosen, strict=True))
        kernel = named.get("kernel", self.kernels[0])
        expansion = named.get("expansion", self.expansions[0])
        squeeze_excite = named.get("squeeze_excite", self.squeeze_excite[0])
        if not isinstance(kernel, int) or not isinstance(expansion, int):
            raise UsageError(f"{options} are no options of {self}")
        return Operation(kernel, expansion, bool(squeeze_excite))

    def _open(self) -> list[tuple[str, tuple[Option, ...]]]:
        """The properties that are chosen, with their options."""
        all_properties: list[tuple[str, tuple[Option, ...]]] = [
            ("kernel", self.kernels),
            ("expansion", self.expansions),
            ("squeeze_excite", self.squeeze_excite),
        ]
        return [(suffix, options) for suffix, options in all_properties if len(options) > 1]
