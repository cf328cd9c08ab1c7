"""What a runtime really runs of a model file: its kernels, and their times where it tells them."""

from .model_split import NamedKernel, Split, device_split, split, timed_split

__all__ = ["NamedKernel", "Split", "device_split", "split", "timed_split"]
