import pytest
from latkit.devices.cpu import CpuDevice
from latkit.devices.device import Setup
from latkit.devices.errors import DeviceError, UsageError
from latkit.devices.onnx_profile import node_times, run_times_ms
from latkit.devices.per_op import OperationTime, OperationTimes, operation_times
from latkit.devices.profiled import ProfiledOperation, middle_ms
from onnx import TensorProto, helper, load, save

pytestmark = pytest.mark.quiet


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


def test_times_of_each_node_leave_warmups_and_other_events_out():
    events = [event("session_initialization", 10**6, category="Session")]
    for first, second in ((10**6, 10**6), (10, 4), (30, 6), (20, 5)):
        events += [
            event("a_kernel_time", first),
            event("b_kernel_time", second, "Relu"),
            event("a_fence_before", 10**6),
            event("model_run", first + second, category="Session"),
        ]
    counted = [False, True, True, True]
    assert node_times(events, counted) == [
        ProfiledOperation("a", "Conv", (0.01, 0.03, 0.02)),
        ProfiledOperation("b", "Relu", (0.004, 0.006, 0.005)),
    ]
    assert run_times_ms(events, counted) == [0.014, 0.036, 0.025]


def test_node_that_a_run_executes_twice_counts_with_its_sum():
    run = [event("a_kernel_time", 3), event("a_kernel_time", 4), event("model_run", 9)]
    assert node_times(run * 2, [True, True]) == [ProfiledOperation("a", "Conv", (0.007, 0.007))]


def test_nodes_of_one_name_are_told_apart():
    run = [event("a_kernel_time", 3), event("a_kernel_time", 4), event("model_run", 9)]
    for number, item in enumerate(run[:2]):
        item["args"]["node_index"] = str(number)
    assert [item.times_ms for item in node_times(run, [True])] == [(0.003,), (0.004,)]


def test_middle_is_deaf_to_outliers_and_finer_than_the_clock():
    assert middle_ms([0.003, 0.003, 0.004, 0.004, 9.0, 0.003, 0.004, 0.0]) == pytest.approx(0.0035)
    assert middle_ms([0.5]) == 0.5


def test_remainder_is_what_the_operations_leave_of_the_whole():
    times = OperationTimes((OperationTime("a", "Conv", 2.0), OperationTime("b", "Relu", 1.0)), 3.5)
    assert times.sum_ms == 3.0
    assert times.remainder_ms == 0.5


RUNTIMES = ("onnxruntime", "litert")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_operations_of_a_model_are_told_in_order(tmp_path, runtime):
    path = model(tmp_path / "m.onnx")
    times = operation_times(path, CpuDevice(runtime=runtime).setup, runs=5, warmups=2)
    kinds = {
        "onnxruntime": ["Relu", "Sigmoid", "Abs"],
        "litert": ["Transpose Transpose", "Clamp", "Sigmoid", "Abs"],
    }[runtime]
    assert [item.kind for item in times.operations][-3:] == kinds[-3:]
    assert all(item.median_ms > 0 for item in times.operations)
    assert times.whole_ms > 0 and times.profiled_ms > 0
    assert len(times.canary_ns) == 6 and times.canary_drift >= 0
    assert 0 <= times.clean_share <= 1


def test_shapes_are_told_where_the_runtime_knows_them(tmp_path):
    path = model(tmp_path / "m.onnx", ("Relu",))
    times = operation_times(path, CpuDevice().setup, runs=0)
    assert times.inputs == (("input", ("float32", (1, 64, 64, 64))),)
    assert times.operations[0].outputs == (("float", (1, 64, 64, 64)),)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_without_runs_the_operations_are_known_but_not_the_whole(tmp_path, runtime):
    times = operation_times(model(tmp_path / "m.onnx"), CpuDevice(runtime=runtime).setup, runs=0)
    assert len(times.operations) >= 3
    assert (times.whole_ms, times.canary_ns, times.canary_drift) == (0.0, (), 0.0)


def test_graph_that_is_executed_is_written_where_it_is_wanted(tmp_path):
    wanted = tmp_path / "optimized.onnx"
    setup = CpuDevice().setup
    operation_times(model(tmp_path / "m.onnx"), setup, runs=0, optimized=wanted)
    assert [node.op_type for node in load(wanted).graph.node] == ["Relu", "Sigmoid", "Abs"]


def test_what_the_profiler_adds_is_measured_for_onnxruntime(tmp_path):
    path = model(tmp_path / "m.onnx")
    times = operation_times(path, CpuDevice().setup, runs=5, warmups=2)
    assert 0 < times.profiler_ms < 0.1


@pytest.mark.parametrize(("runtime", "suffix"), zip(RUNTIMES, (".onnx", ".tflite"), strict=True))
def test_model_that_can_not_be_loaded_is_an_error_with_its_cause(tmp_path, runtime, suffix):
    path = tmp_path / f"m{suffix}"
    path.write_bytes(b"no model")
    with pytest.raises(DeviceError, match=r"m\.\w+ can't be profiled"):
        operation_times(path, CpuDevice(runtime=runtime).setup)


def test_crash_of_the_process_that_profiles_is_an_error(tmp_path, monkeypatch):
    program = tmp_path / "crashes"
    program.write_text("#!/bin/sh\nkill -SEGV $$\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    with pytest.raises(DeviceError, match=r"exit code -11"):
        operation_times(model(tmp_path / "m.onnx"), CpuDevice().setup)


@pytest.mark.parametrize(
    "setup",
    [
        Setup("cpu:this", "torch", "2.3"),
        Setup("phone", "onnxruntime", "1.31"),
        Setup("phone", "litert", "2.3"),
    ],
)
def test_setup_that_can_not_tell_is_a_usage_error(tmp_path, setup):
    with pytest.raises(UsageError):
        operation_times(tmp_path / "m.onnx", setup)
