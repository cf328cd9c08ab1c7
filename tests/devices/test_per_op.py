import pytest
from latkit.devices.cpu import CpuDevice
from latkit.devices.device import Setup
from latkit.devices.errors import DeviceError, UsageError
from latkit.devices.per_op import OperationTime, OperationTimes, kernel_medians, operation_times
from onnx import TensorProto, helper, save


def event(name, duration_us, kind="Conv", category="Node"):
    return {"cat": category, "name": name, "dur": duration_us, "args": {"op_name": kind}}


def model(path, kinds=("Relu", "Sigmoid", "Abs")):
    """A chain of element-wise operations, large enough to take microseconds."""
    values = ["input", *kinds[:-1], "output"]
    nodes = [
        helper.make_node(kind, [read], [written], name=kind.lower())
        for kind, read, written in zip(kinds, values[:-1], values[1:], strict=True)
    ]
    shape = [1, 64, 64, 64]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
    )
    opsets = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def test_median_of_each_operation_leaves_warmups_and_other_events_out():
    events = [event("session_initialization", 10**6, category="Session")]
    for first, second in ((10**6, 10**6), (10, 4), (30, 6), (20, 5)):
        events += [
            event("a_kernel_time", first),
            event("b_kernel_time", second, "Relu"),
            event("a_fence_before", 10**6),
            event("model_run", 10**6, category="Session"),
        ]
    assert kernel_medians(events, warmups=1) == [
        OperationTime("a", "Conv", 0.020),
        OperationTime("b", "Relu", 0.005),
    ]


def test_operation_that_a_run_executes_twice_counts_with_its_sum():
    run = [event("a_kernel_time", 3), event("a_kernel_time", 4), event("model_run", 9)]
    assert kernel_medians(run * 3, warmups=0) == [OperationTime("a", "Conv", 0.007)]


def test_remainder_is_what_the_operations_leave_of_the_whole():
    times = OperationTimes((OperationTime("a", "Conv", 2.0), OperationTime("b", "Relu", 1.0)), 3.5)
    assert times.sum_ms == 3.0
    assert times.remainder_ms == 0.5


def test_operations_of_a_model_are_told_in_order(tmp_path):
    path = model(tmp_path / "m.onnx")
    times = operation_times(path, CpuDevice().setup, runs=5, warmups=2)
    assert [item.kind for item in times.operations] == ["Relu", "Sigmoid", "Abs"]
    assert all(item.median_ms > 0 for item in times.operations)
    assert times.whole_ms > 0


def test_model_that_can_not_be_loaded_is_an_error_with_its_cause(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(DeviceError, match=r"m\.onnx can't be profiled"):
        operation_times(path, CpuDevice().setup)


@pytest.mark.parametrize(
    "setup", [Setup("cpu:this", "litert", "2.3"), Setup("phone", "onnxruntime", "1.31")]
)
def test_setup_that_can_not_tell_is_a_usage_error(tmp_path, setup):
    with pytest.raises(UsageError):
        operation_times(tmp_path / "m.onnx", setup)
