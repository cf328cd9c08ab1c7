"""Counts against hand-computed values and against torch's own counter."""

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.errors import UsageError
from latkit.latency.blocks import (
    ConvBlock,
    Depthwise,
    Head,
    LinearBlock,
    MBConv,
    Pooling,
    Skip,
    Sum,
)
from latkit.latency.counts import block_counts, count, network_counts
from latkit.latency.network import Network
from latkit.latency.onnx_model import build_onnx, parameter_shapes, subject_graph
from latkit.latency.torch_model import TorchModel
from onnx import TensorProto, helper
from torch.utils.flop_counter import FlopCounterMode


def torch_flops(subject):
    model = TorchModel(subject).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *subject.input_shapes[0]))
    return counter.get_total_flops()


def products(counts):
    """FLOPs of convolutions and linear layers, without the activations fused into them."""
    return sum(
        kernel.flops - kernel.output_bytes // 4 * (kernel.operation.count("+"))
        for kernel in counts.kernels
        if kernel.kind in ("conv", "pointwise", "depthwise", "linear")
    )


def test_convolution_by_hand():
    counts = block_counts(
        ConvBlock(in_channels=3, out_channels=8, height=10, width=6, stride=2, activation="relu")
    )
    (kernel,) = counts.kernels
    outputs = 8 * 5 * 3
    assert kernel.operation == "Conv+Relu" and kernel.kind == "conv"
    assert kernel.flops == 2 * outputs * 3 * 9 + outputs
    assert kernel.weight_bytes == 4 * (8 * 3 * 9 + 8)
    assert (kernel.input_bytes, kernel.output_bytes) == (4 * 3 * 10 * 6, 4 * outputs)
    assert (kernel.in_channels, kernel.height, kernel.width) == (3, 10, 6)
    assert (kernel.out_channels, kernel.out_height, kernel.out_width) == (8, 5, 3)
    assert (kernel.kernel, kernel.stride, kernel.groups) == ((3, 3), (2, 2), 1)
    assert counts.parameters == 8 * 3 * 9 + 8
    assert counts.moved_bytes == 4 * (180 + 224 + outputs)


def test_mbconv_with_squeeze_excite_by_hand():
    block = MBConv(
        in_channels=8,
        out_channels=8,
        height=4,
        width=4,
        expanded_channels=32,
        squeeze_excite=True,
        activation="hard_swish",
    )
    counts = block_counts(block)
    assert [kernel.operation for kernel in counts.kernels] == [
        "Conv",
        "HardSwish",
        "Conv",
        "HardSwish",
        "GlobalAveragePool",
        "Conv+Relu",
        "Conv",
        "HardSigmoid",
        "Mul",
        "Conv",
        "Add",
    ]
    wide = 32 * 16
    flops = [2 * wide * 8, wide, 2 * wide * 9, wide, wide, 2 * 8 * 32 + 8, 2 * 32 * 8, 32, wide]
    assert [kernel.flops for kernel in counts.kernels] == [*flops, 2 * 8 * 16 * 32, 8 * 16]
    weights = (8 * 32 + 32) + (9 * 32 + 32) + (32 * 8 + 8) + (8 * 32 + 32) + (32 * 8 + 8)
    assert counts.parameters == weights
    assert counts.weight_bytes == 4 * weights
    assert counts.moved_bytes == sum(
        kernel.input_bytes + kernel.weight_bytes + kernel.output_bytes for kernel in counts.kernels
    )


def test_kernels_of_single_operations():
    image = {"in_channels": 4, "height": 8, "width": 8}
    assert block_counts(Skip(**image)).kernels == ()
    for block, kind, operation in (
        (Pooling(**image), "pool", "MaxPool"),
        (Sum(**image), "elementwise", "Add"),
        (LinearBlock(in_features=10, out_features=7), "linear", "Gemm"),
    ):
        (kernel,) = block_counts(block).kernels
        assert (kernel.kind, kernel.operation) == (kind, operation)
    assert kernel.weight_bytes == 4 * (10 * 7 + 7)


blocks = st.builds(
    MBConv,
    in_channels=st.integers(1, 20),
    out_channels=st.integers(1, 20),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    expanded_channels=st.integers(1, 40),
    kernel=st.sampled_from((1, 3, 5, 7)),
    stride=st.sampled_from((1, 2)),
    squeeze_excite=st.booleans(),
    activation=st.sampled_from(("none", "relu", "relu6", "swish", "hard_swish")),
) | st.builds(
    ConvBlock,
    in_channels=st.integers(1, 20),
    out_channels=st.integers(1, 20),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    kernel=st.sampled_from((1, 3, 5)),
    stride=st.sampled_from((1, 2, 3)),
)


@settings(deadline=None, max_examples=40)
@given(blocks)
def test_products_are_those_that_torch_counts(block):
    assert products(block_counts(block)) == torch_flops(block)


