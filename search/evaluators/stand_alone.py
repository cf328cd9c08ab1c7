"""Accuracy of architectures whose networks are each trained on their own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ...devices.errors import DamagedFileError, LatkitError
from ...latency.document import read_document, write_document
from ..data import Dataset
from ..distributed import replicas
from ..retraining import fresh_model, retrain
from ..settings import TrainingSettings
from ..space import Architecture, SearchSpace
from ..training import Progress

RESULT_VERSION = 1


class StandAlone:
    """Validation accuracy of a network at the end of a training of its own, from fresh weights.

    The weights are drawn by `seed`, the order of images by the settings' own seed. With a `folder`
    a result is kept there as a small JSON file, and so is a checkpoint while a network trains: a
    killed run goes on from it. A result is found again only for the same network, images,
    settings, seed, kind of device, number of torch's threads, and versions. `device` is as torch
    calls it; `workers` threads read and augment images. Test images play no part.
    """

    def __init__(
        self,
        space: SearchSpace,
        data: Dataset,
        settings: TrainingSettings,
        *,
        seed: int = 0,
        folder: Path | None = None,
        device: str = "cpu",
        workers: int = 1,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._space = space
        self._data = data
        self._settings = settings
        self._seed = seed
        self._folder = folder
        self._device = torch.device(device)
        self._workers = workers
        self._progress = progress

    def accuracy(self, architecture: Architecture) -> float:
        """Share of the validation images classified correctly, 0 to 1.

        Raises `LatkitError` naming the architecture where its training diverges.
        """
        identity = self._identity(architecture)
        if self._folder is None:
            return self._trained(architecture, None)
        text = json.dumps(identity, sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:24]
        file = self._folder / f"{name}.json"
        if file.exists():
            return _read(file)
        checkpoint = self._folder / f"{name}.checkpoint"
        found = self._trained(architecture, checkpoint)
        body = {"identity": identity, "validation_accuracy": found}
        write_document(file, "stand_alone_accuracy", RESULT_VERSION, body)
        checkpoint.unlink(missing_ok=True)
        return found

    def _trained(self, architecture: Architecture, checkpoint: Path | None) -> float:
        model = fresh_model(self._space.network(architecture), self._seed).to(self._device)
        try:
            return retrain(
                model,
                self._data,
                self._settings,
                checkpoint=checkpoint,
                progress=self._progress,
                workers=self._workers,
            ).validation_accuracy
        except LatkitError as error:
            if type(error) is not LatkitError:
                raise  # of a file or setting, which it names
            described = self._space.describe(architecture.choices)
            raise LatkitError(f"architecture {architecture} ({described}): {error}") from error

    def _identity(self, architecture: Architecture) -> dict[str, Any]:
        """All that the accuracy depends on, as plain JSON values."""
        on_cpu = self._device.type == "cpu"
        return {
            "space": self._space.name,
            "network": self._space.network(architecture).key,
            "data": self._data.key,
            "settings": asdict(self._settings),
            "seed": self._seed,
            "device": self._device.type,
            "threads": torch.get_num_threads() if on_cpu else None,
            "processes": replicas(),
            "versions": {name: version(name) for name in ("latkit", "numpy", "torch")},
        }


def _read(file: Path) -> float:
    body = read_document(file, "stand_alone_accuracy", RESULT_VERSION)
    try:
        return float(body["validation_accuracy"])
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(
            f"{file} holds no accuracy. Delete it: the network is then trained again."
        ) from error
