"""From a chosen architecture to a finalist: trained on its own, exported, measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..devices.convert import SUFFIXES
from ..devices.device import Setup
from ..devices.measurement import Measurement
from ..latency.counts import network_counts
from ..latency.one_speed import at_speed
from ..latency.table import LatencyTable
from .aim import Aim
from .correcting import Chosen
from .export import Exported
from .result import Finalist
from .retraining import Retrained
from .space import Architecture, SearchSpace


@dataclass(frozen=True, slots=True)
class Landed:
    """What one strategy ended with for one aim: `architecture` is `chosen`'s, or that scaled.

    `corrections` counts how often the model was corrected on the way. Its files are in `folder`.
    """

    strategy: str
    aim: Aim
    chosen: Chosen
    architecture: Architecture
    corrections: int
    folder: Path


@dataclass(frozen=True, slots=True)
class Trained:
    """A finalist's network, trained on its own and exported."""

    landed: Landed
    retrained: Retrained
    exported: Exported
    test_accuracy: float

    def file(self, setup: Setup) -> Path:
        """The file that the setup's runtime takes."""
        litert = SUFFIXES[setup.runtime] == ".tflite"
        return self.exported.tflite if litert else self.exported.onnx


def finalist(
    trained: Trained,
    measured: Measurement,
    usual_canary_ns: float | None,
    space: SearchSpace,
    table: LatencyTable,
    folder: Path,
) -> Finalist:
    """All that is told of a finalist; its files relative to the search's `folder`."""
    at_usual = at_speed(measured, usual_canary_ns)
    landed, chosen = trained.landed, trained.landed.chosen
    network = space.network(landed.architecture)
    predicted = table.network(network)
    counts = network_counts(network)
    return Finalist(
        strategy=landed.strategy,
        kind=landed.aim.kind,
        target_ms=landed.aim.target_ms,
        architecture=landed.architecture,
        description=space.describe(landed.architecture.choices),
        searched_choices=chosen.architecture.choices,
        searched_ms=chosen.predicted_ms,
        supernet_accuracy=chosen.accuracy,
        evaluations=chosen.evaluations,
        corrections=landed.corrections,
        predicted_ms=predicted.latency_ms,
        low_ms=predicted.low_ms,
        high_ms=predicted.high_ms,
        prediction_source=predicted.source,
        measured_ms=at_usual.median_ms,
        measured_low_ms=at_usual.low_ms,
        measured_high_ms=at_usual.high_ms,
        raw_ms=measured.median_ms,
        verdict=measured.verdict.kind,
        verdict_reasons=measured.verdict.reasons,
        validation_accuracy=trained.retrained.validation_accuracy,
        test_accuracy=trained.test_accuracy,
        flops=counts.flops,
        parameters=counts.parameters,
        block_ms=tuple(table.block_cost_ms(block) for block in network.blocks),
        onnx_file=str(trained.exported.onnx.relative_to(folder)),
        tflite_file=str(trained.exported.tflite.relative_to(folder)),
    )
