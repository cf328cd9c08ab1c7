"""How much is trained and evaluated in each comparison."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SposSetting:
    """`population` times `rounds` evaluations are made by the evolution, and as many at random."""

    seeds: int
    supernet_epochs: int
    population: int
    rounds: int
    parents: int


@dataclass(frozen=True, slots=True)
class TunasSetting:
    """Random search trains `candidates` architectures for `candidate_epochs` each.

    `policy_rate` is TuNAS's rate of 3e-4, raised as its steps are fewer than the paper's.
    """

    seeds: int
    supernet_epochs: int
    policy_rate: float
    candidates: int
    candidate_epochs: int


@dataclass(frozen=True, slots=True)
class Setting:
    """`size` is the spaces', `images` all training and validation images, `epochs` the winners'."""

    size: str
    images: int
    batch_size: int
    learning_rate: float
    epochs: int
    spos: SposSetting
    tunas: TunasSetting


SETTINGS = {
    "smoke": Setting(
        "small",
        4_000,
        64,
        0.1,
        10,
        SposSetting(seeds=5, supernet_epochs=10, population=20, rounds=5, parents=4),
        TunasSetting(
            seeds=3, supernet_epochs=10, policy_rate=1e-2, candidates=6, candidate_epochs=4
        ),
    ),
    "full": Setting(
        "large",
        50_000,
        256,
        0.2,
        30,
        SposSetting(seeds=5, supernet_epochs=60, population=20, rounds=10, parents=4),
        TunasSetting(
            seeds=3, supernet_epochs=60, policy_rate=3e-3, candidates=12, candidate_epochs=10
        ),
    ),
}
"""SPOS's evolution keeps a fifth of its population as parents, as in the paper."""
