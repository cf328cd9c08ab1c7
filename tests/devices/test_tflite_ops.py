"""TFLite models of operators beyond plain convolutional networks, beside ONNX Runtime's results."""

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.errors import UsageError
from latkit.devices.tflite import convert
from onnx import TensorProto, numpy_helper
from onnx_cases import (
    IMAGE,
    assert_agrees,
    constant,
    integers,
    model_of,
    one,
    scalar,
)

TOKENS = (2, 5, 8)


def name_of(value):
    return value.graph.node[0].op_type if hasattr(value, "graph") else None


def positive(op, opset=17, **attributes):
    """A model of one operator on what is above 0."""
    nodes = [("Exp", ["x"], ["e"]), (op, ["e"], ["y"], attributes)]
    return model_of(nodes, opset=opset)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (one("Floor"), ["FLOOR"]),
        (one("Ceil"), ["CEIL"]),
        (one("Round"), ["ROUND"]),
        (one("Sin"), ["SIN"]),
        (one("Cos"), ["COS"]),
        (positive("Log"), ["EXP", "LOG"]),
        (positive("Sqrt"), ["EXP", "SQRT"]),
        (positive("Reciprocal"), ["EXP", "DIV"]),
        (one("Elu", alpha=0.5), ["MINIMUM", "ELU", "MUL", "RELU", "ADD"]),
        (one("Selu"), ["MINIMUM", "ELU", "MUL", "RELU", "MUL", "ADD"]),
        (one("Softsign"), ["ABS", "ADD", "DIV"]),
        (one("Softplus"), ["ABS", "NEG", "EXP", "RELU", "ADD", "LOG", "ADD"]),
        (one("Mish", opset=18), ["ABS", "NEG", "EXP", "RELU", "ADD", "LOG", "ADD", "TANH", "MUL"]),
        (one("Pow", [scalar("e", 2)]), ["SQUARE"]),
        (one("Pow", [scalar("e", 3)]), ["SQUARE", "MUL"]),
        (one("Cast", to=TensorProto.FLOAT), ["RESHAPE"]),
        (model_of([("Sum", ["x", "x", "x"], ["y"])]), ["ADD", "ADD"]),
        (model_of([("Max", ["x", "c", "x"], ["y"])], [scalar("c", 1)]), ["MAXIMUM", "MAXIMUM"]),
        (one("Min", [constant("c", 6, 1, 1)]), ["MINIMUM"]),
    ],
    ids=name_of,
)
def test_function_of_each_element(model, expected):
    assert assert_agrees(model) == expected


@pytest.mark.parametrize(("exponent", "kind"), [(0.5, "SQRT"), (-0.5, "RSQRT"), (-1, "DIV")])
def test_powers_that_are_roots_or_quotients(exponent, kind):
    nodes = [("Exp", ["x"], ["e"]), ("Pow", ["e", "p"], ["y"])]
    assert assert_agrees(model_of(nodes, [scalar("p", exponent)])) == ["EXP", kind]


def test_softplus_of_large_values_does_not_overflow():
    nodes = [("Mul", ["x", "c"], ["v"]), ("Softplus", ["v"], ["y"])]
    assert_agrees(model_of(nodes, [scalar("c", 100)]))


@pytest.mark.parametrize("shape", [(9,), (3, 9), TOKENS, IMAGE, (2, 3, 4, 5, 6)], ids=str)
@pytest.mark.parametrize("op", ["Relu", "Sigmoid", "HardSwish", "Neg", "LeakyRelu"])
def test_functions_take_values_of_any_rank(op, shape):
    assert len(assert_agrees(one(op, shape=shape))) == 1


@settings(deadline=None, max_examples=60)
@given(
    op=st.sampled_from(["Add", "Sub", "Mul", "Max"]),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    data=st.data(),
)
def test_values_are_broadcast(op, shape, data):
    other = [data.draw(st.sampled_from([1, size])) for size in shape]
    other = other[data.draw(st.integers(0, len(other))) :]
    inputs = {"x": shape, "z": other}
    names = data.draw(st.permutations(["x", "z"]))
    assert_agrees(model_of([(op, names, ["y"])], inputs=inputs))


