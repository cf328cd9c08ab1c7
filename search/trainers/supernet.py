"""Training a supernet's shared weights from the beginning to the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..data import Dataset
from ..learning import Learn
from ..settings import SUPERNET_SETTINGS, TrainingSettings
from ..supernet import Supernet
from ..training import Progress, Trainer, fingerprint
from .single_path import SinglePath


def train_supernet(
    supernet: Supernet,
    data: Dataset,
    settings: TrainingSettings = SUPERNET_SETTINGS,
    *,
    learn: Learn | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> None:
    """Train the shared weights, by default one uniformly drawn architecture a step (SPOS).

    Goes on from `checkpoint` where that file exists; a finished one is taken as it is.
    """
    learn = SinglePath(supernet) if learn is None else learn
    way = type(learn).__name__
    subject = (
        f"supernet of {supernet.space.name} with initial weights {fingerprint(supernet)}, by {way}"
    )
    trainer = Trainer(supernet, data, settings, subject=subject, checkpoint=checkpoint)
    trainer.run(learn, progress)
