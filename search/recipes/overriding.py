"""Overriding a recipe's constants by name: `settings.epochs=5`, `strategy.budget=60`.

Names are the fields and parameters of what they override, so that there is no list to keep.
"""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from ...devices.errors import UsageError
from ..settings import TrainingSettings
from ..spaces.scale import PAPER, Scale
from ..trainers.bi_sampling import BiSampling
from ..trainers.bilevel import Bilevel
from ..trainers.controlled import Controlled
from ..trainers.joint import Joint
from ..trainers.path_dropout import PathDropout
from ..trainers.sandwich import Sandwich
from .learning import bi_sampling, bilevel, controlled, joint, path_dropout, sandwich
from .recipe import Recipe

OPTIONS_OF: dict[Callable[..., Any], type] = {
    bi_sampling: BiSampling,
    bilevel: Bilevel,
    controlled: Controlled,
    joint: Joint,
    path_dropout: PathDropout,
    sandwich: Sandwich,
}
"""Whose parameters are the options of a way of learning. A strategy's are those of what its
function says that it returns."""

SET_ELSEWHERE = {"seed", "workers", "constant", "also", "target_ms"}
"""What a task says, for all parts alike."""


@dataclass(frozen=True, slots=True)
class Overridden:
    """A recipe with other constants, and what else they were for."""

    recipe: Recipe
    retraining: TrainingSettings
    scale: Scale


def override(
    recipe: Recipe, retraining: TrainingSettings, assignments: Sequence[str]
) -> Overridden:
    """Apply assignments `PART.NAME=VALUE`, the later ones over the earlier.

    Parts are `settings` (training of shared weights, or of each architecture), `train` (options of
    the way of learning), `strategy` (options of the strategy), `retraining` (of finalists) and
    `scale` (the space's size). Values are read by the type that is annotated; lists as `1,2`.
    Raises `UsageError` for an unknown name, with the nearest known ones, and for a wrong value.
    """
    parts = {
        "settings": _of_dataclass(TrainingSettings),
        "train": _of_function(recipe.train),
        "strategy": _of_function(recipe.strategy),
        "retraining": _of_dataclass(TrainingSettings),
        "scale": _of_dataclass(Scale),
    }
    known = {
        f"{part}.{name}": type_ for part, names in parts.items() for name, type_ in names.items()
    }
    values: dict[str, dict[str, Any]] = {part: {} for part in parts}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip()
        if not equals:
            raise UsageError(f"--set {assignment}: NAME=VALUE is needed, as settings.epochs=5")
        if name not in known:
            raise UsageError(f"--set {assignment}: {_unknown(name, known, recipe)}")
        part, _, field = name.partition(".")
        values[part][field] = _read(assignment, text.strip(), known[name])
    return Overridden(
        replace(
            recipe,
            settings=replace(recipe.settings, **values["settings"]),
            train=_bound(recipe.train, values["train"]),
            strategy=_bound(recipe.strategy, values["strategy"]),
        ),
        replace(retraining, **values["retraining"]),
        replace(PAPER, **values["scale"]),
    )


def _bound(function: Any, options: Mapping[str, Any]) -> Any:
    return partial(function, **options) if function is not None and options else function


def _of_dataclass(owner: type) -> dict[str, Any]:
    """Types of the fields of a dataclass."""
    types = get_type_hints(owner)
    return {item.name: types[item.name] for item in fields(owner) if item.name not in SET_ELSEWHERE}


def _of_function(function: Callable[..., Any] | None) -> dict[str, Any]:
    """Types of the options of a way of learning or a strategy, `partial` or not."""
    while isinstance(function, partial):
        function = function.func
    if function is None:
        return {}
    own = get_type_hints(function)
    found = _parameters(function, own, keyword_only=True)
    owner = OPTIONS_OF.get(function, own.get("return"))
    takes_options = any(
        item.kind is item.VAR_KEYWORD for item in inspect.signature(function).parameters.values()
    )
    if takes_options and isinstance(owner, type):
        types = get_type_hints(inspect.getattr_static(owner, "__init__"))
        found = {**_parameters(owner, types, keyword_only=False), **found}
    return {name: found[name] for name in found if name not in SET_ELSEWHERE}


def _parameters(
    function: Callable[..., Any], types: Mapping[str, Any], *, keyword_only: bool
) -> dict[str, Any]:
    """Types of the parameters that are given by name, or have defaults."""
    return {
        name: types.get(name, Any)
        for name, item in inspect.signature(function).parameters.items()
        if item.kind is item.KEYWORD_ONLY or (not keyword_only and item.default is not item.empty)
    }


def _unknown(name: str, known: Mapping[str, Any], recipe: Recipe) -> str:
    near = difflib.get_close_matches(name, known, 3, 0.5)
    near += [item for item in known if item.endswith(f".{name}") and item not in near]
    if not near:
        part = name.partition(".")[0]
        near = [item for item in known if item.startswith(f"{part}.")]
    if not near:
        near = sorted({f"{item.partition('.')[0]}.*" for item in known})
    return f"recipe {recipe.name} has no {name}; near it are {', '.join(near)}"


def _read(assignment: str, text: str, wanted: Any) -> Any:
    """A value of the wanted type: JSON, a word, numbers between commas, or `none`."""
    candidates: list[Any] = [text]
    try:
        candidates.insert(0, json.loads(text))
    except ValueError:
        if text.lower() in ("none", "true", "false"):
            candidates.insert(0, {"none": None, "true": True, "false": False}[text.lower()])
    candidates.append([part.strip() for part in text.split(",")])
    told = ""
    for candidate in candidates:
        try:
            return TypeAdapter(wanted).validate_python(candidate)
        except ValidationError as error:
            told = told or error.errors()[0]["msg"]
    raise UsageError(f"--set {assignment}: {told[0].lower()}{told[1:]}")
