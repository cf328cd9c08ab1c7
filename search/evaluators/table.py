"""Accuracies of architectures from a table, as benchmarks of architectures publish them."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...devices.errors import UsageError
from ..choices import Option
from ..space import Architecture, SearchSpace

KEY = "key"
"""The column of a frame that has `Architecture.key` in place of a column for each choice."""


class AccuracyTable:
    """Looks an architecture's accuracy up.

    Rows that mean the same network are one, and have to agree. Raises `UsageError`, with the row
    (from 0), for an accuracy that is no number from 0 to 1 and for rows that contradict each
    other. `source` is what messages call the table.
    """

    def __init__(
        self,
        space: SearchSpace,
        choices: Iterable[Sequence[int]],
        accuracies: Iterable[float],
        source: str = "the table",
    ) -> None:
        self.space = space
        self.source = source
        self._accuracies: dict[tuple[int, ...], float] = {}
        rows: dict[tuple[int, ...], int] = {}
        for row, (chosen, value) in enumerate(zip(choices, accuracies, strict=True)):
            if not 0 <= value <= 1:
                hint = " Say so where they are percentages." if 1 < value <= 100 else ""
                raise UsageError(
                    f"{source}, row {row}: the accuracy of {space.describe(chosen)} is "
                    f"{value:g}; it must be a number from 0 to 1.{hint}"
                )
            canonical = space.canonical(chosen)
            known = self._accuracies.setdefault(canonical, float(value))
            first = rows.setdefault(canonical, row)
            if known != value:
                raise UsageError(
                    f"{source}: rows {first} and {row} are both {space.describe(canonical)}, with "
                    f"accuracies {known:g} and {value:g}. Keep one of them, or their mean."
                )

    @classmethod
    def from_frame(
        cls,
        space: SearchSpace,
        frame: pd.DataFrame,
        accuracy: str = "accuracy",
        *,
        percent: bool = False,
        source: str = "the frame",
    ) -> AccuracyTable:
        """The table of a frame's column `accuracy`, in `percent` or as a share of 1.

        Another column, `key`, has the architecture's key (`0.2.1`), or a column for each choice of
        the space, of that name, has the option chosen (`nor_conv_3x3`), or nothing where the
        choice is off. Raises `UsageError` where a column is missing or names no such option.
        """
        columns = [KEY] if KEY in frame else [choice.name for choice in space.choices]
        missing = [name for name in (*columns, accuracy) if name not in frame]
        if missing:
            raise UsageError(
                f"{source} has the columns {', '.join(map(str, frame.columns))}; "
                f"{', '.join(missing)} are missing"
            )
        if columns == [KEY]:
            rows = [_key_choices(source, row, key) for row, key in enumerate(frame[KEY])]
            _check(space, rows, source)
        else:
            indices = [
                _option_indices(source, name, choice.options, frame[name])
                for name, choice in zip(columns, space.choices, strict=True)
            ]
            rows = list(zip(*indices, strict=True))
            _check_empty(space, rows, frame[columns].isna().to_numpy(), source)
        return cls(space, rows, _shares(source, accuracy, frame[accuracy], percent), source)

    @classmethod
    def from_npz(
        cls,
        space: SearchSpace,
        path: Path,
        accuracy: str,
        *,
        ops: str = "ops",
        option_names: Sequence[Option] | None = None,
        choice_names: Sequence[str] | None = None,
        percent: bool = False,
    ) -> AccuracyTable:
        """The table of an .npz file's arrays: `ops` (N, L) of whole numbers, and `accuracy` (N,).

        `option_names` says which option each number stands for, the first one 0; without it, they
        are the space's own indices. `choice_names` says which choice of the space each column is;
        without it, they come in the space's order. Raises `UsageError` where the file can't be
        read, lacks an array or has one of another shape, or names options that aren't there.
        """
        arrays = _arrays(path, (ops, accuracy))
        source = str(path)
        numbers, count = arrays[ops], len(space.choices)
        if numbers.ndim != 2 or numbers.shape[1] != count or numbers.dtype.kind not in "iu":
            raise UsageError(
                f"{source}: {ops} is {numbers.dtype} of shape {numbers.shape}; whole numbers of "
                f"shape (N, {count}) are needed, a column for each choice of space {space.name}"
            )
        if arrays[accuracy].shape != numbers.shape[:1]:
            raise UsageError(
                f"{source}: {accuracy} has shape {arrays[accuracy].shape}; there are "
                f"{len(numbers)} architectures"
            )
        columns = _columns(space, choice_names, source)
        rows = numbers[:, columns].astype(np.int64)
        if option_names is not None:
            rows = _renumbered(space, rows, option_names, source)
        listed = rows.tolist()
        _check(space, listed, source)
        values = _shares(source, accuracy, arrays[accuracy], percent)
        return cls(space, listed, values, source)

    def __len__(self) -> int:
        return len(self._accuracies)

    def accuracy(self, architecture: Architecture) -> float:
        """The architecture's accuracy, 0 to 1; `UsageError` where the table has none of it."""
        found = self._accuracies.get(architecture.choices)
        if found is None or architecture.expanded_channels is not None:
            raise UsageError(
                f"{self.source} has no accuracy of architecture {architecture} "
                f"({self.space.describe(architecture.choices)}); it has {len(self)} of "
                f"{self.space.size()} architectures of space {self.space.name}"
            )
        return found


