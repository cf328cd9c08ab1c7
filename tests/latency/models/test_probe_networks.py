"""Probe networks: the same for a seed, valid, of bounded size, with the operations of the field."""

import math
from collections import Counter
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
from latkit.latency.counts import count
from latkit.latency.models.probe_blocks import BLOCKS, Draw
from latkit.latency.models.probe_graph import ProbeActivation, ProbeGraph
from latkit.latency.models.probe_networks import MOST_WEIGHTS, PRODUCTS, probe_name, probe_network

NETWORKS = 40

OPERATIONS = {
    *("AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "Gather"),
    *("Gemm", "GlobalAveragePool", "HardSigmoid", "HardSwish", "LayerNormalization", "LeakyRelu"),
    *("MatMul", "MaxPool", "ReduceMean", "Relu", "Reshape", "Resize", "Sigmoid", "Slice"),
    *("Softmax", "Split", "Transpose", "Erf"),
}


def run(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    shape = session.get_inputs()[0].shape
    return session.run(None, {"input": np.random.default_rng(0).random(shape, dtype=np.float32)})


@pytest.fixture(scope="module")
def networks():
    return [probe_network(seed) for seed in range(NETWORKS)]


def test_a_seed_gives_the_same_network_always(networks):
    assert probe_network(3) == networks[3]
    assert probe_network(3) != networks[4]
    assert probe_name(3) != probe_name(4)


def test_networks_are_valid_and_run_with_the_shapes_they_state(networks):
    for model in networks[:12]:
        onnx.checker.check_model(model, full_check=True)
        for value, stated in zip(run(model), model.graph.output, strict=True):
            assert list(value.shape) == [d.dim_value for d in stated.type.tensor_type.shape.dim]
            assert np.isfinite(value).all()
            assert np.abs(value).max() > 1e-20  # denormal numbers would be timed, not kernels


def test_networks_keep_within_their_size(networks):
    low, high = PRODUCTS
    for model in networks:
        counts = count(model)
        assert low < counts.flops < 3 * high  # element-wise work comes on top
        assert counts.parameters <= 1.1 * MOST_WEIGHTS


def test_sizes_are_spread_over_the_whole_range(networks):
    flops = sorted(count(model).flops for model in networks)
    assert flops[4] < 1e8
    assert flops[-5] > 1e9


def test_the_field_s_operations_occur(networks):
    found = Counter(node.op_type for model in networks for node in model.graph.node)
    assert set(found) >= OPERATIONS


def test_convolutions_of_all_forms_occur(networks):
    forms = set()
    for model in networks:
        weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type != "Conv":
                continue
            values = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            window = tuple(values["kernel_shape"])
            channels = weights[node.input[1]][0]
            kind = {1: "dense", channels: "depthwise"}.get(values["group"], "grouped")
            forms.add((kind, window, values["strides"][0]))
            if values["dilations"][0] > 1:
                forms.add("dilated")
            if channels % 8:
                forms.add("odd channels")
    assert {"dilated", "odd channels"} <= forms
    for form in (
        ("dense", (1, 1), 1),
        ("dense", (1, 1), 2),
        ("dense", (3, 3), 2),
        ("dense", (5, 5), 1),
        ("dense", (7, 7), 2),
        ("dense", (1, 3), 1),
        ("depthwise", (3, 3), 2),
        ("depthwise", (5, 5), 1),
        ("depthwise", (7, 7), 1),
        ("grouped", (3, 3), 1),
    ):
        assert form in forms


@pytest.mark.parametrize("block", [block for block, _ in BLOCKS], ids=lambda item: item.__name__)
@pytest.mark.parametrize("stride", [1, 2])
def test_each_block_writes_the_shape_that_it_states(block, stride):
    for seed in range(3):
        graph = ProbeGraph((1, 24, 14, 14))
        draw = Draw(np.random.default_rng(seed))
        value = block(graph, draw, graph.input, 32, stride, "relu")
        (output,) = run(graph.model([value], seed))
        assert output.shape == value.shape
        assert value.pixels in ({14} if stride == 1 else {7, 8})


@pytest.mark.parametrize("activation", get_args(ProbeActivation))
def test_activations_compute_what_their_names_say(activation):
    graph = ProbeGraph((1, 8, 4, 4))
    value = graph.activation(graph.mul(graph.input, graph.scalar(4.0)), activation)
    (output,) = run(graph.model([value], 0))
    x = 4 * np.random.default_rng(0).random((1, 8, 4, 4), dtype=np.float32)
    expected = {
        "none": x,
        "relu": np.maximum(x, 0),
        "relu6": np.clip(x, 0, 6),
        "hard_swish": x * np.clip(x / 6 + 0.5, 0, 1),
        "silu": x / (1 + np.exp(-x)),
        "gelu": x * 0.5 * (1 + np.vectorize(math.erf)(x / np.sqrt(2))),
        "sigmoid": 1 / (1 + np.exp(-x)),
        "hard_sigmoid": np.clip(x / 6 + 0.5, 0, 1),
        "leaky": np.where(x > 0, x, 0.1 * x),
        "tanh": np.tanh(x),
    }
    np.testing.assert_allclose(output, expected[activation], rtol=1e-4, atol=1e-5)