@settings(deadline=None, max_examples=60)
@given(
    op=st.sampled_from(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2"]),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    data=st.data(),
)
def test_reduction_agrees(op, shape, data):
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    keep = data.draw(st.integers(0, 1))
    model = one(op, [integers("axes", *axes)], opset=18, shape=shape, keepdims=keep)
    assert_agrees(model)


def test_global_maximum_is_one_reduction():
    assert assert_agrees(one("GlobalMaxPool")) == ["REDUCE_MAX"]


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax_over_any_axis(op, axis):
    assert_agrees(one(op, axis=axis))


@settings(deadline=None, max_examples=80)
@given(
    inputs=st.sampled_from([4, 6]),
    outputs=st.integers(1, 3),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    group=st.sampled_from([1, 2]),
    data=st.data(),
)
def test_transposed_convolution_agrees(
    inputs, outputs, size, kernel, strides, dilations, group, data
):
    pads, beyond = [], []
    for axis in range(2):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        pads.append(data.draw(st.integers(0, (reach - 1) // 2)))
        beyond.append(data.draw(st.integers(0, strides[axis] - 1)))
    weights = [constant("weight", inputs, outputs, *kernel), constant("bias", outputs * group)]
    assert_agrees(
        one(
            "ConvTranspose",
            weights,
            shape=(1, inputs, *size),
            strides=list(strides),
            dilations=list(dilations),
            pads=pads * 2,
            output_padding=beyond,
            group=group,
        )
    )


def test_doubling_transposed_convolution_is_one_operator_with_its_norm_and_activation():
    norm = [constant(name, 3, low=0.5) for name in ("scale", "shift", "mean", "variance")]
    nodes = [
        ("ConvTranspose", ["x", "weight"], ["u"], {"strides": [2, 2]}),
        ("BatchNormalization", ["u", "scale", "shift", "mean", "variance"], ["v"]),
        ("Relu", ["v"], ["y"]),
    ]
    model = model_of(nodes, [constant("weight", 6, 3, 2, 2), *norm])
    assert assert_agrees(model) == ["TRANSPOSE_CONV"]


@pytest.mark.parametrize("kernel", [(1, 7), (7, 1), (1, 3), (5, 2)], ids=str)
@pytest.mark.parametrize("group", [1, 2, 6])
def test_convolution_of_an_asymmetric_window_agrees(kernel, group):
    pads = [kernel[0] // 2, kernel[1] // 2] * 2
    weight = constant("weight", 12, 6 // group, *kernel)
    assert len(assert_agrees(one("Conv", [weight], pads=pads, group=group))) <= 2


def resize(mode, place, sizes=None, scales=None, **attributes):
    """A Resize of an image of 6 channels, 8 by 7 pixels."""
    constants = [numpy_helper.from_array(np.array([], dtype=np.float32), "none")]
    names = ["x", "none", "none"]
    if scales is not None:
        constants.append(numpy_helper.from_array(np.array([1, 1, *scales], np.float32), "scales"))
        names[2] = "scales"
    else:
        constants.append(integers("sizes", 1, 6, *sizes))
        names = ["x", "none", "none", "sizes"]
    attributes |= {"mode": mode, "coordinate_transformation_mode": place}
    return model_of([("Resize", names, ["y"], attributes)], constants)


@pytest.mark.parametrize("sizes", [(16, 14), (24, 35), (4, 7), (16, 7), (8, 7)], ids=str)
@pytest.mark.parametrize(
    ("mode", "place", "rounding"),
    [
        ("nearest", "asymmetric", "floor"),
        ("linear", "half_pixel", "round_prefer_floor"),
        ("linear", "pytorch_half_pixel", "round_prefer_floor"),
        ("linear", "align_corners", "round_prefer_floor"),
        ("linear", "asymmetric", "round_prefer_floor"),
    ],
)
def test_resize_agrees(mode, place, rounding, sizes):
    kind = "RESIZE_BILINEAR" if mode == "linear" else "RESIZE_NEAREST_NEIGHBOR"
    model = resize(mode, place, sizes, nearest_mode=rounding)
    assert assert_agrees(model, 1e-4) == [kind]


@settings(deadline=None, max_examples=60)
@given(
    mode=st.sampled_from(["nearest", "linear"]),
    place=st.sampled_from(["asymmetric", "half_pixel", "align_corners"]),
    rounding=st.sampled_from(["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]),
    scales=st.tuples(st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0]), st.sampled_from([1.0, 2.0, 4.0])),
)
def test_resize_agrees_or_is_refused(mode, place, rounding, scales):
    try:
        assert_agrees(resize(mode, place, scales=scales, nearest_mode=rounding), 1e-4)
    except UsageError as error:
        assert mode == "nearest"
        assert "places pixels by" in str(error)


def index(name, place):
    """A single index, which takes its axis away."""
    return numpy_helper.from_array(np.array(place), name)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (one("DepthToSpace", shape=(1, 8, 3, 5), blocksize=2), ["DEPTH_TO_SPACE"]),
        (
            one("DepthToSpace", shape=(1, 8, 3, 5), blocksize=2, mode="CRD"),
            ["RESHAPE", "TRANSPOSE", "RESHAPE"],
        ),
        (one("SpaceToDepth", shape=(1, 3, 4, 6), blocksize=2), ["SPACE_TO_DEPTH"]),
        (one("Gather", [integers("i", 1, 2, 3)], axis=1), ["SLICE"]),
        (one("Gather", [integers("i", 3, -1, 0)], axis=1), ["GATHER"]),
        (one("Gather", [index("i", 2)], axis=2), None),
        (one("Expand", [integers("s", 2, 6, 8, 7)]), ["BROADCAST_TO"]),
        (one("Expand", [integers("s", 3, 5, 8)], shape=(5, 1)), ["BROADCAST_TO"]),
        (one("Tile", [integers("t", 1, 2, 1, 3)]), ["TILE"]),
        (one("Pad", [integers("p", 0, 0, 1, 2, 0, 0, 2, 1)], mode="reflect"), ["MIRROR_PAD"]),
        (one("Pad", [integers("p", 0, 1, 0, 2)], shape=(3, 4)), ["PAD"]),
    ],
    ids=name_of,
)
def test_operator_that_moves(model, expected):
    written = assert_agrees(model)
    assert expected is None or written == expected


def sliced(*cuts, shape=IMAGE):
    """Slices one after the other, each of (axis, start, end, step)."""
    constants, nodes, value = [], [], "x"
    for index, cut in enumerate(cuts):
        names = [f"{kind}{index}" for kind in ("axis", "start", "end", "step")]
        constants += [integers(name, number) for name, number in zip(names, cut, strict=True)]
        axis, start, end, step = names
        result = "y" if index == len(cuts) - 1 else f"v{index}"
        nodes.append(("Slice", [value, start, end, axis, step], [result]))
        value = result
    return model_of(nodes, constants, {"x": shape})


def test_slices_of_several_axes_are_one_operator():
    assert assert_agrees(sliced((2, 0, 99, 2), (3, 1, 99, 2))) == ["STRIDED_SLICE"]
    assert assert_agrees(sliced((1, 1, 5, 1), (3, -3, 99, 1))) == ["SLICE"]
    assert assert_agrees(sliced((2, 0, 6, 2), (2, 1, 3, 1))) == ["STRIDED_SLICE", "SLICE"]


def test_slice_backwards_is_refused():
    with pytest.raises(UsageError, match="steps"):
        assert_agrees(sliced((2, -1, -9, -1)))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((4, 6), (6, 5)),
        ((3, 4, 6), (3, 6, 5)),
        ((2, 3, 4, 6), (2, 3, 6, 5)),
        ((2, 3, 4, 6), (6, 5)),
        ((4, 6), (2, 3, 6, 5)),
        ((2, 3, 4, 6), (1, 3, 6, 5)),
        ((2, 2, 3, 4, 6), (2, 2, 3, 6, 5)),
    ],
    ids=str,
)
def test_product_of_values_agrees(left, right):
    model = model_of([("MatMul", ["x", "z"], ["y"])], inputs={"x": left, "z": right})
    assert "BATCH_MATMUL" in assert_agrees(model)
    assert "BATCH_MATMUL" in assert_agrees(one("MatMul", [constant("c", *right)], shape=left)) or (
        len(right) == 2
    )


def test_product_with_a_transposed_value_needs_no_transposition():
    nodes = [
        ("Transpose", ["z"], ["t"], {"perm": [0, 2, 1]}),
        ("MatMul", ["x", "t"], ["y"]),
    ]
    model = model_of(nodes, inputs={"x": (3, 4, 6), "z": (3, 5, 6)})
    assert assert_agrees(model) == ["BATCH_MATMUL"]


@pytest.mark.parametrize("shape", [TOKENS, (7, 8), (1, 3, 4, 8)], ids=str)
@pytest.mark.parametrize("axis", [-1, -2])
def test_layer_norm_agrees(shape, axis):
    terms = [constant("scale", *shape[axis:]), constant("shift", *shape[axis:])]
    written = assert_agrees(one("LayerNormalization", terms, shape=shape, axis=axis))
    assert [kind for kind in written if kind != "TRANSPOSE"] == (
        ["MEAN", "SUB", "SQUARE", "MEAN", "ADD", "RSQRT", "MUL", "MUL", "ADD"]
    )


def test_layer_norm_of_older_exporters_agrees():
    nodes = [
        ("ReduceMean", ["x"], ["m"], {"axes": [-1]}),
        ("Sub", ["x", "m"], ["d"]),
        ("Pow", ["d", "two"], ["s"]),
        ("ReduceMean", ["s"], ["v"], {"axes": [-1]}),
        ("Add", ["v", "epsilon"], ["e"]),
        ("Sqrt", ["e"], ["r"]),
        ("Div", ["d", "r"], ["n"]),
        ("Mul", ["n", "scale"], ["p"]),
        ("Add", ["p", "shift"], ["y"]),
    ]
    terms = [constant("scale", 8), constant("shift", 8), scalar("two", 2), scalar("epsilon", 1e-5)]
    assert "TRANSPOSE" not in assert_agrees(model_of(nodes, terms, {"x": TOKENS}, opset=13))


def test_instance_norm_agrees():
    model = one("InstanceNormalization", [constant("scale", 6), constant("shift", 6)])
    assert "TRANSPOSE" not in assert_agrees(model)


def test_group_norm_as_exporters_write_it_agrees():
    nodes = [
        ("Reshape", ["x", "groups"], ["g"]),
        ("InstanceNormalization", ["g", "ones", "zeros"], ["n"]),
        ("Reshape", ["n", "image"], ["i"]),
        ("Mul", ["i", "scale"], ["m"]),
        ("Add", ["m", "shift"], ["y"]),
    ]
    constants = [
        integers("groups", 1, 3, -1),
        integers("image", *IMAGE),
        numpy_helper.from_array(np.ones(3, np.float32), "ones"),
        numpy_helper.from_array(np.zeros(3, np.float32), "zeros"),
        constant("scale", 6, 1, 1),
        constant("shift", 6, 1, 1),
    ]
    assert_agrees(model_of(nodes, constants))


def test_layers_on_channels_last_need_no_transposition():
    nodes = [
        ("Conv", ["x", "weight"], ["c"]),
        ("Transpose", ["c"], ["t"], {"perm": [0, 2, 3, 1]}),
        ("LayerNormalization", ["t", "scale"], ["n"]),
        ("MatMul", ["n", "matrix"], ["p"]),
        ("Add", ["p", "bias"], ["b"]),
        ("Transpose", ["b"], ["u"], {"perm": [0, 3, 1, 2]}),
        ("Add", ["c", "u"], ["y"]),
    ]
    constants = [
        constant("weight", 6, 6, 1, 1),
        constant("scale", 6),
        constant("matrix", 6, 6),
        constant("bias", 6),
    ]
    assert "TRANSPOSE" not in assert_agrees(model_of(nodes, constants))


def test_attention_transposes_twice():
    tokens, heads, width = 5, 2, 4
    nodes = [
        ("MatMul", ["x", "qkv"], ["m"]),
        ("Reshape", ["m", "split"], ["r"]),
        ("Transpose", ["r"], ["t"], {"perm": [2, 0, 3, 1, 4]}),
        ("Split", ["t"], ["q3", "k3", "v3"], {"axis": 0}),
        ("Squeeze", ["q3", "first"], ["q"]),
        ("Squeeze", ["k3", "first"], ["k"]),
        ("Squeeze", ["v3", "first"], ["v"]),
        ("Transpose", ["k"], ["kt"], {"perm": [0, 1, 3, 2]}),
        ("MatMul", ["q", "kt"], ["a"]),
        ("Softmax", ["a"], ["w"]),
        ("MatMul", ["w", "v"], ["c"]),
        ("Transpose", ["c"], ["s"], {"perm": [0, 2, 1, 3]}),
        ("Reshape", ["s", "join"], ["j"]),
        ("MatMul", ["j", "out"], ["y"]),
    ]
    size = heads * width
    constants = [
        constant("qkv", size, 3 * size),
        constant("out", size, size),
        integers("split", 2, tokens, 3, heads, width),
        integers("join", 2, tokens, size),
        integers("first", 0),
    ]
    written = assert_agrees(model_of(nodes, constants, {"x": (2, tokens, size)}))
    assert written.count("TRANSPOSE") == 2


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_chains_of_shapes_and_functions_agree(data):
    """Whatever way a value's layout takes, its elements come out where ONNX has them."""
    shape = data.draw(
        st.sampled_from([(1, 6, 4, 2), (2, 4, 3, 2), (2, 12, 2), (4, 6), (2, 3, 2, 2)])
    )
    nodes, constants, value, inputs = [], [], "x", {"x": shape}
    for index in range(data.draw(st.integers(1, 7))):
        result, rank = f"v{index}", len(shape)
        kind = data.draw(
            st.sampled_from(
                ["Transpose", "Reshape", "Relu", "Add", "Concat", "ReduceMax", "MatMul"]
            )
        )
        axis = data.draw(st.integers(0, rank - 1))
        if kind == "Transpose":
            axes = data.draw(st.permutations(range(rank)))
            nodes.append((kind, [value], [result], {"perm": axes}))
            shape = tuple(shape[axis] for axis in axes)
        elif kind == "Reshape":
            sizes = [part for size in shape for part in data.draw(st.sampled_from(cuts(size)))]
            start = data.draw(st.integers(0, len(sizes) - 1))
            if len(sizes) > 5 or data.draw(st.booleans()):
                sizes[start : start + 3] = [int(np.prod(sizes[start : start + 3]))]
            shape = tuple(sizes) if len(sizes) <= 6 else (int(np.prod(shape)),)
            constants.append(integers(f"shape{index}", *shape))
            nodes.append((kind, [value, f"shape{index}"], [result]))
        elif kind == "Relu":
            nodes.append((kind, [value], [result]))
        elif kind == "Add":
            other = data.draw(st.sampled_from([value, f"c{index}"]))
            constants.append(constant(f"c{index}", *shape[axis:]))
            nodes.append((kind, [value, other], [result]))
        elif kind == "Concat":
            nodes.append((kind, [value, value], [result], {"axis": axis}))
            shape = (*shape[:axis], 2 * shape[axis], *shape[axis + 1 :])
        elif kind == "ReduceMax":
            nodes.append((kind, [value], [result], {"axes": [axis], "keepdims": 1}))
            shape = (*shape[:axis], 1, *shape[axis + 1 :])
        elif rank > 1:
            constants.append(constant(f"m{index}", shape[-1], 3))
            nodes.append((kind, [value, f"m{index}"], [result]))
            shape = (*shape[:-1], 3)
        else:
            continue
        value = result
    if not nodes:
        return
    nodes[-1][2][:] = ["y"]
    assert_agrees(model_of(nodes, constants, inputs))


def cuts(size):
    return [[size], *([first, size // first] for first in range(2, size) if size % first == 0)]


def test_unequal_parts_are_slices_that_delegates_know():
    nodes = [
        ("Split", ["x", "sizes"], ["a", "b"], {"axis": 1}),
        ("Concat", ["b", "a"], ["y"], {"axis": 1}),
    ]
    model = model_of(nodes, [integers("sizes", 2, 4)])
    assert assert_agrees(model) == ["SLICE", "SLICE", "CONCATENATION"]


def test_cubic_resize_is_refused():
    with pytest.raises(UsageError, match="cubic"):
        assert_agrees(resize("cubic", "half_pixel", (16, 14)))


def test_cast_to_other_numbers_is_refused():
    nodes = [
        ("Cast", ["x"], ["v"], {"to": TensorProto.DOUBLE}),
        ("Cast", ["v"], ["y"], {"to": TensorProto.FLOAT}),
    ]
    with pytest.raises(UsageError, match="float32"):
        assert_agrees(model_of(nodes))


def test_every_tensor_has_a_name_of_its_own():
    nodes = [
        ("Add", ["x", "z"], ["u"]),
        ("Mul", ["u", "z"], ["v"]),
        ("Transpose", ["v"], ["t"], {"perm": [0, 3, 1, 2]}),
        ("Reshape", ["t", "flat"], ["f"]),
        ("Softmax", ["f"], ["y"]),
    ]
    inputs = {"x": IMAGE, "z": (6, 8, 1)}
    model = model_of(nodes, [integers("flat", 7, 48)], inputs, outputs=("y", "v"))
    interpreter = Interpreter(model_content=convert(model))
    names = [item["name"] for item in interpreter.get_tensor_details()]
    assert len(set(names)) == len(names)
