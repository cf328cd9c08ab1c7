"""Devices: how long does this model file take on that device?"""

from .device import (
    CANARY_DRIFT_LIMIT,
    Device,
    Model,
    ModelKey,
    Precision,
    Round,
    Setup,
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
from .measurement import Measurement, Verdict
from .registry import DeviceKind, DeviceListing, list_devices, open_device

__all__ = [
    "CANARY_DRIFT_LIMIT",
    "DamagedFileError",
    "Device",
    "DeviceError",
    "DeviceKind",
    "DeviceListing",
    "LatkitError",
    "Measurement",
    "Model",
    "ModelKey",
    "Precision",
    "Round",
    "Setup",
    "TimingProtocol",
    "UnreachableTargetError",
    "UnstableError",
    "UsageError",
    "Verdict",
    "Visit",
    "list_devices",
    "open_device",
]
