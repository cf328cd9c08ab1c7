"""The choices of a space, which of them are on, and the one form of those that mean the same."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..devices.errors import UsageError
from ..latency.cost import elimination_order, spread

SKIP = "skip"
"""The option that leaves a layer out."""

Option = str | int | float

Kind = Literal["operation", "width", "depth", "resolution"]
"""What a choice decides: what runs or is skipped, or how many channels, layers or pixels."""

_Table = tuple[tuple[int, ...], NDArray[np.object_]]
"""Positions of choices, and 1 for each combination of their options that is canonical."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A named decision between options.

    `when` switches it on: the choice is active only while every choice named there has one of the
    options listed for it. A choice that is off has its first option in the canonical form.
    """

    name: str
    options: tuple[Option, ...]
    when: Mapping[str, tuple[Option, ...]] = field(default_factory=dict)
    kind: Kind = "operation"


Mirror = tuple[tuple[str, ...], tuple[str, ...]]
"""Names of two groups of choices that may be exchanged without a change of the network."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Layers in a row: for each the positions of its choices, and the option that skips it."""

    layers: tuple[tuple[int, ...], ...]
    skip: int


class ChoiceRules:
    """What the canonical form of a space's choices is.

    Choices that are off have their first option, and within a run skips come last: choices that
    only a member of a run switches on move with it. Of two mirrored groups the first has the
    options that come first.
    """

    def __init__(
        self,
        space: str,
        choices: Sequence[Choice],
        runs: Iterable[tuple[str, ...]],
        mirrors: Iterable[Mirror] = (),
    ) -> None:
        self.space = space
        self.choices = tuple(choices)
        self.option_counts = tuple(len(choice.options) for choice in self.choices)
        self._positions = {choice.name: index for index, choice in enumerate(self.choices)}
        if len(self._positions) != len(self.choices):
            raise UsageError(f"space {space}: two choices have one name")
        if 0 in self.option_counts:
            raise UsageError(f"space {space}: a choice has no options")
        self._conditions = tuple(self._condition(choice) for choice in self.choices)
        self._conditional = tuple(
            (position, condition)
            for position, condition in enumerate(self._conditions)
            if condition
        )
        self._runs = tuple(self._run(names) for names in runs)
        self._mirrors = tuple(self._mirror(pair) for pair in mirrors)

    def position(self, name: str) -> int:
        """Index of the choice called `name`."""
        if name not in self._positions:
            raise UsageError(
                f"space {self.space} has no choice {name}; it has {[*self._positions]}"
            )
        return self._positions[name]

    def count(self) -> int:
        """Number of canonical combinations, exactly."""
        tables = [*self._condition_tables(), *self._run_tables(), *self._mirror_tables()]
        return _count(self.option_counts, tables)

    def is_on(self, position: int, chosen: Mapping[int, int]) -> bool:
        """Whether a choice is on, given the options of those that it depends on."""
        return all(chosen[parent] in allowed for parent, allowed in self._conditions[position])

    def active(self, choices: Sequence[int]) -> tuple[bool, ...]:
        """Which choices are on."""
        found = [True] * len(choices)
        for position, condition in self._conditional:
            found[position] = all(choices[parent] in allowed for parent, allowed in condition)
        return tuple(found)

    def canonical(self, choices: Sequence[int]) -> tuple[int, ...]:
        """The one form that stands for all choices giving the same network."""
        self.check(choices)
        if not (self._conditional or self._runs or self._mirrors):
            return tuple(map(int, choices))
        active = self.active(choices)
        return tuple(
            [int(choices[origin]) if active[origin] else 0 for origin in self.origins(choices)]
        )

    def origins(self, choices: Sequence[int]) -> tuple[int, ...]:
        """For each position of the canonical form, the one whose choice has moved there."""
        origins = list(range(len(choices)))
        for run in self._runs:
            skipped = [choices[layer[0]] == run.skip for layer in run.layers]
            if skipped != sorted(skipped):
                order = sorted(range(len(skipped)), key=skipped.__getitem__)  # stable
                self._move(origins, run.layers, [run.layers[number] for number in order])
        for mirror in self._mirrors:
            active = self.active(choices)
            groups = sorted(
                ([origins[position] for position in group] for group in mirror),
                key=lambda group: [int(choices[origin]) * active[origin] for origin in group],
            )
            self._move(origins, mirror, groups)
        return tuple(origins)

    @staticmethod
    def _move(
        origins: list[int], places: Sequence[Sequence[int]], moved: Sequence[Sequence[int]]
    ) -> None:
        for positions, taken in zip(places, moved, strict=True):
            for position, origin in zip(positions, taken, strict=True):
                origins[position] = origin

    def check(self, choices: Sequence[int]) -> None:
        """Raise `UsageError`, naming the choice, where one has no such option."""
        if len(choices) != len(self.choices):
            raise UsageError(
                f"space {self.space} has {len(self.choices)} choices; {len(choices)} were given"
            )
        for position, (index, count) in enumerate(zip(choices, self.option_counts, strict=True)):
            if not 0 <= index < count:
                raise UsageError(
                    f"space {self.space}: choice {self.choices[position].name} has options 0 to "
                    f"{count - 1}, not {index}"
                )

    def _condition(self, choice: Choice) -> tuple[tuple[int, frozenset[int]], ...]:
        """Positions that `choice` depends on, each with the option indices that switch it on."""
        conditions = []
        for name, options in choice.when.items():
            parent = self.choices[self.position(name)]
            unknown = [option for option in options if option not in parent.options]
            if unknown:
                raise UsageError(f"choice {choice.name}: {name} has no options {unknown}")
            if any(
                not set(choice.when.get(above, ())) <= set(wanted) or above not in choice.when
                for above, wanted in parent.when.items()
            ):
                # Activity is then a function of this choice's own conditions, with no nesting.
                raise UsageError(
                    f"choice {choice.name} depends on {name}, which is itself conditional: list "
                    f"the conditions of {name} too"
                )
            allowed = frozenset(parent.options.index(option) for option in options)
            conditions.append((self.position(name), allowed))
        return tuple(conditions)

    def _run(self, names: tuple[str, ...]) -> _Run:
        """A run of layers, each with the choices that it switches on."""
        members = [self.choices[self.position(name)] for name in names]
        if any(choice.when for choice in members):
            raise UsageError(f"space {self.space}: run {names} has members with a `when`")
        layers = [
            [member, *(choice for choice in self.choices if member.name in choice.when)]
            for member in members
        ]
        forms = {
            tuple((choice.options, tuple(choice.when.values())) for choice in layer)
            for layer in layers
        }
        if len(forms) > 1 or any(len(choice.when) > 1 for layer in layers for choice in layer):
            raise UsageError(f"space {self.space}: the layers of run {names} are not alike")
        if SKIP not in members[0].options:
            raise UsageError(f"space {self.space}: run {names} has no option {SKIP!r}")
        positions = tuple(tuple(self.position(item.name) for item in layer) for layer in layers)
        return _Run(positions, members[0].options.index(SKIP))

    def _mirror(self, pair: Mirror) -> tuple[tuple[int, ...], ...]:
        """The positions of two groups of choices that mirror each other."""
        members = [[self.choices[self.position(name)] for name in group] for group in pair]
        if any(choice.when for group in members for choice in group):
            raise UsageError(f"space {self.space}: mirror {pair} has members with a `when`")
        first, second = ([choice.options for choice in group] for group in members)
        if first != second:
            raise UsageError(f"space {self.space}: the groups of mirror {pair} are not alike")
        return tuple(tuple(self.position(name) for name in group) for group in pair)

    def _condition_tables(self) -> Iterator[_Table]:
        """1 where a choice is on, or is off and has its first option."""
        for child, condition in enumerate(self._conditions):
            if condition:
                parents = tuple(parent for parent, _ in condition)
                counts = [self.option_counts[position] for position in (*parents, child)]
                table = np.zeros(counts, dtype=object)
                table[..., 0] = 1
                table[np.ix_(*(sorted(allowed) for _, allowed in condition))] = 1
                yield (*parents, child), table

    def _run_tables(self) -> Iterator[_Table]:
        """0 where a skip comes before a layer that is kept."""
        for run in self._runs:
            for pair in itertools.pairwise(positions[0] for positions in run.layers):
                table = np.ones([self.option_counts[position] for position in pair], dtype=object)
                table[run.skip, :] = 0
                table[run.skip, run.skip] = 1
                yield pair, table

    def _mirror_tables(self) -> Iterator[_Table]:
        """0 where the second group's options come before the first's."""
        for first, second in self._mirrors:
            counts = [self.option_counts[position] for position in first]
            forms = math.prod(counts)
            table = np.triu(np.ones((forms, forms), dtype=int)).astype(object)
            yield (*first, *second), table.reshape((*counts, *counts))


def _count(option_counts: tuple[int, ...], tables: list[_Table]) -> int:
    """Sum over all architectures of the product of `tables`, in Python's exact integers."""
    pending = list(tables)
    total = 1
    for position in elimination_order(option_counts, [scope for scope, _ in tables]):
        touching = [table for table in pending if position in table[0]]
        pending = [table for table in pending if position not in table[0]]
        scope = tuple(sorted({p for positions, _ in touching for p in positions} - {position}))
        joined = np.ones([option_counts[p] for p in (*scope, position)], dtype=object)
        for positions, values in touching:
            joined = joined * spread(values, positions, (*scope, position))
        summed = joined.sum(axis=-1)
        if scope:
            pending.append((scope, summed))
        else:
            total *= int(summed)
    return total
