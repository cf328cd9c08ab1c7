"""What the file of a latency predictor holds: numbers and names, checked as they are read."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ..devices.device import Setup
from .hybrid import Columns, HybridModel, PhysicalModel
from .trees import Trees

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class TreesBody(BaseModel):
    """Boosted trees as they stand in a file."""

    model_config = ConfigDict(extra="forbid")
    base: Number
    roots: list[int]
    feature: list[int]
    threshold: list[Number]
    left: list[int]
    right: list[int]
    value: list[Number]

    def trees(self) -> Trees:
        """The trees; `UsageError` where the arrays are none."""
        return Trees(
            self.base,
            np.array(self.roots, dtype=np.int64),
            np.array(self.feature, dtype=np.int64),
            np.array(self.threshold, dtype=np.float64),
            np.array(self.left, dtype=np.int64),
            np.array(self.right, dtype=np.int64),
            np.array(self.value, dtype=np.float64),
        )


class PredictorBody(BaseModel):
    """What the file holds, version 1. `coefficients` are ms for one unit of each amount of work."""

    model_config = ConfigDict(extra="forbid")
    setup: Setup | None
    eviction_bytes: Annotated[int, Field(ge=0)]
    channel_grid: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    coefficients: dict[str, NotNegative]
    features: list[str]
    trees: TreesBody
    residuals: Annotated[list[NotNegative], Field(min_length=1)]
    ranges: dict[str, tuple[Number, Number]]
    categories: list[str]

    def model(self) -> HybridModel:
        """The model; `ValueError` or `UsageError` where its parts do not fit together."""
        trees = self.trees.trees()
        if len(trees.feature) and trees.feature.max() > len(self.features):
            raise ValueError("a tree reads a feature that the file does not name")
        if sorted(self.residuals) != self.residuals:
            raise ValueError("the residuals are out of order")
        names = tuple(self.coefficients)
        physical = PhysicalModel(
            names, np.array(list(self.coefficients.values()), dtype=np.float64)
        )
        return HybridModel(Columns(names, tuple(self.features)), physical, trees)
