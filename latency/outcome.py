"""What timing came to on one device, and how the outcomes of several are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rich.progress import Progress

from ..devices.console import print_json, stdout
from ..devices.device import Device, ModelKey, Setup, TimingProtocol
from ..devices.errors import DeviceError, LatkitError, UnstableError
from ..devices.operations import device_operations
from ..devices.per_op import OperationTimes
from . import output
from .adaptive_profile import AdaptiveOutcome
from .models.kernel_profile import KernelProfile
from .profile import Profile, Request, profile
from .space_profile import SpaceProfile
from .store import Store
from .subject import ModelFile, Subject, subject_id


@dataclass(frozen=True)
class SpaceOutcome:
    """A space's profile."""

    profile: SpaceProfile

    def json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return output.space_json(self.profile)

    def print(self) -> None:
        """For people."""
        output.print_space(self.profile)

    def error(self) -> LatkitError | None:
        """What must end the command after it was shown."""
        return None


@dataclass(frozen=True)
class ModelsOutcome:
    """The measurements of blocks or model files; `operations` are per-operation times by path."""

    setup: Setup
    profile: Profile
    subjects: Mapping[ModelKey, Subject]
    unstable: UnstableError | None = None
    operations: Mapping[str, OperationTimes] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """As plain JSON values."""
        data = output.profile_json(self.setup, self.profile, self.subjects)
        if self.operations:
            data["per_op"] = {
                path: {**asdict(times), "sum_ms": times.sum_ms, "remainder_ms": times.remainder_ms}
                for path, times in self.operations.items()
            }
        return data

    def print(self) -> None:
        """For people."""
        output.print_profile(self.setup, self.profile, self.subjects)
        for path, times in self.operations.items():
            output.print_operations(path, times)

    def error(self) -> LatkitError | None:
        """What must end the command after it was shown."""
        failures = self.profile.failures
        if failures:
            (model, _), cause = next(iter(failures.items()))
            return DeviceError(
                f"{len(failures)} of {len(self.subjects)} models failed. The first, {model}: "
                f"{cause}"
            )
        return self.unstable


@dataclass(frozen=True)
class KernelsOutcome:
    """Probe networks that were timed kernel by kernel."""

    profile: KernelProfile

    def json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self.profile)

    def print(self) -> None:
        """For people."""
        output.print_kernel_profile(self.profile)

    def error(self) -> LatkitError | None:
        """Networks that can't be timed are named, and stop nothing: others take their place."""
        return None


Outcome = SpaceOutcome | ModelsOutcome | KernelsOutcome | AdaptiveOutcome


def time_models(
    device: Device,
    requests: Sequence[Request],
    store: Store,
    protocol: TimingProtocol,
    strict: bool,
    retry_failed: bool,
    progress: Progress,
    label: str,
) -> ModelsOutcome:
    """Time blocks or files on one device. What is unstable with `strict` is kept to be raised."""
    unstable: UnstableError | None = None
    try:
        result = profile(
            device,
            requests,
            store,
            protocol,
            strict=strict,
            retry_failed=retry_failed,
            progress=progress,
            description=f"{label}profile",
        )
    except UnstableError as error:
        unstable = error
        result = profile(device, requests, store, protocol)  # All is stored: times nothing.
    subjects = {(subject_id(subject), size): subject for subject, size in requests}
    return ModelsOutcome(device.setup, result, subjects, unstable)


def with_operations(outcome: ModelsOutcome, device: Device) -> ModelsOutcome:
    """The outcome with the times of the single operations of its model files."""
    operations = {
        str(subject.path): device_operations(device, subject.path)
        for key, subject in outcome.subjects.items()
        if isinstance(subject, ModelFile) and key in outcome.profile.measurements
    }
    return replace(outcome, operations=operations)


def show(
    addresses: Sequence[str],
    outcomes: Mapping[str, Outcome],
    failures: Mapping[str, LatkitError],
    json: bool,
) -> None:
    """Print what came of each device; then raise what failed, when all has been shown.

    Of several devices that failed each is named, and the first one's exit code is the command's.
    """
    if len(addresses) == 1:
        for outcome in outcomes.values():
            if json:
                print_json(outcome.json())
            else:
                outcome.print()
    elif json:
        print_json(
            {
                "devices": {address: outcome.json() for address, outcome in outcomes.items()},
                "failed": {address: str(error) for address, error in failures.items()},
            }
        )
    else:
        for address, outcome in outcomes.items():
            stdout.print(address, markup=False, highlight=False)
            outcome.print()
        for address, error in failures.items():
            stdout.print(f"{address} failed: {error}", markup=False, highlight=False)
    if failures and len(addresses) == 1:
        raise next(iter(failures.values()))
    if failures:
        raise _joined(failures)
    for outcome in outcomes.values():
        found = outcome.error()
        if found is not None:
            raise found


def _joined(failures: Mapping[str, LatkitError]) -> LatkitError:
    """The errors of some of several devices as one."""
    joined = LatkitError("; ".join(f"{address}: {error}" for address, error in failures.items()))
    joined.exit_code = next(iter(failures.values())).exit_code
    for error in failures.values():
        for note in getattr(error, "__notes__", ()):
            joined.add_note(note)
    return joined
