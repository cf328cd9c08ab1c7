"""What architectures are worth when each is trained on its own; every result is kept in a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from latkit.latency.torch_model import TorchModel
from latkit.search.data import Dataset
from latkit.search.recalibration import accuracy
from latkit.search.retraining import fresh_model, retrain, test_accuracy
from latkit.search.settings import TrainingSettings
from latkit.search.space import Architecture, SearchSpace
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Alone:
    """Trains networks on their own, or reads from `folder` what was found before.

    A result belongs to its network, images and settings: with others it is made again.
    """

    space: SearchSpace
    data: Dataset
    settings: TrainingSettings
    folder: Path
    device: str

    def accuracies(self, architectures: list[Architecture], seeds: range) -> NDArray[np.float64]:
        """(seeds, N) shares of the test images classified correctly."""
        return np.array([[self.accuracy(item, seed) for item in architectures] for seed in seeds])

    def accuracy(self, architecture: Architecture, seed: int) -> float:
        """Share of the test images classified correctly, from weights and an order by `seed`."""
        return self._found(architecture, seed, {}, test_accuracy)

    def validation_accuracy(self, architecture: Architecture, seed: int) -> float:
        """The same of the validation images, for choosing by; test images are not read."""
        identity = {"part": "validation"}
        return self._found(
            architecture, seed, identity, lambda model, data: accuracy(model, data, data.validation)
        )

    def _found(
        self,
        architecture: Architecture,
        seed: int,
        part: dict[str, str],
        score: Callable[[TorchModel, Dataset], float],
    ) -> float:
        network = self.space.network(architecture)
        settings = replace(self.settings, seed=seed)
        known = {"network": network.key, "data": self.data.key, **asdict(settings), **part}
        identity = json.dumps(known)
        file = self.folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:24]}.json"
        if file.exists():
            return float(json.loads(file.read_text())["accuracy"])
        model = fresh_model(network, seed).to(self.device)
        retrain(model, self.data, settings)
        found = score(model, self.data)
        self.folder.mkdir(parents=True, exist_ok=True)
        written = file.with_suffix(".part")
        written.write_text(json.dumps({"of": identity, "accuracy": found}) + "\n")
        written.replace(file)
        return found
