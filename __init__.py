"""On-device latency measurement, latency models, and architecture search within a latency."""
