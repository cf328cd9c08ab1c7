"""All networks by name, their inputs, and how they are written as ONNX."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from .convnext import convnext_tiny
from .densenet import densenet121
from .efficientnet import efficientnet_b0, mnasnet_a1
from .ghostnet import ghostnet
from .mobilenet_v1 import mobilenet_v1
from .mobilenet_v2 import mobilenet_v2
from .mobilenet_v3 import mobilenet_v3_large, mobilenet_v3_small
from .mobilevit import mobilevit_xs
from .resnet import regnetx_400mf, resnet18, resnet50
from .shufflenet_v2 import shufflenet_v2
from .squeezenet import squeezenet_1_1
from .ssdlite import ssdlite_mobilenet_v2
from .unet import unet
from .vit import deit_tiny
from .weights import set_random_weights
from .yolox import yolox_nano

OPSET = 17

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "convnext_tiny": convnext_tiny,
    "deit_tiny": deit_tiny,
    "densenet121": densenet121,
    "efficientnet_b0": efficientnet_b0,
    "ghostnet": ghostnet,
    "mnasnet_a1": mnasnet_a1,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3_large": mobilenet_v3_large,
    "mobilenet_v3_small": mobilenet_v3_small,
    "mobilevit_xs": mobilevit_xs,
    "regnetx_400mf": regnetx_400mf,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "shufflenet_v2": shufflenet_v2,
    "squeezenet_1_1": squeezenet_1_1,
    "ssdlite_mobilenet_v2": ssdlite_mobilenet_v2,
    "unet": unet,
    "yolox_nano": yolox_nano,
}
"""What builds each network, its weights as torch makes them; `build` gives them sane ones."""

PIXELS = {
    "mobilevit_xs": 256,
    "ssdlite_mobilenet_v2": 320,
    "unet": 256,
    "yolox_nano": 416,
}
"""Sizes other than 224: the papers', but for U-Net, which has them of 572."""

INPUT_SHAPES: dict[str, tuple[int, ...]] = {
    name: (1, 3, PIXELS.get(name, 224), PIXELS.get(name, 224)) for name in NETWORKS
}


def build(name: str, seed: int = 0) -> nn.Module:
    """The network in eval mode, with random weights of the seed and activations near 1."""
    with torch.random.fork_rng(devices=[]):  # torch's own initial weights are drawn over
        module = NETWORKS[name]()
    set_random_weights(module, INPUT_SHAPES[name], seed)
    return module


def export(name: str, path: str | Path, seed: int = 0) -> None:
    """Write a network as ONNX: opset 17, static shapes, batch 1, input `x`."""
    module = build(name, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns that it is the older one
        torch.onnx.export(
            module,
            (torch.zeros(INPUT_SHAPES[name]),),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["x"],
        )
