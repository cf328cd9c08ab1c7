"""The rules on what LiteRT runs against what its own profiler says that it ran."""

import pytest
from latkit.devices.errors import UsageError
from latkit.devices.per_op import OperationTime, OperationTimes
from latkit.latency.splitting.litert import joined_kernels, litert_kernels
from latkit.latency.splitting.tflite import read_tflite
from splitting import IMAGE, PROBES, Probe, convolution, profiled_names


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    """What LiteRT's profiler names for each probe."""
    folder = tmp_path_factory.mktemp("probes")
    paths = []
    for number, make in enumerate(PROBES.values()):
        paths.append(folder / f"{number}.tflite")
        paths[-1].write_bytes(make())
    return dict(zip(PROBES, profiled_names(paths), strict=True))


def kernels(name, **settings):
    return litert_kernels(read_tflite(PROBES[name](), name), **settings)


@pytest.mark.parametrize("name", PROBES)
def test_kernels_of_a_probe_are_those_that_the_runtime_names(name, profiled):
    assert [item.name for item in kernels(name)] == profiled[name]


def test_without_xnnpack_the_interpreter_runs_each_operator():
    told = kernels("convolution then swish", xnnpack=False)
    assert [item.name for item in told] == ["CONV_2D", "LOGISTIC", "MUL"]
    assert {item.kernel.layout for item in told} == {"builtin"}


def test_a_convolution_has_its_shapes_window_and_variant():
    (made,) = kernels("PAD then convolution")
    kernel = made.kernel
    assert (kernel.kind, kernel.operation, kernel.layout) == ("conv", "Conv", "igemm")
    assert (kernel.in_channels, kernel.height, kernel.width) == (16, 14, 14)
    assert (kernel.out_channels, kernel.out_height, kernel.out_width) == (24, 7, 7)
    assert (kernel.kernel, kernel.stride, kernel.groups) == ((3, 3), (2, 2), 1)
    assert kernel.flops == 2 * 24 * 49 * 16 * 9
    assert kernel.weight_bytes == 4 * (24 * 16 * 9 + 24)
    assert (kernel.input_bytes, kernel.output_bytes) == (4 * 16 * 196, 4 * 24 * 49)


@pytest.mark.parametrize(
    ("name", "kind", "operation", "layout"),
    [
        ("convolution 1 stride 1", "pointwise", "Conv", "gemm"),
        ("with relu6", "pointwise", "Conv+Clip", "gemm"),
        ("convolution then relu", "conv", "Conv+Relu", "igemm"),
        ("depthwise 5 stride 2", "depthwise", "Conv", "dwconv"),
        ("depthwise 7 stride 1", "depthwise", "Conv", "igemm"),
        ("depthwise with a multiplier", "conv", "Conv", "igemm"),
        ("dilated", "conv", "Conv", "igemm"),
        ("up by two", "conv", "ConvTranspose", "subconv2d"),
        ("BATCH_MATMUL", "matmul", "MatMul", ""),
        ("BATCH_MATMUL with weights", "linear", "MatMul", ""),
        ("SOFTMAX with beta 1.0", "softmax", "Softmax", ""),
        ("SOFTMAX with beta 2.0", "softmax", "Softmax", "builtin"),
        ("MEAN of an image", "global_pool", "GlobalAveragePool", ""),
        ("MEAN of channels", "reduce", "ReduceMean", ""),
        ("RESIZE_BILINEAR", "resize", "Resize", "linear"),
        ("RESIZE_NEAREST_NEIGHBOR", "resize", "Resize", "builtin"),
        ("TRANSPOSE (0, 3, 1, 2)", "copy", "Transpose", "strided"),
        ("CONCATENATION of 6", "copy", "Concat", "builtin"),
        ("SQUEEZE", "copy", "Squeeze", "view"),
        ("POW of two", "elementwise", "POW", "builtin"),
        ("MUL of two", "elementwise", "Mul", ""),
    ],
)
def test_kind_operation_and_variant(name, kind, operation, layout):
    (made,) = kernels(name)
    assert (made.kernel.kind, made.kernel.operation, made.kernel.layout) == (
        kind,
        operation,
        layout,
    )


def test_a_depthwise_convolution_that_is_dilated_keeps_its_dilation():
    (made,) = kernels("dilated depthwise")
    assert made.kernel.dilation == (2, 2)


def test_a_product_of_activations_has_a_group_for_each_of_the_batch():
    kernel = kernels("BATCH_MATMUL")[0].kernel
    assert (kernel.in_channels, kernel.height, kernel.out_channels, kernel.groups) == (8, 10, 12, 4)
    assert kernel.flops == 2 * 4 * 10 * 12 * 8


def test_what_the_rules_do_not_know_keeps_its_time_under_its_own_name():
    told = kernels("layer normalization")
    ran = [OperationTime(f"{item.name} (ND)", item.name, 0.5) for item in told]
    ran.insert(2, OperationTime("Conjure (ND)", "Conjure", 0.25))
    joined = joined_kernels(told, OperationTimes(tuple(ran), 3.0))
    assert [kernel.operation for kernel in joined[:2]] == ["ReduceMean", "Sub"]
    assert (joined[2].kind, joined[2].operation, joined[2].moved_bytes) == (
        "elementwise",
        "Conjure",
        0,
    )
    assert list(joined[3:]) == [item.kernel for item in told[2:]]


def test_a_file_that_is_no_tflite_is_refused():
    with pytest.raises(UsageError, match="is no TFLite model"):
        read_tflite(b"no model", "it")


@pytest.mark.parametrize("kept", [8, 40, 200])
def test_a_file_cut_short_is_refused(kept):
    with pytest.raises(UsageError, match="damaged"):
        read_tflite(PROBES["RELU"]()[:kept], "it")


def test_a_dynamic_shape_is_refused():
    graph = Probe()
    value = graph.input(*IMAGE)
    graph.writer._tensors[value].shapeSignature = [-1, 14, 14, 16]
    with pytest.raises(UsageError, match="dynamic shape"):
        read_tflite(graph.finish(convolution(graph, value)), "it")
