"""Training a supernet's shared weights from the beginning to the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...devices.errors import UsageError
from ..data import Dataset
from ..learning import Learn
from ..relaxed import RelaxedSupernet
from ..settings import SUPERNET_SETTINGS, TrainingSettings
from ..supernet import Supernet
from ..training import Progress, Trainer, fingerprint
from .single_path import SinglePath

SharedWeights = Supernet | RelaxedSupernet
"""What holds the weights of all architectures of a space."""


def train_supernet(
    supernet: SharedWeights,
    data: Dataset,
    settings: TrainingSettings = SUPERNET_SETTINGS,
    *,
    learn: Learn | None = None,
    options: Mapping[str, Any] | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    workers: int = 1,
) -> None:
    """Train the shared weights, by default one uniformly drawn architecture a step (SPOS).

    Where the settings ask for an average, it ends with that. Goes on from `checkpoint` where that
    file exists; a finished one is taken as it is. One of another `learn`, or of other `options`,
    which say how that was made, is refused. `workers` threads read and augment images, which
    changes nothing in them. Raises `UsageError` for a relaxed supernet without a way to learn.
    """
    if learn is None:
        if isinstance(supernet, RelaxedSupernet):
            raise UsageError(
                "a relaxed supernet learns in no way by default: say which, as `PathDropout`"
            )
        learn = SinglePath(supernet)
    made = ", ".join(f"{name}={value}" for name, value in sorted((options or {}).items()))
    way = type(learn).__name__ + (f"({made})" if made else "")
    subject = (
        f"supernet of {supernet.space.name} with initial weights {fingerprint(supernet)}, by {way}"
    )
    trainer = Trainer(
        supernet, data, settings, subject=subject, checkpoint=checkpoint, workers=workers
    )
    trainer.run(learn, progress)
    trainer.take_average()
