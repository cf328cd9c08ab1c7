"""GPUs as devices. Without a GPU: addresses, errors, and the sessions, run on the processor."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from latkit.devices import DeviceError, Model, TimingProtocol, UsageError
from latkit.devices import worker as worker_module
from latkit.devices.backend import Loaded
from latkit.devices.canary import build_canary
from latkit.devices.cpu import CpuDevice
from latkit.devices.cuda import device as cuda_module
from latkit.devices.cuda import torch_session as cuda_torch
from latkit.devices.cuda.device import CudaDevice, CudaKind, fallback, parse_index
from latkit.devices.cuda.nvidia import NvidiaSmi
from latkit.devices.cuda.onnx_session import PROVIDER, OnnxEvictor, OnnxGpuSession, assigned
from latkit.devices.cuda.process import show_only
from latkit.devices.cuda.runtimes import NAMES, find_cuda_runtime
from latkit.devices.device import Placement
from latkit.devices.job import CANARY, HostJob, Job
from latkit.devices.options import DeviceOptions
from latkit.devices.runtimes import TimedSession, find_runtime
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

CPU = "CPUExecutionProvider"
pytestmark = pytest.mark.filterwarnings("ignore:Duplicate provider")
SHORT = TimingProtocol(rounds=2, processes=1, runs=3, warmups=2, warmup_ms=1, max_repeats=0)

NVIDIA_SMI = """#!{python}
import sys
words = dict(word.partition("=")[::2] for word in sys.argv[1:])
if not words:
    sys.exit()
for row in {rows!r}:
    if words.get("--id", row["uuid"]) == row["uuid"]:
        print(", ".join(row.get(field, "[N/A]") for field in words["--query-gpu"].split(",")))
"""


def gpu(index, name="NVIDIA T4", **values):
    return {"index": str(index), "uuid": f"GPU-{index}", "name": name, "temperature.gpu": "41"} | {
        key.replace("_", "."): value for key, value in values.items()
    }


@pytest.fixture
def gpus(tmp_path, monkeypatch):
    """Has an nvidia-smi on the PATH that tells these GPUs; CUDA itself sees none."""

    def write(*rows):
        path = tmp_path / "bin" / "nvidia-smi"
        path.parent.mkdir(exist_ok=True)
        path.write_text(NVIDIA_SMI.format(python=sys.executable, rows=list(rows)))
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return write


@pytest.fixture
def provider_there(monkeypatch):
    """An onnxruntime that says it was built with the CUDA provider."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [PROVIDER, CPU])


@pytest.fixture
def canary(tmp_path):
    path = tmp_path / "canary.onnx"
    onnx.save(build_canary(), path)
    return path


def session_on_cpu(path, provider=CPU):
    evictor = OnnxEvictor(onnxruntime, [CPU], "cpu")
    return OnnxGpuSession(onnxruntime, path, (provider, {}), "cpu", evictor)


def outputs_on_cpu(path):
    session = find_runtime("onnxruntime").load(path, 1)
    session.run()
    return session.outputs()


# Addresses and options


@pytest.mark.parametrize(("place", "index"), [("", 0), ("0", 0), ("7", 7), ("12", 12)])
def test_the_index_follows_the_colon(place, index):
    assert parse_index(place) == index


@pytest.mark.parametrize("place", ["one", "-1", "1.5", "0:0", "\u0662", " 1", "GPU-0"])
def test_an_index_that_is_no_number_is_refused(place):
    with pytest.raises(UsageError, match="give a GPU's number"):
        CudaKind().open(place, DeviceOptions())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (DeviceOptions(threads=2), "--threads and --cores are for processors"),
        (DeviceOptions(cores=(0,)), "--threads and --cores are for processors"),
        (DeviceOptions(accelerator="gpu"), "no accelerator 'gpu'"),
        (DeviceOptions(batch_size=0), "at least 1"),
        (DeviceOptions(runtime_library=os.devnull), "--runtime-library is for phones"),
    ],
)
def test_options_that_are_not_for_gpus_are_refused(options, complaint):
    with pytest.raises(UsageError, match=complaint):
        CudaKind().open("0", options)


def test_int8_is_refused():
    with pytest.raises(DeviceError, match="does not time int8; it times float32, float16"):
        CudaKind().open("0", DeviceOptions(precision="int8"))


