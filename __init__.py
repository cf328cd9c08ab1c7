"""On-device latency measurement, latency models, and architecture search within a latency."""

from .devices import LatkitError, TimingProtocol, list_devices, open_device

__all__ = ["LatkitError", "TimingProtocol", "list_devices", "open_device"]
