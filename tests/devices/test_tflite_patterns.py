"""Functions that exporters write as several nodes become the one TFLite operator they are."""

import io
import warnings

import onnx
import pytest
import torch
from onnx_cases import assert_agrees, constant, integers, model_of, scalar
from torch import nn

ROOT_HALF, HALF = scalar("root_half", 0.5**0.5), scalar("half", 0.5)
ONE, THREE, SIX = scalar("one", 1), scalar("three", 3), scalar("six", 6)
ZERO, SIXTH, ROOT_TWO = scalar("zero", 0), scalar("sixth", 1 / 6), scalar("root_two", 2**0.5)
NUMBERS = [ROOT_HALF, HALF, ONE, THREE, SIX, ZERO, SIXTH, ROOT_TWO]


class TanhGelu(nn.Module):
    """As language models write it themselves."""

    def forward(self, value):
        inner = 0.7978845608 * (value + 0.044715 * value**3)
        return 0.5 * value * (1 + torch.tanh(inner))


class Relu6Swish(nn.Module):
    """As MobileNetV3's first ports wrote it."""

    def forward(self, value):
        return value * nn.functional.relu6(value + 3) / 6


class Relu6Gate(nn.Module):
    def forward(self, value):
        return nn.functional.relu6(value + 3.0) / 6.0


def exported(module, opset, shape=(1, 6, 8, 7)):
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (torch.zeros(shape),),
            content,
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            output_names=["y"],
        )
    return onnx.load_from_string(content.getvalue())


@pytest.mark.parametrize("opset", [11, 13, 17])
@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.GELU(), ["GELU"]),
        (nn.GELU(approximate="tanh"), ["GELU"]),
        (TanhGelu(), ["GELU"]),
        (nn.Hardswish(), ["HARD_SWISH"]),
        (Relu6Swish(), ["HARD_SWISH"]),
        (nn.Hardsigmoid(), ["ADD", "MUL"]),
        (Relu6Gate(), ["ADD", "MUL"]),
        (nn.SiLU(), ["LOGISTIC", "MUL"]),
        (nn.Mish(), ["ABS", "NEG", "EXP", "RELU", "ADD", "LOG", "ADD", "TANH", "MUL"]),
        (nn.Softplus(), ["ABS", "NEG", "EXP", "RELU", "ADD", "LOG", "ADD"]),
        (nn.ELU(), ["ELU"]),
        (nn.PReLU(6), ["PRELU"]),
        (nn.ReLU6(), ["RELU6"]),
        (nn.PixelShuffle(2), None),
        (nn.Upsample(scale_factor=2), ["RESIZE_NEAREST_NEIGHBOR"]),
        (nn.UpsamplingBilinear2d(scale_factor=2), ["RESIZE_BILINEAR"]),
        (nn.Upsample(scale_factor=2, mode="bilinear"), ["RESIZE_BILINEAR"]),
        (nn.Upsample(size=(5, 9), mode="bilinear"), ["RESIZE_BILINEAR"]),
        (nn.GroupNorm(3, 6), None),
        (nn.InstanceNorm2d(6), None),
        (nn.LayerNorm(7), None),
        (nn.ZeroPad2d(2), ["PAD"]),
        (nn.ReflectionPad2d(2), ["MIRROR_PAD"]),
        (nn.AdaptiveAvgPool2d(1), ["MEAN"]),
    ],
    ids=lambda value: str(value) if isinstance(value, nn.Module) else None,
)
def test_module_becomes_what_tflite_has_for_it(module, expected, opset):
    shape = (1, 8, 4, 4) if isinstance(module, nn.PixelShuffle) else (1, 6, 8, 7)
    written = assert_agrees(exported(module, opset, shape), 2e-5)
    assert expected is None or written == expected


@pytest.mark.parametrize(
    "nodes",
    [
        [
            ("Mul", ["x", "half"], ["h"]),
            ("Mul", ["root_half", "x"], ["s"]),
            ("Erf", ["s"], ["e"]),
            ("Add", ["one", "e"], ["a"]),
            ("Mul", ["a", "h"], ["y"]),
        ],
        [
            ("Div", ["x", "root_two"], ["s"]),
            ("Erf", ["s"], ["e"]),
            ("Add", ["e", "one"], ["a"]),
            ("Mul", ["half", "a"], ["b"]),
            ("Mul", ["b", "x"], ["y"]),
        ],
    ],
    ids=["half of the input first", "half of the sum"],
)
def test_gelu_is_recognised_in_any_order(nodes):
    assert assert_agrees(model_of(nodes, NUMBERS), 2e-5) == ["GELU"]


def test_hard_sigmoid_of_a_clip_is_taken_into_the_convolution_before_it():
    nodes = [
        ("Conv", ["x", "weight"], ["c"]),
        ("Add", ["c", "three"], ["a"]),
        ("Clip", ["a", "zero", "six"], ["l"]),
        ("Mul", ["l", "sixth"], ["y"]),
    ]
    model = model_of(nodes, [constant("weight", 6, 6, 1, 1), *NUMBERS])
    assert assert_agrees(model) == ["CONV_2D", "MUL"]


def test_parts_that_are_read_elsewhere_stay():
    nodes = [
        ("Add", ["x", "three"], ["a"]),
        ("Clip", ["a", "zero", "six"], ["l"]),
        ("Mul", ["x", "l"], ["p"]),
        ("Div", ["p", "six"], ["y"]),
    ]
    model = model_of(nodes, NUMBERS, outputs=("y", "a"))
    assert "HARD_SWISH" not in assert_agrees(model)
    assert assert_agrees(model_of(nodes, NUMBERS)) == ["HARD_SWISH"]


@pytest.mark.parametrize("number", ["six", "one"])
def test_other_numbers_are_no_hard_swish(number):
    nodes = [
        ("Add", ["x", "three"], ["a"]),
        ("Clip", ["a", "zero", "six"], ["l"]),
        ("Mul", ["x", "l"], ["p"]),
        ("Mul", ["p", number], ["y"]),
    ]
    assert "HARD_SWISH" not in assert_agrees(model_of(nodes, NUMBERS))


def test_functions_are_recognised_between_others():
    nodes = [
        ("Transpose", ["x"], ["t"], {"perm": [0, 2, 3, 1]}),
        ("Div", ["t", "root_two"], ["s"]),
        ("Erf", ["s"], ["e"]),
        ("Add", ["e", "one"], ["a"]),
        ("Mul", ["t", "a"], ["b"]),
        ("Mul", ["b", "half"], ["g"]),
        ("Reshape", ["g", "flat"], ["y"]),
    ]
    written = assert_agrees(model_of(nodes, [*NUMBERS, integers("flat", 56, 6)]), 2e-5)
    assert written == ["GELU", "RESHAPE"]