def test_no_driver_is_told_and_lists_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for ask in (CudaKind().open, CudaKind().name):
        with pytest.raises(DeviceError, match="no NVIDIA driver here"):
            ask("0", DeviceOptions())
    assert CudaKind().found(DeviceOptions()) == []


def test_a_gpu_that_is_not_there_lists_those_that_are(gpus):
    gpus(gpu(0), gpu(1, "NVIDIA L4"))
    with pytest.raises(DeviceError, match=r"no device cuda:2; .* cuda:0 \(NVIDIA T4\), cuda:1 \("):
        CudaKind().open("2", DeviceOptions())


def test_the_name_needs_no_runtime_and_can_stand_in_a_key(gpus):
    gpus(gpu(0), gpu(1, "NVIDIA  A|B"))
    assert CudaKind().name("1", DeviceOptions()) == "cuda:NVIDIA A/B"


def test_a_gpu_that_is_split_is_refused_and_listed_with_the_problem(gpus):
    gpus(gpu(0, mig_mode_current="Enabled"))
    with pytest.raises(DeviceError, match="split into instances"):
        CudaKind().open("0", DeviceOptions())
    assert "split into instances" in CudaKind().found(DeviceOptions())[0].problem


def test_gpus_are_listed_with_temperature_and_with_what_is_missing(gpus, provider_there):
    gpus(gpu(0), gpu(1, "NVIDIA L4"))
    first, second = CudaKind().found(DeviceOptions())
    assert (first.address, first.kind, first.name) == ("cuda:0", "cuda", "NVIDIA T4")
    assert (first.temperature, first.accelerators) == ("41 C", ("cuda",))
    assert first.runtimes["onnxruntime"] == onnxruntime.__version__
    assert set(first.runtimes) | set(first.missing) == set(NAMES)
    assert (second.address, second.name, second.problem) == ("cuda:1", "NVIDIA L4", None)


def test_a_driver_that_fails_is_listed_with_the_problem(gpus, tmp_path):
    gpus()
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\necho driver mismatch\nexit 18\n")
    (listing,) = CudaKind().found(DeviceOptions())
    assert "driver mismatch" in listing.problem


# Runtimes


def test_an_onnxruntime_without_the_provider_names_the_package():
    if PROVIDER in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has the CUDA provider")
    with pytest.raises(DeviceError, match=r"has no CUDA provider: .* 'onnxruntime-gpu"):
        find_cuda_runtime("onnxruntime").version()


def test_a_torch_without_cuda_says_so():
    torch = pytest.importorskip("torch")
    if torch.version.cuda is not None:
        pytest.skip("this torch has CUDA")
    with pytest.raises(DeviceError, match="has no CUDA; install one that has: pip install"):
        find_cuda_runtime("torch").version()


