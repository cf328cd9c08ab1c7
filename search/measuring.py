"""Timing a search's networks on the device: with random weights while it goes on, then trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from rich.progress import Progress

from ..devices.device import Device, TimingProtocol
from ..devices.errors import DamagedFileError, DeviceError, UsageError
from ..devices.measurement import Measurement
from ..latency.blocks import Block
from ..latency.calibration import is_timed
from ..latency.document import read_document, write_document
from ..latency.one_speed import at_speed, usual_canary_ns
from ..latency.profile import Request, profile
from ..latency.store import Store
from ..latency.subject import ModelFile, subject_id, subject_to_json
from ..latency.table import LatencyTable
from ..latency.table_entry import Entry
from ..latency.table_file import EntryBody, entries_by_block
from .space import Architecture, SearchSpace

KIND = "measured_networks"
VERSION = 1

PROCESSES = 9
ROUNDS = 18
"""Networks that decide a search are timed in at least as many fresh processes, and rounds."""


@dataclass(frozen=True, slots=True)
class Timed:
    """A network's measured median, and the 95 % interval of it."""

    median_ms: float
    low_ms: float
    high_ms: float


def thorough(protocol: TimingProtocol) -> TimingProtocol:
    """The protocol with at least `PROCESSES` processes and `ROUNDS` rounds."""
    return replace(
        protocol,
        processes=max(PROCESSES, protocol.processes),
        rounds=max(ROUNDS, protocol.rounds),
    )


class Networks:
    """Times networks of a space, with random weights, each one once.

    Blocks of these networks that `table` only interpolates are timed in the same rounds; `table`
    holds them from then on. `path` keeps what each network and block was found to take: a search
    that goes on after a kill decides by the very same numbers, though the store may hold more
    rounds by then. All are brought to one speed, `usual_canary_ns`: that of the middle one of what
    the store held when the first of them were timed.
    """

    def __init__(
        self,
        space: SearchSpace,
        table: LatencyTable,
        device: Device,
        store: Store,
        protocol: TimingProtocol,
        path: Path,
        progress: Progress | None = None,
    ) -> None:
        self.space = space
        self.table = table
        self._device = device
        self._store = store
        self._protocol = thorough(protocol)
        self._path = path
        self._progress = progress
        self._about = {"setup": table.setup.key, "space": space.name}
        self._known: dict[Architecture, Timed] = {}
        self._blocks: dict[Block, Entry] = {}
        self.usual_canary_ns: float | None = None
        self._read()

    def measure(self, architectures: Iterable[Architecture]) -> dict[Architecture, Timed]:
        """What these networks take; those that are new are timed together.

        Raises `DeviceError` naming a network that could not be timed.
        """
        wanted = list(dict.fromkeys(architectures))
        networks = {item: self.space.network(item) for item in wanted}
        missing = _unmeasured(
            [block for network in networks.values() for block in network.blocks], self.table
        )
        new = [item for item in wanted if item not in self._known]
        requests: list[Request] = [(networks[item], 0) for item in new]
        new_blocks = [block for block in missing if block not in self._blocks]
        requests += [(block, self.table.eviction_bytes) for block in new_blocks]
        if requests:
            found = profile(
                self._device,
                requests,
                self._store,
                self._protocol,
                progress=self._progress,
                description="networks of the search",
            )
            for (model, _), cause in found.failures.items():
                raise DeviceError(f"{model} could not be timed: {cause}")
            if not (self._known or self._blocks):
                stored = self._store.all_measurements(self.table.setup)
                self.usual_canary_ns = usual_canary_ns(stored.values())
            timed = {
                key: at_speed(measured, self.usual_canary_ns)
                for key, measured in found.measurements.items()
            }
            for item in new:
                entry = timed[subject_id(networks[item]), 0]
                self._known[item] = Timed(entry.median_ms, entry.low_ms, entry.high_ms)
            for block in new_blocks:
                self._blocks[block] = timed[subject_id(block), self.table.eviction_bytes]
            self._write()
        if missing:
            added = {block: self._blocks[block] for block in missing}
            self.table = replace(self.table, entries={**self.table.entries, **added})
        return {item: self._known[item] for item in wanted}

    def predicted_ms(self, architecture: Architecture) -> float:
        """What the table says of a network."""
        return self.table.network(self.space.network(architecture)).latency_ms

    def _read(self) -> None:
        if not self._path.exists():
            return
        body = read_document(self._path, KIND, VERSION)
        try:
            about = body["about"]
            usual_ns = _NANOSECONDS.validate_python(body["usual_canary_ns"])
            blocks = entries_by_block(_ENTRIES.validate_python(body["blocks"]))
            known = {
                Architecture.from_json(row["architecture"]): _TIMED.validate_python(row["timed"])
                for row in body["networks"]
            }
        except (KeyError, TypeError, UsageError, ValidationError) as error:
            raise DamagedFileError(
                f"{self._path} holds no measured networks: {error}. Delete it; they are timed anew."
            ) from error
        if about != self._about:
            raise UsageError(
                f"{self._path} holds networks of {about}, not of {self._about}. Choose another "
                "--output, or delete that folder."
            )
        self._known, self._blocks, self.usual_canary_ns = known, blocks, usual_ns

    def _write(self) -> None:
        networks: list[dict[str, Any]] = [
            {"architecture": item.to_json(), "timed": asdict(timed)}
            for item, timed in self._known.items()
        ]
        blocks: list[dict[str, Any]] = [
            {"block": subject_to_json(block), **asdict(entry)}
            for block, entry in self._blocks.items()
        ]
        body = {
            "about": self._about,
            "usual_canary_ns": self.usual_canary_ns,
            "networks": networks,
            "blocks": blocks,
        }
        write_document(self._path, KIND, VERSION, body)


_NANOSECONDS: TypeAdapter[float | None] = TypeAdapter(float | None)
_TIMED = TypeAdapter(Timed)
_ENTRIES = TypeAdapter(list[EntryBody])


def measure_files(
    files: Mapping[str, Path],
    device: Device,
    store: Store,
    protocol: TimingProtocol,
    progress: Progress | None = None,
) -> dict[str, Measurement]:
    """Time model files, all in the same rounds. Raises `DeviceError` naming one that fails."""
    subjects = {name: ModelFile.read(path) for name, path in files.items()}
    found = profile(
        device,
        [(file, 0) for file in subjects.values()],
        store,
        thorough(protocol),
        progress=progress,
        description="measuring the finalists",
    )
    for (model, _), cause in found.failures.items():
        raise DeviceError(f"{model} could not be timed: {cause}")
    return {name: found.measurements[subject_id(file), 0] for name, file in subjects.items()}


def _unmeasured(blocks: Sequence[Block], table: LatencyTable) -> list[Block]:
    return [
        block for block in dict.fromkeys(blocks) if is_timed(block) and block not in table.entries
    ]
