"""Small ONNX models for tests, and what LiteRT makes of them beside ONNX Runtime."""

import numpy as np
import onnxruntime
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from latkit.devices.tflite import convert
from onnx import TensorProto, helper, numpy_helper

IMAGE = (1, 6, 8, 7)


def constant(name, *shape, low=-1.0, high=1.0):
    seed = sum(name.encode())
    values = np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


def integers(name, *values):
    return numpy_helper.from_array(np.array(values, dtype=np.int64), name)


def scalar(name, value):
    return numpy_helper.from_array(np.array(value, dtype=np.float32), name)


def model_of(nodes, constants=(), inputs=None, outputs=("y",), opset=17):
    """A model of `nodes`; each is (op, inputs, outputs, attributes), inputs are name -> shape."""
    inputs = {"x": IMAGE} if inputs is None else inputs
    graph = helper.make_graph(
        [
            helper.make_node(op, read, given, name=f"{op}-{index}", **dict(*attributes))
            for index, (op, read, given, *attributes) in enumerate(nodes)
        ],
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, inputs[name]) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        list(constants),
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def one(op, constants=(), opset=17, shape=IMAGE, **attributes):
    """A model of one node that reads the input and then `constants`."""
    names = ["x", *(tensor.name for tensor in constants)]
    return model_of([(op, names, ["y"], attributes)], constants, {"x": shape}, opset=opset)


def to_nhwc(value):
    return value.transpose(0, 2, 3, 1) if value.ndim == 4 else value


def to_nchw(value):
    return value.transpose(0, 3, 1, 2) if value.ndim == 4 else value


def values_for(model, low=-4.0, high=4.0):
    random = np.random.default_rng(0)
    shapes = {
        value.name: [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }
    return {
        name: random.uniform(low, high, shape).astype(np.float32) for name, shape in shapes.items()
    }


def run_onnx(model, values):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [item.name for item in session.get_outputs()]
    return dict(zip(names, session.run(names, values), strict=True))


def run_tflite(content, values):
    interpreter = Interpreter(model_content=content, num_threads=1)
    runner = interpreter.get_signature_runner("serving_default")
    results = runner(**{name: to_nhwc(value) for name, value in values.items()})
    return {name: to_nchw(value) for name, value in results.items()}


def assert_agrees(model, tolerance=1e-5):
    """Convert; compare all outputs with ONNX Runtime's; return the operators in order."""
    values = values_for(model)
    content = convert(model)
    expected, results = run_onnx(model, values), run_tflite(content, values)
    assert set(expected) == set(results)
    for name, reference in expected.items():
        assert results[name].shape == reference.shape
        scale = max(float(np.abs(reference).max()), 1e-2)
        assert float(np.abs(results[name] - reference).max()) / scale < tolerance, name
    return operators(content)


def operators(content):
    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    codes = [names[code.builtinCode] for code in model.operatorCodes]
    return [codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators]


def conv_model(*after, kernel=3, channels=6, group=1, constants=(), shape=IMAGE, **attributes):
    """A convolution, then nodes of (op, constant names, attributes), in a chain."""
    weights = [constant("weight", channels, shape[1] // group, kernel, kernel)]
    weights.append(constant("bias", channels))
    nodes = [("Conv", ["x", "weight", "bias"], ["v0"], {"group": group, **attributes})]
    for index, (op, names, settings_) in enumerate(after):
        nodes.append((op, [f"v{index}", *names], [f"v{index + 1}"], settings_))
    nodes[-1][2][:] = ["y"]
    return model_of(nodes, [*weights, *constants], {"x": shape})
