"""Latency models: how long would a block, architecture or model take, without the device?"""

from .blocks import (
    BLOCK_KINDS,
    Block,
    ConvBlock,
    Depthwise,
    Head,
    LinearBlock,
    MBConv,
    Pointwise,
    Pooling,
    Skip,
    Sum,
)
from .cost import CostModel, lay_out
from .network import Network, NetworkNode
from .onnx_model import build_onnx
from .predictor import LatencyPredictor
from .space_profile import build_table, profile_space
from .spaces import load_space
from .store import Store
from .subject import ModelFile
from .table import Estimate, LatencyTable

__all__ = [
    "BLOCK_KINDS",
    "Block",
    "ConvBlock",
    "CostModel",
    "Depthwise",
    "Estimate",
    "Head",
    "LatencyPredictor",
    "LatencyTable",
    "LinearBlock",
    "MBConv",
    "ModelFile",
    "Network",
    "NetworkNode",
    "Pointwise",
    "Pooling",
    "Skip",
    "Store",
    "Sum",
    "build_onnx",
    "build_table",
    "lay_out",
    "load_space",
    "profile_space",
]
