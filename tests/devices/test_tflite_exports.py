"""TFLite models written from what `torch.onnx.export` makes of plain torch classifiers."""

import io
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from latkit.devices.tflite import convert
from torch import nn


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, value):
        return nn.functional.relu(self.body(value) + value)


class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, 4, 1),
            nn.SiLU(),
            nn.Conv2d(4, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, value):
        return value * self.gate(value)


class Shuffle(nn.Module):
    """Half of the channels through a branch, then a channel shuffle."""

    def __init__(self, channels):
        super().__init__()
        self.branch = nn.Conv2d(channels // 2, channels // 2, 3, padding=1, groups=channels // 2)

    def forward(self, value):
        left, right = value.chunk(2, dim=1)
        joined = torch.cat((left, self.branch(right)), dim=1)
        batch, channels, height, width = joined.shape
        groups = joined.view(batch, 2, channels // 2, height, width)
        return groups.transpose(1, 2).reshape(batch, channels, height, width)


def convolution(inputs, outputs, activation, **settings):
    return [nn.Conv2d(inputs, outputs, 3, **settings), nn.BatchNorm2d(outputs), activation]


CLASSIFIERS = {
    "plain": [
        *convolution(3, 6, nn.ReLU(), padding=1),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(8 * 4 * 4, 20),
        nn.ReLU(),
        nn.Linear(20, 10),
        nn.Softmax(dim=1),
    ],
    "residual": [
        *convolution(3, 8, nn.ReLU(), padding=1, stride=2),
        nn.MaxPool2d(3, stride=2, padding=1),
        Residual(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    ],
    "mobile": [
        *convolution(3, 8, nn.Hardswish(), padding=1, stride=2),
        *convolution(8, 8, nn.ReLU6(), padding=1, stride=2, groups=8),
        SqueezeExcite(8),
        nn.Hardsigmoid(),
        nn.AvgPool2d(3, stride=2, padding=1),
        nn.Conv2d(8, 10, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ],
    "shuffle": [
        *convolution(3, 8, nn.LeakyReLU(0.1), padding=1, stride=2),
        Shuffle(8),
        nn.PReLU(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.LogSoftmax(dim=1),
    ],
}


def trained(name):
    """The classifier in eval mode, its batch norms moved by a few training passes."""
    torch.manual_seed(0)
    module = nn.Sequential(*CLASSIFIERS[name])
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(4, 3, 24, 24) + 0.5)
    return module.eval()


def exported(module, opset, dynamic):
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            torch.randn(1, 3, 24, 24),
            content,
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}} if dynamic else None,
        )
    return onnx.load_from_string(content.getvalue())


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize(("opset", "dynamic"), [(11, True), (13, False), (17, False), (18, True)])
def test_exported_classifier_agrees(name, opset, dynamic):
    module = trained(name)
    value = np.random.default_rng(0).standard_normal((1, 3, 24, 24), dtype=np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(value)).numpy()
    model = exported(module, opset, dynamic)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    np.testing.assert_allclose(session.run(None, {"x": value})[0], expected, atol=1e-5)
    runner = Interpreter(model_content=convert(model)).get_signature_runner("serving_default")
    result = runner(x=value.transpose(0, 2, 3, 1))["y"]
    scale = np.abs(expected).max()
    assert np.abs(result - expected).max() / scale < 1e-4


def test_classifier_of_a_mobile_network_has_no_transposition():
    content = convert(exported(trained("mobile"), 17, False))
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    codes = {code.builtinCode for code in model.operatorCodes}
    builtin = schema.BuiltinOperator
    assert builtin.TRANSPOSE not in codes
    assert {builtin.HARD_SWISH, builtin.DEPTHWISE_CONV_2D, builtin.MEAN} <= codes
