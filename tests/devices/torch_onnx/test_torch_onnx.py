"""The translation of ONNX graphs to torch gives what ONNX Runtime gives, on the processor."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from block_cases import EXAMPLES, VARIATIONS
from latkit.devices import UsageError
from latkit.devices.canary import build_canary
from latkit.devices.cuda.torch_session import TorchSession, graph_inputs
from latkit.latency.blocks import (
    BLOCK_KINDS,
)
from latkit.latency.onnx_model import build_onnx
from onnx import TensorProto, helper, numpy_helper

torch = pytest.importorskip("torch")

from latkit.devices.torch_onnx.program import translate  # noqa: E402

BLOCKS = [*VARIATIONS, *EXAMPLES]


def both(model):
    """Outputs of ONNX Runtime and of the translation, for the same inputs."""
    values = graph_inputs(model)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [item.name for item in session.get_inputs()]
    expected = session.run(None, dict(zip(names, values, strict=True)))
    tensors = [torch.from_numpy(value) for value in values]
    with torch.inference_mode():
        given = translate(model, tensors, "cpu")(*tensors)
    return expected, [value.numpy() for value in given]


def assert_equal(model, tolerance=1e-5):
    expected, given = both(model)
    assert len(given) == len(expected)
    for left, right in zip(expected, given, strict=True):
        assert left.shape == right.shape
        assert left.dtype == right.dtype
        np.testing.assert_allclose(right, left, rtol=tolerance, atol=tolerance)


def graph_of(nodes, inputs, outputs=("y",), constants=(), opset=17):
    """A model of these nodes; inputs are pairs of a name and a shape, float unless typed."""
    infos = [
        helper.make_tensor_value_info(name, *(kind or (TensorProto.FLOAT,)), shape)
        for name, shape, *kind in inputs
    ]
    given = [helper.make_empty_tensor_value_info(name) for name in outputs]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants]
    graph = helper.make_graph(nodes, "graph", infos, given, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def one(kind, shape=(1, 8, 6, 7), constants=(), opset=17, outputs=("y",), **attributes):
    """A model of one operation on `x` and constants (`None`: left out)."""
    names = [f"c{number}" if item is not None else "" for number, item in enumerate(constants)]
    node = helper.make_node(kind, ["x", *names], list(outputs), **attributes)
    given = [(name, item) for name, item in zip(names, constants, strict=True) if name]
    return graph_of([node], [("x", shape)], outputs, given, opset)


def random(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def whole(*values):
    return np.array(values, np.int64)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_block_gives_what_onnxruntime_gives(block, batch_size):
    assert_equal(build_onnx(block, batch_size=batch_size), tolerance=1e-4)


def test_every_kind_of_block_is_among_them():
    assert {type(block) for block in BLOCKS} == set(BLOCK_KINDS.values())


def test_the_canary_gives_what_onnxruntime_gives():
    assert_equal(build_canary())


OPERATIONS = {
    "cos": one("Cos"),
    "sin": one("Sin"),
    "round": one("Round"),
    "sum-of-several": one("Sum", constants=[random(7), random(8, 1, 1)]),
    "instance-norm": one("InstanceNormalization", constants=[random(8), random(8)]),
    "reduce-l2": one("ReduceL2", axes=[1, 3]),
    "reduce-prod": one("ReduceProd", axes=[1, -1], keepdims=0),
    "space-to-depth": one("SpaceToDepth", shape=(2, 3, 4, 6), blocksize=2),
    "tile": one("Tile", constants=[whole(1, 2, 1, 3)]),
    "resize-pytorch-half-pixel": one(
        "Resize",
        constants=[None, None, whole(1, 8, 9, 13)],
        mode="linear",
        coordinate_transformation_mode="pytorch_half_pixel",
    ),
    "conv-uneven": one("Conv", constants=[random(4, 8, 3, 3)], pads=[0, 0, 1, 1], strides=[2, 2]),
    "conv-same-upper": one(
        "Conv", constants=[random(8, 1, 3, 3)], auto_pad="SAME_UPPER", strides=[2, 2], group=8
    ),
    "conv-same-lower": one(
        "Conv", constants=[random(4, 8, 4, 4)], auto_pad="SAME_LOWER", strides=[2, 2]
    ),
    "conv-dilated": one("Conv", constants=[random(4, 8, 3, 3), random(4)], dilations=[2, 2]),
    "conv-1d": one("Conv", (1, 8, 20), [random(4, 8, 3)], pads=[1, 1]),
    "conv-transpose": one(
        "ConvTranspose",
        constants=[random(8, 4, 3, 3), random(4)],
        strides=[2, 2],
        pads=[1, 1, 1, 1],
        output_padding=[1, 1],
    ),
    "max-pool-uneven": one("MaxPool", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
    "max-pool-ceil": one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "max-pool-wide": one("MaxPool", kernel_shape=[3, 3], pads=[2, 2, 2, 2]),
    "average-ceil": one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "average-counts": one(
        "AveragePool", kernel_shape=[3, 3], pads=[0, 1, 1, 1], count_include_pad=1
    ),
    "global-max": one("GlobalMaxPool"),
    "gemm": one("Gemm", (3, 5), [random(5, 4), random(3, 1)], alpha=0.5, beta=2.0),
    "gemm-turned": one("Gemm", (5, 3), [random(4, 5)], transA=1, transB=1),
    "matmul": one("MatMul", (2, 3, 5), [random(5, 4)]),
    "batch-norm": one(
        "BatchNormalization", constants=[random(8), random(8), random(8), random(8) ** 2 + 1]
    ),
    "layer-norm": one("LayerNormalization", (2, 5, 8), [random(8), random(8)], epsilon=1e-3),
    "clip-low": one("Clip", constants=[np.float32(0)]),
    "clip-high": one("Clip", constants=[None, np.float32(0.3)]),
    "prelu": one("PRelu", constants=[random(8, 1, 1)]),
    "prelu-one": one("PRelu", constants=[random(1)]),
    "leaky": one("LeakyRelu", alpha=0.2),
    "elu": one("Elu", alpha=0.7),
    "gelu": one("Gelu", opset=20),
    "gelu-tanh": one("Gelu", opset=20, approximate="tanh"),
    "hard-sigmoid": one("HardSigmoid", alpha=0.2, beta=0.4),
    "softmax": one("Softmax", axis=1),
    "log-softmax": one("LogSoftmax", (3, 5)),
    "mean": one("ReduceMean", axes=[2, 3], keepdims=0),
    "mean-all": one("ReduceMean"),
    "mean-18": one("ReduceMean", constants=[whole(-1)], opset=18),
    "sum": one("ReduceSum", constants=[whole(1)], keepdims=0),
    "max-of": one("ReduceMax", axes=[1]),
    "min-of": one("ReduceMin", axes=[-1]),
    "reshape": one("Reshape", constants=[whole(0, 4, 2, -1)]),
    "flatten": one("Flatten", axis=2),
    "flatten-last": one("Flatten", axis=-1),
    "transpose": one("Transpose", perm=[0, 2, 3, 1]),
    "transpose-all": one("Transpose"),
    "squeeze": one("Squeeze", (1, 8, 1, 1), [whole(2, -1)]),
    "squeeze-all": one("Squeeze", (1, 8, 1, 1)),
    "unsqueeze": one("Unsqueeze", (4, 5), [whole(0, -1)]),
    "split": one("Split", constants=[whole(3, 5)], outputs=("y", "z"), axis=1),
    "split-even": one("Split", outputs=("y", "z"), axis=1),
    "slice": one("Slice", constants=[whole(1, -3), whole(100, -1), whole(1, 3)]),
    "slice-step": one("Slice", constants=[whole(0), whole(8), whole(1), whole(2)]),
    "pad": one("Pad", constants=[whole(0, 0, 1, 2, 0, 0, 3, 0), np.float32(0.5)]),
    "pad-reflect": one("Pad", constants=[whole(0, 0, 1, 2, 0, 0, 3, 0)], mode="reflect"),
    "pad-edge": one("Pad", constants=[whole(0, 0, 1, 2, 0, 0, 3, 0)], mode="edge"),
    "gather": one("Gather", constants=[whole(1, -1, 0)], axis=1),
    "gather-one": one("Gather", constants=[np.int64(-2)], axis=3),
    "gather-grid": one("Gather", constants=[np.array([[0, 1], [2, -1]])], axis=2),
    "resize-nearest": one(
        "Resize",
        constants=[None, np.array([1, 1, 2, 2], np.float32)],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    ),
    "resize-linear": one("Resize", constants=[None, None, whole(1, 8, 9, 14)], mode="linear"),
    "resize-corners": one(
        "Resize",
        constants=[None, None, whole(1, 8, 9, 14)],
        mode="linear",
        coordinate_transformation_mode="align_corners",
    ),
    "depth-to-space": one("DepthToSpace", blocksize=2),
    "depth-to-space-crd": one("DepthToSpace", blocksize=2, mode="CRD"),
    "cast": one("Cast", to=TensorProto.FLOAT16),
    "expand": one("Expand", (8, 1, 7), [whole(2, 1, 6, 1)]),
    "mod": one("Mod", constants=[np.float32(0.3)], fmod=1),
    "pow": one("Pow", constants=[np.float32(2)]),
    "dropout": one("Dropout"),
    **{
        kind: one(kind)
        for kind in ("Abs", "Ceil", "Erf", "Exp", "Floor", "Identity", "Neg", "Reciprocal")
    },
    **{kind: one(kind) for kind in ("Relu", "Sigmoid", "Softplus", "Tanh", "HardSwish")},
    "Mish": one("Mish", opset=18),
    **{kind: one(kind, constants=[random(8, 1, 1)]) for kind in ("Add", "Sub", "Mul", "Div")},
    **{kind: one(kind, constants=[random(7)]) for kind in ("Equal", "Greater", "Less")},
    **{kind: one(kind, constants=[random(7), random(6, 1)]) for kind in ("Max", "Min")},
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_of_mobile_networks_give_what_onnxruntime_gives(name):
    assert_equal(OPERATIONS[name])


def test_roots_and_logarithms_are_taken_of_positive_values():
    for kind in ("Sqrt", "Log"):
        nodes = [helper.make_node("Exp", ["x"], ["e"]), helper.make_node(kind, ["e"], ["y"])]
        assert_equal(graph_of(nodes, [("x", (3, 4))]))


def test_a_choice_by_condition_gives_what_onnxruntime_gives():
    nodes = [
        helper.make_node("Greater", ["x", "z"], ["c"]),
        helper.make_node("Where", ["c", "x", "z"], ["y"]),
    ]
    assert_equal(graph_of(nodes, [("x", (3, 4)), ("z", (3, 1))]))


def test_whole_numbers_are_divided_as_onnxruntime_does():
    nodes = [
        helper.make_node("Sub", ["x", "seven"], ["negative"]),
        helper.make_node("Div", ["negative", "two"], ["y"]),
        helper.make_node("Mod", ["negative", "two"], ["z"]),
    ]
    constants = [("seven", whole(7)), ("two", whole(2))]
    inputs = [("x", (5,), TensorProto.INT64)]
    assert_equal(graph_of(nodes, inputs, ("y", "z"), constants))


def test_shapes_that_a_graph_computes_are_known_beforehand():
    """As torch's exporter writes `x.view(x.size(0), -1)`."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(np.int64(0))),
        helper.make_node("Gather", ["shape", "zero"], ["batch"], axis=0),
        helper.make_node("Unsqueeze", ["batch", "axes"], ["first"]),
        helper.make_node("Constant", [], ["rest"], value_ints=[-1]),
        helper.make_node("Concat", ["first", "rest"], ["wanted"], axis=0),
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Reshape", ["r", "wanted"], ["y"]),
        helper.make_node("ConstantOfShape", ["wanted1"], ["ones"]),
        helper.make_node("Add", ["y", "ones"], ["sum"]),
    ]
    constants = [("axes", whole(0)), ("wanted1", whole(1))]
    model = graph_of(nodes, [("x", (2, 3, 4))], ("sum",), constants)
    assert_equal(model)
    tensors = [torch.from_numpy(value) for value in graph_inputs(model)]
    assert translate(model, tensors, "cpu").operations == 3


