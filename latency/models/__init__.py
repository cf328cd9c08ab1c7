"""Whole models, kernel by kernel: probe networks to learn from, and predictions of any file."""

from .prediction import ModelPrediction
from .predictor import ModelPredictor, predict_model

__all__ = ["ModelPrediction", "ModelPredictor", "predict_model"]
