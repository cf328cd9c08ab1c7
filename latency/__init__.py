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
from .calibration import Calibration
from .combined import WorstCost, mean_cost
from .cost import CostModel, lay_out
from .costs import (
    bit_operations_cost,
    flops_cost,
    multiply_adds_cost,
    parameters_cost,
    peak_memory_cost,
)
from .limits import Limit
from .models import ModelPrediction, ModelPredictor, predict_model
from .network import Network, NetworkNode
from .onnx_model import build_onnx
from .predicted_cost import predicted_cost
from .predictor import LatencyPredictor
from .pricing import cost_model
from .sharing import export_table, import_table
from .space_profile import build_table, profile_space
from .spaces import load_space
from .store import Store
from .subject import ModelFile
from .table import Entry, Estimate, LatencyTable
from .transfer import (
    AdaptedTable,
    Choices,
    TransferPredictor,
    adapt,
    adapt_tables,
    learn_sources,
)

__all__ = [
    "BLOCK_KINDS",
    "AdaptedTable",
    "Block",
    "Calibration",
    "Choices",
    "ConvBlock",
    "CostModel",
    "Depthwise",
    "Entry",
    "Estimate",
    "Head",
    "LatencyPredictor",
    "LatencyTable",
    "Limit",
    "LinearBlock",
    "MBConv",
    "ModelFile",
    "ModelPrediction",
    "ModelPredictor",
    "Network",
    "NetworkNode",
    "Pointwise",
    "Pooling",
    "Skip",
    "Store",
    "Sum",
    "TransferPredictor",
    "WorstCost",
    "adapt",
    "adapt_tables",
    "bit_operations_cost",
    "build_onnx",
    "build_table",
    "cost_model",
    "export_table",
    "flops_cost",
    "import_table",
    "lay_out",
    "learn_sources",
    "load_space",
    "mean_cost",
    "multiply_adds_cost",
    "parameters_cost",
    "peak_memory_cost",
    "predict_model",
    "predicted_cost",
    "profile_space",
]
