"""A block or network computes the same in torch, in ONNX Runtime and in LiteRT."""

import numpy as np
import pytest
import torch
from block_cases import ACTIVATIONS, STRATEGIES, kernels, strides
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.tflite import convert
from latkit.latency.blocks import (
    BLOCK_KINDS,
    ConvBlock,
    Head,
    MBConv,
    Pooling,
    Skip,
    Sum,
)
from latkit.latency.network import INPUT, Network, NetworkNode
from latkit.latency.onnx_model import build_onnx, random_parameters, subject_graph
from latkit.latency.torch_model import TorchModel
from realisations import (
    TOLERANCE,
    assert_realisations_agree,
    relative_error,
    run_onnx,
    run_tflite,
    run_torch,
)


def test_every_kind_of_block_has_a_strategy():
    assert set(STRATEGIES) == set(BLOCK_KINDS)


@pytest.mark.parametrize("kind", STRATEGIES)
def test_block_agrees(kind):
    @settings(deadline=None, max_examples=40)
    @given(block=STRATEGIES[kind], seed=st.integers(0, 3))
    def agree(block, seed):
        assert_realisations_agree(block, seed)

    agree()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("squeeze_excite", [False, True])
def test_inverted_residual_agrees_with_every_activation(activation, squeeze_excite):
    block = MBConv(
        in_channels=8,
        height=9,
        width=8,
        out_channels=8,
        expanded_channels=24,
        squeeze_excite=squeeze_excite,
        activation=activation,
    )
    assert_realisations_agree(block, batch_size=2)


@pytest.mark.parametrize("pool", ["max", "average"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (6, 6), (7, 8)])
def test_pool_agrees_at_every_alignment(pool, stride, size):
    for kernel in (1, 3, 5):
        block = Pooling(
            in_channels=3, height=size[0], width=size[1], pool=pool, kernel=kernel, stride=stride
        )
        assert_realisations_agree(block, batch_size=2)


@st.composite
def networks(draw):
    """A stem, a body of blocks of one shape each read from any two earlier ones, and a head."""
    width, size = draw(st.integers(1, 12)), draw(st.integers(2, 12))
    stride = draw(strides)
    stem = ConvBlock(in_channels=3, height=size, width=size, out_channels=width, stride=stride)
    shape = dict(zip(("in_channels", "height", "width"), stem.output_shape, strict=True))
    nodes = [NetworkNode(stem, (INPUT,))]
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["conv", "mbconv", "skip", "pool", "sum"]))
        earlier = st.integers(0, len(nodes) - 1)
        inputs = (draw(earlier), draw(earlier)) if kind == "sum" else (draw(earlier),)
        activation = draw(st.sampled_from(ACTIVATIONS))
        blocks = {
            "conv": ConvBlock(**shape, out_channels=width, activation=activation),
            "mbconv": MBConv(
                **shape,
                out_channels=width,
                expanded_channels=2 * width,
                kernel=draw(kernels),
                squeeze_excite=draw(st.booleans()),
                activation=activation,
            ),
            "skip": Skip(**shape),
            "pool": Pooling(**shape, pool=draw(st.sampled_from(["max", "average"])), stride=1),
            "sum": Sum(**shape),
        }
        nodes.append(NetworkNode(blocks[kind], inputs))
    head = Head(**shape, hidden_channels=16, classes=10, activation="hard_swish")
    nodes.append(NetworkNode(head, (len(nodes) - 1,)))
    return Network((3, size, size), tuple(nodes))


@settings(deadline=None, max_examples=60)
@given(network=networks(), seed=st.integers(0, 3))
def test_network_agrees(network, seed):
    assert_realisations_agree(network, seed)


def shake_statistics(module, seed):
    """Train-mode passes over shifted data, and affine parameters that are not 1 and 0."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
            torch.nn.init.uniform_(layer.bias, -0.5, 0.5, generator=generator)
    module.train()
    with torch.no_grad():
        for _ in range(4):
            module(torch.randn((4, *module.graph.input_shape), generator=generator) * 2 + 0.5)


@settings(deadline=None, max_examples=20)
@given(network=networks(), seed=st.integers(0, 3))
def test_folded_batch_norms_agree_with_the_trained_module(network, seed):
    torch.manual_seed(seed)
    module = TorchModel(network)
    shake_statistics(module, seed)
    value = np.random.default_rng(seed).standard_normal((1, *network.input_shape), dtype=np.float32)
    reference = run_torch(module, value)
    model = build_onnx(network, module.folded())
    assert relative_error(run_onnx(model, value), reference) < TOLERANCE
    assert relative_error(run_tflite(convert(model), value), reference) < TOLERANCE


def test_training_moves_what_is_folded():
    block = MBConv(in_channels=4, height=6, width=6, out_channels=4, expanded_channels=8)
    module = TorchModel(block)
    before = module.folded()
    shake_statistics(module, 0)
    after = module.folded()
    assert set(before) == set(after)
    assert all(not np.allclose(before[name], after[name]) for name in before)


def test_loaded_parameters_come_back_folded():
    block = MBConv(
        in_channels=4, height=6, width=6, out_channels=4, expanded_channels=8, squeeze_excite=True
    )
    parameters = random_parameters(subject_graph(block))
    module = TorchModel(block)
    module.load_folded(parameters)
    folded = module.folded()
    assert set(folded) == set(parameters)
    for name, values in parameters.items():
        np.testing.assert_allclose(folded[name], values, rtol=1e-5, atol=1e-7)
