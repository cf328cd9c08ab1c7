"""An inverted residual block that can run with some of its middle channels (elasticity-scaling)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.func import functional_call

from ..devices.errors import UsageError
from ..latency.blocks import MBConv
from ..latency.torch_model import TorchModel
from .channels import strongest_channels


class Narrowable(TorchModel):
    """The block, with its weights at full width, of which `kept` lists the middle channels in use.

    `None`: all. Those left out get no gradient, and may come back (TF-NAS, Hu et al. 2020, section
    3.3). Squeeze-excite is as wide as the narrower block's: its first channels.
    """

    def __init__(self, block: MBConv) -> None:
        super().__init__(block)
        self._full = block
        self.kept: Tensor | None = None

    @property
    def block(self) -> MBConv:
        """The block as it runs now."""
        if self.kept is None:
            return self._full
        return replace(self._full, expanded_channels=len(self.kept))

    def narrow(self, width: int) -> None:
        """Run from now on with those `width` middle channels that are the strongest now."""
        self.kept = None if width == self._full.expanded_channels else self.strongest(width)

    def strongest(self, width: int) -> Tensor:
        """The channels with the largest depthwise kernels by their L1 norm, in their order."""
        return strongest_channels(self.state_dict()["layers.depthwise.conv.weight"], width)

    def forward(self, value: Tensor, *others: Tensor) -> Tensor:
        """(N, *input_shape) -> (N, *output_shape)."""
        if self.kept is None:
            return super().forward(value, *others)
        with torch.device("meta"):
            model = TorchModel(self.block)
        state = self.narrowed(self.kept)
        result = functional_call(model.train(self.training), state, (value,))
        assert isinstance(result, Tensor)
        if self.training:
            # Statistics moved in copies, where they are of some of the channels.
            for name, buffer in self.named_buffers():
                if buffer.shape != state[name].shape:
                    buffer[self.kept] = state[name]
        return result

    def narrowed_to(self, width: int) -> dict[str, Tensor]:
        """As `narrowed`, with the channels in use if they are so many, else the strongest."""
        if self.kept is not None and len(self.kept) == width:
            return self.narrowed(self.kept)
        return self.narrowed(self.strongest(width))

    def narrowed(self, kept: Tensor) -> dict[str, Tensor]:
        """Weights and statistics of the block with the middle channels `kept`, by name.

        Raises `UsageError` for as many as the block reads, which would cost it its first
        convolution.
        """
        if len(kept) == self._full.in_channels != self._full.expanded_channels:
            raise UsageError(f"{self._full} has no first convolution with {len(kept)} channels")
        squeezed = replace(self._full, expanded_channels=len(kept)).squeezed_channels
        found = {}
        for name, value in self.state_dict(keep_vars=True).items():
            match name.split(".")[1]:
                case "expand" | "depthwise" if value.ndim:
                    value = value[kept]
                case "squeeze":
                    value = value[:squeezed, kept] if value.ndim > 1 else value[:squeezed]
                case "excite":
                    value = value[kept, :squeezed] if value.ndim > 1 else value[kept]
                case "project" if value.ndim > 1:
                    value = value[:, kept]
            found[name] = value
        return found
