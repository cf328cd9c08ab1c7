"""Calibration: what turns the sum of isolated blocks into the latency of a whole network.

Blocks timed alone differ from the same blocks inside a network, in ways that add up block by
block: caches are warmer or colder, each isolated call has its own overhead, and a runtime may
reorder a block's input and output at its boundaries. So

    network = constant + sum over timed blocks of
              (scale * median + a * weight bytes + b * boundary bytes + c)

and which of these terms are real on a device and runtime is decided on a few measured networks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..devices.errors import UsageError
from .blocks import Block
from .network import block_graph
from .onnx_model import parameter_shapes

Term = Literal["scale", "constant", "weight_bytes", "boundary_bytes", "blocks"]
TERMS: tuple[Term, ...] = get_args(Term)

FEWEST_NETWORKS = 3
"""Measured networks that a calibration needs."""

NEEDED_GAIN = 0.1
"""A term is kept where it lowers the leave-one-out error by at least this share."""

PRIOR_SHARE = 0.3
"""How far, as a share of a network's latency, a term may plausibly move the plain sum."""

RESIDUAL_SHARE = 0.02
"""The relative error that is expected to be left; with `PRIOR_SHARE` it sets the ridge."""

COVERAGE = 0.9
"""Share of networks whose latency shall lie inside the interval of their estimate."""

FEWEST_INTERVAL_NETWORKS = math.ceil(COVERAGE / (1 - COVERAGE) - 1e-9)
"""Random networks below which none of their errors is a quantile of order `COVERAGE`."""

LEAST_SHARE = 0.05
"""Share of its isolated median that every block costs at least, whatever is subtracted from it."""

EXACT_WEIGHT = 1e3
"""Weight of what a fit shall meet exactly, where a network's is 1."""

EXACT_SLACK = 0.01
"""Share by which it may be missed."""

_SIGNS: Mapping[Term, int] = {"constant": 1, "boundary_bytes": -1, "blocks": -1}
"""Signs that physics gives: isolated calls and reorders at boundaries are counted too often, never
too rarely. Weights may be colder in a network (caches left warm) or warmer (caches evicted)."""


@dataclass(frozen=True, slots=True)
class BlockTerms:
    """What a timed block contributes: its isolated median, and bytes of weights and boundaries."""

    median_ms: float
    weight_bytes: int
    boundary_bytes: int


@dataclass(frozen=True, slots=True)
class PredictionError:
    """How far predicted latencies are from measured ones, relative to the measured ones.

    `bias` is the mean of predicted / measured - 1, `rmspe` the root of the mean square of the
    same, `within_5` and `within_10` the shares of networks that are off by at most 5 and 10 %,
    `spearman` the rank correlation (`None` where fewer than 3 differ), `inside` the share of
    networks inside the interval of their estimate, where there was one.
    """

    networks: int
    bias: float
    rmspe: float
    within_5: float
    within_10: float
    spearman: float | None
    inside: float | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """Coefficients from isolated blocks to networks, and how well they do.

    `leave_one_out` is the error on each calibration network when fitted on the others, `plain`
    the error of the plain sum on the same networks, `held_out` the error on networks that took no
    part (`None` until `evaluate`). `interval_share` is the half width of a network's interval,
    relative to its estimate: from `interval_networks` random ones (`with_interval`), or, where
    those are 0, from `residuals`: measured / predicted - 1 of each calibration network, left out.
    As constructed without arguments: plain sums, of unknown error.
    """

    scale: float = 1.0
    constant_ms: float = 0.0
    per_weight_byte_ms: float = 0.0
    per_boundary_byte_ms: float = 0.0
    per_block_ms: float = 0.0
    terms: tuple[Term, ...] = ("scale",)
    networks: int = 0
    interval_share: float = 1.0
    interval_networks: int = 0
    plain: PredictionError | None = None
    leave_one_out: PredictionError | None = None
    held_out: PredictionError | None = None
    residuals: tuple[float, ...] = ()

    def cost_ms(self, terms: BlockTerms) -> float:
        """Share of a network's latency that one timed block brings."""
        return (
            self.scale * terms.median_ms
            + self.per_weight_byte_ms * terms.weight_bytes
            + self.per_boundary_byte_ms * terms.boundary_bytes
            + self.per_block_ms
        )

    def network_ms(self, blocks: Sequence[BlockTerms]) -> float:
        """Latency of the network made of these timed blocks."""
        return sum(self.cost_ms(block) for block in blocks) + self.constant_ms

    def interval_ms(self, latency_ms: float) -> tuple[float, float]:
        """Where the network's latency lies with probability `COVERAGE`."""
        return (
            max(0.0, latency_ms * (1 - self.interval_share)),
            latency_ms * (1 + self.interval_share),
        )

    def with_interval(
        self, networks: Sequence[Sequence[BlockTerms]], measured_ms: Sequence[float]
    ) -> Calibration:
        """The same calibration, as wide as these random networks, of no other use, make it.

        Calibration networks are chosen, and coefficients and eviction size are by them. With
        fewer than `FEWEST_INTERVAL_NETWORKS` it stays as it is.
        """
        if len(networks) < FEWEST_INTERVAL_NETWORKS:
            return self
        predicted = np.array([self.network_ms(blocks) for blocks in networks])
        share = conformal_share(np.array(measured_ms) / predicted - 1)
        return replace(self, interval_share=share, interval_networks=len(networks))

    def evaluate(
        self, networks: Sequence[Sequence[BlockTerms]], measured_ms: Sequence[float]
    ) -> Calibration:
        """The same calibration with its error on these held-out networks recorded."""
        predicted = [self.network_ms(blocks) for blocks in networks]
        inside = [
            low <= measured <= high
            for (low, high), measured in zip(
                map(self.interval_ms, predicted), measured_ms, strict=True
            )
        ]
        error = prediction_error(predicted, measured_ms)
        return replace(self, held_out=replace(error, inside=float(np.mean(inside))))


