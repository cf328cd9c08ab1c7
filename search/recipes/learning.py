"""Ways of training shared weights, each from a task to its weights and what they chose.

Options are those of the way's class in `search/trainers`, whose defaults are its paper's; a
checkpoint of other options is refused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...devices.errors import UsageError
from ..data import Dataset, divided, halves
from ..learning import Learn
from ..loading import BatchLoader
from ..relaxation import RelaxableSpace
from ..relaxed import RelaxedSupernet
from ..settings import TrainingSettings
from ..supernet import Supernet
from ..trainers.bi_sampling import HELD_OUT_SHARE, BiSampling
from ..trainers.bilevel import Bilevel
from ..trainers.controlled import Controlled
from ..trainers.joint import Joint
from ..trainers.path_dropout import PathDropout
from ..trainers.sandwich import Sandwich
from ..trainers.single_path import SinglePath
from ..trainers.supernet import SharedWeights, train_supernet
from .task import Shared, Task


def single_path(task: Task) -> Shared:
    """One uniformly drawn architecture a step (SPOS, Guo et al. 2019)."""
    supernet = Supernet(task.space, task.seed).to(task.device)
    _train(task, supernet, SinglePath(supernet), {})
    return Shared(supernet)


def sandwich(task: Task, **options: Any) -> Shared:
    """The largest, the smallest and random children a step (BigNAS, Yu et al. 2020).

    Options are `Sandwich`'s: with `distils=False` all learn from the labels. Residual blocks begin
    as the identity, and smaller kernels are the middle of the largest. The optimiser has no weight
    decay of its own, whatever the settings say: `Sandwich` has it.
    """
    supernet = Supernet(task.space, task.seed, zero_gamma=True, crops_kernels=True)
    supernet = supernet.to(task.device)
    _train(task, supernet, Sandwich(supernet, **options), options, weight_decay=0.0)
    return Shared(supernet)


def joint(task: Task, **options: Any) -> Shared:
    """Weights and policy in one run, towards the target (TuNAS, Bender et al. 2020).

    Options are `Joint`'s: `operation_warmup=0` and `filter_warmup=0` switch a warm-up off. Chosen
    is the policy's mode.
    """
    supernet = Supernet(task.space, task.seed).to(task.device)
    rule = Joint(supernet, task.data, task.cost, task.target_ms, **options)
    _train(task, supernet, rule, options)
    return Shared(supernet, rule.best())


def controlled(task: Task, **options: Any) -> Shared:
    """Weights and a recurrent controller in turns, towards the target (ENAS, Pham et al. 2018).

    Options are `Controlled`'s. Chosen is the most rewarded of some architectures that the
    controller samples in the end.
    """
    supernet = Supernet(task.space, task.seed).to(task.device)
    options = {"seed": task.seed, **options}
    rule = Controlled(supernet, task.data, task.cost, task.target_ms, **options)
    _train(task, supernet, rule, options)
    return Shared(supernet, rule.best())


def path_dropout(task: Task, **options: Any) -> Shared:
    """All candidates at once, ever more of them left out (One-Shot, Bender et al. 2018).

    Options are `PathDropout`'s. Batch norms are affine: no weight of a candidate is learned that a
    gain could undo.
    """
    supernet = _relaxed(task, affine=True)
    _train(task, supernet, PathDropout(supernet, **options), options)
    return Shared(supernet)


def bilevel(task: Task, **options: Any) -> Shared:
    """Weights on one half of the training images, the architecture on the other (DARTS).

    Options are `Bilevel`'s: `second_order=True` looks ahead, by the weights' own rate unless
    `ahead` is given (Liu et al. 2019). The cost plays no part. Chosen are the strongest candidates.
    """
    supernet = _relaxed(task)
    train, held_out = halves(task.data, task.settings.seed)
    loader = _held_out(held_out, task.settings)
    options = {"ahead": task.settings.learning_rate, "seed": task.seed, **options}
    rule = Bilevel(supernet, loader, **options)
    _train(task, supernet, rule, options, train)
    return Shared(supernet, rule.best())


def bi_sampling(task: Task, **options: Any) -> Shared:
    """Two paths a batch, operations and depths by gradients, towards the target (TF-NAS).

    Options are `BiSampling`'s (Hu et al. 2020). Chosen are the strongest operations and depths,
    with the widths that a `width_grid` has brought them to.
    """
    supernet = _relaxed(task)
    held_out, train = divided(task.data, HELD_OUT_SHARE, task.settings.seed)
    loader = _held_out(held_out, task.settings)
    rule = BiSampling(
        supernet, loader, task.block_cost_ms, task.target_ms, task.constant_ms, **options
    )
    _train(task, supernet, rule, {"target_ms": task.target_ms, **options}, train)
    return Shared(supernet, rule.best())


def _relaxed(task: Task, *, affine: bool = False) -> RelaxedSupernet:
    space = task.space
    if not isinstance(space, RelaxableSpace):
        raise UsageError(
            f"space {space.name} says nothing of mixtures and can't be relaxed, as this way of "
            "learning needs it: choose another space, or another way"
        )
    return RelaxedSupernet(space, task.seed, affine=affine).to(task.device)


def _held_out(data: Dataset, settings: TrainingSettings) -> BatchLoader:
    """Batches of held-out images, augmented as those that weights learn from."""
    return BatchLoader(
        data,
        settings.epochs,
        settings.batch_size,
        settings.seed,
        settings.shift,
        settings.flip,
        settings.label_smoothing,
        crop=settings.crop,
    )


def _train(
    task: Task,
    weights: SharedWeights,
    learn: Learn,
    options: dict[str, Any],
    data: Dataset | None = None,
    **changes: Any,
) -> None:
    """Train on `data`, the task's where it is not given, with the task's settings but `changes`."""
    train_supernet(
        weights,
        data or task.data,
        replace(task.settings, **changes),
        learn=learn,
        options=options,
        checkpoint=task.checkpoint,
        progress=task.progress,
        workers=task.workers,
    )
