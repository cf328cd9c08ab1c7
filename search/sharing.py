"""What the layers of a supernet share, and what of it a layer of one architecture uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..devices.errors import UsageError
from ..latency.ops import INITIAL_CLIP, Conv, Linear, Normalise, Quantise
from ..latency.torch_model import WithParameters
from .channels import Channels, extent
from .initialisation import initialise
from .sgd import Region


class SharedLayer(nn.Module):
    """The weights that all architectures share for one convolution, linear layer or batch norm.

    Conv weight: (out, in / groups, height, width), linear weight: (out, in). A quantizer's clip
    value: (1, 1, 1).
    """

    def __init__(self, op: WithParameters, shape: tuple[int, ...], random: torch.Generator) -> None:
        super().__init__()
        norm = isinstance(op, Normalise) or (isinstance(op, Conv) and op.batch_norm)
        bias = isinstance(op, Linear) or (isinstance(op, Conv) and op.bias and not norm)
        self.weight: nn.Parameter | None = None
        self.clip: nn.Parameter | None = None
        if isinstance(op, Quantise):
            self.clip = nn.Parameter(torch.full(shape, INITIAL_CLIP))
        elif not isinstance(op, Normalise):
            self.weight = nn.Parameter(torch.empty(shape))
            initialise(self.weight, random)
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None
        self.norm_weight = nn.Parameter(torch.ones(shape[0])) if norm else None
        self.norm_bias = nn.Parameter(torch.zeros(shape[0])) if norm else None


@dataclass(frozen=True, slots=True)
class LentLayer:
    """A layer of an architecture's network and what it uses of the shared layer `shared`.

    `name` is the layer's in `TorchModel.layers`; `window` are the rows and columns of a kernel.
    """

    name: str
    shared: str
    outputs: Channels
    inputs: Channels
    window: tuple[slice, ...] = ()

    def weights(self, shared: SharedLayer) -> dict[str, Tensor]:
        """The parameters that it uses, by their name in `TorchModel`."""
        found = {}
        name = norm = f"layers.{self.name}"
        if shared.weight is not None:
            conv = f"{name}.conv" if shared.weight.ndim == 4 else name
            norm = f"{name}.norm"
            weight = shared.weight[self.outputs][:, self.inputs]
            if self.window:
                weight = weight[:, :, *self.window]
            found[f"{conv}.weight"] = weight
            if shared.bias is not None:
                found[f"{conv}.bias"] = shared.bias[self.outputs]
        if shared.clip is not None:
            found[f"{name}.clip"] = shared.clip
        if shared.norm_weight is not None and shared.norm_bias is not None:
            found[f"{norm}.weight"] = shared.norm_weight[self.outputs]
            found[f"{norm}.bias"] = shared.norm_bias[self.outputs]
        return found

    def region(self, shape: Sequence[int]) -> Region:
        """The part in use of a shared parameter of this shape, a slice for each dimension."""
        used = (extent(self.outputs), extent(self.inputs), *self.window)
        return (
            *(
                slice(one.start, min(one.stop, size))
                for one, size in zip(used, shape, strict=False)
            ),
            *(slice(0, size) for size in shape[len(used) :]),
        )


def weight_shape(op: WithParameters) -> tuple[int, ...]:
    """Shape of the weight that an operation has; `UsageError` for one that can't be shared."""
    if isinstance(op, Linear):
        return (op.out_features, op.in_features)
    if isinstance(op, Normalise):
        return (op.channels,)
    if isinstance(op, Quantise):
        return (1, 1, 1)
    if op.groups in (1, op.in_channels):
        return op.weight_shape
    raise UsageError(f"{op}: the supernet has no convolutions in groups")
