"""What ONNX Runtime is found to run, on graphs small enough to know it."""

from collections import Counter

import numpy as np
import onnx
import pytest
from latkit.devices.cpu import CpuDevice
from latkit.devices.errors import DeviceError, UsageError
from latkit.devices.per_op import OperationTime, OperationTimes
from latkit.latency.splitting.model_split import split, timed_split
from latkit.latency.splitting.onnxruntime import executed_kernels
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


class Graph:
    """An ONNX graph being built, from one input."""

    def __init__(self, *shape):
        self.nodes, self.constants = [], []
        self.input = helper.make_tensor_value_info("input", FLOAT, shape)

    def weights(self, *shape):
        size = int(np.prod(shape))
        values = np.linspace(-0.5, 0.5, size, dtype=np.float32).reshape(shape)
        return self.constant(values)

    def constant(self, array):
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(self, kind, *inputs, outputs=1, **attributes):
        names = [f"{kind}{len(self.nodes)}_{number}" for number in range(outputs)]
        name = f"node{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, names, name=name, **attributes))
        return names[0] if outputs == 1 else names

    def convolution(self, value, read, written, window=1, **attributes):
        groups = attributes.get("group", 1)
        weight = self.weights(written, read // groups, window, window)
        attributes.setdefault("pads", [window // 2] * 4)
        return self.add(
            "Conv", value, weight, self.weights(written), kernel_shape=[window] * 2, **attributes
        )

    def save(self, path, *outputs):
        graph = helper.make_graph(
            self.nodes,
            "probe",
            [self.input],
            [helper.make_empty_tensor_value_info(name) for name in outputs],
            self.constants,
        )
        opsets = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        onnx.save(onnx.shape_inference.infer_shapes(model), path)
        return path


@pytest.fixture(scope="module")
def setup():
    return CpuDevice().setup


def kernels(path, setup):
    found = split(path, setup)
    assert found.source == "runtime"
    return [item.kernel for item in found.kernels]


def only(kernels, operation):
    (found,) = [item for item in kernels if item.operation.split("+")[0] == operation]
    return found


def test_channels_are_the_models_not_the_padded_ones_of_the_runtime(tmp_path, setup):
    graph = Graph(1, 3, 16, 16)
    value = graph.convolution("input", 3, 20, 3, strides=[2, 2])
    value = graph.add("Relu", value)
    value = graph.convolution(value, 20, 20, 3, group=20)
    value = graph.add("Clip", value, graph.constant(np.float32(0)), graph.constant(np.float32(6)))
    value = graph.convolution(value, 20, 28)
    found = [
        item
        for item in kernels(graph.save(tmp_path / "m.onnx", value), setup)
        if item.operation.startswith("Conv")
    ]
    assert [item.kind for item in found] == ["conv", "depthwise", "pointwise"]
    assert [item.operation for item in found] == ["Conv+Relu", "Conv+Clip", "Conv"]
    assert [(item.in_channels, item.out_channels) for item in found] == [
        (3, 20),
        (20, 20),
        (20, 28),
    ]
    assert [item.groups for item in found] == [1, 20, 1]
    assert [item.weight_bytes for item in found] == [
        4 * (3 * 20 * 9 + 20),
        4 * (20 * 9 + 20),
        4 * (20 * 28 + 28),
    ]
    assert [item.output_bytes for item in found] == [4 * 64 * width for width in (20, 20, 28)]
    assert found[0].flops == 2 * 64 * 20 * 27 + 64 * 20
    assert found[0].stride == (2, 2) and (found[0].height, found[0].out_height) == (16, 8)


def test_a_sum_that_became_a_part_of_a_convolution_is_named_and_read(tmp_path, setup):
    graph = Graph(1, 32, 8, 8)
    first = graph.convolution("input", 32, 32)
    second = graph.convolution(graph.add("Relu", first), 32, 32)
    total = graph.add("Relu", graph.add("Add", second, first))
    found = kernels(graph.save(tmp_path / "m.onnx", total), setup)
    names = Counter(item.operation for item in found)
    fused = [item for item in found if item.operation == "Conv+Add+Relu"]
    if not fused:  # a processor whose kernels are not blocked
        assert names["Add"] == 1
        return
    assert fused[0].input_bytes == 2 * fused[0].output_bytes
    assert fused[0].layout == "nchwc"
    assert fused[0].flops == 2 * 64 * 32 * 32 + 2 * 64 * 32


EACH = {
    "MaxPool": ("pool", lambda g, v: g.add("MaxPool", v, kernel_shape=[2, 2], strides=[2, 2])),
    "GlobalAveragePool": ("global_pool", lambda g, v: g.add("GlobalAveragePool", v)),
    "ReduceMean": ("reduce", lambda g, v: g.add("ReduceMean", v, axes=[1])),
    "Softmax": ("softmax", lambda g, v: g.add("Softmax", v, axis=-1)),
    "InstanceNormalization": (
        "normalization",
        lambda g, v: g.add("InstanceNormalization", v, g.weights(6), g.weights(6)),
    ),
    "LayerNormalization": (
        "normalization",
        lambda g, v: g.add("LayerNormalization", v, g.weights(10), g.weights(10)),
    ),
    "Resize": (
        "resize",
        lambda g, v: g.add(
            "Resize", v, "", g.constant(np.array([1, 1, 2, 2], np.float32)), mode="linear"
        ),
    ),
    "ConvTranspose": (
        "conv",
        lambda g, v: g.add("ConvTranspose", v, g.weights(6, 4, 2, 2), strides=[2, 2]),
    ),
    "Transpose": ("copy", lambda g, v: g.add("Transpose", v, perm=[0, 2, 3, 1])),
    "Concat": ("copy", lambda g, v: g.add("Concat", v, v, axis=1)),
    "Sigmoid": ("elementwise", lambda g, v: g.add("Sigmoid", v)),
    "Mul": ("elementwise", lambda g, v: g.add("Mul", v, g.weights(6, 1, 1))),
    "MatMul": ("linear", lambda g, v: g.add("MatMul", v, g.weights(10, 12))),
    "Reshape": (
        "copy",
        lambda g, v: g.add("Abs", g.add("Reshape", g.add("Neg", v), g.constant([6, 100]))),
    ),
    "DepthToSpace": (
        "copy",
        lambda g, v: g.add("DepthToSpace", g.add("Concat", v, v, axis=1), blocksize=2),
    ),
}


@pytest.mark.parametrize("operation", EACH)
def test_kind_of_each_operation(operation, tmp_path, setup):
    kind, build = EACH[operation]
    graph = Graph(1, 6, 10, 10)
    found = kernels(graph.save(tmp_path / "m.onnx", build(graph, "input")), setup)
    assert only(found, operation).kind == kind


def test_attention_is_products_of_activations_and_a_softmax(tmp_path, setup):
    graph = Graph(1, 4, 49, 16)
    keys = graph.add("Transpose", "input", perm=[0, 1, 3, 2])
    scores = graph.add("MatMul", "input", keys)
    weights = graph.add("Softmax", graph.add("Mul", scores, graph.constant(np.float32(0.25))))
    found = kernels(graph.save(tmp_path / "m.onnx", graph.add("MatMul", weights, "input")), setup)
    products = [item for item in found if item.kind == "matmul"]
    assert [item.operation for item in products] == ["MatMul", "MatMul"]
    assert {item.groups for item in products} == {4}
    assert {item.flops for item in products} == {2 * 4 * 49 * 49 * 16}
    softmax = only(found, "Softmax")
    assert (softmax.in_channels, softmax.height) == (49, 4 * 49)


def test_views_move_nothing(tmp_path, setup):
    graph = Graph(1, 6, 10, 10)
    value = graph.add("Abs", graph.add("Reshape", graph.add("Neg", "input"), graph.constant([600])))
    view = only(kernels(graph.save(tmp_path / "m.onnx", value), setup), "Reshape")
    assert (view.kind, view.layout, view.moved_bytes) == ("copy", "view", 0)


def test_a_dilated_convolution_keeps_its_dilation(tmp_path, setup):
    graph = Graph(1, 8, 10, 10)
    value = graph.convolution("input", 8, 8, 3, dilations=[2, 2], pads=[2, 2, 2, 2])
    made = only(kernels(graph.save(tmp_path / "m.onnx", value), setup), "Conv")
    assert (made.dilation, made.kernel) == ((2, 2), (3, 3))


def test_nodes_without_names_are_joined_by_their_order(tmp_path, setup):
    graph = Graph(1, 6, 10, 10)
    value = "input"
    for kind in ("Abs", "Neg", "Abs", "Sigmoid"):
        value = graph.add(kind, value)
    for node in graph.nodes:
        node.name = ""
    found = kernels(graph.save(tmp_path / "m.onnx", value), setup)
    assert [item.operation for item in found] == ["Abs", "Neg", "Abs", "Sigmoid"]


def test_a_model_with_a_loop_of_its_own_is_refused(tmp_path, setup):
    def branch(kind):
        node = helper.make_node(kind, ["input"], [f"made{kind}"])
        made = helper.make_tensor_value_info(f"made{kind}", FLOAT, [4])
        return helper.make_graph([node], kind, [], [made])

    nodes = [
        helper.make_node("ReduceMax", ["input"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["condition"], to=TensorProto.BOOL),
        helper.make_node(
            "If", ["condition"], ["output"], then_branch=branch("Abs"), else_branch=branch("Neg")
        ),
    ]
    values = [helper.make_tensor_value_info(name, FLOAT, [4]) for name in ("input", "output")]
    graph = helper.make_graph(nodes, "branches", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 17)]
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    with pytest.raises(UsageError, match="without control flow"):
        split(path, setup)


def test_a_profile_of_another_graph_is_an_error():
    graph = Graph(1, 4)
    graph.add("Abs", "input")
    model = helper.make_model(helper.make_graph(graph.nodes, "g", [graph.input], []))
    times = OperationTimes((OperationTime("node0", "Neg", 1.0),), 1.0)
    with pytest.raises(DeviceError, match="can't be read"):
        executed_kernels(model, model, times)


def test_times_join_the_kernels_that_they_are_of(tmp_path, setup):
    graph = Graph(1, 32, 28, 28)
    value = graph.add("Relu", graph.convolution("input", 32, 64, 3))
    value = graph.add("GlobalAveragePool", value)
    found = timed_split(graph.save(tmp_path / "m.onnx", value), setup, runs=10)
    times = {item.kernel.operation: item.median_ms for item in found.kernels}
    assert times["Conv+Relu"] == max(times.values())
    assert found.source == "runtime" and found.whole_ms > 0
