"""Cost of architectures by a predictor: sums of its blocks' predictions, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

from .blocks import Block
from .cost import CostModel, lay_out
from .predictor import COVERAGE, LatencyPredictor
from .pricing import CalledCost, PricedSpace


def predicted_cost(space: PricedSpace, predictor: LatencyPredictor) -> CostModel:
    """Latency of architectures as plain sums of predicted blocks, not calibrated.

    Its minimum is exact for the sums, and a prediction all the same: a target that is refused is
    refused with the interval of the fastest architecture, and the latency that no interval of the
    space begins below. Intervals are sums of the blocks', as if all erred to the same side.
    """
    if not space.is_additive:
        return CalledCost(
            space,
            lambda block: float(predictor.predict([block])[0]),
            certainty=lambda choices: _interval(predictor, space.blocks_of(choices)),
        )
    pieces = space.factors()
    blocks = list(dict.fromkeys(block for piece in pieces for block in piece.blocks if block))
    latency_ms = dict(zip(blocks, predictor.predict(blocks).tolist(), strict=True))

    def certainty(choices: tuple[int, ...]) -> str:
        starts = predictor.predict_interval(blocks)[0].tolist()
        lowest = lay_out(space, dict(zip(blocks, starts, strict=True)).__getitem__).minimum()[0]
        return (
            f"{_interval(predictor, space.blocks_of(choices))}"
            f"No architecture's begins below {lowest:.6g} ms. "
        )

    laid = lay_out(space, latency_ms.__getitem__)
    return CostModel(
        laid.option_counts, laid.factors, laid.constant, laid.describe, certainty=certainty
    )


def _interval(predictor: LatencyPredictor, blocks: Sequence[Block]) -> str:
    low, high = predictor.predict_interval(blocks)
    return (
        f"That is predicted: the {COVERAGE:.0%} intervals of its blocks add up to "
        f"{low.sum():.6g} to {high.sum():.6g} ms. "
    )
