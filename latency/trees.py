"""Boosted regression trees as plain arrays, which outlive any release of scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..devices.errors import UsageError

MAXIMUM_SPLITS = 8
"""Splits that a tree may have: their answers fit a byte. A tree of depth 3 has at most 7."""

LEAF = -1
ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Trees:
    """A sum of regression trees: all nodes of all trees in a row, tree t beginning at `roots[t]`.

    A row goes to node `left` where its `feature`, as float32, is at most `threshold`, else to
    `right`; a leaf has feature `LEAF` and adds its `value`. Raises `UsageError` where the arrays
    are no such trees.
    """

    base: float
    roots: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    value: NDArray[np.float64]

    def __post_init__(self) -> None:
        nodes = len(self.feature)
        if any(len(item) != nodes for item in (self.threshold, self.left, self.right, self.value)):
            raise UsageError("the arrays of the trees differ in length")
        if not all(np.isfinite(item).all() for item in (self.base, self.threshold, self.value)):
            raise UsageError("the trees hold a number that is not finite")
        ends = np.append(self.roots[1:], nodes)
        if len(self.roots) and (self.roots[0] != 0 or (ends <= self.roots).any()):
            raise UsageError("the roots of the trees are out of order")
        tree = np.repeat(np.arange(len(self.roots)), ends - self.roots)
        if len(tree) != nodes or (self.feature < LEAF).any():
            raise UsageError("the trees hold a node that belongs to none")
        inner = np.flatnonzero(self.feature != LEAF)
        for children in (self.left[inner], self.right[inner]):
            if (children <= inner).any() or (children >= ends[tree[inner]]).any():
                raise UsageError("the trees hold a node whose children are not its tree's")
        if len(inner) and np.bincount(tree[inner]).max() > MAXIMUM_SPLITS:
            raise UsageError(f"a tree has more than {MAXIMUM_SPLITS} splits")

    def predict(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum of the trees for each row of (N, features): (N,).

        Every split of every tree is answered for every row; the answers of one tree, as bits of
        a byte, look up its value. Rows do not influence each other, bit for bit.
        """
        result = np.full(len(features), self.base)
        if not len(self.roots):
            return result
        columns = np.ascontiguousarray(features.T, dtype=np.float32)
        split_feature, split_threshold, values = self._lookup
        trees = np.arange(len(self.roots))
        for start in range(0, len(features), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            answers = columns[split_feature, rows] > split_threshold[:, None]
            codes = np.packbits(answers.reshape(len(trees), MAXIMUM_SPLITS, -1), axis=1)
            # In this layout numpy adds up a row in one order, whatever the number of rows.
            result[rows] += values[trees, np.ascontiguousarray(codes[:, 0].T)].sum(axis=1)
        return result

    @cached_property
    def _lookup(self) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float64]]:
        """Feature and threshold of `MAXIMUM_SPLITS` splits a tree, and its value by their answers.

        Splits that a tree lacks compare with infinity, so their answer is always no.
        """
        count = len(self.roots)
        split_feature = np.zeros((count, MAXIMUM_SPLITS), dtype=np.int64)
        split_threshold = np.full((count, MAXIMUM_SPLITS), np.inf)
        ends = np.append(self.roots[1:], len(self.feature))
        bit = np.zeros(len(self.feature), dtype=np.int64)
        for tree, (start, end) in enumerate(zip(self.roots, ends, strict=True)):
            splits = start + np.flatnonzero(self.feature[start:end] != LEAF)
            split_feature[tree, : len(splits)] = self.feature[splits]
            split_threshold[tree, : len(splits)] = self.threshold[splits]
            bit[splits] = MAXIMUM_SPLITS - 1 - np.arange(len(splits))
        codes = np.arange(2**MAXIMUM_SPLITS)
        node = np.repeat(self.roots[:, None], len(codes), axis=1)
        for _ in range(MAXIMUM_SPLITS):
            answer = codes >> bit[node] & 1
            below = np.where(answer, self.right[node], self.left[node])
            node = np.where(self.feature[node] == LEAF, node, below)
        return split_feature.ravel(), _round_down(split_threshold.ravel()), self.value[node]


def _round_down(threshold: NDArray[np.float64]) -> NDArray[np.float32]:
    """The greatest float32 that is not above: a float32 is above both or neither."""
    narrowed = threshold.astype(np.float32)
    below = np.nextafter(narrowed, np.float32(-np.inf))
    return np.where(narrowed > threshold, below, narrowed)


def boosted_trees(
    features: NDArray[np.float64],
    target: NDArray[np.float64],
    *,
    trees: int,
    learning_rate: float,
    seed: int,
) -> Trees:
    """Fit gradient boosting (Friedman 2001; stochastic: 2002) of depth 3 to `target`.

    Each tree sees half of the rows and, at each split, half of the features. Huber's loss keeps a
    spoilt measurement from bending the rest.
    """
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(
        loss="huber",
        n_estimators=trees,
        learning_rate=learning_rate,
        max_depth=3,
        subsample=0.5,
        max_features=0.5,
        min_samples_leaf=min(5, max(1, len(target) // 10)),
        random_state=seed,
    )
    model.fit(features, target)
    fitted = [estimator.tree_ for estimator in model.estimators_[:, 0]]
    sizes = [tree.node_count for tree in fitted]
    roots = np.cumsum([0, *sizes[:-1]])
    leaf = np.concatenate([tree.children_left for tree in fitted]) < 0
    offset = np.repeat(roots, sizes)
    return Trees(
        base=float(model.init_.predict(features[:1])[0]),
        roots=roots.astype(np.int64),
        feature=np.where(leaf, LEAF, np.concatenate([tree.feature for tree in fitted])),
        threshold=np.where(leaf, 0.0, np.concatenate([tree.threshold for tree in fitted])),
        left=np.where(leaf, LEAF, np.concatenate([tree.children_left for tree in fitted]) + offset),
        right=np.where(
            leaf, LEAF, np.concatenate([tree.children_right for tree in fitted]) + offset
        ),
        value=learning_rate * np.concatenate([tree.value[:, 0, 0] for tree in fitted]),
    )
