"""Chains of operators element by element, written as one writes a formula."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .translation import Translation

OPTIONS = {
    "ABS": "Abs",
    "ADD": "Add",
    "COS": "Cos",
    "DIV": "Div",
    "EXP": "Exp",
    "HARD_SWISH": "HardSwish",
    "MAXIMUM": "MaximumMinimum",
    "MINIMUM": "MaximumMinimum",
    "MUL": "Mul",
    "NEG": "Neg",
    "POW": "Pow",
    "SQUARE": "Square",
    "SQUARED_DIFFERENCE": "SquaredDifference",
    "SUB": "Sub",
}
"""The option table that an operator has in the schema; others have none."""

FUSING = frozenset({"ADD", "DIV", "MUL", "SUB"})
"""Operators that can apply an activation to what they give."""


class Formula:
    """Writes operators whose results are all of one stored shape, under names after `result`."""

    def __init__(self, translation: Translation, result: str, stored: Sequence[int]) -> None:
        self._translation = translation
        self._result = result
        self._stored = tuple(stored)
        self._count = 0

    def __call__(
        self, kind: str, *operands: int | float, into: int | None = None, activation: str = "NONE"
    ) -> int:
        """Write one operator of tensors (`int`) and numbers (`float`); `into`: its last tensor."""
        translation = self._translation
        tensors = [
            translation.constant(f"{self._result}/{operand}", np.float32(operand))
            if isinstance(operand, float)
            else operand
            for operand in operands
        ]
        if into is None:
            self._count += 1
            into = translation.between(f"{self._result}/{self._count}", self._stored)
        settings = {}
        if kind in FUSING:
            kinds = translation.schema.ActivationFunctionType
            settings["fusedActivationFunction"] = getattr(kinds, activation)
        translation.writer.operator(kind, tensors, [into], OPTIONS.get(kind, ""), **settings)
        return into
