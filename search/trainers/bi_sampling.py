"""TF-NAS's learning (Hu et al. 2020, section 3): bi-sampling, and the architecture by gradients.

At first the weights alone learn, on one path a batch, drawn by the Gumbel-softmax. Then two paths
a batch teach them, and every other step moves the architecture: all operations run on held-out
images, weighted by a Gumbel-softmax, and the loss counts how far the latency is from the target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from ...devices.errors import UnreachableTargetError, UsageError
from ...latency.blocks import Block
from ..alphas import Alphas
from ..distributed import average
from ..elasticity import architecture_latency, scale
from ..learning import learn
from ..loading import Ahead, Batch, BatchLoader
from ..narrowable import Narrowable
from ..precision import gradients
from ..relaxed import CandidateWeights, RelaxedSupernet
from ..relaxed_latency import RelaxedLatency
from ..settings import TrainingSettings
from ..space import Architecture, SearchSpace

BI_SAMPLING_SETTINGS = TrainingSettings(
    epochs=90,
    learning_rate=0.025,
    schedule="cosine",
    warmup_share=0.0,
    gradient_clip=5.0,
    weight_decay=1e-5,
    label_smoothing=0.0,
)
"""How TF-NAS's weights are trained, by released code; the number of epochs is recalled."""

HELD_OUT_SHARE = 0.2
"""Of the training images, those that move the architecture: `data.divided` parts them."""


