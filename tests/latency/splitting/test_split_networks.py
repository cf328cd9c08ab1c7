"""Kernel lists of whole networks of the literature against what the runtimes say that they ran."""

import onnx
import pytest
from latkit.devices.convert import prepare
from latkit.devices.cpu import CpuDevice
from latkit.latency.counts import count
from latkit.latency.splitting.litert import litert_kernels
from latkit.latency.splitting.model_split import split, timed_split
from latkit.latency.splitting.tflite import read_tflite
from networks import export
from splitting import profiled_names

pytestmark = pytest.mark.quiet

NETWORKS = ("mobilenet_v3_small", "shufflenet_v2", "deit_tiny")
"""Light ones, which have between them most of what the others are made of."""

PRODUCTS = ("conv", "pointwise", "depthwise", "linear", "matmul")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The networks as .onnx files, by name."""
    folder = tmp_path_factory.mktemp("networks")
    for name in NETWORKS:
        export(name, folder / f"{name}.onnx")
    return {name: folder / f"{name}.onnx" for name in NETWORKS}


def products(kernels):
    """FLOPs of convolutions and matrix products, without the activations fused into them."""
    return sum(
        kernel.flops - kernel.output_bytes // 4 * kernel.operation.count("+")
        for kernel in kernels
        if kernel.kind in PRODUCTS
    )


def test_litert_runs_what_the_rules_say(files, tmp_path):
    converted = [prepare(path, "litert", tmp_path) for path in files.values()]
    expected = [
        [item.name for item in litert_kernels(read_tflite(path.read_bytes(), path.name))]
        for path in converted
    ]
    assert expected == profiled_names(converted)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_kernels_do_the_work_of_the_model(runtime, name, files):
    found = split(files[name], CpuDevice(runtime=runtime).setup)
    expected = products(count(onnx.load(files[name])).kernels)
    assert products(item.kernel for item in found.kernels) == expected


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_each_kernel_of_a_network_is_timed(runtime, files):
    found = timed_split(files["mobilenet_v3_small"], CpuDevice(runtime=runtime).setup, runs=10)
    assert min(item.median_ms for item in found.kernels) > 0
    slow = sorted(found.kernels, key=lambda item: -item.median_ms)[:20]
    assert {item.kernel.kind for item in slow} & set(PRODUCTS)


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_litert_runs_what_the_rules_say_in_other_precisions(precision, files, tmp_path):
    converted = [
        prepare(files[name], "litert", tmp_path, precision=precision)
        for name in ("mobilenet_v3_small", "shufflenet_v2")
    ]
    expected = [
        [item.name for item in litert_kernels(read_tflite(path.read_bytes(), path.name))]
        for path in converted
    ]
    assert expected == profiled_names(converted)
