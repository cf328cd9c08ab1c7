"""What a search found, as a file: the report and whoever automates latkit read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from ..devices.device import Setup
from ..devices.errors import DamagedFileError
from ..latency.document import read_document, write_document
from .space import Architecture

KIND = "search_result"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Finalist:
    """The architecture that one strategy ended with: scaled, trained, exported, measured.

    `low_ms` to `high_ms` is the prediction's 90 % interval, `measured_low_ms` to
    `measured_high_ms` the 95 % interval of the measured median of the exported file.
    `searched_choices` were scored with the supernet's weights (`supernet_accuracy`) before widths
    were scaled; `corrections` counts how often scaling was repeated after a measurement.
    `block_ms` are the blocks' shares of the prediction, in the network's order.
    """

    strategy: str
    architecture: Architecture
    description: str
    searched_choices: tuple[int, ...]
    searched_ms: float
    supernet_accuracy: float
    evaluations: int
    corrections: int
    predicted_ms: float
    low_ms: float
    high_ms: float
    prediction_source: str
    measured_ms: float
    measured_low_ms: float
    measured_high_ms: float
    verdict: Literal["stable", "noisy", "throttled"]
    verdict_reasons: tuple[str, ...]
    validation_accuracy: float
    test_accuracy: float
    flops: int
    parameters: int
    block_ms: tuple[float, ...]
    onnx_file: str
    tflite_file: str

    @property
    def inside(self) -> bool:
        """Whether the measured latency lies inside the prediction's interval."""
        return self.low_ms <= self.measured_ms <= self.high_ms


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A finished search; the first of `finalists` is the winner, the second random search's.

    `space_address` is what `load_space` takes, `limit_ms` the largest predicted latency that the
    strategies asked for. `seconds` tells how long each step took in the process that finished it.
    """

    space: str
    space_address: str
    classes: tuple[str, ...]
    data: str
    target_ms: float
    limit_ms: float
    seed: int
    setup: Setup
    table_file: str
    store: str
    settings: Mapping[str, Any]
    finalists: tuple[Finalist, ...]
    seconds: Mapping[str, float]

    def save(self, path: Path) -> None:
        """Write the result as a latkit document (JSON)."""
        write_document(path, KIND, VERSION, json.loads(json.dumps(asdict(self))))

    @classmethod
    def load(cls, path: Path) -> SearchResult:
        """Read a result; `DamagedFileError` where it is damaged or newer than this latkit."""
        body = read_document(path, KIND, VERSION)
        try:
            return TypeAdapter(cls).validate_json(json.dumps(body))
        except ValidationError as error:
            raise DamagedFileError(
                f"{path} holds no valid search result: {error}. Run the search again."
            ) from error
