"""Asking an evaluator, whoever wrote it, and refusing an answer that is no accuracy."""

from __future__ import annotations

from collections.abc import Callable

from ...devices.errors import LatkitError
from ..space import Architecture, SearchSpace

Evaluator = Callable[[Architecture], float]
"""Gives an architecture's accuracy, 0 to 1: always the same for the same architecture."""


def evaluate(evaluator: Evaluator, space: SearchSpace, architecture: Architecture) -> float:
    """The evaluator's accuracy of an architecture of `space`, 0 to 1.

    Raises `LatkitError` naming the architecture where the evaluator raises, which is then the
    cause, or returns anything but a number from 0 to 1. Errors of the kit's own, which say what is
    wrong and where, pass as they are; so do interrupts.
    """
    try:
        found = float(evaluator(architecture))
    except LatkitError:
        raise
    except Exception as error:
        raise LatkitError(
            f"the evaluator failed on {_named(space, architecture)}: {_told(error)}. What was "
            "evaluated before is kept; once it is mended, the same search goes on from there."
        ) from error
    if not 0 <= found <= 1:
        hint = " Percentages are to be divided by 100." if 1 < found <= 100 else ""
        raise LatkitError(
            f"the evaluator returned {found:g} for {_named(space, architecture)}: an accuracy is "
            f"a number from 0 to 1.{hint} What was evaluated before is kept."
        )
    return found


def _named(space: SearchSpace, architecture: Architecture) -> str:
    return f"architecture {architecture} ({space.describe(architecture.choices)})"


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