@settings(deadline=None, max_examples=40)
@given(blocks)
def test_parameters_are_those_of_the_graph(block):
    shapes = parameter_shapes(subject_graph(block)).values()
    assert block_counts(block).parameters == sum(int(np.prod(shape)) for shape in shapes)


def test_a_network_counts_what_its_blocks_count():
    chain = (
        ConvBlock(in_channels=3, out_channels=8, height=16, width=16, stride=2),
        MBConv(in_channels=8, out_channels=8, height=8, width=8, expanded_channels=24),
        Head(in_channels=8, hidden_channels=32, height=8, width=8, classes=10),
    )
    whole, parts = network_counts(Network.chain(chain)), [block_counts(block) for block in chain]
    assert whole.flops == sum(part.flops for part in parts)
    assert whole.parameters == sum(part.parameters for part in parts)
    assert whole.kernels == tuple(kernel for part in parts for kernel in part.kernels)


def value(name, *shape, element_type=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, element_type, shape)


def tensor(name, *shape, element_type=TensorProto.FLOAT):
    array = np.ones(shape, dtype=helper.tensor_dtype_to_np_dtype(element_type))
    return onnx.numpy_helper.from_array(array, name)


def model(nodes, inputs, outputs, initializers=()):
    graph = helper.make_graph(nodes, "test", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("custom", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_an_activation_is_not_fused_where_the_convolution_is_read_twice():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Add", ["c", "r"], ["y"]),
    ]
    weights = [tensor("w", 4, 2, 1, 1)]
    kernels = count(
        model(nodes, [value("x", 1, 2, 5, 5)], [value("y", 1, 4, 5, 5)], weights)
    ).kernels
    assert [kernel.operation for kernel in kernels] == ["Conv", "Relu", "Add"]


def test_an_activation_is_not_fused_where_the_convolution_is_an_output():
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    outputs = [value("y", 1, 4, 5, 5), value("c", 1, 4, 5, 5)]
    kernels = count(
        model(nodes, [value("x", 1, 2, 5, 5)], outputs, [tensor("w", 4, 2, 1, 1)])
    ).kernels
    assert [kernel.operation for kernel in kernels] == ["Conv", "Relu"]


def test_batch_norm_folds_into_the_convolution_and_costs_nothing():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"]),
        helper.make_node("Relu", ["n"], ["y"]),
    ]
    weights = [tensor("w", 4, 2, 1, 1), *(tensor(name, 4) for name in "sbmv")]
    (kernel,) = count(
        model(nodes, [value("x", 1, 2, 5, 5)], [value("y", 1, 4, 5, 5)], weights)
    ).kernels
    assert kernel.operation == "Conv+BatchNormalization+Relu"
    assert kernel.flops == 2 * 100 * 2 + 100


def test_an_unknown_operation_counts_as_element_wise_under_its_name():
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Conv", ["r"], ["y"], domain="custom"),
    ]
    kernels = count(model(nodes, [value("x", 1, 2, 5, 5)], [value("y", 1, 3, 5, 5)])).kernels
    assert (kernels[1].kind, kernels[1].operation, kernels[1].flops) == ("elementwise", "Conv", 75)


def test_what_is_made_of_constants_runs_ahead_of_time():
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Reshape", ["m", "shape"], ["y"]),
    ]
    weights = [tensor("q", 6, 6, element_type=TensorProto.INT8), tensor("scale")]
    counts = count(model(nodes, [value("x", 3, 6)], [value("y", 3, 6)], weights))
    (kernel,) = counts.kernels
    assert (kernel.operation, kernel.flops) == ("MatMul", 2 * 3 * 36)
    assert kernel.weight_bytes == 36 + 4  # int8 weights and one scale
    assert counts.parameters == 36


def test_a_constant_that_two_kernels_read_is_one_parameter():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("MatMul", ["m", "w"], ["y"]),
    ]
    counts = count(model(nodes, [value("x", 3, 6)], [value("y", 3, 6)], [tensor("w", 6, 6)]))
    assert (counts.parameters, counts.weight_bytes) == (36, 144)
    assert [kernel.weight_bytes for kernel in counts.kernels] == [144, 144]


@pytest.mark.parametrize("kind", ["AveragePool", "MaxPool"])
def test_a_pool_counts_its_window(kind):
    nodes = [helper.make_node(kind, ["x"], ["y"], kernel_shape=[2, 3], strides=[2, 1])]
    (kernel,) = count(model(nodes, [value("x", 1, 2, 4, 5)], [value("y", 1, 2, 2, 3)])).kernels
    assert (kernel.flops, kernel.kernel, kernel.stride) == (12 * 6, (2, 3), (2, 1))


