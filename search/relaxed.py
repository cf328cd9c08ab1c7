"""A supernet in which all candidates of a place run, weighted: what gradients choose between.

Each place has the weights of its candidates to itself, and places of equal cells share how their
candidates are weighted (DARTS, Liu et al. 2019, section 2.2). Where stages have depths, sinks weigh
those too (TF-NAS, Hu et al. 2020, section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from ..devices.errors import UsageError
from ..latency.blocks import Block, ConcatOf, MBConv, Nothing, SumOf
from ..latency.network import INPUT as INPUT_NODE
from ..latency.torch_model import TorchModel
from .data import at_resolution
from .initialisation import initialise
from .narrowable import Narrowable
from .relaxation import RelaxableSpace, SinkConnected
from .space import Architecture, SearchSpace

CandidateWeights = Tensor | Sequence[float]


class RelaxedSupernet(nn.Module):
    """All candidates of a relaxable space. Initial weights are drawn by `seed`.

    Batch norms use the batch's statistics in training. They are not `affine` during a search by
    default: a gain could undo the weight of its candidate (DARTS, section 3.1).
    """

    def __init__(self, space: RelaxableSpace, seed: int = 0, *, affine: bool = False) -> None:
        super().__init__()
        self.space = space
        self.mixtures = dict(space.mixtures())
        self.sinks = dict(space.sinks()) if isinstance(space, SinkConnected) else {}
        self.candidates = nn.ModuleDict()
        self.fixed: dict[int, Block] = {}
        self._resolution: tuple[int, ...] = ()
        for index, piece in enumerate(space.pieces):
            if index in self.mixtures:
                blocks: tuple[Block | None, ...] = self.mixtures[index].candidates
            elif not piece.choices:
                block = piece.build()
                assert block is not None
                blocks, self.fixed[index] = (block,), block
            else:
                blocks = ()  # a sum of what its edges give
            if INPUT_NODE in space.sources[index]:
                place = space.sources[index].index(INPUT_NODE)
                shapes = [block.input_shapes[place] for block in blocks if block is not None]
                self._resolution = shapes[0][1:]
            for number, candidate in enumerate(blocks):
                if candidate is not None and not isinstance(candidate, SumOf | ConcatOf):
                    self.candidates[f"{index}_{number}"] = (
                        Narrowable(candidate)
                        if isinstance(candidate, MBConv)
                        else TorchModel(candidate)
                    )
        random = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                initialise(module.weight, random)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            if isinstance(module, nn.BatchNorm2d):
                module.weight.requires_grad_(affine)
                module.bias.requires_grad_(affine)

    @property
    def counts(self) -> dict[str, int]:
        """By the name of each mixture and sink, how many candidates it has."""
        mixtures = {item.name: len(item.candidates) for item in self.mixtures.values()}
        return mixtures | {sink.name: len(sink.pieces) for sink in self.sinks.values()}

    def forward(self, images: Tensor, weights: Mapping[str, CandidateWeights]) -> Tensor:
        """(N, 3, height, width) -> logits (N, classes).

        Images are brought to the resolution that the space reads. `weights` has a vector for the
        name of each mixture and sink, an entry for each of its candidates. Those whose entry is a
        plain 0 are not run, nor layers beyond all depths that have another one.
        """
        images = at_resolution(images, self._resolution)
        unused = self._unused(weights)
        values: list[Tensor] = []
        for index, sources in enumerate(self.space.sources):
            read = [images if source == INPUT_NODE else values[source] for source in sources]
            if index in unused:
                values.append(read[0])
            elif index in self.mixtures:
                values.append(self._mixed(index, read[0], weights[self.mixtures[index].name]))
            elif index not in self.fixed or isinstance(self.fixed[index], SumOf):
                values.append(reduce(torch.add, read))
            elif isinstance(self.fixed[index], ConcatOf):
                values.append(torch.cat(read, 1))
            else:
                values.append(self._run(f"{index}_0", read[0]))
            if index in self.sinks:
                sink = self.sinks[index]
                depths = zip(sink.pieces, weights[sink.name], strict=True)
                terms = [weight * values[piece] for piece, weight in depths if _counts(weight)]
                values[index] = sum(terms[1:], terms[0])
        return values[-1]

    def blocks(self, index: int) -> tuple[Block | None, ...]:
        """The candidates of a piece, or the block that is fixed there, as wide as they run now."""
        mixture = self.mixtures.get(index)
        blocks = (self.fixed[index],) if mixture is None else mixture.candidates
        return tuple(
            module.block if isinstance(module := self._module(index, number), Narrowable) else block
            for number, block in enumerate(blocks)
        )

    def layers(self, architecture: Architecture) -> list[Narrowable | None]:
        """The module of each layer of a staged space; `None` where it is left out or no MBConv."""
        found: list[Narrowable | None] = []
        kept = dict(self._modules_of(architecture))
        for index, piece in enumerate(self.space.pieces):
            if piece.stage is not None:
                module = kept.get(index)
                found.append(module if isinstance(module, Narrowable) else None)
        return found

    def extract(self, architecture: Architecture) -> TorchModel:
        """The architecture's network with a copy of its candidates' weights and statistics.

        Where its middle channels are scaled, it gets those that the supernet runs, or the
        strongest where that has another number of them.
        """
        assert isinstance(self.space, SearchSpace)
        network = self.space.network(architecture)
        model = TorchModel(network).to(next(self.parameters()).dtype)
        target = model.state_dict()
        with torch.no_grad():
            for node, ((_, module), block) in enumerate(
                zip(self._modules_of(architecture), network.blocks, strict=True)
            ):
                if module is None:
                    continue
                state = module.state_dict()
                if isinstance(module, Narrowable) and isinstance(block, MBConv):
                    state = module.narrowed_to(block.expanded_channels)
                for key, value in state.items():
                    target[key.replace("layers.", f"layers.{node}_", 1)].copy_(value)
        return model

    def _unused(self, weights: Mapping[str, CandidateWeights]) -> set[int]:
        """The pieces of layers that no depth with a weight keeps."""
        found: set[int] = set()
        for end, sink in self.sinks.items():
            depths = zip(sink.pieces, weights[sink.name], strict=True)
            kept = [piece for piece, weight in depths if _counts(weight)]
            if not kept:
                raise UsageError(f"no depth of {sink.name} has a weight: the stage gives nothing")
            found.update(range(max(kept) + 1, end + 1))
        return found

    def _mixed(self, index: int, value: Tensor, weights: CandidateWeights) -> Tensor:
        """The weighted sum of a mixture's candidates; zeros where none is run."""
        total: Tensor | None = None
        for number, (candidate, weight) in enumerate(
            zip(self.mixtures[index].candidates, weights, strict=True)
        ):
            if candidate is not None and _counts(weight):
                part = weight * self._run(f"{index}_{number}", value)
                # Added to zeros, it would lose its layout in memory.
                total = part if total is None else total + part
        if total is not None:
            return total
        block = next(block for block in self.mixtures[index].candidates if block is not None)
        return value.new_zeros(len(value), *block.output_shape)

    def _run(self, name: str, value: Tensor) -> Tensor:
        result: Tensor = self.candidates[name](value)
        return result

    def _modules_of(self, architecture: Architecture) -> Iterator[tuple[int, nn.Module | None]]:
        """Piece and module of each block of an architecture's network; `None`: without weights."""
        assert isinstance(self.space, SearchSpace)
        unscaled = Architecture(architecture.choices)
        blocks = self.space.network(unscaled).blocks
        for piece, block in zip(self.space.placed(unscaled), blocks, strict=True):
            yield piece, self._module_of(piece, block)

    def _module_of(self, piece: int, block: Block) -> nn.Module | None:
        """Where the weights of `block` at a piece are; `None` where it has none."""
        if isinstance(block, Nothing):
            return None
        if piece not in self.mixtures:
            return self._module(piece, 0)
        candidates = self.mixtures[piece].candidates
        if block not in candidates:
            raise UsageError(f"{block} is no candidate of {self.mixtures[piece].name}")
        return self._module(piece, candidates.index(block))

    def _module(self, piece: int, number: int) -> nn.Module | None:
        name = f"{piece}_{number}"
        if name not in self.candidates:
            return None
        return self.candidates[name]


def _counts(weight: Tensor | float) -> bool:
    """Whether what has this weight is to be run."""
    return isinstance(weight, Tensor) or weight != 0
