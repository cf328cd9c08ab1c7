"""A weight-sharing supernet: one set of weights in which every architecture of a space has its.

Each convolution of each layer holds one weight of the largest number of channels; an architecture
uses the first N (channel masking; TuNAS, Bender et al. 2020). The 1x1 convolutions are shared by
all kernel sizes and expansions of a layer (operation collapsing), each depthwise kernel size has
weights of its own: every step trains every weight it can, which matters where data and time are
small. Batch norms are shared like the convolutions they follow. Their statistics are not: training
uses the batch's, and an architecture that is scored gets its own (`recalibration`).

Weights are sliced to the channels in use, not multiplied by masks: the result is equal, and a
small architecture takes the time of a small one. An architecture's network is the same
`TorchModel` that is trained alone and exported; the supernet only lends it the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..devices.errors import UsageError
from ..latency.blocks import MBConv
from ..latency.network import Network, block_graph
from ..latency.ops import Conv, Linear
from ..latency.torch_model import ConvNorm, TorchModel
from .sgd import Region
from .space import Architecture, SearchSpace

Channels = slice | Tensor
"""The channels of a shared weight that an architecture uses: the first N, or those listed."""


@dataclass(frozen=True, slots=True)
class LentLayer:
    """A layer of an architecture's network and what it uses of the shared layer `shared`.

    `name` is the layer's in `TorchModel.layers`.
    """

    name: str
    shared: str
    outputs: Channels
    inputs: Channels


class SharedLayer(nn.Module):
    """The weights that all architectures share for one convolution or linear layer.

    Conv weight: (out, in / groups, kernel, kernel), linear weight: (out, in).
    """

    def __init__(self, op: Conv | Linear, shape: tuple[int, ...], random: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        norm = isinstance(op, Conv) and op.batch_norm
        self.bias = None if norm else nn.Parameter(torch.zeros(shape[0]))
        self.norm_weight = nn.Parameter(torch.ones(shape[0])) if norm else None
        self.norm_bias = nn.Parameter(torch.zeros(shape[0])) if norm else None
        initialise(self.weight, random)


class Supernet(nn.Module):
    """The shared weights of a chain-shaped space.

    `active` tells, by parameter name, which region the forward passes used since it was last
    cleared: what `Trainer` updates (of scaled middle channels, up to the last one kept). Initial
    weights are drawn by `seed`.
    """

    def __init__(self, space: SearchSpace, seed: int = 0) -> None:
        super().__init__()
        self.space = space
        self.active: dict[str, Region] = {}
        self.layers = nn.ModuleDict()
        random = torch.Generator().manual_seed(seed)
        for name, (op, shape) in _largest_layers(space).items():
            self.layers[name] = SharedLayer(op, shape, random)

    def forward(
        self,
        images: Tensor,
        architecture: Architecture,
        statistics: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """(N, 3, height, width) -> logits (N, classes), all images through one architecture.

        Batch norms use the batch's statistics, or `statistics`, named as the buffers of the
        architecture's `TorchModel`.
        """
        network = self.space.network(architecture)
        model = _bare_model(network)
        lent = self.lent_layers(architecture, model)
        weights = self.weights(lent)
        for layer in lent:
            self._mark_active(layer)
        if statistics is None:
            _use_batch_statistics(model)
            return _tensor(functional_call(model, weights, (images,)))
        model.eval()
        return _tensor(functional_call(model, {**weights, **statistics}, (images,)))

    def lent_layers(self, architecture: Architecture, model: TorchModel) -> list[LentLayer]:
        """What each layer of the architecture's network uses of the shared layers."""
        pieces = _pieces(self.space, architecture)
        kept = self._kept_channels(architecture, pieces)
        values: list[Channels] = [slice(0, model.graph.input_shape[0])]
        names = iter(model.layers)
        lent = []
        for node in model.graph.nodes:
            inputs = outputs = values[node.inputs[0]]
            if isinstance(node.op, Conv | Linear):
                op, piece = node.op, pieces[int(node.prefix.removesuffix("."))]
                taken: Channels = slice(None)
                if isinstance(op, Linear):
                    taken, outputs = inputs, slice(0, op.out_features)
                elif op.groups == 1:
                    taken, outputs = inputs, slice(0, op.out_channels)
                    if op.name in ("expand", "excite"):
                        outputs = kept.get(piece, outputs)
                lent.append(LentLayer(next(names), _shared_name(piece, op), outputs, taken))
            values.append(outputs)
        return lent

    def weights(self, lent: list[LentLayer]) -> dict[str, Tensor]:
        """The parameters that the shared layers lend, by their name in `TorchModel`."""
        weights = {}
        for layer in lent:
            shared, outputs = self._shared(layer.shared), layer.outputs
            name = f"layers.{layer.name}"
            if shared.norm_weight is None:
                assert shared.bias is not None
                conv = f"{name}.conv" if shared.weight.ndim == 4 else name
                weights[f"{conv}.bias"] = shared.bias[outputs]
            else:
                assert shared.norm_bias is not None
                conv = f"{name}.conv"
                weights[f"{name}.norm.weight"] = shared.norm_weight[outputs]
                weights[f"{name}.norm.bias"] = shared.norm_bias[outputs]
            weights[f"{conv}.weight"] = shared.weight[outputs][:, layer.inputs]
        return weights

    def _shared(self, name: str) -> SharedLayer:
        layer = self.layers[name]
        assert isinstance(layer, SharedLayer)
        return layer

    def _mark_active(self, layer: LentLayer) -> None:
        """Add what `layer` uses to `active`; regions of several passes become their union."""
        shared = self._shared(layer.shared)
        used = (_extent(layer.outputs), _extent(layer.inputs))
        for name, parameter in shared.named_parameters():
            full = f"layers.{layer.shared}.{name}"
            before = self.active.get(full, (slice(0, 0),) * parameter.ndim)
            self.active[full] = tuple(
                slice(0, max(old.stop, min(new, size)))
                for old, new, size in zip(before, used, parameter.shape, strict=False)
            )

    def _kept_channels(self, architecture: Architecture, pieces: list[int]) -> dict[int, Tensor]:
        """By piece of the space, the middle channels that elasticity-scaling keeps, in their order.

        They are those of the architecture's own expansion whose depthwise kernels have the
        largest L1 norm (TF-NAS, Hu et al. 2020).
        """
        if architecture.expanded_channels is None:
            return {}
        kept: dict[int, Tensor] = {}
        unscaled = self.space.network(Architecture(architecture.choices, None))
        scaled = self.space.network(architecture)
        for piece, before, after in zip(pieces, unscaled.blocks, scaled.blocks, strict=True):
            if not isinstance(before, MBConv) or not isinstance(after, MBConv):
                continue
            if before.expanded_channels == after.expanded_channels:
                continue
            weight = self._shared(f"{piece}_depthwise_{after.kernel}").weight
            candidates = max(before.expanded_channels, after.expanded_channels)
            if candidates > len(weight):
                raise UsageError(
                    f"architecture {architecture} asks for {after.expanded_channels} middle "
                    f"channels, and the supernet has {len(weight)} there"
                )
            norms = weight[:candidates].detach().abs().sum((1, 2, 3))
            largest = norms.argsort(descending=True, stable=True)[: after.expanded_channels]
            kept[piece] = largest.sort().values
        return kept