def test_outputs_may_be_inputs_constants_and_values_that_are_read_again():
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Add", ["r", "r"], ["y"]),
        helper.make_node("Identity", ["k"], ["z"]),
        helper.make_node("Identity", ["x"], ["same"]),
    ]
    model = graph_of(nodes, [("x", (2, 3))], ("r", "y", "z", "same"), [("k", random(2))])
    assert_equal(model)


def test_old_graphs_are_converted():
    nodes = [
        helper.make_node("Clip", ["x"], ["c"], min=0.0, max=0.5),
        helper.make_node("ReduceSum", ["c"], ["s"], axes=[3], keepdims=0),
        helper.make_node("Squeeze", ["s"], ["q"], axes=[0]),
        helper.make_node("Dropout", ["q"], ["y"], ratio=0.5),
    ]
    assert_equal(graph_of(nodes, [("x", (1, 2, 3, 4))], opset=9))


def test_intermediate_values_are_let_go_after_their_last_use():
    seen = []
    model = graph_of(
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("Abs", ["a"], ["b"]),
            helper.make_node("Neg", ["b"], ["y"]),
        ],
        [("x", (2, 2))],
    )
    program = translate(model, [torch.zeros(2, 2)], "cpu")
    for step in program._steps:
        seen.append(step.used_up)
    assert seen == [(), ("a",), ("b",)]


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (one("LRN", size=3), "LRN that gives y: it is not known"),
        (one("Slice", constants=[whole(5), whole(0), whole(1), whole(-1)]), r"steps is \[-1\]"),
        (
            one("AveragePool", kernel_shape=[2, 2], auto_pad="SAME_UPPER", strides=[2, 2]),
            "left out of the average",
        ),
        (one("Resize", constants=[None, None, whole(1, 8, 9, 9)], mode="cubic"), "cubic"),
        (
            graph_of(
                [helper.make_node("Reshape", ["x", "s"], ["y"])],
                [("x", (2, 3)), ("s", (1,), TensorProto.INT64)],
            ),
            "its input s is not constant",
        ),
        (
            graph_of(
                [helper.make_node("MatMul", ["x", "w"], ["y"])],
                [("x", (2, 3))],
                constants=[("w", random(3, 3))],
            ),
            None,
        ),
    ],
)
def test_what_is_not_known_is_refused_by_name(model, complaint):
    inputs = [torch.from_numpy(value) for value in graph_inputs(model)]
    if complaint is None:
        inputs = [torch.zeros(2, 4)]
        complaint = "MatMul .* RuntimeError"
    with pytest.raises(UsageError, match=complaint):
        translate(model, inputs, "cpu")


def test_a_custom_operation_is_refused_with_its_domain():
    model = one("Relu")
    model.graph.node[0].domain = "com.example"
    with pytest.raises(UsageError, match=r"com\.example\.Relu"):
        translate(model, [torch.zeros(2, 2)], "cpu")


def test_a_session_on_the_processor_runs_touches_and_gives_outputs(tmp_path):
    path = tmp_path / "canary.onnx"
    onnx.save(build_canary(), path)
    session = TorchSession(torch, path, "cpu")
    session.run()
    before = session.outputs()
    session.touch_input()
    session.run()
    np.testing.assert_array_equal(session.outputs()[0], before[0])
    expected, _ = both(build_canary())
    np.testing.assert_allclose(before[0], expected[0], rtol=1e-4, atol=1e-5)
    assert session.placement.delegated == session.placement.nodes == 9