def test_transposed_and_grouped_convolutions():
    nodes = [
        helper.make_node("ConvTranspose", ["x", "t"], ["c"], strides=[2, 2]),
        helper.make_node("Conv", ["c", "w"], ["y"], group=2),
    ]
    weights = [tensor("t", 4, 8, 2, 2), tensor("w", 6, 4, 1, 1)]
    transposed, grouped = count(
        model(nodes, [value("x", 1, 4, 3, 3)], [value("y", 1, 6, 6, 6)], weights)
    ).kernels
    assert transposed.flops == 2 * (4 * 9) * (8 * 4)
    assert (grouped.kind, grouped.flops) == ("conv", 2 * (6 * 36) * 4)


def test_a_shape_that_is_not_static_is_refused():
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    with pytest.raises(UsageError, match="static shape"):
        count(model(nodes, [value("x", "batch", 4)], [value("y", "batch", 4)]))


def test_counts_do_not_depend_on_the_weights():
    block = Depthwise(in_channels=8, height=6, width=6)
    assert count(build_onnx(block)) == block_counts(block)


def only(nodes, shape, output, weights=()):
    """The one kernel of a model that reads a single value."""
    (kernel,) = count(model(nodes, [value("x", *shape)], [value("y", *output)], weights)).kernels
    return kernel


@pytest.mark.parametrize(
    ("node", "kind"),
    [
        (helper.make_node("Softmax", ["x"], ["y"], axis=-1), "softmax"),
        (helper.make_node("LayerNormalization", ["x", "s"], ["y"]), "normalization"),
    ],
)
def test_what_works_along_one_axis_has_it_as_its_channels(node, kind):
    kernel = only([node], (2, 3, 49, 16), (2, 3, 49, 16), [tensor("s", 16)])
    assert (kernel.kind, kernel.in_channels, kernel.height) == (kind, 16, 2 * 3 * 49)
    assert kernel.flops > 2 * 3 * 49 * 16


def test_other_normalizations_keep_their_image():
    node = helper.make_node("InstanceNormalization", ["x", "s", "b"], ["y"])
    kernel = only([node], (1, 4, 5, 6), (1, 4, 5, 6), [tensor("s", 4), tensor("b", 4)])
    assert (kernel.kind, kernel.in_channels, kernel.height) == ("normalization", 4, 5)


def test_a_product_of_two_activations_is_told_from_one_with_weights():
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    copy, product = count(
        model(nodes, [value("x", 1, 4, 10, 8)], [value("y", 1, 4, 10, 10)])
    ).kernels
    assert (copy.kind, copy.layout) == ("copy", "strided")
    assert (product.kind, product.groups, product.height) == ("matmul", 4, 10)
    assert (product.in_channels, product.out_channels) == (8, 10)
    assert product.flops == 2 * 4 * 10 * 10 * 8


def test_a_transposition_that_moves_whole_rows_is_told():
    node = helper.make_node("Transpose", ["x"], ["y"], perm=[0, 2, 1, 3])
    assert only([node], (1, 4, 10, 8), (1, 10, 4, 8)).layout == "rows"


def test_reductions_are_told_from_global_pools():
    reduced = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1])
    pooled = helper.make_node("GlobalAveragePool", ["x"], ["y"])
    assert only([reduced], (1, 4, 5, 6), (1, 1, 5, 6)).kind == "reduce"
    assert only([pooled], (1, 4, 5, 6), (1, 4, 1, 1)).kind == "global_pool"


def test_a_resize_keeps_its_mode_and_both_sizes():
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear")
    scales = onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    kernel = only([node], (1, 4, 5, 6), (1, 4, 10, 12), [scales])
    assert (kernel.kind, kernel.layout) == ("resize", "linear")
    assert (kernel.height, kernel.width) == (5, 6)
    assert (kernel.out_height, kernel.out_width) == (10, 12)


def test_windows_keep_their_dilation():
    convolution = helper.make_node("Conv", ["x", "w"], ["y"], dilations=[2, 3])
    pool = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 3])
    assert only([convolution], (1, 2, 8, 8), (1, 4, 6, 5), [tensor("w", 4, 2, 2, 2)]).dilation == (
        2,
        3,
    )
    assert only([pool], (1, 2, 8, 8), (1, 2, 6, 5)).dilation == (2, 3)
    plain = helper.make_node("Conv", ["x", "w"], ["y"])
    assert only([plain], (1, 2, 8, 8), (1, 4, 7, 7), [tensor("w", 4, 2, 2, 2)]).dilation == (1, 1)


def test_a_transposed_convolution_is_a_convolution_whatever_its_groups():
    node = helper.make_node("ConvTranspose", ["x", "t"], ["y"], strides=[2, 2], group=4)
    kernel = only([node], (1, 4, 3, 3), (1, 4, 6, 6), [tensor("t", 4, 1, 2, 2)])
    assert (kernel.kind, kernel.operation, kernel.groups) == ("conv", "ConvTranspose", 4)
