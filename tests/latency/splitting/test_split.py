"""Splitting a model file: for this host, for other devices, and what can't be split."""

from collections import Counter

import onnx
import pytest
from latkit.devices.cpu import CpuDevice
from latkit.devices.device import Setup
from latkit.devices.errors import DeviceError, UsageError
from latkit.latency.blocks import ConvBlock, Head, MBConv
from latkit.latency.counts import block_counts, network_counts
from latkit.latency.network import Network
from latkit.latency.onnx_model import build_onnx
from latkit.latency.splitting.model_split import split, timed_split

pytestmark = pytest.mark.quiet

RUNTIMES = ("onnxruntime", "litert")
NETWORK = Network.chain(
    (
        ConvBlock(
            in_channels=3, out_channels=20, height=32, width=32, stride=2, activation="relu6"
        ),
        MBConv(20, 16, 16, out_channels=20, expanded_channels=52, kernel=7, squeeze_excite=True),
        Head(in_channels=20, hidden_channels=40, height=16, width=16, classes=10),
    )
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("split") / "network.onnx"
    onnx.save(build_onnx(NETWORK), path)
    return path


def setup(runtime):
    return CpuDevice(runtime=runtime).setup


def counted(found):
    return Counter(item.kernel for item in found.kernels)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_kernel_has_a_time_and_the_whole_one_too(path, runtime):
    found = timed_split(path, setup(runtime), runs=10)
    assert all(item.median_ms > 0 for item in found.kernels)
    assert found.whole_ms > 0
    assert found.source == "runtime"
    assert found.canary_drift >= 0 and len(found.canary_ns) > 1
    assert 0 <= found.clean_share <= 1


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_kernels_are_the_same_with_and_without_times(path, runtime):
    found = split(path, setup(runtime))
    assert found.whole_ms is None and found.canary_ns == ()
    assert {item.median_ms for item in found.kernels} == {None}
    assert counted(found) == counted(timed_split(path, setup(runtime), runs=1))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_work_of_the_kernels_is_that_of_the_graph(path, runtime):
    kinds = ("conv", "pointwise", "depthwise", "linear")

    def work(kernels, limits):
        """Convolutions and products, their FLOPs and their weights without a clip's limits."""
        made = [item for item in kernels if item.kind in kinds]
        products = sum(
            item.flops - item.output_bytes // 4 * item.operation.count("+") for item in made
        )
        clips = sum(item.operation.count("Clip") for item in made)
        weight_bytes = sum(item.weight_bytes for item in made)
        return len(made), products, weight_bytes - 8 * clips * limits

    found = split(path, setup(runtime))
    told = work((item.kernel for item in found.kernels), limits=False)
    assert told == work(network_counts(NETWORK).kernels, limits=True)


def test_kernels_of_litert_are_told_by_rules_and_carry_its_variants(path):
    found = split(path, setup("litert"))
    assert found.source == "rules"
    assert [item.kernel.layout for item in found.kernels if item.kernel.kind == "depthwise"] == [
        "igemm"
    ]


def test_litert_on_a_phone_has_the_same_kernels_where_xnnpack_runs(path):
    phone = Setup("phone", "litert", "2.1", accelerator="xnnpack")
    assert split(path, phone) == split(path, setup("litert"))


def test_litert_on_a_phone_without_xnnpack_runs_its_own_kernels(path):
    phone = Setup("phone", "litert", "2.1")
    assert {item.kernel.layout for item in split(path, phone).kernels} == {"builtin"}


@pytest.mark.parametrize("device", ["phone", "cpu:another"])
def test_onnxruntime_elsewhere_is_told_by_plain_fusions(path, device):
    found = split(path, Setup(device, "onnxruntime", "1.31"))
    assert found.source == "rules"
    assert [item.kernel for item in found.kernels] == list(network_counts(NETWORK).kernels)


def test_an_optimized_graph_of_this_host_is_not_carried_to_another_version(path):
    here = setup("onnxruntime")
    other = Setup(here.device, here.runtime, "0.1", cores=here.cores)
    assert split(path, other).source == "rules"
    with pytest.raises(UsageError, match="on this host"):
        timed_split(path, other)


@pytest.mark.parametrize(
    "other",
    [
        Setup("phone", "onnxruntime", "1.31", accelerator="nnapi"),
        Setup("phone", "litert", "2.1", accelerator="gpu"),
        Setup("cuda:GPU-1", "torch", "2.13"),
    ],
)
def test_what_is_not_known_of_a_setup_is_a_usage_error(path, other):
    with pytest.raises(UsageError, match="is not known"):
        split(path, other)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_single_kernels_are_timed_on_this_host_only(path, runtime):
    with pytest.raises(UsageError, match="on this host"):
        timed_split(path, Setup("phone", runtime, "1.0"))
    with pytest.raises(UsageError, match="at least 1"):
        timed_split(path, setup(runtime), runs=0)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_files_that_are_no_models_are_refused(tmp_path, runtime):
    for name in ("none.onnx", "bad.onnx"):
        if name == "bad.onnx":
            (tmp_path / name).write_bytes(b"no model")
        with pytest.raises((UsageError, DeviceError), match=name.partition(".")[0]):
            split(tmp_path / name, setup(runtime))


def test_a_dynamic_shape_elsewhere_is_refused(tmp_path):
    value = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", "any"])
        for name in ("input", "output")
    ]
    node = onnx.helper.make_node("Relu", ["input"], ["output"])
    graph = onnx.helper.make_graph([node], "g", value[:1], value[1:])
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx"
    )
    with pytest.raises(UsageError, match="static shape"):
        split(tmp_path / "m.onnx", Setup("phone", "onnxruntime", "1.31"))
    with pytest.raises((UsageError, DeviceError), match="open shape"):
        split(tmp_path / "m.onnx", setup("onnxruntime"))


def test_batches_are_split_as_the_device_would_run_them(path):
    one, four = (CpuDevice(runtime="litert", batch_size=size).setup for size in (1, 4))
    single, batch = split(path, one).kernels, split(path, four).kernels
    assert batch[0].kernel.output_bytes == 4 * single[0].kernel.output_bytes


def test_a_block_alone_has_its_own_kernels(tmp_path):
    block = MBConv(16, 8, 8, out_channels=16, expanded_channels=32, activation="hard_swish")
    onnx.save(build_onnx(block), tmp_path / "m.onnx")
    found = split(tmp_path / "m.onnx", setup("litert"))
    convolutions = [item.kernel for item in found.kernels if item.kernel.layout]
    assert [item.kind for item in convolutions] == ["pointwise", "depthwise", "pointwise"]
    expected = [item for item in block_counts(block).kernels if item.kind != "elementwise"]
    assert [item.flops for item in convolutions] == [item.flops for item in expected]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_batch_in_another_precision_is_converted_once_and_timed(path, runtime):
    device = CpuDevice(runtime=runtime, precision="int8", batch_size=2)
    found = timed_split(path, device.setup, runs=2)
    full = split(path, setup(runtime))
    (wide,) = [item.kernel for item in full.kernels if item.kernel.kind == "linear"][-1:]
    (narrow,) = [item.kernel for item in found.kernels if item.kernel.kind == "linear"][-1:]
    assert found.whole_ms > 0
    assert narrow.weight_bytes < wide.weight_bytes