def is_timed(block: Block) -> bool:
    """Whether the block has any operation; an identity costs 0 and is never timed."""
    return _bytes(block) is not None


def block_terms(block: Block, median_ms: float) -> BlockTerms:
    """The terms of a timed block whose isolated median is known."""
    sizes = _bytes(block)
    if sizes is None:
        raise UsageError(f"{block} has no operation, so it has no latency to calibrate")
    return BlockTerms(median_ms, *sizes)


@lru_cache(maxsize=100_000)
def _bytes(block: Block) -> tuple[int, int] | None:
    """Bytes of weights, and of input plus output, as float32; `None` for an identity."""
    graph = block_graph(block)
    if not graph.nodes:
        return None
    weights = sum(math.prod(shape) for shape in parameter_shapes(graph).values())
    boundary = sum(math.prod(shape) for shape in (*block.input_shapes, block.output_shape))
    return 4 * weights, 4 * boundary


def prediction_error(
    predicted_ms: Sequence[float] | NDArray[np.float64],
    measured_ms: Sequence[float] | NDArray[np.float64],
) -> PredictionError:
    """Relative error of predicted latencies; `UsageError` where there is nothing to compare."""
    predicted = np.asarray(predicted_ms, dtype=float)
    measured = np.asarray(measured_ms, dtype=float)
    if predicted.size == 0 or predicted.shape != measured.shape:
        raise UsageError("an error needs as many predicted as measured latencies, and at least one")
    off = predicted / measured - 1
    ranked = predicted.size >= 3 and np.ptp(predicted) > 0 and np.ptp(measured) > 0
    return PredictionError(
        networks=predicted.size,
        bias=float(off.mean()),
        rmspe=float(np.sqrt(np.mean(off**2))),
        within_5=float(np.mean(np.abs(off) <= 0.05)),
        within_10=float(np.mean(np.abs(off) <= 0.10)),
        spearman=float(stats.spearmanr(predicted, measured)[0]) if ranked else None,
    )


