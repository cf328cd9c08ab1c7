"""Hybrid latency model: a non-negative combination of physical work, corrected by trees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from .features import Description, matrix, names_of
from .trees import Trees, boosted_trees

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
    """Work (N, amounts) and features (N, features) of blocks, as one model reads them."""

    work: NDArray[np.float64]
    features: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.work)

    def __getitem__(self, rows: NDArray[np.intp]) -> Prepared:
        return Prepared(self.work[rows], self.features[rows])


@dataclass(frozen=True)
class Columns:
    """Names of the amounts of work and of the features that a model reads."""

    work: tuple[str, ...]
    features: tuple[str, ...]

    @classmethod
    def of(cls, described: Sequence[Description]) -> Columns:
        """All names that occur in the descriptions."""
        return cls(
            names_of(item.work for item in described),
            names_of(item.features for item in described),
        )

    def prepare(self, described: Sequence[Description]) -> Prepared:
        """Descriptions as arrays."""
        return Prepared(
            matrix([item.work for item in described], self.work),
            matrix([item.features for item in described], self.features),
        )


@dataclass(frozen=True)
class HybridModel:
    """A physical model, and trees that predict the logarithm of its error.

    The trees read the features and, as the last column, the logarithm of the physical estimate.
    """

    columns: Columns
    physical: PhysicalModel
    trees: Trees

    @classmethod
    def fit(
        cls,
        columns: Columns,
        blocks: Prepared,
        latency_ms: NDArray[np.float64],
        *,
        trees: int,
        learning_rate: float,
        seed: int,
    ) -> HybridModel:
        """Fit both to measured blocks."""
        physical = PhysicalModel.fit(columns.work, blocks.work, latency_ms)
        estimate_ms = physical.predict(blocks.work)
        boosted = boosted_trees(
            _with_estimate(blocks.features, estimate_ms),
            np.log(latency_ms / estimate_ms),
            trees=trees,
            learning_rate=learning_rate,
            seed=seed,
        )
        return cls(columns, physical, boosted)

    def predict(self, blocks: Prepared) -> NDArray[np.float64]:
        """Latency in ms: (N,)."""
        estimate_ms = self.physical.predict(blocks.work)
        correction = self.trees.predict(_with_estimate(blocks.features, estimate_ms))
        result: NDArray[np.float64] = estimate_ms * np.exp(correction)
        return result


def _with_estimate(
    features: NDArray[np.float64], estimate_ms: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.column_stack([features, np.log(estimate_ms)])
