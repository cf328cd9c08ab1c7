"""Spaces by name: what `latency` knows of a search space is that it lists blocks and networks.

A package offers its spaces through the entry-point group `latkit.spaces`; whoever writes one in a
file of their own names it `path/space.py:NAME`. Naming a file runs it, as `python path/space.py`
would: name only files that you trust.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from ..devices.errors import LatkitError, UsageError
from .blocks import Block
from .network import Network

GROUP = "latkit.spaces"


@runtime_checkable
class ProfilableSpace(Protocol):
    """What can be profiled: a space that lists its blocks and draws networks."""

    @property
    def name(self) -> str:
        """What the space is called in files and messages."""

    def blocks(self) -> list[Block]:
        """Every distinct block that a network of the space may have."""

    def sample_networks(self, count: int, seed: int) -> list[Network]:
        """`count` networks drawn from the space, the same for a seed."""


@runtime_checkable
class NetworkSpace(ProfilableSpace, Protocol):
    """A space that also gives the network of an architecture."""

    def architecture(self, choices: Sequence[int]) -> Any:
        """The architecture of these option indices, in canonical form."""

    def network(self, architecture: Any) -> Network:
        """The network of an architecture."""


def known_spaces() -> list[str]:
    """Names of the spaces that installed packages offer."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def load_space(name: str, classes: int | None = None, **options: Any) -> ProfilableSpace:
    """The space of this name: an entry point's, or `path/file.py:NAME`.

    Either gives a space, or something to call that returns one, with `classes=` where a number of
    classes is asked for, and with `options`. Raises `UsageError` where there is none, it is no
    space, or can't be called so.
    """
    found = _from_file(name) if ".py:" in name else _from_entry_point(name)
    if not isinstance(found, ProfilableSpace) or isinstance(found, type):
        try:
            found = found(**options) if classes is None else found(classes=classes, **options)
        except LatkitError:
            raise
        except Exception as error:
            raise UsageError(f"the space {name} can't be made: {_cause(error)}") from error
    elif options:
        raise UsageError(f"the space {name} is made already, and takes no {', '.join(options)}")
    if not isinstance(found, ProfilableSpace):
        raise UsageError(
            f"{name} gives a {type(found).__name__}; a space with name, blocks() and "
            "sample_networks(count, seed) is needed"
        )
    return found


def network_of(space: ProfilableSpace, choices: Sequence[int]) -> Network:
    """The network of these option indices; `UsageError` where the space gives none."""
    if not isinstance(space, NetworkSpace):
        raise UsageError(
            f"the space {space.name} has no architecture(choices) and network(architecture), so "
            "that no network of it can be named by its choices"
        )
    return space.network(space.architecture(choices))


def _from_entry_point(name: str) -> Any:
    for point in entry_points(group=GROUP):
        if point.name == name:
            try:
                return point.load()
            except Exception as error:
                raise UsageError(
                    f"the space {name} ({point.value}) can't be loaded: {_cause(error)}"
                ) from error
    raise UsageError(
        f"there is no space {name}. Known are {', '.join(known_spaces()) or 'none'}; a space of "
        "your own is named path/file.py:NAME."
    )


def _from_file(name: str) -> Any:
    text, _, attribute = name.rpartition(":")
    path = Path(text)
    if not path.is_file():
        raise UsageError(f"can't read the space {name}: there is no file {path}")
    module = _module(path, name)
    if not hasattr(module, attribute):
        raise UsageError(f"{path} has no {attribute}")
    return getattr(module, attribute)


def _module(path: Path, name: str) -> ModuleType:
    module_name = f"latkit_space_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"can't read the space {name}: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name while it is being executed.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise UsageError(f"running {path} failed: {_cause(error)}") from error
    return module


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