def test_a_runtime_that_is_not_installed_names_the_package(monkeypatch):
    for name, package in (("onnxruntime", "onnxruntime-gpu"), ("torch", "torch")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(DeviceError, match=f"pip install {package}$"):
            find_cuda_runtime(name).version()
    with pytest.raises(DeviceError, match=r"no runtime can use the GPU: .*pip install torch"):
        cuda_module.default_runtime()


def test_an_unknown_runtime_lists_the_known():
    with pytest.raises(DeviceError, match="'litert' for GPUs; there are onnxruntime, torch"):
        find_cuda_runtime("litert")


def test_onnxruntime_is_the_default_where_it_has_the_provider(monkeypatch, provider_there):
    assert cuda_module.default_runtime() == "onnxruntime"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    torch = SimpleNamespace(__version__="9+cu1", version=SimpleNamespace(cuda="1"))
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert cuda_module.default_runtime() == "torch"


def test_options_say_that_tf32_is_off(provider_there):
    options = find_cuda_runtime("onnxruntime").options(1)
    assert (options["use_tf32"], options["enable_cuda_graph"]) == ("0", "0")


def test_a_process_sees_its_gpu_alone(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    show_only("")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
    show_only("GPU-1")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-1"


# The session of ONNX Runtime, with the processor's provider in place of the GPU's


def test_an_onnx_session_runs_evicts_touches_and_gives_outputs(canary):
    session = session_on_cpu(canary)
    assert isinstance(session, TimedSession)
    session.run()
    expected = outputs_on_cpu(canary)
    for _ in range(2):
        np.testing.assert_allclose(session.outputs()[0], expected[0], rtol=1e-5, atol=1e-6)
        session.evict(1 << 20)
        session.evict(3)
        session.touch_input()
        assert session.timed_run() > 0


def test_an_onnx_session_tells_how_many_nodes_the_provider_took(canary):
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(str(canary), options, providers=[CPU])
    assert assigned(session, CPU) == Placement("cuda", None, 9, 9)
    assert assigned(session, PROVIDER) == Placement("cpu", None, 0, 9)
    assert assigned(object(), PROVIDER) is None


def test_a_provider_that_does_not_start_is_an_error_and_no_quiet_fallback(canary):
    if shutil.which("nvidia-smi"):
        pytest.skip("there may be a GPU")
    with pytest.warns(UserWarning), pytest.raises(DeviceError, match="could not start its CUDA"):
        session_on_cpu(canary, PROVIDER)


def test_an_input_that_can_not_be_filled_is_refused(tmp_path):
    value = [helper.make_tensor_value_info(name, TensorProto.STRING, [1]) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:]
    )
    path = tmp_path / "text.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    with pytest.raises(UsageError, match=r"tensor\(string\)"):
        session_on_cpu(path)


def test_an_error_after_which_the_gpu_is_lost_ends_the_process(canary, monkeypatch):
    session = session_on_cpu(canary)

    def fail(text):
        def run(*_):
            raise Fail(text)

        monkeypatch.setattr(session, "_session", SimpleNamespace(run_with_iobinding=run))

    fail("CUDA failure 700: an illegal memory access was encountered ; GPU=0")
    with pytest.raises(SystemExit, match="can't go on"):
        session.timed_run()
    fail("Failed to allocate memory for requested buffer of size 100000000000")
    with pytest.raises(Fail, match="allocate"):
        session.timed_run()


def test_the_worker_lets_a_session_time_and_evict_for_itself(canary, tmp_path, monkeypatch):
    evicted = []

    class Recording(OnnxGpuSession):
        def evict(self, size_bytes):
            evicted.append(size_bytes)
            super().evict(size_bytes)

    evictor = OnnxEvictor(onnxruntime, [CPU], "cpu")

    def load(path, threads):
        return Recording(onnxruntime, path, (CPU, {}), "cpu", evictor)

    monkeypatch.setattr(worker_module, "find_runtime", lambda name: SimpleNamespace(load=load))
    other = tmp_path / "other.onnx"
    shutil.copy(canary, other)
    job = Job(str(canary), ((str(other), 4096), (str(tmp_path / "none"), 0)), (), 2, 1.0)
    worker = worker_module.Worker(HostJob("any", 1, None, str(tmp_path / "progress"), job))
    loaded = worker.load()
    assert "can't be loaded" in loaded["failures"][1]
    answer = worker.visit([(CANARY, 5), (0, 3), (1, 3)])
    samples, preempted = answer["visits"][0]
    assert len(samples) == 3
    assert min(samples) > 0
    assert preempted is None
    assert evicted == [4096] * 3
    assert len(answer["canary"][0][0]) == 5


# The session of torch: its use of CUDA, with a stand-in that notes it down


USED_OF_CUDA = ("CUDAGraph", "Event", "Stream", "current_stream", "graph", "stream")


class NotedCuda:
    """What `torch.cuda` offers of graphs, streams and events; runs nothing, notes the order."""

    def __init__(self):
        self.notes = []
        self.broken = False
        cuda = self

        class Noted:
            def __init__(self, **options):
                self.options = options

            def wait_stream(self, other):
                cuda.note("wait")

            def replay(self):
                cuda.note("replay")

            def record(self):
                cuda.note("record")

            def synchronize(self):
                cuda.note("event wait")

            def elapsed_time(self, other):
                assert self.options == other.options == {"enable_timing": True}
                return 0.0125

        self.Event = self.Stream = self.CUDAGraph = Noted
        self.current_stream = Noted

    def note(self, what):
        if self.broken:
            raise RuntimeError("CUDA error: unspecified launch failure")
        self.notes.append(what)

    def synchronize(self):
        self.note("synchronize")

    @contextmanager
    def stream(self, stream):
        self.note("side stream")
        yield

    @contextmanager
    def graph(self, graph):
        self.note("capture")
        yield
        self.note("captured")


@pytest.fixture
def noted(monkeypatch):
    torch = pytest.importorskip("torch")
    cuda = NotedCuda()
    for name in (*USED_OF_CUDA, "synchronize"):
        monkeypatch.setattr(torch.cuda, name, getattr(cuda, name))
    return torch, cuda


def test_a_torch_session_warms_up_captures_and_times_replays_on_an_idle_gpu(noted, canary):
    torch, cuda = noted
    memory = torch.ones(64, dtype=torch.uint8)
    session = cuda_torch.TorchGraphSession(torch, canary, "cpu", lambda size: memory[:size])
    assert isinstance(session, TimedSession)
    assert cuda.notes == ["wait", "side stream", "wait", "capture", "captured"]
    np.testing.assert_allclose(
        session.outputs()[0], outputs_on_cpu(canary)[0], rtol=1e-4, atol=1e-5
    )
    cuda.notes.clear()
    session.evict(16)
    assert memory.sum() == 48
    session.touch_input()
    assert session.timed_run() == 12_500
    assert cuda.notes == ["synchronize", "record", "replay", "record", "event wait"]
    assert session.placement == Placement("cpu", 1, 9, 9)


def test_a_torch_session_whose_kernel_fails_ends_the_process(noted, canary):
    torch, cuda = noted
    session = cuda_torch.TorchGraphSession(torch, canary, "cpu", None)
    cuda.broken = True
    with pytest.raises(SystemExit, match="unspecified launch failure"):
        session.timed_run()


@pytest.mark.parametrize("lost", [False, True])
def test_a_model_that_can_not_be_captured_fails_alone_unless_the_gpu_is_lost(
    noted, canary, monkeypatch, lost
):
    torch, cuda = noted
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    cuda.broken = lost

    def refuse(*_):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(cuda_torch, "TorchGraphSession", refuse)
    with pytest.raises(SystemExit if lost else RuntimeError):
        find_cuda_runtime("torch").load(canary, 1)
    assert torch.backends.cudnn.allow_tf32 is False
    assert torch.backends.cuda.matmul.allow_tf32 is False


# Fallback


@pytest.mark.parametrize(
    ("placement", "cause"),
    [
        (Placement("cuda", None, 9, 9), None),
        (Placement("cuda", 1, 9, 9), None),
        (Placement("cuda", 0, 0, 0), None),
        (Placement("cuda", None, 7, 9), "2 of 9 nodes run on the processor"),
        (Placement("cpu", None, 0, 9), "took no node"),
        (None, "can't be confirmed"),
    ],
)
def test_a_model_with_nodes_on_the_processor_has_failed(placement, cause):
    told = fallback(placement)
    assert told is None if cause is None else cause in told


# The device


@pytest.fixture
def device(gpus, provider_there, tmp_path):
    gpus(gpu(0), gpu(1, "NVIDIA L4", power_limit="72.00", clocks_current_sm="2040"))
    return CudaDevice(1, batch_size=4, cache=tmp_path / "cache")


def test_the_key_tells_gpu_runtime_accelerator_and_batch_size(device):
    setup = device.setup
    version = onnxruntime.__version__
    assert setup.key == (
        f"cuda:NVIDIA L4|onnxruntime-{version}|cuda|threads=1|cores=any|float32|batch=4"
    )
    assert replace(setup, runtime="torch").key != setup.key


def test_info_tells_gpu_host_and_runtime(device):
    info = device.info()
    assert info["gpu"]["power_limit_w"] == 72
    assert info["gpu"]["uuid"] == "GPU-1"
    assert info["runtime_options"]["provider"] == PROVIDER
    assert "kernel" in info


def test_models_and_canary_are_delivered_in_the_batch_size(device, canary, tmp_path):
    bad = tmp_path / "bad.onnx"
    bad.write_text("no model")
    place, refused = device.deliver([canary, bad])
    assert isinstance(refused, UsageError)
    for path in (place, device.canary()):
        assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4


def test_state_is_read_and_a_slowdown_is_throttling(device):
    state = device.state()
    assert state["clock_sm_mhz"] == 2040
    assert device.throttled(state, state, None, 0.0) is None
    slow = {**state, "reasons": ["hardware thermal slowdown"]}
    assert "hardware thermal slowdown" in device.throttled(state, slow, None, 0.0)


def test_cooling_ends_when_the_gpu_is_as_before_or_the_time_is_over(device, monkeypatch):
    assert device.cool({"temperature_c": 40}) < 5
    monkeypatch.setattr(cuda_module, "COOLING_S", 0.3)
    monkeypatch.setattr(cuda_module, "COOLING_POLL_S", 0.05)
    assert device.cool({"temperature_c": 20}) >= 0.3


class FakeProcess:
    """A worker process that tells where two models ran."""

    def __init__(self, told, folder):
        self.told = told

    def load(self, timeout_s):
        placements = {0: Placement("cuda", None, 9, 9), 1: Placement("cuda", None, 8, 9)}
        return Loaded(failures={2: "its own"}, first_run_ns={0: 1, 1: 1}, placements=placements)

    def visit(self, plan, timeout_s):
        return plan

    def end(self):
        pass


def test_a_worker_is_told_its_gpu_and_fallbacks_are_failures(device, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        cuda_module,
        "WorkerProcess",
        lambda job, folder: told.append(job) or FakeProcess(job, folder),
    )
    job = Job("canary", (("a", 0), ("b", 0), ("c", 0)), (), 1, 1.0)
    loaded = device.worker(job, tmp_path).load(1)
    assert told[0].runtime == "onnxruntime@GPU-1"
    assert sorted(loaded.failures) == [1, 2]
    assert "1 of 9 nodes" in loaded.failures[1]
    allowing = CudaDevice(1, allow_fallback=True, cache=tmp_path)
    assert sorted(allowing.worker(job, tmp_path).load(1).failures) == [2]


def test_a_runtime_that_finds_no_gpu_ends_the_measurement_with_its_cause(device, canary):
    """The real worker: this host's onnxruntime has no CUDA provider, whatever nvidia-smi says."""
    with pytest.raises(DeviceError, match="onnxruntime-gpu"):
        list(device.measure([Model("canary", canary)], SHORT))


# With a GPU


def gpu_is_there():
    try:
        return bool(NvidiaSmi().gpus())
    except DeviceError:
        return False


needs_gpu = pytest.mark.skipif(not gpu_is_there(), reason="no NVIDIA GPU")


@pytest.fixture(params=NAMES)
def real(request, tmp_path):
    try:
        return CudaDevice(runtime=request.param, cache=tmp_path / "cache")
    except DeviceError as error:
        pytest.skip(str(error))


def write_bad(path):
    path.write_bytes(b"no model")
    return path


@needs_gpu
def test_a_gpu_times_models_in_rounds_and_keeps_what_explains_them(real, canary, tmp_path):
    models = [
        Model("warm", canary),
        Model("evicted", canary, eviction_bytes=64 << 20),
        Model("bad", write_bad(tmp_path / "bad.onnx")),
    ]
    rounds = list(real.measure(models, SHORT))
    assert len(rounds) == SHORT.rounds
    for one in rounds:
        assert set(one.failures) == {("bad", 0)}
        for model in models[:2]:
            visit = one.visits[model.key]
            assert len(visit.samples_ns) == SHORT.runs
            assert min(visit.samples_ns) > 0
            assert visit.placement.accelerator == "cuda"
            assert visit.placement.delegated == visit.placement.nodes
        before, after = one.context["state"]
        assert before["clock_sm_mhz"] > 0
        assert after["temperature_c"] > 0


@needs_gpu
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_gpu_gives_what_the_processor_gives(real, canary, tmp_path, batch_size):
    device = CudaDevice(runtime=real.setup.runtime, batch_size=batch_size, cache=tmp_path)
    (place,) = device.deliver([canary])
    session = find_cuda_runtime(real.setup.runtime).load(place, 1)
    session.evict(1 << 20)
    session.touch_input()
    session.timed_run()
    host = CpuDevice(batch_size=batch_size, cache=tmp_path)
    (expected_place,) = host.deliver([canary])
    expected = outputs_on_cpu(expected_place)
    np.testing.assert_allclose(session.outputs()[0], expected[0], rtol=1e-4, atol=1e-5)


@needs_gpu
def test_a_model_too_large_for_the_gpu_fails_alone(real, canary, tmp_path):
    """Two petabytes of output, of an operation that every runtime has."""
    node = helper.make_node("Expand", ["x", "shape"], ["y"])
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node, helper.make_node("Add", ["y", "y"], ["z"])],
        "large",
        [info("x", TensorProto.FLOAT, [1, 1])],
        [info("z", TensorProto.FLOAT, [1 << 20, 1 << 29])],
        [helper.make_tensor("shape", TensorProto.INT64, [2], [1 << 20, 1 << 29])],
    )
    path = tmp_path / "large.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    models = [Model("canary", canary), Model("large", path)]
    for one in real.measure(models, SHORT):
        assert set(one.failures) == {("large", 0)}
        assert set(one.visits) == {("canary", 0)}
