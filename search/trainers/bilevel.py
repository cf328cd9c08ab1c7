"""Weights and architecture in turn, on different images (DARTS, Liu et al. 2019, section 2.3).

Each step first moves the architecture's parameters by the loss on held-out images, then gives the
weights' gradients on training images. To second order, the former counts how the weights would
follow: one step ahead, with the product of Hessian and vector by a finite difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..alphas import Alphas
from ..distributed import average
from ..learning import learn
from ..loading import Ahead, Batch, BatchLoader
from ..precision import gradients
from ..relaxed import RelaxedSupernet
from ..space import Architecture

INITIAL_DEVIATION = 1e-3


class Bilevel:
    """First or second order DARTS; the constants of Adam are the released code's.

    `held_out` gives the images for the architecture, which moves for each batch that is learned
    from: several times a step with `TrainingSettings.accumulation`. `ahead` is the rate of the
    step that `second_order` looks ahead, DARTS's being the weights' own. `difference`, over the
    vector's norm, is the finite difference's step: DARTS's can be far off where few images make
    the loss rough; a ten-thousandth of it is exact in float64.
    """

    def __init__(
        self,
        supernet: RelaxedSupernet,
        held_out: BatchLoader,
        *,
        second_order: bool = False,
        ahead: float = 0.025,
        difference: float = 0.01,
        learning_rate: float = 3e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        weight_decay: float = 1e-3,
        seed: int = 0,
    ) -> None:
        self.supernet = supernet
        self.second_order = second_order
        self.ahead = ahead
        self.difference = difference
        self._held_out = Ahead(held_out)
        self._alphas = Alphas(
            supernet.counts,
            next(supernet.parameters()),
            learning_rate=learning_rate,
            betas=betas,
            weight_decay=weight_decay,
            deviation=INITIAL_DEVIATION,
            seed=seed,
        )
        self.alphas = self._alphas.vectors

    def __call__(self, batch: Batch) -> float:
        """Move the architecture, then learn from a batch; returns the batch's loss."""
        held_out = self._held_out.batch(batch.step).to(batch.inputs)
        self._alphas.move(self.architecture_gradients(batch, held_out))
        outputs = self.supernet(
            batch.inputs, {name: weight.detach() for name, weight in self.weights().items()}
        )
        return learn(batch.loss(outputs))

    def weights(self) -> dict[str, Tensor]:
        """The softmax weight of each candidate, by the name of its mixture or sink."""
        return self._alphas.softmax()

    def best(self) -> Architecture:
        """The architecture that the strongest candidates make."""
        return self.supernet.space.discretise(self._alphas.arrays())

    def architecture_gradients(self, batch: Batch, held_out: Batch) -> list[Tensor]:
        """Gradient of the loss on held-out images, by the architecture's parameters in turn.

        Of several processes, the mean over all.
        """
        alphas = list(self.alphas.values())
        if not self.second_order:
            return average(gradients(self._loss(held_out), alphas))
        weights = [weight for weight in self.supernet.parameters() if weight.requires_grad]
        slope = average(gradients(self._loss(batch), weights))
        with _moved(weights, slope, -self.ahead):
            loss = self._loss(held_out)
            found = average(gradients(loss, [*alphas, *weights]))
        direct, vector = found[: len(alphas)], found[len(alphas) :]
        norm = float(torch.stack([part.square().sum() for part in vector]).sum().sqrt())
        if norm == 0:
            return direct  # the loss does not change with the weights
        step = self.difference / norm
        sides = []
        for sign in (1, -1):
            # In fewer bits, two losses that lie so near are hardly told apart.
            full = torch.autocast(batch.inputs.device.type, enabled=False)
            with _moved(weights, vector, sign * step), full:
                sides.append(average(gradients(self._loss(batch), alphas)))
        return [
            plain - self.ahead * (up - down) / (2 * step)
            for plain, up, down in zip(direct, *sides, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """The architecture's parameters and their optimiser's state."""
        return self._alphas.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state that `state_dict` gave; `KeyError` where one of the mixtures is missing."""
        self._alphas.load_state_dict(state)

    def _loss(self, batch: Batch) -> Tensor:
        return batch.loss(self.supernet(batch.inputs, self.weights()))


@contextmanager
def _moved(weights: list[nn.Parameter], along: Sequence[Tensor], by: float) -> Iterator[None]:
    """Weights moved along a direction, for as long as a `with` lasts; then as they were."""
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, part in zip(weights, along, strict=True):
            weight.add_(part, alpha=by)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)
