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

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..devices.errors import UsageError
from ..latency.blocks import Block, MBConv
from ..latency.network import Network, block_graph
from ..latency.ops import Conv, Flatten, Linear, Quantise
from ..latency.torch_model import TorchModel, WithParameters
from .candidates import candidates
from .channels import Channels, channel_count, strongest_channels
from .data import at_resolution
from .sgd import Region
from .sharing import LentLayer, SharedLayer, weight_shape
from .skeleton import TrainedSkeletons, skeleton
from .space import Architecture, SearchSpace


class Supernet(nn.Module):
    """The shared weights of a space.

    `active` tells, by parameter name, which region the forward passes used since it was last
    cleared: what `Trainer` updates (of scaled middle channels, up to the last one kept). Initial
    weights are drawn by `seed`; with `zero_gamma` the last batch norm of every residual block
    begins at 0, so that such a block begins as the identity (BigNAS, Yu et al. 2020, section 3.2).
    Kernels of several sizes each have weights of their own (TuNAS), or, with `crops_kernels`, a
    smaller one is the middle of the largest (BigNAS). All bits of a convolution round the same
    weights, while each number of bits of an activation has a clip value of its own.
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: int = 0,
        *,
        zero_gamma: bool = False,
        crops_kernels: bool = False,
    ) -> None:
        super().__init__()
        self.space = space
        self.crops_kernels = crops_kernels
        self.active: dict[str, Region] = {}
        self.layers = nn.ModuleDict()
        self._skeletons = TrainedSkeletons()
        random = torch.Generator().manual_seed(seed)
        for name, (op, shape) in self._largest_layers().items():
            self.layers[name] = SharedLayer(op, shape, random)
        if zero_gamma:
            for name in self._ends_of_residuals():
                gamma = self._shared(name).norm_weight
                assert gamma is not None
                nn.init.zeros_(gamma)

    def forward(
        self,
        images: Tensor,
        architecture: Architecture,
        statistics: Mapping[str, Tensor] | None = None,
        *,
        dropout: float = 0.0,
        averaged: Collection[int] = (),
    ) -> Tensor:
        """(N, 3, height, width) -> logits (N, classes), all images through one architecture.

        Images are brought to the resolution that the architecture reads.

        Batch norms use the batch's statistics, or `statistics`, named as the buffers of the
        architecture's `TorchModel`. Without the latter, `dropout` is the classifier's, and of the
        choices at positions `averaged` every option runs: what they decide gives the mean of its
        candidates' outputs (op warm-up; TuNAS, Bender et al. 2020).
        """
        if averaged:
            if statistics is not None:
                raise UsageError("candidates that are averaged use the batch's statistics alone")
            return self._averaged(images, architecture, averaged, dropout)
        network = self.space.network(architecture)
        if statistics is None:
            model = self._skeletons.skeleton(network, dropout)
        else:
            model = skeleton(network).eval()
        images = at_resolution(images, network.input_shape[1:])
        lent = self.lent_layers(architecture, model)
        weights = self.weights(lent)
        for layer in lent:
            self._mark_active(layer)
        return _tensor(functional_call(model, {**weights, **(statistics or {})}, (images,)))

    @torch.no_grad()
    def extract(self, architecture: Architecture) -> TorchModel:
        """The architecture's network with a copy of its share of the weights.

        Where the architecture has scaled middle channels, those whose depthwise kernels have the
        largest L1 norm are copied, in every layer that they pass (TF-NAS). Its batch norms have no
        statistics yet: `recalibration.recalibrate` gives them.
        """
        model = TorchModel(self.space.network(architecture))
        weights = self.weights(self.lent_layers(architecture, model))
        like = next(iter(weights.values()))
        model.to(like.device, like.dtype)
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
        return model

    def lent_layers(self, architecture: Architecture, model: TorchModel) -> list[LentLayer]:
        """What each layer of the architecture's network uses of the shared layers."""
        pieces = self.space.placed(architecture)
        return self._lent(model, pieces, self._kept_channels(architecture, pieces))

    def _lent(
        self, model: TorchModel, pieces: Sequence[int], kept: Mapping[int, Tensor]
    ) -> list[LentLayer]:
        """What each layer uses, given the piece of each block and channels kept of some pieces."""
        values: list[Channels] = [slice(0, model.graph.input_shape[0])]
        names = iter(model.layers)
        lent = []
        for node in model.graph.nodes:
            inputs = outputs = values[node.inputs[0]]
            if isinstance(node.op, WithParameters):
                op, piece = node.op, pieces[int(node.prefix.removesuffix("."))]
                taken: Channels = slice(None)
                if isinstance(op, Linear):
                    taken, outputs = inputs, slice(0, op.out_features)
                elif isinstance(op, Conv) and op.groups == 1:
                    taken, outputs = inputs, slice(0, op.out_channels)
                    if op.name in ("expand", "excite"):
                        outputs = kept.get(piece, outputs)
                shared = self._shared_name(piece, op)
                lent.append(
                    LentLayer(next(names), shared, outputs, taken, self._window(shared, op))
                )
            elif node.shape[0] != channel_count(inputs) and not isinstance(node.op, Flatten):
                outputs = slice(0, node.shape[0])  # channels were put together, or taken apart
            values.append(outputs)
        return lent

    def weights(self, lent: list[LentLayer]) -> dict[str, Tensor]:
        """The parameters that the shared layers lend, by their name in `TorchModel`."""
        weights: dict[str, Tensor] = {}
        for layer in lent:
            weights |= layer.weights(self._shared(layer.shared))
        return weights

    def _averaged(
        self,
        images: Tensor,
        architecture: Architecture,
        averaged: Collection[int],
        dropout: float,
    ) -> Tensor:
        """The forward pass piece by piece, each giving the weighted sum of its candidates."""
        found = candidates(self.space, architecture, averaged)
        value = at_resolution(images, self.space.network(architecture).input_shape[1:])
        for piece, shares in enumerate(found):
            outputs = [self._run(piece, block, value, dropout) for block in shares]
            if len({output.shape for output in outputs}) > 1:
                raise UsageError(
                    f"space {self.space.name}: the candidates {[*shares]} of piece {piece} give "
                    "different shapes, which have no mean"
                )
            value = torch.stack(
                [share * output for share, output in zip(shares.values(), outputs, strict=True)]
            ).sum(0)
        return value

    def _run(self, piece: int, block: Block | None, value: Tensor, dropout: float) -> Tensor:
        """What a block at a piece of the space gives; what is left out hands on its input."""
        if block is None:
            return value
        model = self._skeletons.skeleton(Network.chain([block]), dropout)
        lent = self._lent(model, [piece], {})
        for layer in lent:
            self._mark_active(layer)
        return _tensor(functional_call(model, self.weights(lent), (value,)))

    def _shared(self, name: str) -> SharedLayer:
        layer = self.layers[name]
        assert isinstance(layer, SharedLayer)
        return layer

    def _mark_active(self, layer: LentLayer) -> None:
        """Add what `layer` uses to `active`; regions of several passes become their union."""
        shared = self._shared(layer.shared)
        for name, parameter in shared.named_parameters():
            full = f"layers.{layer.shared}.{name}"
            region = layer.region(parameter.shape)
            before = self.active.get(full, region)
            self.active[full] = tuple(
                slice(min(old.start, new.start), max(old.stop, new.stop))
                for old, new in zip(before, region, strict=True)
            )

    def _kept_channels(
        self, architecture: Architecture, pieces: tuple[int, ...]
    ) -> dict[int, Tensor]:
        """By piece of the space, the middle channels that elasticity-scaling keeps, in their order.

        They are those of the architecture's own expansion whose depthwise kernels, as it crops
        them, have the largest L1 norm (TF-NAS, Hu et al. 2020).
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
            depthwise = next(
                node.op
                for node in block_graph(after).nodes
                if isinstance(node.op, Conv) and node.op.name == "depthwise"
            )
            shared = self._shared_name(piece, depthwise)
            weight = self._shared(shared).weight
            assert weight is not None
            kernels = weight[(slice(None), slice(None), *self._window(shared, depthwise))]
            candidates = max(before.expanded_channels, after.expanded_channels)
            if candidates > len(kernels):
                raise UsageError(
                    f"architecture {architecture} asks for {after.expanded_channels} middle "
                    f"channels, and the supernet has {len(kernels)} there"
                )
            kept[piece] = strongest_channels(kernels[:candidates], after.expanded_channels)
        return kept

    def _shared_name(self, piece: int, op: WithParameters) -> str:
        """`3_depthwise_5`: the piece of the space, the operation, its kernel size or bits."""
        if isinstance(op, Quantise):
            return f"{piece}_{op.name}_{op.bits}"
        if not isinstance(op, Conv) or self.crops_kernels:
            return f"{piece}_{op.name}"
        kernel = "x".join(map(str, op.kernel)) if isinstance(op.kernel, tuple) else op.kernel
        return f"{piece}_{op.name}_{kernel}"

    def _window(self, shared: str, op: WithParameters) -> tuple[slice, ...]:
        """Rows and columns that `op` uses of a larger kernel; nothing where it uses all."""
        if not isinstance(op, Conv) or not self.crops_kernels:
            return ()
        weight = self._shared(shared).weight
        assert weight is not None
        starts = [
            (size - used) // 2 for size, used in zip(weight.shape[2:], op.kernel_size, strict=True)
        ]
        return tuple(
            slice(start, start + used) for start, used in zip(starts, op.kernel_size, strict=True)
        )

    def _largest_layers(self) -> dict[str, tuple[WithParameters, tuple[int, ...]]]:
        """Name, operation and largest weight shape of every shared layer."""
        layers: dict[str, tuple[WithParameters, tuple[int, ...]]] = {}
        for piece, op in _possible_operations(self.space):
            shape = weight_shape(op)
            name = self._shared_name(piece, op)
            before = layers.get(name, (op, shape))[1]
            layers[name] = (op, tuple(map(max, before, shape)))
        return layers

    def _ends_of_residuals(self) -> set[str]:
        """The shared layers that end a residual block of every architecture that has it."""
        ends: dict[str, bool] = {}
        for piece, blocks in enumerate(self.space.candidates()):
            for block in blocks:
                if isinstance(block, MBConv):
                    for node in block_graph(block).nodes:
                        if isinstance(node.op, Conv) and node.op.name == "project":
                            name = self._shared_name(piece, node.op)
                            ends[name] = ends.get(name, True) and block.has_residual
        return {name for name, always in ends.items() if always}


def _possible_operations(space: SearchSpace) -> Iterator[tuple[int, WithParameters]]:
    """The operations with weights of every block that each piece of the space can give."""
    for piece, blocks in enumerate(space.candidates()):
        for block in blocks:
            for node in block_graph(block).nodes:
                if isinstance(node.op, WithParameters):
                    yield piece, node.op


def _tensor(value: object) -> Tensor:
    assert isinstance(value, Tensor)
    return value
