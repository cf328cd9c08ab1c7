"""A block or network in torch, in ONNX Runtime and in LiteRT, and how far they differ."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import torch
from ai_edge_litert.interpreter import Interpreter
from latkit.devices.tflite import convert
from latkit.latency.onnx_model import build_onnx, random_parameters, subject_graph
from latkit.latency.torch_model import TorchModel

TOLERANCE = 1e-4
SMALLEST_SCALE = 1e-2
"""Outputs are compared by their largest value, but by no less: sums may cancel to near nothing."""


def run_onnx(model, value):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"input": value})[0]


def run_tflite(content, value):
    interpreter = Interpreter(model_content=content, num_threads=1)
    signature = interpreter.get_signature_runner("serving_default")
    nhwc = value.transpose(0, 2, 3, 1) if value.ndim == 4 else value
    result = signature(input=nhwc)["output"]
    return result.transpose(0, 3, 1, 2) if result.ndim == 4 else result


def run_torch(module, value):
    with torch.inference_mode():
        return module.eval()(torch.from_numpy(value)).numpy()


def relative_error(result, reference):
    assert result.shape == reference.shape
    scale = max(float(np.abs(reference).max()), SMALLEST_SCALE)
    return float(np.abs(result - reference).max()) / scale


def assert_realisations_agree(subject, seed=0, batch_size=1):
    graph = subject_graph(subject)
    parameters = random_parameters(graph, seed)
    module = TorchModel(subject)
    module.load_folded(parameters)
    model = build_onnx(subject, parameters, batch_size=batch_size)
    onnx.checker.check_model(model, full_check=True)
    shape = (batch_size, *graph.input_shape)
    value = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    reference = run_torch(module, value)
    assert reference.shape == (batch_size, *graph.shape(graph.output))
    assert relative_error(run_onnx(model, value), reference) < TOLERANCE
    assert relative_error(run_tflite(convert(model), value), reference) < TOLERANCE
