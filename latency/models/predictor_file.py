"""The file of a model predictor: numbers and names, checked as they are read."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...devices.device import Setup
from ...devices.errors import DamagedFileError
from ..calibration import PredictionError
from ..document import read_document, write_document
from ..hybrid import PhysicalModel
from ..predictor_file import ProcessBody
from .calibration import RoughEstimate, WholeCalibration
from .kernel_model import KernelModel
from .kernel_predictor import Family, KernelPredictor

if TYPE_CHECKING:
    from .predictor import ModelPredictor

KIND = "model_predictor"
VERSION = 1

Number = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FamilyBody(_Body):
    """The model of one family; `coefficients` are ms for one unit of each amount of work."""

    coefficients: dict[str, NotNegative]
    process: ProcessBody | None
    kernels: Annotated[int, Field(ge=1)]
    half_width: NotNegative
    ranges: dict[str, tuple[Number, Number]]
    categories: list[str]

    def family(self) -> Family:
        """The family; `ValueError` where its parts do not fit together."""
        coefficients = np.array(list(self.coefficients.values()), dtype=np.float64)
        physical = PhysicalModel(tuple(self.coefficients), coefficients)
        process = None if self.process is None else self.process.process()
        return Family(
            KernelModel(physical, process),
            self.kernels,
            self.half_width,
            self.ranges,
            frozenset(self.categories),
        )


class CalibrationBody(_Body):
    """From kernels to a whole."""

    constant_ms: NotNegative
    scale: NotNegative
    overhead_ms: Number


class RoughBody(_Body):
    """What kernels of an unknown sort take."""

    constant_ms: NotNegative
    per_flop_ms: NotNegative
    per_byte_ms: NotNegative


class ModelPredictorBody(_Body):
    """What the file holds, version 1."""

    setup: Setup
    families: Annotated[dict[str, FamilyBody], Field(min_length=1)]
    calibration: CalibrationBody
    view_ms: NotNegative
    rough: RoughBody
    residuals: Annotated[list[NotNegative], Field(min_length=1)]
    error: PredictionError


def write_model_predictor(path: Path, predictor: ModelPredictor, setup: Setup) -> None:
    """Write a fitted predictor of a setup."""
    body = {
        "setup": asdict(setup),
        "families": {
            name: _family_body(item) for name, item in predictor.kernels_.families_.items()
        },
        "calibration": asdict(predictor.calibration_),
        "view_ms": predictor.view_ms_,
        "rough": asdict(predictor.rough_),
        "residuals": predictor.residuals_.tolist(),
        "error": asdict(predictor.error_),
    }
    write_document(path, KIND, VERSION, body)


def read_model_predictor(path: Path) -> ModelPredictor:
    """Read one; `DamagedFileError` where it is damaged or newer, `UsageError` where it is none."""
    from .predictor import ModelPredictor

    document = read_document(path, KIND, VERSION)
    try:
        body = ModelPredictorBody.model_validate_json(
            json.dumps(document, allow_nan=False), strict=True
        )
        if sorted(body.residuals) != body.residuals:
            raise ValueError("the residuals are out of order")
        families = {name: item.family() for name, item in body.families.items()}
    except (ValidationError, ValueError) as error:
        raise DamagedFileError(
            f"{path} holds no valid model predictor: {error}. Make it again from the store."
        ) from error
    predictor = ModelPredictor(body.setup)
    predictor.kernels_ = KernelPredictor()
    predictor.kernels_.families_ = families
    predictor.calibration_ = WholeCalibration(**body.calibration.model_dump())
    predictor.view_ms_ = body.view_ms
    predictor.rough_ = RoughEstimate(**body.rough.model_dump())
    predictor.residuals_ = np.array(body.residuals)
    predictor.error_ = body.error
    return predictor


def _family_body(family: Family) -> dict[str, Any]:
    physical, process = family.model.physical, family.model.process
    return {
        "coefficients": dict(zip(physical.names, physical.coefficients.tolist(), strict=True)),
        "process": None if process is None else ProcessBody.of(process).model_dump(mode="json"),
        "kernels": family.kernels,
        "half_width": family.half_width,
        "ranges": {name: list(ends) for name, ends in family.ranges.items()},
        "categories": sorted(family.categories),
    }
