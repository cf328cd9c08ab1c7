"""A block or network in torch, in ONNX Runtime and in LiteRT, and how far they differ."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import torch
from ai_edge_litert.interpreter import Interpreter
from latkit.devices.tflite import convert
from latkit.latency.onnx_model import build_onnx, random_parameters, subject_graph
from latkit.latency.ops import INITIAL_CLIP, Input, Quantise
from latkit.latency.quantisers import Quantiser
from latkit.latency.torch_model import TorchModel

TOLERANCE = 1e-4
SMALLEST_SCALE = 1e-2
"""Outputs are compared by their largest value, but by no less: sums may cancel to near nothing."""


def by_name(values):
    """The values of a graph's inputs by their names."""
    return {f"input_{index}" if index else "input": value for index, value in enumerate(values)}


def run_onnx(model, *values):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, by_name(values))[0]


def run_tflite(content, *values):
    interpreter = Interpreter(model_content=content, num_threads=1)
    signature = interpreter.get_signature_runner("serving_default")
    nhwc = [value.transpose(0, 2, 3, 1) if value.ndim == 4 else value for value in values]
    result = signature(**by_name(nhwc))["output"]
    return result.transpose(0, 3, 1, 2) if result.ndim == 4 else result


def run_torch(module, *values):
    with torch.inference_mode():
        return module.eval()(*map(torch.from_numpy, values)).numpy()


def relative_error(result, reference):
    assert result.shape == reference.shape
    scale = max(float(np.abs(reference).max()), SMALLEST_SCALE)
    return float(np.abs(result - reference).max()) / scale


def settled_clips(subject, parameters, value):
    """Clip values, up to 5 % above the first, for which nothing is rounded close to a boundary.

    Close to one, the last bit of a sum decides which way it goes, and every runtime adds in an
    order of its own: a whole step of difference would be no fault of theirs.
    """
    module = TorchModel(subject)
    module.load_folded(parameters)

    def settle(quantiser, read):
        def distance(clip):
            scaled = read[0].clamp(0, clip) * ((2**quantiser.bits - 1) / clip)
            return float((scaled - scaled.floor() - 0.5).abs().min())

        candidates = INITIAL_CLIP * torch.linspace(1, 1.05, 50, dtype=torch.float64)
        torch.nn.init.constant_(quantiser.clip, max(candidates.tolist(), key=distance))

    for layer in module.modules():
        if isinstance(layer, Quantiser):
            layer.register_forward_pre_hook(settle)
    with torch.no_grad():
        module.double().eval()(torch.from_numpy(value).double())
    return {name: item for name, item in module.folded().items() if name.endswith(".clip")}


def assert_realisations_agree(subject, seed=0, batch_size=1):
    graph = subject_graph(subject)
    parameters = random_parameters(graph, seed)
    random = np.random.default_rng(seed)
    others = [node.op.shape for node in graph.nodes if isinstance(node.op, Input)]
    values = [
        random.standard_normal((batch_size, *shape), dtype=np.float32)
        for shape in (graph.input_shape, *others)
    ]
    if any(isinstance(node.op, Quantise) for node in graph.nodes):
        parameters |= settled_clips(subject, parameters, *values)
    module = TorchModel(subject)
    module.load_folded(parameters)
    model = build_onnx(subject, parameters, batch_size=batch_size)
    onnx.checker.check_model(model, full_check=True)
    reference = run_torch(module, *values)
    assert reference.shape == (batch_size, *graph.shape(graph.output))
    assert relative_error(run_onnx(model, *values), reference) < TOLERANCE
    assert relative_error(run_tflite(convert(model), *values), reference) < TOLERANCE
