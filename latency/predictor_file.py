"""What the file of a latency predictor holds: numbers and names, checked as they are read."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ..devices.device import Setup
from .additive import Component, Process, Scale
from .features import WHOLE
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

    @classmethod
    def of(cls, trees: Trees) -> TreesBody:
        """The file's form of trees."""
        return cls(
            base=trees.base,
            roots=trees.roots.tolist(),
            feature=trees.feature.tolist(),
            threshold=trees.threshold.tolist(),
            left=trees.left.tolist(),
            right=trees.right.tolist(),
            value=trees.value.tolist(),
        )

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


class ComponentBody(BaseModel):
    """What was learned of one group of terms, as it stands in a file."""

    model_config = ConfigDict(extra="forbid")
    group: str
    features: tuple[str, ...]
    centre: list[Number]
    length: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    amplitude: NotNegative
    points: list[list[Number]]
    weights: list[Number]

    @classmethod
    def of(cls, component: Component) -> ComponentBody:
        """The file's form of a component."""
        return cls(
            group=component.name,
            features=component.features,
            centre=component.scale.centre.tolist(),
            length=component.scale.length.tolist(),
            amplitude=component.scale.amplitude,
            points=component.points.tolist(),
            weights=component.weights.tolist(),
        )

    def component(self) -> Component:
        """The component; `ValueError` where its parts do not fit together."""
        width = len(self.features)
        if {len(self.centre), len(self.length), *map(len, self.points)} != {width}:
            raise ValueError(f"the features of group {self.group} differ in number")
        if len(self.points) != len(self.weights):
            raise ValueError(f"the points of group {self.group} do not have a weight each")
        return Component(
            self.group,
            self.features,
            Scale(np.array(self.centre), np.array(self.length), self.amplitude),
            np.array(self.points, dtype=np.float64).reshape(len(self.points), width),
            np.array(self.weights),
            self.group == WHOLE,
        )


class ProcessBody(BaseModel):
    """A process over kernels as it stands in a file."""

    model_config = ConfigDict(extra="forbid")
    noise: NotNegative
    components: Annotated[list[ComponentBody], Field(min_length=1)]

    @classmethod
    def of(cls, process: Process) -> ProcessBody:
        """The file's form of a process."""
        components = [ComponentBody.of(item) for item in process.components]
        return cls(noise=process.noise, components=components)

    def process(self) -> Process:
        """The process; `ValueError` where its parts do not fit together."""
        components = tuple(item.component() for item in self.components)
        if len({item.name for item in components}) != len(components):
            raise ValueError("a group has two components")
        return Process(components, self.noise)


class PredictorBody(BaseModel):
    """What the file holds, version 2. `coefficients` are ms for one unit of each amount of work.

    Version 1 had neither `process` nor `monotone`. `residuals` are the errors of samples that
    were left out, relative to how unsure the model was of each, ascending.
    """

    model_config = ConfigDict(extra="forbid")
    setup: Setup | None
    eviction_bytes: Annotated[int, Field(ge=0)]
    channel_grid: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    monotone: bool = False
    coefficients: dict[str, NotNegative]
    features: list[str]
    process: ProcessBody | None = None
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
        if self.process is None:
            return HybridModel(Columns(names, tuple(self.features)), physical, None, trees)
        process = self.process.process()
        groups = tuple((item.name, item.features) for item in process.components)
        return HybridModel(Columns(names, tuple(self.features), groups), physical, process, trees)
