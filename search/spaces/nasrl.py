"""NAS-RL's space (Zoph & Le 2017, section 3.3): the convolution of each layer and what it reads.

A layer reads any of the layers before it: their outputs are concatenated, smaller ones padded with
zeros to the largest. One that reads none reads the image, and what no layer reads is concatenated
for the classifier. Every layer is a convolution, batch norm and ReLU.

Recalled: 15 layers, as the published network of stride 1 has. Ours, for the paper does not say:
padding is the same on both sides, and the classifier follows global average pooling.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...latency.blocks import Classifier, PaddedConcat, RectangularConv
from ...latency.network import INPUT, Network
from ..choices import Choice
from .assembled import AssembledSpace, Assembly, Options
from .scale import PAPER, Scale

KERNELS = (1, 3, 5, 7)
FILTERS = (24, 36, 48, 64)
STRIDES = (1, 2, 3)
READ = ("no", "yes")
LAYERS = 15
RESOLUTION = 32


class NasRLSpace(AssembledSpace):
    """The space; a layer's choices are `layer3.height`, `.width`, `.filters`, and `.from1`, ...

    With `strides` it has `.stride` too; else all strides are 1. Filters that a scale makes equal
    are one option.
    """

    def __init__(
        self,
        classes: int = 10,
        scale: Scale = PAPER,
        *,
        layers: int = LAYERS,
        strides: bool = False,
    ) -> None:
        self._classes = classes
        self._depth = layers
        self._resolution = (scale.resolutions or (RESOLUTION,))[0]
        filters = tuple(dict.fromkeys(scale.channels(count) for count in FILTERS))
        choices = [
            choice
            for layer in range(1, layers + 1)
            for choice in _choices(layer, filters, STRIDES if strides else ())
        ]
        super().__init__("nasrl_strides" if strides else "nasrl", choices)

    def assemble(self, options: Options) -> Network:
        """The network of these options."""
        assembly = Assembly((3, self._resolution, self._resolution))
        layers: list[int] = []
        unread: set[int] = set()
        for number in range(1, self._depth + 1):
            name = f"layer{number}"
            reads = [
                layer
                for earlier, layer in enumerate(layers, start=1)
                if options[f"{name}.from{earlier}"] == "yes"
            ]
            unread -= set(reads)
            source = _joined(assembly, reads or [INPUT])
            channels, height, width = assembly.shape(source)
            conv = RectangularConv(
                in_channels=channels,
                height=height,
                width=width,
                out_channels=int(options[f"{name}.filters"]),
                kernel_height=int(options[f"{name}.height"]),
                kernel_width=int(options[f"{name}.width"]),
                stride=int(options.get(f"{name}.stride", 1)),
            )
            layers.append(assembly.add(conv, source))
            unread.add(layers[-1])
        end = _joined(assembly, sorted(unread))
        channels, height, width = assembly.shape(end)
        classifier = Classifier(
            in_channels=channels, height=height, width=width, classes=self._classes
        )
        assembly.add(classifier, end)
        return assembly.network()


def _joined(assembly: Assembly, nodes: Sequence[int]) -> int:
    """The node that gives what these nodes give, concatenated."""
    if len(nodes) == 1:
        return nodes[0]
    shapes = []
    for node in nodes:
        channels, height, width = assembly.shape(node)
        shapes.append((channels, height, width))
    return assembly.add(PaddedConcat(shapes=tuple(shapes)), *nodes)


def _choices(layer: int, filters: tuple[int, ...], strides: tuple[int, ...]) -> Iterator[Choice]:
    name = f"layer{layer}"
    yield Choice(f"{name}.height", KERNELS)
    yield Choice(f"{name}.width", KERNELS)
    yield Choice(f"{name}.filters", filters)
    if strides:
        yield Choice(f"{name}.stride", strides)
    for earlier in range(1, layer):
        yield Choice(f"{name}.from{earlier}", READ)


def nasrl(classes: int = 10, scale: Scale = PAPER) -> NasRLSpace:
    """The space with all strides 1."""
    return NasRLSpace(classes, scale)


def nasrl_strides(classes: int = 10, scale: Scale = PAPER) -> NasRLSpace:
    """The space in which strides of 1, 2 or 3 are chosen too."""
    return NasRLSpace(classes, scale, strides=True)
