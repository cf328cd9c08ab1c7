"""The papers' recipes: space, training settings, way of learning and strategy of each.

Rates, decays and schedules are as `TrainingSettings` and the classes in `search/trainers` cite
them. Numbers of epochs and sizes of batches are recalled, not checked, and those of One-Shot are
ours. They are of ImageNet, or CIFAR-10 where the space is: small images and few of them want
other settings. Flips are off, for not all images may be mirrored.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..settings import TrainingSettings
from ..spaces.bignas import bignas
from ..spaces.darts import DartsSpace
from ..spaces.nasbench201 import nasbench201
from ..spaces.proxylessnas import proxylessnas
from ..spaces.scale import CHANNEL_MULTIPLE, PAPER, Scale
from ..spaces.shufflenet import shufflenet
from ..spaces.tfnas import tfnas
from ..trainers.bi_sampling import BI_SAMPLING_SETTINGS
from ..trainers.joint import tunas_settings
from .learning import bi_sampling, bilevel, joint, path_dropout, sandwich, single_path
from .recipe import Recipe
from .strategies import coarse_to_fine, evolution, random_search


def darts_while_searching(classes: int = 10, scale: Scale = PAPER) -> DartsSpace:
    """DARTS's cells in the network that it searches with, of 8 cells and 16 channels.

    What is found is in `darts`, of 20 cells and 36 channels, by the same choices: that network is
    trained anew.
    """
    return DartsSpace(classes, scale, cells=8, channels=16)


SPOS = Recipe(
    "spos",
    "Single Path One-Shot (Guo et al. 2019)",
    shufflenet,
    TrainingSettings(120, 1024, learning_rate=0.5, schedule="linear", warmup_share=0.0),
    single_path,
    evolution,
)

TUNAS = Recipe(
    "tunas",
    "TuNAS (Bender et al. 2020)",
    proxylessnas,
    tunas_settings(epochs=90, batch_size=4096),
    joint,
)
"""The policy's mode stands: the reward pulls it to the target, from both sides."""

BIGNAS = Recipe(
    "bignas",
    "BigNAS (Yu et al. 2020)",
    bignas,
    TrainingSettings(
        360,
        4096,
        learning_rate=0.256,
        schedule="exponential",
        warmup_share=5 / 360,
        floor_share=0.05,
        optimiser="rmsprop",
        weight_decay=0.0,
    ),
    sandwich,
    coarse_to_fine,
)
"""Its optimiser, rate and warm-up are recalled, not checked. The largest child alone has decay."""

TFNAS = Recipe(
    "tfnas",
    "TF-NAS (Hu et al. 2020)",
    tfnas,
    BI_SAMPLING_SETTINGS,
    partial(bi_sampling, width_grid=CHANNEL_MULTIPLE),
    width_grid=CHANNEL_MULTIPLE,
)
"""Widths are scaled after each epoch, and at the end; their grid is ours."""

DARTS = Recipe(
    "darts",
    "DARTS, first order (Liu et al. 2019)",
    darts_while_searching,
    TrainingSettings(
        50,
        64,
        learning_rate=0.025,
        schedule="cosine",
        warmup_share=0.0,
        floor_share=0.04,
        gradient_clip=5.0,
        weight_decay=3e-4,
        label_smoothing=0.0,
    ),
    bilevel,
)
"""It knows nothing of the target: what it finds may be above."""

DARTS_SECOND_ORDER = replace(
    DARTS,
    name="darts_second_order",
    source="DARTS, second order (Liu et al. 2019)",
    train=partial(bilevel, second_order=True),
)

ONE_SHOT = Recipe(
    "oneshot",
    "Understanding One-Shot (Bender et al. 2018)",
    nasbench201,
    TrainingSettings(100, 64, learning_rate=0.1, schedule="cosine"),
    path_dropout,
    random_search,
)
"""The paper has a space of its own; NAS-Bench-201's, rates and the search's 1,000 evaluations are
our choice."""

RECIPES = {
    recipe.name: recipe
    for recipe in (SPOS, TUNAS, BIGNAS, TFNAS, DARTS, DARTS_SECOND_ORDER, ONE_SHOT)
}