class BiSampling:
    """Trains the weights of paths, and moves operations and depths towards `target_ms`.

    `held_out` gives the images for the architecture. `block_cost_ms` and `constant` are
    `RelaxedLatency`'s. The first `warm_epochs` leave the architecture alone; from then on it moves
    every `interval` steps, and the `temperature` of the Gumbel-softmax falls by `cooling` an
    epoch. `latency_weight` is that of |latency / target - 1| beside the cross entropy. Constants
    are the released code's.

    On a path one operation of each layer runs. Depths stay weighted, by weights that the step
    takes as they are: each stage gives the sum over its depths.

    With a `width_grid`, elasticity-scaling (`elasticity.scale`) of the strongest architecture
    stands between two epochs, from the end of the first that is not warm: its operations run from
    then on with the middle channels that bring it to the target. Where no widths do, they stay as
    they are. After the last epoch there is none: scale what `best` gives.

    Raises `UsageError` for a target that is not positive.
    """

    def __init__(
        self,
        supernet: RelaxedSupernet,
        held_out: BatchLoader,
        block_cost_ms: Callable[[Block], float],
        target_ms: float,
        constant: float = 0.0,
        *,
        warm_epochs: int = 10,
        interval: int = 2,
        temperature: float = 5.0,
        cooling: float = 0.96,
        latency_weight: float = 0.1,
        learning_rate: float = 0.01,
        betas: tuple[float, float] = (0.5, 0.999),
        weight_decay: float = 5e-4,
        width_grid: int | None = None,
    ) -> None:
        if not (math.isfinite(target_ms) and target_ms > 0):
            raise UsageError(f"a target must be a positive number of milliseconds, not {target_ms}")
        self.supernet = supernet
        self._block_cost_ms = block_cost_ms
        self._constant = constant
        self.latency = RelaxedLatency(supernet, block_cost_ms, constant)
        self.target_ms = target_ms
        self.warm_epochs = warm_epochs
        self.interval = interval
        self.latency_weight = latency_weight
        self._temperature = temperature
        self._cooling = cooling
        self._width_grid = width_grid
        self._epoch = 0
        self._held_out = Ahead(held_out)
        self._operations = {mixture.name for mixture in supernet.mixtures.values()}
        self._alphas = Alphas(
            supernet.counts,
            next(supernet.parameters()),
            learning_rate=learning_rate,
            betas=betas,
            weight_decay=weight_decay,
        )
        self._alphas.normalise()
        self.alphas = self._alphas.vectors

    def __call__(self, batch: Batch) -> float:
        """Move the architecture where it is its turn, then learn; returns the paths' loss."""
        if batch.epoch > self._epoch:
            if self._epoch >= self.warm_epochs and self._width_grid is not None:
                self._scale(self._width_grid)
            self._epoch = batch.epoch
        warm = batch.epoch < self.warm_epochs
        if not warm and batch.step % self.interval == 0:
            self._move(batch)
        path = self.gumbel_path(batch)
        value = self._learn(batch, path)
        if not warm:
            value += self._learn(batch, self.other_path(path, batch.random))
        return value

    def temperature(self, epoch: int) -> float:
        """Of the Gumbel-softmax: constant in the warm epochs and the one after, then falling."""
        return self._temperature * self._cooling ** max(0, epoch - self.warm_epochs)

    def best(self) -> Architecture:
        """The architecture of the strongest operations and depths, with the widths they run at."""
        architecture = self.supernet.space.discretise(self._alphas.arrays())
        modules = self.supernet.layers(architecture)
        if all(module is None or module.kept is None for module in modules):
            return architecture
        widths = (0 if module is None else module.block.expanded_channels for module in modules)
        return replace(architecture, expanded_channels=tuple(widths))

    def gumbel_weights(self, batch: Batch) -> dict[str, Tensor]:
        """Weights of the operations, softmax((log_softmax(alpha) + g) / temperature), and depths.

        g is drawn from the Gumbel distribution by the step's random numbers. Depths have their
        softmax.
        """
        temperature = self.temperature(batch.epoch)
        found = self._alphas.softmax()
        for name, alpha in self.alphas.items():
            if name in self._operations:
                noise = alpha.new_tensor(batch.random.gumbel(size=len(alpha)))
                found[name] = ((alpha.log_softmax(0) + noise) / temperature).softmax(0)
        return found

    def gumbel_path(self, batch: Batch) -> dict[str, int]:
        """By layer, the operation with the largest weight in a Gumbel sample."""
        weights = self.gumbel_weights(batch)
        return {name: int(weights[name].argmax()) for name in sorted(self._operations)}

    def other_path(self, path: Mapping[str, int], random: np.random.Generator) -> dict[str, int]:
        """A uniform path that has another operation than `path` in every layer that has others."""
        found = {}
        for name, taken in path.items():
            count = len(self.alphas[name])
            found[name] = (taken + 1 + int(random.integers(count - 1))) % count if count > 1 else 0
        return found

    def architecture_loss(self, held_out: Batch, weights: Mapping[str, Tensor]) -> Tensor:
        """Cross entropy of all operations, weighted, and how far their latency is from the target.

        With `latency_weight` w: CE + w * |latency / target - 1|.
        """
        gap = (self.latency(weights) / self.target_ms - 1).abs()
        return held_out.loss(self.supernet(held_out.inputs, weights)) + self.latency_weight * gap

    def state_dict(self) -> dict[str, Any]:
        """The architecture's parameters, their optimiser's state, and the channels in use."""
        kept = {name: module.kept for name, module in self._narrowable()}
        return self._alphas.state_dict() | {"epoch": self._epoch, "kept": kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state that `state_dict` gave; `KeyError` where a layer or stage is missing."""
        self._alphas.load_state_dict(state)
        self._epoch = state["epoch"]
        for name, module in self._narrowable():
            module.kept = state["kept"][name]

    def _narrowable(self) -> Iterator[tuple[str, Narrowable]]:
        for name, module in self.supernet.candidates.items():
            if isinstance(module, Narrowable):
                yield name, module

    def _scale(self, grid: int) -> None:
        """Bring the strongest architecture to the target by its middle channels."""
        space = self.supernet.space
        assert isinstance(space, SearchSpace)
        best = self.best()
        latency_of = architecture_latency(space, self._block_cost_ms, self._constant)
        try:
            scaled = scale(best, space, latency_of, self.target_ms, grid)
        except UnreachableTargetError:
            return
        widths = scaled.expanded_channels or ()
        for module, width in zip(self.supernet.layers(best), widths, strict=True):
            if module is not None:
                module.narrow(width)

    def _move(self, batch: Batch) -> None:
        turn = batch.step // self.interval
        held_out = self._held_out.batch(turn).to(batch.inputs)
        loss = self.architecture_loss(held_out, self.gumbel_weights(batch))
        self._alphas.move(average(gradients(loss, list(self.alphas.values()))))
        self._alphas.normalise()

    def _learn(self, batch: Batch, path: Mapping[str, int]) -> float:
        weights: dict[str, CandidateWeights] = {
            name: weight.detach() for name, weight in self._alphas.softmax().items()
        }
        for name, taken in path.items():
            weights[name] = [float(number == taken) for number in range(len(self.alphas[name]))]
        return learn(batch.loss(self.supernet(batch.inputs, weights)))
