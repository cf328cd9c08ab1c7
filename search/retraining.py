"""Training a winner to the end, on its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..latency.network import Network
from ..latency.torch_model import TorchModel
from .data import Dataset
from .initialisation import initialise
from .learning import learn
from .recalibration import accuracy
from .settings import TrainingSettings
from .training import Progress, Trainer, fingerprint


@dataclass(frozen=True, slots=True, eq=False)
class Retrained:
    """A network trained on its own, in evaluation mode, and its accuracy on validation images."""

    model: TorchModel
    validation_accuracy: float


def fresh_model(network: Network, seed: int = 0) -> TorchModel:
    """The network with random weights, drawn by `seed` as a supernet's are."""
    model = TorchModel(network)
    random = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            initialise(module.weight, random)
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
    return model


def retrain(
    model: TorchModel,
    data: Dataset,
    settings: TrainingSettings,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    workers: int = 1,
) -> Retrained:
    """Train a network on its own, from the weights that it has; changes `model`.

    Where the settings ask for an average, it ends with that. The network is not compiled: on a
    CPU, a step that `torch.compile` had made took 1.2 times as long as one without, and the first
    one half a minute.

    The weights are a supernet's (`SupernetEvaluator.calibrated`) or fresh ones (`fresh_model`).
    Goes on from `checkpoint` where that file exists, given the same initial weights. `workers`
    threads read and augment images. Test images play no part: see `test_accuracy`.
    """
    subject = f"network with initial weights {fingerprint(model)}"
    trainer = Trainer(
        model, data, settings, subject=subject, checkpoint=checkpoint, workers=workers
    )
    trainer.run(lambda batch: learn(batch.loss(model(batch.inputs))), progress)
    trainer.take_average()
    return Retrained(model, accuracy(model, data, data.validation))


def test_accuracy(model: TorchModel, data: Dataset) -> float:
    """Share of the test images classified correctly: the final number, asked for once."""
    return accuracy(model, data, data.test)
