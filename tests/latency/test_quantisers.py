"""Few bits: what is rounded to what, what gradients pass, and what of it is exported."""

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.errors import UsageError
from latkit.devices.tflite import convert
from latkit.latency.blocks import QuantisedResidual
from latkit.latency.onnx_model import build_onnx
from latkit.latency.ops import OpGraph, Quantise
from latkit.latency.quantisers import Quantiser, quantise_activation, quantise_weight
from latkit.latency.torch_model import TorchModel
from realisations import (
    TOLERANCE,
    relative_error,
    run_onnx,
    run_tflite,
    run_torch,
    settled_clips,
)


def block(weight_bits=2, activation_bits=4):
    return QuantisedResidual(
        in_channels=8,
        height=9,
        width=7,
        out_channels=12,
        stride=2,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
    )


def trained(subject, seed=0):
    """A module whose weights, batch norms and clip values are not as they began."""
    torch.manual_seed(seed)
    module = TorchModel(subject)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for _ in range(4):
            module.train()(torch.randn(4, *module.graph.input_shape).abs() * 2)
    return module.eval()


def test_activations_are_clipped_and_rounded_half_to_even():
    values = torch.tensor([-1, 0, 0.4, 0.5, 0.6, 1.5, 2.4, 2.5, 2.9, 3, 7.0], requires_grad=True)
    clip = torch.tensor([3.0], requires_grad=True)
    found = quantise_activation(values, clip, 2)
    assert found.tolist() == [0, 0, 0, 0, 1, 2, 2, 2, 3, 3, 3]
    found.backward(torch.arange(11.0))
    assert values.grad.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0]
    assert clip.grad.tolist() == [9 + 10]


def test_weights_are_rounded_to_levels_around_zero():
    weight = torch.tensor([3, 1.1, 0.9, 0, -0.2, -1.9, -2.1], requires_grad=True)
    found = quantise_weight(weight, 2)
    assert found.tolist() == [3, 1, 1, 1, -1, -1, -3]
    found.backward(torch.arange(7.0))
    assert weight.grad.tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_weights_of_one_bit_are_sign_and_mean_magnitude():
    weight = torch.tensor([0.5, -1.5, 0, 2], requires_grad=True)
    found = quantise_weight(weight, 1)
    assert found.tolist() == [1, -1, 1, 1]
    found.backward(torch.arange(4.0))
    assert weight.grad.tolist() == [0, 1, 2, 3]


@settings(deadline=None, max_examples=40)
@given(bits=st.integers(1, 8), seed=st.integers(0, 1000))
def test_rounded_weights_have_few_levels_and_stay_as_they_are(bits, seed):
    weight = torch.randn(400, generator=torch.Generator().manual_seed(seed))
    found = quantise_weight(weight, bits)
    assert len(found.unique()) <= 2**bits
    torch.testing.assert_close(quantise_weight(found, bits), found, rtol=1e-6, atol=0)
    if bits > 1:
        step = 2 * float(weight.abs().max()) / (2**bits - 1)
        assert (found - weight).abs().max() <= step / 2 * (1 + 1e-5)


@pytest.mark.parametrize("bits", [1, 2, 8])
def test_weights_that_are_all_zero_stay_finite(bits):
    assert quantise_weight(torch.zeros(4), bits).abs().max() < 1e-30


def test_clip_value_below_the_smallest_still_learns():
    quantiser = Quantiser(4)
    torch.nn.init.constant_(quantiser.clip, -2)
    found = quantiser(torch.tensor([[[-1.0, 0.5]]]))
    assert found.flatten().tolist() == pytest.approx([0, 1e-3], rel=1e-3)
    found.sum().backward()
    assert quantiser.clip.grad.item() == 1


def test_bits_are_rounded_to_the_same_in_torch_onnx_and_tflite():
    """On its own a quantizer adds nothing up, so that all agree to the last bit, at halves too."""
    graph = OpGraph((3, 8, 8))
    graph.add(Quantise("only", 3), 0)
    module = TorchModel(graph)
    random = np.random.default_rng(0)
    for clip, value in (
        (7.0, np.arange(-96, 96) / 8),
        (0.7, random.standard_normal(192)),
        (5.3, 3 * random.standard_normal(192)),
    ):
        value = value.astype(np.float32).reshape(1, 3, 8, 8)
        torch.nn.init.constant_(module.layers["only"].clip, clip)
        model = build_onnx(graph, module.folded())
        expected = run_torch(module, value)
        assert len(np.unique(expected)) == 8
        assert np.array_equal(run_onnx(model, value), expected)
        assert np.array_equal(run_tflite(convert(model), value), expected)


def test_exported_graph_is_of_plain_float_operations():
    model = build_onnx(block())
    kinds = {node.op_type for node in model.graph.node}
    assert kinds == {"Clip", "Mul", "Round", "Conv", "Add", "Relu"}
    onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_exported_weights_have_few_levels_in_each_channel(bits):
    folded = trained(block(weight_bits=bits)).folded()
    weights = [folded[f"{name}.weight"] for name in ("first", "second", "match")]
    levels = [len(np.unique(channel)) for weight in weights for channel in weight]
    assert 2 ** (bits - 1) < max(levels) <= 2**bits


@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(1, 2), (2, 2), (2, 4), (4, 4)])
def test_exported_block_computes_what_the_trained_one_does(weight_bits, activation_bits):
    subject = block(weight_bits, activation_bits)
    module = trained(subject)
    value = np.random.default_rng(1).standard_normal((1, 8, 9, 7), dtype=np.float32)
    parameters = module.folded()
    parameters |= settled_clips(subject, parameters, value)
    for name in ("read", "middle"):
        torch.nn.init.constant_(module.layers[name].clip, float(parameters[f"{name}.clip"]))
    expected = run_torch(module, value)
    model = build_onnx(subject, parameters)
    assert relative_error(run_onnx(model, value), expected) < TOLERANCE
    assert relative_error(run_tflite(convert(model), value), expected) < TOLERANCE
    loaded = TorchModel(subject)
    loaded.load_folded(parameters)
    assert relative_error(run_torch(loaded, value), expected) < TOLERANCE
    for name, item in loaded.folded().items():
        np.testing.assert_allclose(item, parameters[name], rtol=1e-5, atol=1e-7)


def test_more_bits_than_eight_are_refused():
    with pytest.raises(UsageError, match="at most 8"):
        block(weight_bits=9)