def initialise(weight: Tensor, random: torch.Generator) -> None:
    """Draw initial weights, uniform with variance 1 / (3 * fan-in), as torch's own layers have.

    Under batch norm the size of weights changes the learning rate alone: with the larger ones of
    He et al. (2015), a supernet takes several times as long to learn.
    """
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=random)


def _largest_layers(space: SearchSpace) -> dict[str, tuple[Conv | Linear, tuple[int, ...]]]:
    """Name, operation and largest weight shape of every shared layer."""
    layers: dict[str, tuple[Conv | Linear, tuple[int, ...]]] = {}
    for piece, op in _possible_operations(space):
        shape: tuple[int, ...]
        if isinstance(op, Linear):
            shape = (op.out_features, op.in_features)
        elif op.groups in (1, op.in_channels):
            shape = (op.out_channels, op.in_channels // op.groups, op.kernel, op.kernel)
        else:
            raise UsageError(f"{op}: the supernet has no convolutions in groups")
        name = _shared_name(piece, op)
        before = layers.get(name, (op, shape))[1]
        layers[name] = (op, tuple(map(max, before, shape)))
    return layers


def _possible_operations(space: SearchSpace) -> Iterator[tuple[int, Conv | Linear]]:
    """The operations with weights of every block that each piece of the space can give."""
    for piece, factor in enumerate(space.factors()):
        for block in factor.blocks:
            if block is not None:
                for node in block_graph(block).nodes:
                    if isinstance(node.op, Conv | Linear):
                        yield piece, node.op


def _pieces(space: SearchSpace, architecture: Architecture) -> list[int]:
    """The piece of the space that each block of the architecture's network comes from."""
    pieces = []
    for piece, factor in enumerate(space.factors()):
        chosen = [architecture.choices[position] for position in factor.positions]
        counts = [space.option_counts[position] for position in factor.positions]
        index = int(np.ravel_multi_index(chosen, counts)) if chosen else 0
        if factor.blocks[index] is not None:
            pieces.append(piece)
    return pieces


def _shared_name(piece: int, op: Conv | Linear) -> str:
    """`3_depthwise_5`: the piece of the space, the operation, and its kernel size."""
    return f"{piece}_{op.name}_{op.kernel}" if isinstance(op, Conv) else f"{piece}_{op.name}"


def _bare_model(network: Network) -> TorchModel:
    """The network's module without memory for weights."""
    with torch.device("meta"):
        return TorchModel(network)


def _use_batch_statistics(model: TorchModel) -> None:
    model.train()
    for layer in model.layers.values():
        if isinstance(layer, ConvNorm) and layer.norm is not None:
            layer.norm.track_running_stats = False
            layer.norm.running_mean = layer.norm.running_var = None


def _extent(channels: Channels) -> int:
    """One more than the largest channel in use."""
    if isinstance(channels, Tensor):
        return int(channels.max()) + 1
    return 1 if channels.stop is None else int(channels.stop)


def _tensor(value: object) -> Tensor:
    assert isinstance(value, Tensor)
    return value
