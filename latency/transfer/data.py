"""Latencies of architectures on many devices, as published: an .npz file of vectors of choices."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...devices.errors import UsageError
from .gaussian import Floats

WORK_NAMES = ("flops", "macs")
LARGEST_CATEGORY = 10_000


@dataclass(frozen=True, eq=False)
class LatencyData:
    """N architectures (N, positions), their latency in ms on devices (N, devices), and FLOPs.

    NaN is a latency that was not measured; `flops` is `None` where the file tells none.
    """

    choices: NDArray[np.int64]
    devices: tuple[str, ...]
    latency_ms: Floats
    flops: Floats | None = None

    def columns(self, names: Sequence[str]) -> Floats:
        """Latencies on these devices: (N, names); `UsageError` lists them where one is unknown."""
        unknown = [name for name in names if name not in self.devices]
        if unknown or not names:
            raise UsageError(
                f"no latencies of {', '.join(unknown) or 'any device'}; the file has those of "
                f"{', '.join(self.devices)}"
            )
        return self.latency_ms[:, [self.devices.index(name) for name in names]]


def read_latency_data(path: Path) -> LatencyData:
    """Read `devices`, `latency_ms` and the choices: `ops` (N, positions), or what is found instead.

    Without `ops`, all other arrays of whole numbers with N rows are choices, side by side in the
    order of the file (once-for-all: ks, e, d, r). Raises `UsageError` where anything is missing.
    """
    arrays = _read(path)
    for name in ("devices", "latency_ms"):
        if name not in arrays:
            raise UsageError(f"{path} has no array {name}; it has {', '.join(arrays) or 'none'}")
    devices = tuple(str(name) for name in np.atleast_1d(arrays["devices"]))
    latency = arrays["latency_ms"]
    if latency.ndim != 2 or latency.shape[1] != len(devices) or latency.dtype.kind not in "fiu":
        raise UsageError(
            f"{path}: latency_ms has the shape {latency.shape}; it is a row for each architecture "
            f"and a column for each of {len(devices)} devices"
        )
    count = len(latency)
    work = [arrays[name] for name in WORK_NAMES if name in arrays]
    flops = work[0].astype(np.float64) if work and work[0].shape == (count,) else None
    return LatencyData(_choices(arrays, count, path), devices, latency.astype(np.float64), flops)


def _choices(
    arrays: Mapping[str, NDArray[np.generic]], count: int, path: Path
) -> NDArray[np.int64]:
    taken = {"devices", "latency_ms", *WORK_NAMES}
    names = ["ops"] if "ops" in arrays else [name for name in arrays if name not in taken]
    found = [
        arrays[name].reshape(count, -1).astype(np.int64)
        for name in names
        if arrays[name].ndim in (1, 2)
        and len(arrays[name]) == count
        and np.issubdtype(arrays[name].dtype, np.integer)
    ]
    choices = np.hstack(found) if found else np.empty((count, 0), dtype=np.int64)
    if not choices.size or choices.min() < 0 or choices.max() > LARGEST_CATEGORY:
        raise UsageError(
            f"{path} has no choices: an array ops ({count}, positions) of categories from 0 to "
            f"{LARGEST_CATEGORY} is needed, or several such arrays of {count} rows. It has "
            + ", ".join(f"{name} {item.dtype} {item.shape}" for name, item in arrays.items())
        )
    return choices


def _read(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is no .npz file of plain arrays: {error}") from error
