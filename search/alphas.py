"""The parameters of a search by gradients: a score for each candidate, moved by Adam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Alphas:
    """By the name of a mixture or a sink, a vector with a score for each of its candidates.

    Initial scores are normal with this `deviation`, drawn by `seed`; they are on the device and of
    the type of `like`.
    """

    def __init__(
        self,
        counts: Mapping[str, int],
        like: Tensor,
        *,
        learning_rate: float,
        betas: tuple[float, float],
        weight_decay: float,
        deviation: float = 0.0,
        seed: int = 0,
    ) -> None:
        random = torch.Generator().manual_seed(seed)
        self.vectors: dict[str, nn.Parameter] = {}
        for name in sorted(counts):
            drawn = deviation * torch.randn(counts[name], generator=random)
            self.vectors[name] = nn.Parameter(drawn.to(like))
        self._optimiser = torch.optim.Adam(
            self.vectors.values(), learning_rate, betas, weight_decay=weight_decay
        )

    def softmax(self) -> dict[str, Tensor]:
        """The weight of each candidate."""
        return {name: vector.softmax(0) for name, vector in self.vectors.items()}

    def arrays(self) -> dict[str, NDArray[np.floating[Any]]]:
        """The weights as a space's `discretise` reads them."""
        return {name: weight.detach().cpu().numpy() for name, weight in self.softmax().items()}

    def move(self, gradients: Sequence[Tensor]) -> None:
        """A step of Adam; a gradient for each vector, in their order.

        None is made where one of them is not finite, as half the bits of a number may overflow.
        """
        if not all(gradient.isfinite().all() for gradient in gradients):
            return
        for vector, gradient in zip(self.vectors.values(), gradients, strict=True):
            vector.grad = gradient
        self._optimiser.step()
        self._optimiser.zero_grad()

    @torch.no_grad()
    def normalise(self) -> None:
        """Make the scores logarithms of the weights; the weights stay."""
        for vector in self.vectors.values():
            vector.copy_(vector.log_softmax(0))

    def state_dict(self) -> dict[str, Any]:
        """The scores and their optimiser's state."""
        vectors = {name: vector.detach().clone() for name, vector in self.vectors.items()}
        return {"alphas": vectors, "optimiser": self._optimiser.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a state that `state_dict` gave; `KeyError` where a vector is missing."""
        with torch.no_grad():
            for name, vector in self.vectors.items():
                vector.copy_(state["alphas"][name])
        self._optimiser.load_state_dict(state["optimiser"])
