"""Devices: how long does this model file take on that device?"""

from .device import (
    CANARY_DRIFT_LIMIT,
    Device,
    Model,
    ModelKey,
    Placement,
    Precision,
    Round,
    Setup,
    Summary,
    TimingProtocol,
    Visit,
)
from .errors import (
    DamagedFileError,
    DeviceError,
    LatkitError,
    UnreachableTargetError,
    UnstableError,
    UsageError,
)
from .kind import DeviceKind, DeviceListing
from .measurement import Measurement, Verdict
from .options import DeviceOptions
from .registry import list_devices, open_device

__all__ = [
    "CANARY_DRIFT_LIMIT",
    "DamagedFileError",
    "Device",
    "DeviceError",
    "DeviceKind",
    "DeviceListing",
    "DeviceOptions",
    "LatkitError",
    "Measurement",
    "Model",
    "ModelKey",
    "Placement",
    "Precision",
    "Round",
    "Setup",
    "Summary",
    "TimingProtocol",
    "UnreachableTargetError",
    "UnstableError",
    "UsageError",
    "Verdict",
    "Visit",
    "list_devices",
    "open_device",
]
