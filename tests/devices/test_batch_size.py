"""A model given another batch size computes for each image what it computed before."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices import UsageError
from latkit.devices.batch_size import with_batch_size
from latkit.devices.canary import build_canary
from latkit.latency.blocks import Head, MBConv, Sum
from latkit.latency.onnx_model import build_onnx
from onnx import TensorProto, helper, numpy_helper


def graph_of(nodes, shape, outputs, constants=(), kind=TensorProto.FLOAT):
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants]
    infos = [helper.make_tensor_value_info(name, kind, size) for name, size in outputs]
    given = [helper.make_tensor_value_info("x", kind, shape)]
    graph = helper.make_graph(nodes, "graph", given, infos, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def reshaping(first, rest=(12,)):
    """A network's end that flattens to a constant shape, as exporters write it."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Reshape", ["r", "shape"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["y"]),
    ]
    weight = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)
    shape = np.array([first, *rest], np.int64)
    return graph_of(nodes, (1, 3, 2, 2), [("y", (1, 5))], [("shape", shape), ("w", weight)])


def run(model, inputs):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)


def assert_same_for_each(model, batch_size=4):
    changed = with_batch_size(model, batch_size)
    onnx.checker.check_model(changed, full_check=True)
    random = np.random.default_rng(2)
    inputs = {}
    for item in changed.graph.input:
        shape = [axis.dim_value for axis in item.type.tensor_type.shape.dim]
        assert shape[0] == batch_size
        inputs[item.name] = random.standard_normal(shape).astype(np.float32)
    together = run(changed, inputs)
    for number in range(batch_size):
        alone = run(model, {name: value[number : number + 1] for name, value in inputs.items()})
        for left, right in zip(alone, together, strict=True):
            np.testing.assert_allclose(right[number : number + 1], left, rtol=1e-4, atol=1e-5)
    for item, value in zip(changed.graph.output, together, strict=True):
        shape = [axis.dim_value for axis in item.type.tensor_type.shape.dim]
        assert shape == list(value.shape)
        assert shape[0] == batch_size


MODELS = {
    "canary": build_canary(),
    "squeeze-excite": build_onnx(
        MBConv(8, 9, 9, out_channels=8, expanded_channels=24, squeeze_excite=True)
    ),
    "head": build_onnx(Head(8, 5, 5, hidden_channels=16, classes=7)),
    "two-inputs": build_onnx(Sum(3, 4, 4)),
    "reshape-of-1": reshaping(1),
    "reshape-of-1-and-open": reshaping(1, (-1,)),
    "reshape-of-the-same": reshaping(0),
    "reshape-of-open": reshaping(-1),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_gives_what_its_images_give_alone(name):
    assert_same_for_each(MODELS[name])


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 9))
def test_any_batch_size_will_do(batch_size):
    assert_same_for_each(MODELS["reshape-of-1"], batch_size)


def test_an_open_batch_is_closed():
    model = reshaping(-1)
    for item in (*model.graph.input, *model.graph.output):
        item.type.tensor_type.shape.dim[0].dim_param = "batch"
    changed = with_batch_size(model, 3)
    assert changed.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3
    assert run(changed, {"x": np.zeros((3, 3, 2, 2), np.float32)})[0].shape == (3, 5)


def test_reshape_shapes_in_constant_nodes_are_changed_where_they_are_read():
    """A constant that another node reads too keeps its value there."""
    shape = numpy_helper.from_array(np.array([1, 12], np.int64))
    nodes = [
        helper.make_node("Constant", [], ["shape"], value=shape),
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("Cast", ["shape"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["numbers"], ["total"], keepdims=0),
        helper.make_node("Add", ["flat", "total"], ["y"]),
    ]
    assert_same_for_each(graph_of(nodes, (1, 3, 4), [("y", (1, 12))]))


def test_grouped_channels_are_reshaped_for_each_image():
    """ShuffleNet's shuffle: five axes and back, all constant."""
    constants = [
        ("split", np.array([1, 2, 3, 4, 4], np.int64)),
        ("join", np.array([1, 6, 4, 4], np.int64)),
    ]
    nodes = [
        helper.make_node("Reshape", ["x", "split"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", ["b", "join"], ["y"]),
    ]
    assert_same_for_each(graph_of(nodes, (1, 6, 4, 4), [("y", (1, 6, 4, 4))], constants))


def test_the_model_given_stays_as_it_is():
    model = reshaping(1)
    before = model.SerializeToString(deterministic=True)
    with_batch_size(model, 4)
    assert model.SerializeToString(deterministic=True) == before


def test_a_batch_that_is_not_the_first_axis_is_refused():
    model = graph_of([helper.make_node("Relu", ["x"], ["y"])], (3, 8, 8), [("y", (3, 8, 8))])
    with pytest.raises(UsageError, match=r"x has the shape \[3, 8, 8\]"):
        with_batch_size(model, 4)
    scalar = graph_of([helper.make_node("Relu", ["x"], ["y"])], (), [("y", ())])
    with pytest.raises(UsageError, match="whose first axis is not a batch"):
        with_batch_size(scalar, 4)


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(UsageError, match="at least 1"):
        with_batch_size(build_canary(), 0)


@pytest.mark.parametrize(
    ("nodes", "output", "constants"),
    [
        pytest.param(
            [helper.make_node("ReduceMean", ["x"], ["y"], axes=[0, 2])], (1, 6, 1), [], id="mean"
        ),
        pytest.param(
            [helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0, 2])],
            (6, 1, 4),
            [],
            id="turned",
        ),
        pytest.param(
            [helper.make_node("Reshape", ["x", "s"], ["y"])],
            (6, 4),
            [("s", np.array([6, 4], np.int64))],
            id="folded",
        ),
        pytest.param(
            [helper.make_node("Squeeze", ["x", "s"], ["y"])],
            (6, 4),
            [("s", np.array([0], np.int64))],
            id="squeezed",
        ),
    ],
)
def test_a_graph_that_mixes_the_batch_with_other_axes_is_refused(nodes, output, constants):
    model = graph_of(nodes, (1, 6, 4), [("y", output)], constants)
    with pytest.raises(UsageError, match="batch size 4"):
        with_batch_size(model, 4)


def test_a_batch_that_is_built_in_before_a_reshape_is_refused():
    """As exporters write a strided view: values picked by number, out of one image's."""
    nodes = [
        helper.make_node("Reshape", ["x", "all"], ["flat"]),
        helper.make_node("Gather", ["flat", "numbers"], ["picked"]),
        helper.make_node("Reshape", ["picked", "shape"], ["y"]),
    ]
    constants = [
        ("all", np.array([-1], np.int64)),
        ("numbers", np.arange(12, dtype=np.int64).reshape(1, 3, 4)),
        ("shape", np.array([1, 12], np.int64)),
    ]
    model = graph_of(nodes, (1, 3, 4), [("y", (1, 12))], constants)
    with pytest.raises(UsageError, match=r"from \[1, 3, 4\] to \[4, 12\]"):
        with_batch_size(model, 4)