def _arrays(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array")
        with loaded as content:
            missing = [name for name in names if name not in content]
            if missing:
                raise UsageError(
                    f"{path} has the arrays {', '.join(content.files)}; {', '.join(missing)} "
                    "are missing"
                )
            return {name: content[name] for name in names}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(
            f"can't read {path}: {error}. Write it by numpy.savez, with arrays of numbers only."
        ) from error


def _shares(source: str, name: str, values: Any, percent: bool) -> list[float]:
    try:
        shares = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{source}: {name} holds what is no number: {error}") from error
    found: list[float] = (shares / 100 if percent else shares).tolist()
    return found


def _check(space: SearchSpace, rows: Sequence[Sequence[int]], source: str) -> None:
    """Raise `UsageError` with the row that has an option which the space has not."""
    counts = space.option_counts
    for row, chosen in enumerate(rows):
        if len(chosen) != len(counts):
            raise UsageError(
                f"{source}, row {row}: {len(chosen)} choices are given; space {space.name} has "
                f"{len(counts)}"
            )
        for choice, index, count in zip(space.choices, chosen, counts, strict=True):
            if not 0 <= index < count:
                raise UsageError(
                    f"{source}, row {row}: choice {choice.name} has options 0 to {count - 1}, "
                    f"not {index}"
                )


def _columns(space: SearchSpace, choice_names: Sequence[str] | None, source: str) -> list[int]:
    """The column of each of the space's choices."""
    own = [choice.name for choice in space.choices]
    given = own if choice_names is None else list(choice_names)
    if sorted(given) != sorted(own):
        raise UsageError(
            f"{source}: the columns are called {', '.join(given)}; the choices of space "
            f"{space.name} are {', '.join(own)}"
        )
    return [given.index(name) for name in own]


def _renumbered(
    space: SearchSpace, rows: NDArray[np.int64], option_names: Sequence[Option], source: str
) -> NDArray[np.int64]:
    """The space's own indices of options that are numbered as in `option_names`."""
    if rows.size and not 0 <= rows.min() <= rows.max() < len(option_names):
        row, column = np.argwhere((rows < 0) | (rows >= len(option_names)))[0]
        raise UsageError(
            f"{source}, row {row}: {rows[row, column]} is no option; {len(option_names)} are "
            "named, from 0"
        )
    found = np.empty_like(rows)
    for position, choice in enumerate(space.choices):
        used = np.unique(rows[:, position]).tolist()
        unknown = [
            option_names[number] for number in used if option_names[number] not in choice.options
        ]
        if unknown:
            raise UsageError(
                f"{source}: choice {choice.name} of space {space.name} has no options {unknown}; "
                f"it has {list(choice.options)}"
            )
        own = np.zeros(len(option_names), dtype=np.int64)
        own[used] = [choice.options.index(option_names[number]) for number in used]
        found[:, position] = own[rows[:, position]]
    return found


def _option_indices(
    source: str, name: str, options: Sequence[Option], values: pd.Series[Any]
) -> list[int]:
    """The index of each option of a column, as it is or as text; 0 where there is none."""
    index: dict[Hashable, int] = {str(option): number for number, option in enumerate(options)}
    index |= {option: number for number, option in enumerate(options)}
    found = []
    for row, (value, empty) in enumerate(zip(values, values.isna(), strict=True)):
        if not empty and value not in index:
            raise UsageError(
                f"{source}, row {row}: choice {name} has no option {value!r}; it has "
                f"{list(options)}"
            )
        found.append(0 if empty else index[value])
    return found


def _check_empty(
    space: SearchSpace, rows: Sequence[tuple[int, ...]], empty: NDArray[np.bool_], source: str
) -> None:
    """Raise `UsageError` where a choice that is on has no option."""
    for row, position in np.argwhere(empty).tolist():
        if space.active(rows[row])[position]:
            raise UsageError(
                f"{source}, row {row}: choice {space.choices[position].name} is empty, and is "
                "switched on by the others"
            )


def _key_choices(source: str, row: int, key: object) -> tuple[int, ...]:
    try:
        found = Architecture.from_key(str(key))
    except UsageError as error:
        raise UsageError(f"{source}, row {row}: {error}") from error
    if found.expanded_channels is not None:
        raise UsageError(f"{source}, row {row}: {key} has widths, which no table is looked up by")
    return found.choices
