"""Hybrid latency model: a combination of physical work, corrected by a process and by trees."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from .additive import Part, Process, Terms
from .features import WHOLE, Description, Term, is_whole_feature, matrix, names_of
from .trees import Trees

SHRINKAGE = 0.1
"""Pull of the coefficients to zero, in samples; it steadies fits to few samples."""


@dataclass(frozen=True)
class PhysicalModel:
    """Latency in ms as a non-negative combination of amounts of work."""

    names: tuple[str, ...]
    coefficients: NDArray[np.float64]

    @classmethod
    def fit(
        cls,
        names: tuple[str, ...],
        work: NDArray[np.float64],
        latency_ms: NDArray[np.float64],
    ) -> PhysicalModel:
        """Non-negative least squares on the relative error; `work` is (N, names)."""
        relative = work / latency_ms[:, None]
        scale = _scale(names, relative)
        rows = np.vstack([relative / scale, math.sqrt(SHRINKAGE) * np.eye(len(names))])
        target = np.concatenate([np.ones(len(work)), np.zeros(len(names))])
        coefficients, _ = nnls(rows, target)
        return cls(names, coefficients / scale)

    def predict(self, work: NDArray[np.float64]) -> NDArray[np.float64]:
        """Latency in ms of each row of `work`: (N,)."""
        # A matrix product would round differently for different numbers of rows.
        result: NDArray[np.float64] = (work * self.coefficients).sum(axis=1)
        return result


def _scale(names: tuple[str, ...], relative: NDArray[np.float64]) -> NDArray[np.float64]:
    """Usual size of each amount in the blocks that have it: (names,).

    A special amount, such as `bytes HardSwish`, is taken to be as large as the general one,
    `bytes`: else one that only occurs in traces would be free to cost anything.
    """
    occurrences = np.maximum(1, (relative > 0).sum(axis=0))
    scale = np.sqrt((relative**2).sum(axis=0) / occurrences)
    index = {name: number for number, name in enumerate(names)}
    general = [index.get(name.rpartition(" ")[0], number) for name, number in index.items()]
    usual: NDArray[np.float64] = np.maximum(scale, scale[general])
    usual[usual == 0] = 1
    return usual


@dataclass(frozen=True)
class Prepared:
    """Work (N, amounts), features (N, features) and terms of samples, as one model reads them."""

    work: NDArray[np.float64]
    features: NDArray[np.float64]
    terms: Terms

    def __len__(self) -> int:
        return len(self.work)

    def __getitem__(self, rows: NDArray[np.intp]) -> Prepared:
        """The samples of these numbers, which must ascend."""
        return Prepared(self.work[rows], self.features[rows], self.terms.take(rows))


Groups = tuple[tuple[str, tuple[str, ...]], ...]
"""Groups of terms and the features by which terms of each are compared."""


@dataclass(frozen=True)
class Columns:
    """Names of the amounts of work, of the features and of the terms' that a model reads."""

    work: tuple[str, ...]
    features: tuple[str, ...]
    groups: Groups = ()

    @classmethod
    def of(cls, described: Sequence[Description]) -> Columns:
        """All names that occur in the descriptions; of the terms' features, those that vary."""
        features = names_of(item.features for item in described)
        by_group: dict[str, list[Mapping[str, float]]] = {}
        for item in described:
            for term in item.terms:
                by_group.setdefault(term.group, []).append(term.features)
        by_group[WHOLE] = [item.features for item in described]
        groups = tuple(
            (group, _varying(rows, is_whole_feature if group == WHOLE else None))
            for group, rows in sorted(by_group.items())
        )
        return cls(names_of(item.work for item in described), features, groups)

    def prepare(self, described: Sequence[Description]) -> Prepared:
        """Descriptions as arrays."""
        return Prepared(
            matrix([item.work for item in described], self.work),
            matrix([item.features for item in described], self.features),
            self._terms(described),
        )

    def _terms(self, described: Sequence[Description]) -> Terms:
        owner: list[int] = []
        found: list[Term] = []
        rows: dict[str, list[int]] = {group: [] for group, _ in self.groups}
        for number, item in enumerate(described if self.groups else ()):
            for term in item.terms:
                if term.group in rows:
                    rows[term.group].append(len(found))
                owner.append(number)
                found.append(term)
        owners = np.array(owner, dtype=np.intp)
        parts = []
        for group, names in self.groups:
            if group == WHOLE:
                values = matrix([item.features for item in described], names)
                parts.append(Part(group, names, values, np.arange(len(described)), None))
                continue
            places = np.array(rows[group], dtype=np.intp)
            values = matrix([found[place].features for place in places], names)
            parts.append(Part(group, names, values, owners[places], places))
        work = matrix([term.work for term in found], self.work)
        return Terms(len(described), owners, work, tuple(parts))


def _varying(
    rows: Sequence[Mapping[str, float]], wanted: Callable[[str], bool] | None
) -> tuple[str, ...]:
    """Names of the features that are not the same in all rows."""
    names = tuple(name for name in names_of(rows) if wanted is None or wanted(name))
    varying = np.ptp(matrix(rows, names), axis=0) > 0
    return tuple(name for name, varies in zip(names, varying, strict=True) if varies)


NO_TREES = Trees(
    0.0, *(np.zeros(0, dtype) for dtype in (np.int64, np.int64, float, np.int64, np.int64, float))
)


@dataclass(frozen=True)
class HybridModel:
    """A physical model, a process on the error of its terms, and trees on what is left.

    The process works on the terms, the trees on the logarithm of the whole's error: they read the
    features and, as the last column, the logarithm of the estimate that they correct. Either may
    be missing (`None`, `NO_TREES`).
    """

    columns: Columns
    physical: PhysicalModel
    process: Process | None
    trees: Trees

    def predict(self, samples: Prepared) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Latency in ms, and how unsure it is in comparison with others: (N,), (N,)."""
        if self.process is None:
            estimate_ms, spread = self.physical.predict(samples.work), np.ones(len(samples))
        else:
            terms = samples.terms
            estimate_ms, spread = self.process.predict(terms, self.physical.predict(terms.work))
        correction = self.trees.predict(with_estimate(samples.features, estimate_ms))
        return estimate_ms * np.exp(correction), spread


def with_estimate(
    features: NDArray[np.float64], estimate_ms: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What trees read: the features, and the estimate that they correct."""
    return np.column_stack([features, np.log(estimate_ms)])