def fit_relative(
    columns: NDArray[np.float64],
    measured: NDArray[np.float64],
    prior: NDArray[np.float64] | None = None,
    exact: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> NDArray[np.float64]:
    """Coefficients of `columns` (N, K) that minimise the sum of squared *relative* errors.

    With a `prior`, a ridge pulls the coefficients towards it: columns are scaled to a network's
    latency, so that `RESIDUAL_SHARE / PRIOR_SHARE` means the same for bytes, calls and ms.
    `exact` are rows (H, K) and the values that they shall have all but exactly.
    """
    rows = columns / measured[:, None]
    size = np.sqrt(np.mean(rows**2, axis=0))
    size[size == 0] = 1.0
    rows, target = rows / size, np.ones(len(measured))
    if prior is not None:
        ridge = RESIDUAL_SHARE / PRIOR_SHARE
        rows = np.vstack([rows, ridge * np.eye(len(size))])
        target = np.concatenate([target, ridge * prior * size])
    if exact is not None:
        rows = np.vstack([rows, EXACT_WEIGHT * exact[0] / exact[1][:, None] / size])
        target = np.concatenate([target, np.full(len(exact[1]), EXACT_WEIGHT)])
    return np.asarray(np.linalg.lstsq(rows, target, rcond=None)[0] / size)


def calibrate(
    networks: Sequence[Sequence[BlockTerms]], measured_ms: Sequence[float]
) -> Calibration:
    """Fit a calibration to measured networks, given the timed blocks of each.

    Starts from `scale` alone, and adds, one at a time, the term that lowers the leave-one-out
    error most, while it lowers it by `NEEDED_GAIN`. Every coefficient has the sign that physics
    gives it, and every block costs at least `LEAST_SHARE` of its isolated median. Raises
    `UsageError` for fewer than `FEWEST_NETWORKS`.
    """
    if len(networks) < FEWEST_NETWORKS or len(networks) != len(measured_ms):
        raise UsageError(
            f"a calibration needs at least {FEWEST_NETWORKS} measured networks, and one latency "
            f"for each; {len(networks)} networks and {len(measured_ms)} latencies are given. "
            "Profile more calibration networks."
        )
    measured = np.array(measured_ms, dtype=float)
    totals = np.array([_totals(blocks) for blocks in networks])
    distinct = sorted({_values(block) for blocks in networks for block in blocks})
    fit = _Fit(totals, np.array(distinct), measured)
    best = fit.calibration(("scale",))
    while len(best.terms) < min(len(TERMS), len(networks) - 2):
        trials = [fit.calibration((*best.terms, term)) for term in TERMS if term not in best.terms]
        found = min(trials, key=_loo_rmspe)
        if _loo_rmspe(found) > (1 - NEEDED_GAIN) * _loo_rmspe(best):
            break
        best = found
    return replace(best, plain=prediction_error(totals[:, TERMS.index("scale")], measured))


def _values(block: BlockTerms) -> tuple[float, ...]:
    """What one block adds to each term, in the order of `TERMS`."""
    return (block.median_ms, 0.0, block.weight_bytes, block.boundary_bytes, 1.0)


def _totals(blocks: Sequence[BlockTerms]) -> NDArray[np.float64]:
    """A network's total of each term, in the order of `TERMS`."""
    totals = np.array([_values(block) for block in blocks]).sum(axis=0)
    totals[TERMS.index("constant")] = 1.0
    return np.asarray(totals)


@dataclass(frozen=True, slots=True)
class _Fit:
    """Totals of each network (N, terms), distinct blocks (M, terms), measured latencies (N,)."""

    totals: NDArray[np.float64]
    blocks: NDArray[np.float64]
    measured: NDArray[np.float64]

    def calibration(self, terms: tuple[Term, ...]) -> Calibration:
        """The calibration by these terms, with its leave-one-out error."""
        everyone = np.ones(len(self.measured), dtype=bool)
        predicted = np.empty_like(self.measured)
        for index in range(len(self.measured)):
            others = everyone.copy()
            others[index] = False
            columns = [TERMS.index(term) for term in terms]
            predicted[index] = self.totals[index, columns] @ self._coefficients(terms, others)
        found = dict(zip(terms, map(float, self._coefficients(terms, everyone)), strict=True))
        residuals = self.measured / predicted - 1
        return Calibration(
            scale=found["scale"],
            constant_ms=found.get("constant", 0.0),
            per_weight_byte_ms=found.get("weight_bytes", 0.0),
            per_boundary_byte_ms=found.get("boundary_bytes", 0.0),
            per_block_ms=found.get("blocks", 0.0),
            terms=terms,
            networks=len(self.measured),
            interval_share=conformal_share(residuals),
            leave_one_out=prediction_error(predicted, self.measured),
            residuals=tuple(map(float, residuals)),
        )

    def _coefficients(
        self, terms: tuple[Term, ...], networks: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Coefficients of `terms` fitted on some networks, within physics.

        A coefficient of the wrong sign is set to 0 and the others are fitted again; where a
        block would cost too little, the most extreme one is held at its least cost.
        """
        columns = [TERMS.index(term) for term in terms]
        prior = np.array([1.0 if term == "scale" else 0.0 for term in terms])
        least = LEAST_SHARE * self.blocks[:, TERMS.index("scale")]
        free = np.ones(len(terms), dtype=bool)
        held = np.zeros(len(self.blocks), dtype=bool)
        found = np.zeros(len(terms))
        for _ in range(3 * len(terms)):
            used = [column for column, is_free in zip(columns, free, strict=True) if is_free]
            found = np.zeros(len(terms))
            found[free] = fit_relative(
                self.totals[networks][:, used],
                self.measured[networks],
                prior[free],
                (self.blocks[held][:, used], least[held]),
            )
            wrong = [found[index] * _SIGNS.get(term, 0) < 0 for index, term in enumerate(terms)]
            if any(wrong):
                free &= ~np.array(wrong)
                continue
            slack = (self.blocks[:, columns] @ found - least) / least
            if slack.min() > -EXACT_SLACK:
                break
            held[slack.argmin()] = True
        return found


def _loo_rmspe(calibration: Calibration) -> float:
    assert calibration.leave_one_out is not None
    return calibration.leave_one_out.rmspe


def conformal_share(residuals: Sequence[float] | NDArray[np.float64]) -> float:
    """Half width, as a share, that covers a new network with probability `COVERAGE`.

    The conformal quantile of the left-out residuals (Vovk et al. 2005; Lei et al. 2018); where
    there are too few of them to have one, Student's t on their root mean square.
    """
    sizes = np.sort(np.abs(np.asarray(residuals, dtype=float)))
    rank = math.ceil((len(sizes) + 1) * COVERAGE)
    if rank <= len(sizes):
        return float(sizes[rank - 1])
    quantile = float(stats.t.ppf((1 + COVERAGE) / 2, max(1, len(sizes) - 1)))
    return max(float(sizes[-1]), quantile * float(np.sqrt(np.mean(sizes**2))))
