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
from ..spaces.enas import enas_macro
from ..spaces.enas_micro import EnasMicroSpace
from ..spaces.nasbench201 import nasbench201
from ..spaces.nasnet import NasNetSpace
from ..spaces.nasrl import nasrl
from ..spaces.proxylessnas import proxylessnas
from ..spaces.scale import CHANNEL_MULTIPLE, PAPER, Scale
from ..spaces.shufflenet import shufflenet
from ..spaces.tfnas import tfnas
from ..trainers.bi_sampling import BI_SAMPLING_SETTINGS
from ..trainers.joint import tunas_settings
from .learning import (
    bi_sampling,
    bilevel,
    controlled,
    joint,
    path_dropout,
    sandwich,
    single_path,
)
from .recipe import Recipe
from .strategies import (
    coarse_to_fine,
    evolution,
    lstm_ppo,
    lstm_reinforce,
    random_search,
)


def darts_while_searching(classes: int = 10, scale: Scale = PAPER) -> DartsSpace:
    """DARTS's cells in the network that it searches with, of 8 cells and 16 channels.

    What is found is in `darts`, of 20 cells and 36 channels, by the same choices: that network is
    trained anew.
    """
    return DartsSpace(classes, scale, cells=8, channels=16)


def enas_micro_while_searching(classes: int = 10, scale: Scale = PAPER) -> EnasMicroSpace:
    """ENAS's cells in the network that it searches with, of 8 cells and 20 channels (recalled).

    What is found is in `enas_micro`, by the same choices, and is trained anew.
    """
    return EnasMicroSpace(classes, scale, cells=8, channels=20)


def nasnet_while_searching(classes: int = 10, scale: Scale = PAPER) -> NasNetSpace:
    """NASNet's cells in its small network, two cells between reductions (recalled).

    What is found is in `nasnet`, by the same choices, and is trained anew.
    """
    return NasNetSpace(classes, scale, cells=8, channels=32)


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

ENAS = Recipe(
    "enas",
    "ENAS, cells (Pham et al. 2018)",
    enas_micro_while_searching,
    TrainingSettings(
        150,
        160,
        learning_rate=0.05,
        schedule="cosine",
        warmup_share=0.0,
        floor_share=0.01,
        gradient_clip=5.0,
        weight_decay=1e-4,
        label_smoothing=0.0,
    ),
    controlled,
)
"""How its weights are trained is recalled; one cosine stands for its warm restarts, its momentum is
not Nesterov's here, and paths are not dropped."""

ENAS_MACRO = replace(
    ENAS,
    name="enas_macro",
    source="ENAS, whole networks (Pham et al. 2018)",
    space=enas_macro,
    settings=replace(
        ENAS.settings, epochs=310, batch_size=128, floor_share=0.02, weight_decay=2.5e-4
    ),
    train=partial(
        controlled,
        controller_steps=50,
        per_step=20,
        tanh_constant=1.5,
        learning_rate=0.001,
        skip_weight=0.8,
    ),
)

NASRL = Recipe(
    "nasrl",
    "NAS-RL (Zoph & Le 2017)",
    nasrl,
    TrainingSettings(
        50,
        128,
        learning_rate=0.1,
        warmup_share=0.0,
        floor_share=1.0,
        weight_decay=1e-4,
        label_smoothing=0.0,
    ),
    None,
    partial(
        lstm_reinforce,
        steps=1600,
        per_step=8,
        hidden=35,
        layers=2,
        tanh_constant=None,
        learning_rate=6e-4,
        baseline_decay=0.95,
        entropy_weight=0.0,
    ),
)
"""12,800 networks, each trained on its own at a constant rate. Numbers are recalled, the decay of
the baseline is ours. The paper cubes the accuracy that it rewards, counts the best of the last
epochs, and begins with few layers, adding two at a time."""

NASNET = Recipe(
    "nasnet",
    "NASNet (Zoph et al. 2018)",
    nasnet_while_searching,
    TrainingSettings(
        20,
        64,
        learning_rate=0.025,
        schedule="cosine",
        warmup_share=0.0,
        gradient_clip=5.0,
        weight_decay=1e-4,
        label_smoothing=0.0,
    ),
    None,
    partial(lstm_ppo, steps=1000, per_step=20),
)
"""20,000 networks, each trained on its own for 20 epochs (recalled); their other settings are ours,
and the paper's paths that are dropped are not."""

RECIPES = {
    recipe.name: recipe
    for recipe in (
        SPOS,
        TUNAS,
        BIGNAS,
        TFNAS,
        DARTS,
        DARTS_SECOND_ORDER,
        ONE_SHOT,
        ENAS,
        ENAS_MACRO,
        NASRL,
        NASNET,
    )
}
