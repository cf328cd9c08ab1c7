"""What a process does before it uses CUDA: choose its GPU, and import a runtime's package."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

from ..errors import DeviceError


def show_only(uuid: str) -> None:
    """Have CUDA see one GPU alone, as its number 0. Must come before CUDA is first used."""
    if uuid:
        os.environ["CUDA_VISIBLE_DEVICES"] = uuid


def imported(name: str, package: str) -> ModuleType:
    """A runtime's module; `DeviceError` names the package where there is none."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DeviceError(
            f"the runtime {name} can't be used here ({error}); pip install {package}"
        ) from error
