"""What a search found, as a file: the report and whoever automates latkit read it.

Version 1 had one target, which `exactly` was aimed at, and no recipe.
"""

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
from .aim import AimKind, is_met
from .space import Architecture

KIND = "search_result"
VERSION = 2


@dataclass(frozen=True, slots=True)
class Finalist:
    """The architecture that one strategy ended with: trained, exported, measured.

    `kind` and `target_ms` are what it was searched for. `low_ms` to `high_ms` is the prediction's
    90 % interval, `measured_low_ms` to `measured_high_ms` the 95 % interval of the measured median
    of the exported file, which the search never saw: at the speed that the device usually had while
    its table was made, as the canary tells; `raw_ms` is what it took as the clock stood, `None`
    where older results don't tell. `searched_choices` had `supernet_accuracy`
    during the search, before widths were scaled; `corrections` counts how often the model was
    corrected by measurements on the way. `block_ms` are the blocks' shares of the prediction, in
    the network's order. Files are relative to the search's folder.
    """

    strategy: str
    kind: AimKind
    target_ms: float
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
    raw_ms: float | None = None

    @property
    def inside(self) -> bool:
        """Whether the measured latency lies inside the prediction's interval."""
        return self.low_ms <= self.measured_ms <= self.high_ms

    @property
    def meets_target(self) -> bool:
        """Whether the measured latency's interval agrees with what was searched for."""
        return is_met(self.kind, self.target_ms, self.measured_low_ms, self.measured_high_ms)

    @property
    def miss(self) -> float:
        """Measured latency over the target, less 1."""
        return self.measured_ms / self.target_ms - 1


@dataclass(frozen=True, slots=True)
class Target:
    """One latency that was searched for.

    `limit_ms` is the largest predicted latency that its strategies asked for, the prediction being
    `factor` times the table's in the last search. `logs` are the searches' evaluations, in order,
    relative to the search's folder: the first under the table's own prediction.
    """

    target_ms: float
    kind: AimKind
    limit_ms: float
    factor: float
    logs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A finished search.

    `finalists` has for each of `targets`, in their order, first the winner and then random
    search's, if that was run. `recipes.spaces.searched_space` makes its space again:
    `space_address` is what `load_space` takes, empty for the recipe's own, at that `scale`.
    `seconds` tells how long each step took in the process that finished it.
    """

    recipe: str
    space: str
    space_address: str
    scale: Mapping[str, Any]
    classes: tuple[str, ...]
    data: str
    targets: tuple[Target, ...]
    seed: int
    setup: Setup
    table_file: str
    store: str
    settings: Mapping[str, Any]
    finalists: tuple[Finalist, ...]
    seconds: Mapping[str, float]

    @property
    def target_ms(self) -> float:
        """The first target."""
        return self.targets[0].target_ms

    @property
    def limit_ms(self) -> float:
        """The largest predicted latency that strategies asked for, of the first target."""
        return self.targets[0].limit_ms

    @property
    def winners(self) -> tuple[Finalist, ...]:
        """The winner of each target."""
        return tuple(self.of(target)[0] for target in self.targets)

    def of(self, target: Target) -> tuple[Finalist, ...]:
        """A target's finalists, the winner first."""
        sought = (target.kind, target.target_ms)
        return tuple(item for item in self.finalists if (item.kind, item.target_ms) == sought)

    def save(self, path: Path) -> None:
        """Write the result as a latkit document (JSON)."""
        write_document(path, KIND, VERSION, json.loads(json.dumps(asdict(self))))

    @classmethod
    def load(cls, path: Path) -> SearchResult:
        """Read a result; `DamagedFileError` where it is damaged or newer than this latkit."""
        body = read_document(path, KIND, VERSION)
        try:
            if "targets" not in body:
                body = _of_version_1(body)
            return TypeAdapter(cls).validate_json(json.dumps(body))
        except (KeyError, TypeError, ValidationError) as error:
            raise DamagedFileError(
                f"{path} holds no valid search result: {error}. Run the search again."
            ) from error


def _of_version_1(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body as this version writes it."""
    found = dict(body)
    target_ms, limit_ms = found.pop("target_ms"), found.pop("limit_ms")
    target = Target(target_ms, "exactly", limit_ms, 1.0, ("search.jsonl",))
    finalists = [
        {
            **item,
            "kind": "exactly",
            "target_ms": target_ms,
            "onnx_file": f"{item['strategy']}/{item['onnx_file']}",
            "tflite_file": f"{item['strategy']}/{item['tflite_file']}",
        }
        for item in found["finalists"]
    ]
    return {**found, "recipe": "", "scale": {}, "targets": [asdict(target)], "finalists": finalists}
