"""The benchmarks' networks: work as their papers say, and the same outputs in all translations."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from latkit.devices.tflite import convert
from latkit.devices.torch_onnx import translate
from latkit.latency.counts import count

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"

from networks import INPUT_SHAPES, NETWORKS, build, export  # noqa: E402 (found by the line above)

LARGEST_ERROR = 1e-4
"""Share of the largest output by which outputs may differ."""

MAC_KINDS = ("conv", "pointwise", "depthwise", "linear", "matmul")

PAPERS = {
    # name: (millions of multiply-accumulates, millions of parameters), each as the paper or the
    # page of its authors has it; None where that is rounded too much, or for another input
    "convnext_tiny": (4470, 28.6),
    "deit_tiny": (None, 5.72),
    "densenet121": (2870, 7.98),
    "efficientnet_b0": (390, 5.3),
    "ghostnet": (141, 5.2),
    "mnasnet_a1": (312, 3.9),
    "mobilenet_v1": (569, 4.2),
    "mobilenet_v2": (300, 3.5),
    "mobilenet_v3_large": (219, 5.4),
    "mobilenet_v3_small": (56, 2.5),
    "mobilevit_xs": (None, 2.3),
    "regnetx_400mf": (400, 5.2),
    "resnet18": (1820, 11.69),
    "resnet50": (4100, 25.56),
    "shufflenet_v2": (146, 2.3),
    "squeezenet_1_1": (349, 1.24),
    "ssdlite_mobilenet_v2": (800, None),
    "yolox_nano": (None, 0.91),
}

TRANSPOSITIONS = {"deit_tiny": 24, "mobilevit_xs": 24, "shufflenet_v2": 16}
"""TRANSPOSE operators: two for each attention, two for each MobileViT block, one a shuffle."""

LEFT_BY_XNNPACK = {
    "ssdlite_mobilenet_v2": {"CONCATENATION"},  # of six values; it takes five
    "yolox_nano": {"RESIZE_NEAREST_NEIGHBOR", "STRIDED_SLICE"},
}
"""Operators that TFLite's own kernels run; of the other networks XNNPACK takes all."""


@pytest.fixture(scope="module", params=NETWORKS)
def network(request, tmp_path_factory):
    """Name, exported model, an input, and ONNX Runtime's outputs by name."""
    name = request.param
    path = tmp_path_factory.mktemp(name) / "model.onnx"
    export(name, path)
    value = np.random.default_rng(0).standard_normal(INPUT_SHAPES[name], dtype=np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    expected = dict(zip(names, session.run(names, {"x": value}), strict=True))
    model = onnx.load(path)
    path.unlink()
    return name, model, value, expected


def assert_close(result, expected):
    assert result.shape == expected.shape
    assert np.abs(result - expected).max() / np.abs(expected).max() < LARGEST_ERROR


def test_work_and_parameters_are_those_of_the_paper(network):
    name, model, _, _ = network
    counts = count(model)
    products = sum(kernel.flops for kernel in counts.kernels if kernel.kind in MAC_KINDS) / 2
    millions, parameters = PAPERS.get(name, (None, None))
    if millions is not None:
        assert products / 1e6 == pytest.approx(millions, rel=0.02)
    if parameters is not None:
        assert counts.parameters / 1e6 == pytest.approx(parameters, rel=0.02)


def test_static_single_image_of_opset_17(network):
    name, model, _, expected = network
    assert [item.version for item in model.opset_import if not item.domain] == [17]
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    assert tuple(dim.dim_value for dim in dimensions) == INPUT_SHAPES[name]
    assert all(
        np.isfinite(value).all() and np.abs(value).max() > 0.1 for value in expected.values()
    )


def test_tflite_gives_the_same(network):
    name, model, value, expected = network
    interpreter = Interpreter(model_content=convert(model), num_threads=1)
    runner = interpreter.get_signature_runner("serving_default")
    results = runner(x=value.transpose(0, 2, 3, 1))
    for key, wanted in expected.items():
        result = results[key].transpose(0, 3, 1, 2) if wanted.ndim == 4 else results[key]
        assert_close(result, wanted)
    details = interpreter._get_ops_details()
    written = [item["op_name"] for item in details]
    assert written.count("TRANSPOSE") == TRANSPOSITIONS.get(name, 0)
    assert left_by_delegates(details) <= LEFT_BY_XNNPACK.get(name, set())


def left_by_delegates(details):
    """Operators of a graph that lie between no delegate's inputs and outputs."""
    own = [item for item in details if item["op_name"] != "DELEGATE"]
    makers = {int(tensor): item for item in own for tensor in item["outputs"]}
    taken = set()
    for delegate in details:
        if delegate["op_name"] == "DELEGATE":
            known = {int(tensor) for tensor in delegate["inputs"]}
            waiting = [int(tensor) for tensor in delegate["outputs"]]
            while waiting:
                tensor = waiting.pop()
                if tensor in makers and tensor not in known:
                    known.add(tensor)
                    taken.add(makers[tensor]["index"])
                    waiting += [int(source) for source in makers[tensor]["inputs"]]
    return {item["op_name"] for item in own if item["index"] not in taken}


def test_torch_gives_the_same(network):
    _, model, value, expected = network
    inputs = [torch.from_numpy(value)]
    with torch.inference_mode():
        results = translate(model, inputs, "cpu")(*inputs)
    for result, wanted in zip(results, expected.values(), strict=True):
        assert_close(result.numpy(), wanted)


def test_weights_come_from_the_seed_alone():
    state = torch.get_rng_state()
    first, again, other = (build("mobilenet_v3_small", seed) for seed in (3, 3, 4))
    weights = [list(module.parameters()) for module in (first, again, other)]
    assert all(torch.equal(*pair) for pair in zip(weights[0], weights[1], strict=True))
    assert not torch.equal(weights[0][0], weights[2][0])
    assert torch.equal(state, torch.get_rng_state())


def test_command_writes_the_networks_that_are_asked_for(tmp_path):
    command = [sys.executable, "-m", "networks", "--only", "mobilenet_v3_small"]
    command += ["--output", str(tmp_path / "models")]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["mobilenet_v3_small.onnx"]
    assert "mobilenet_v3_small.onnx" in done.stdout
