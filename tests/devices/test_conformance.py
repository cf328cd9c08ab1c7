"""What every kind of device must do, whatever runs there: one suite, run on each that is here."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import shutil
import subprocess
import types
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from latkit.devices import Device, DeviceError, Model, TimingProtocol, UsageError
from latkit.devices.convert import prepare
from latkit.devices.cuda.device import CudaKind
from latkit.devices.cuda.nvidia import NvidiaSmi
from latkit.devices.cuda.runtimes import find_cuda_runtime
from latkit.devices.device import PRECISIONS
from latkit.devices.measurement import measurement
from latkit.devices.options import DeviceOptions
from latkit.devices.phone import runner_process as runner_process_module
from latkit.devices.phone import worker as phone_worker_module
from latkit.devices.phone.worker import RunnerWorker
from latkit.devices.registry import open_device
from latkit.devices.rounds import visiting_order
from latkit.devices.runtimes import ONNX_DTYPES, find_runtime, numbered_input
from phone import libraries
from phone.models import write_conv, write_endless
from phone.shared import shared_phone

PROTOCOL = TimingProtocol(
    rounds=3, processes=2, runs=4, warmups=2, max_repeats=0, max_wait_s=0, seed=7
)
EVICTED = 1 << 20
LIBRARIES = {
    "adb-onnxruntime": libraries.onnxruntime_library,
    "adb-tflite": libraries.tflite_library,
    "adb-tflite-arm64": libraries.tflite_library_arm64,
}
TFLITE_ON_PHONE = "/data/local/tmp/libtensorflowlite_c.so"


@dataclass
class Kind:
    """A kind of device under test, what its runtime eats, and what it was asked to time.

    `outputs` gives what the device computes for a file: of phones, the sum of each output and that
    of its magnitudes. `None` where its program tells no outputs.
    """

    name: str
    options: DeviceOptions
    suffix: str
    address: str = "cpu"
    library: Path | None = None
    tells_samples: bool = True
    outputs: Callable[[Device, Path], list[np.ndarray]] | None = None
    models: list[Model] = field(default_factory=list)

    def open(self) -> Device:
        return open_device(self.address, self.options)


# -- what each kind is made of ---------------------------------------------------------------


def host_outputs(runtime, device, path):
    file = prepare(path, runtime.name, path.parent / "converted", precision=device.setup.precision)
    session = runtime.load(file, 1)
    session.run()
    return session.outputs()


def phone_outputs(device, path):
    """Sum and sum of magnitudes of each output, from the runner, of the file that was pushed."""
    with device.session():
        job = types.SimpleNamespace(
            canary=device.canary(),
            models=((device.deliver([path])[0], 0),),
            skip=(),
            warmups=0,
            warmup_ms=0,
        )
        worker = device.worker(job, path.parent)
        assert isinstance(worker, RunnerWorker)
        worker.load(60)
        worker._runner.tell("outputs 0")
        answer, end = worker._runner.answers("outputs", 60, lambda _: 60)
        assert end == {"end": "outputs"}
        worker.end()
    return [np.array([item["sum"], item["absolute_sum"]]) for item in answer["outputs"]]


def benchmark_program(folder):
    """The program of tests/phone/benchmark_model.c, for a phone of this host's architecture."""
    gcc = shutil.which("gcc")
    compiler = [gcc] if gcc else [str(libraries.zig()), "cc", "-target", "x86_64-linux-gnu"]
    source = Path(libraries.__file__).with_name("benchmark_model.c")
    program = folder / "benchmark_model"
    place = f'-DLIBRARY="{TFLITE_ON_PHONE}"'
    subprocess.run([*compiler, "-O1", place, str(source), "-ldl", "-o", str(program)], check=True)
    return program


def cpu_kind(name):
    runtime = find_runtime(name.removeprefix("cpu-"))
    return Kind(
        name,
        DeviceOptions(runtime=runtime.name),
        runtime.suffix,
        outputs=lambda device, path: host_outputs(runtime, device, path),
    )


def phone_kind(name, phone, folder):
    address = f"adb:{phone.serial}"
    if name == "adb-benchmark_model":
        program = benchmark_program(folder)
        shutil.copy(libraries.tflite_library(), phone.data / TFLITE_ON_PHONE.removeprefix("/data/"))
        options = DeviceOptions(benchmark_model=program)
        return Kind(name, options, ".tflite", address, program, tells_samples=False)
    library = LIBRARIES[name.removesuffix("-xnnpack")]()
    accelerator = "xnnpack" if name.endswith("xnnpack") else None
    options = DeviceOptions(runtime_library=library, accelerator=accelerator)
    suffix = ".onnx" if "onnxruntime" in name else ".tflite"
    return Kind(name, options, suffix, address, library, outputs=phone_outputs)


def cuda_kind(name):
    listings = CudaKind().found(DeviceOptions())
    if not listings:
        pytest.skip("there is no NVIDIA GPU here")
    runtime = name.removeprefix("cuda-")
    if listings[0].problem or runtime not in listings[0].runtimes:
        pytest.skip(f"cuda:0: {listings[0].problem or listings[0].missing[runtime]}")
    found = find_cuda_runtime(runtime, NvidiaSmi().gpus()[0].uuid)
    return Kind(
        name,
        DeviceOptions(runtime=runtime),
        ".onnx",
        "cuda:0",
        outputs=lambda device, path: host_outputs(found, device, path),
    )


PHONES = [
    *("adb-onnxruntime", "adb-tflite", "adb-tflite-xnnpack", "adb-tflite-arm64"),
    "adb-benchmark_model",
]


@pytest.fixture(
    scope="module",
    params=["cpu-onnxruntime", "cpu-litert", *PHONES, "cuda-onnxruntime", "cuda-torch"],
)
def kind(request, tmp_path_factory):
    """Each kind in turn, with a batch of its own: good models, a damaged one, a missing one."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        with ExitStack() as stack:
            if request.param.startswith("adb-"):
                abi = "arm64-v8a" if "arm64" in request.param else "x86_64"
                phone = stack.enter_context(shared_phone(request, folder, abi))
                made = phone_kind(request.param, phone, folder)
            elif request.param.startswith("cuda-"):
                made = cuda_kind(request.param)
            else:
                made = cpu_kind(request.param)
            made.models = batch(folder, made.suffix)
            yield made


def batch(folder, suffix):
    good = [
        Model(f"conv{channels}", write_conv(folder / f"conv{channels}.onnx", channels))
        for channels in (4, 8, 16, 24)
    ]
    damaged = folder / f"damaged{suffix}"
    damaged.write_bytes(b"no model")
    return [
        *good,
        dataclasses.replace(good[0], eviction_bytes=EVICTED),
        Model("damaged", damaged),
        Model("missing", folder / "missing.onnx"),
    ]


@pytest.fixture(scope="module")
def device(kind):
    return kind.open()


@pytest.fixture(scope="module")
def rounds(kind, device):
    return list(device.measure(kind.models, PROTOCOL))


def good_models(kind):
    """Those that this kind of device can time."""
    evicted = kind.models if kind.tells_samples else kind.models[:4]
    return [model.key for model in evicted if model.id.startswith("conv")]


# -- the suite -------------------------------------------------------------------------------


def expected_outputs(path):
    """What this host's Python computes for a file of either runtime."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        feeds = {
            item.name: numbered_input(number, item.name, item.shape, ONNX_DTYPES[item.type])
            for number, item in enumerate(session.get_inputs())
        }
        return session.run(None, feeds)
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    for number, item in enumerate(interpreter.get_input_details()):
        shape = item["shape"].tolist()
        values = numbered_input(number, item["name"], shape, item["dtype"])
        interpreter.set_tensor(item["index"], values)
    interpreter.invoke()
    return [interpreter.get_tensor(item["index"]) for item in interpreter.get_output_details()]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_it_computes_what_the_model_says(kind, tmp_path, precision):
    """Against the same runtime's Python on this host, with the same file and the same inputs."""
    if kind.outputs is None:
        pytest.skip(f"{kind.name} tells no outputs")
    if kind.name.startswith("cuda") and precision == "int8":
        pytest.skip("no runtime computes in int8 on a GPU")
    kind = dataclasses.replace(kind, options=dataclasses.replace(kind.options, precision=precision))
    path = write_conv(tmp_path / "conv.onnx", 6)
    runtime = "onnxruntime" if kind.suffix == ".onnx" else "litert"
    machine = "aarch64" if "arm64" in kind.name else platform.machine()
    file = prepare(path, runtime, tmp_path, precision=precision, machine=machine)
    expected = expected_outputs(file)
    given = kind.outputs(kind.open(), path)
    assert len(given) == len(expected)
    for one, other in zip(given, expected, strict=True):
        wide = np.asarray(other, np.float64)
        assert np.abs(wide).sum() > 100
        if kind.name.startswith("adb"):
            # Kernels of another processor, or another build's, may round a step the other way.
            each = {"float32": 0.0, "float16": 1e-3, "int8": 0.05}[precision] * wide.size
            total = [wide.sum(), np.abs(wide).sum()]
            assert one == pytest.approx(total, rel=1e-5, abs=each)
        else:
            assert one.shape == other.shape
            step = {"float32": 1e-5, "float16": 2e-3, "int8": 1}[precision]
            assert one == pytest.approx(
                wide, rel=2e-3 if precision == "float16" else 1e-4, abs=step
            )


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_it_times_other_precisions_under_keys_of_their_own(kind, device, precision):
    if kind.name.startswith("cuda") and precision == "int8":
        pytest.skip("no runtime computes in int8 on a GPU")
    options = dataclasses.replace(kind.options, precision=precision)
    other = dataclasses.replace(kind, options=options).open()
    assert other.setup == dataclasses.replace(device.setup, precision=precision)
    assert other.info()["precision"]["name"] == precision
    assert device.info()["precision"]["name"] == "float32"
    protocol = dataclasses.replace(PROTOCOL, rounds=1, processes=1)
    (item,) = other.measure(kind.models[:2], protocol)
    assert set(item.visits) == {model.key for model in kind.models[:2]}
    assert item.canary_ns


def test_each_round_has_as_many_runs_of_each_model_as_asked_for(kind, rounds):
    assert [(item.index, item.process) for item in rounds] == [(0, 0), (1, 0), (2, 1)]
    for item in rounds:
        assert item.accepted and item.duration_s > 0 and item.canary_ns
        assert set(item.visits) == set(good_models(kind))
        for visit in item.visits.values():
            if not kind.tells_samples:
                assert visit.samples_ns == () and visit.summary is not None
                assert visit.summary.count == PROTOCOL.runs
                assert 0 < visit.summary.minimum_ns <= visit.summary.value_ns
                continue
            assert visit.summary is None and len(visit.samples_ns) == PROTOCOL.runs
            assert all(type(time) is int and time > 0 for time in visit.samples_ns)
            assert visit.preempted is None or len(visit.preempted) == PROTOCOL.runs


def test_each_round_has_an_order_of_its_own(kind, rounds):
    orders = [list(item.visits) for item in rounds]
    for item, order in zip(rounds, orders, strict=True):
        drawn = visiting_order(PROTOCOL.seed, item.index, item.attempt, len(kind.models))
        keys = [kind.models[number].key for number in drawn]
        assert order == [key for key in keys if key in item.visits]
    assert len({tuple(order) for order in orders}) > 1


def test_models_that_fail_do_so_alone_and_say_why(kind, device, rounds):
    expected = {model.key for model in kind.models} - set(good_models(kind))
    for item in rounds:
        assert set(item.failures) == expected
        assert "there is no model file" in item.failures["missing", 0]
        assert "can't be loaded" in item.failures["damaged", 0]
        if not kind.tells_samples:
            assert "can't evict" in item.failures["conv4", EVICTED]
    with pytest.raises(DeviceError, match="can't be loaded"):
        measurement(("damaged", 0), device.setup, rounds)
    assert measurement(("conv24", 0), device.setup, rounds).median_ms > 0


def test_the_context_says_everything_or_why_it_does_not(kind, device, rounds):
    info = device.info()
    for item in rounds:
        assert_complete(dict(item.context))
        for name in ("canary_preempted", "lost_workers", "throttled"):
            assert name in item.context
        if device.setup.cores is not None and item.context["pinned_to"] is not None:
            assert tuple(item.context["pinned_to"]) == device.setup.cores
    assert_complete(info)
    assert len(info["runtime_binary_sha256"]) == 64
    if kind.library is not None:
        content = Path(kind.library).read_bytes()
        assert info["runtime_binary_sha256"] == hashlib.sha256(content).hexdigest()
        assert info["runtime_binary_sha256"][:16] in device.setup.runtime_version
    if kind.address != "cpu":
        before, after = rounds[0].context["state"]
        assert before and after


def assert_complete(values: dict[str, Any]) -> None:
    """All of it is JSON, and where something is not known there is the reason."""
    json.dumps(values, allow_nan=False)
    waiting: list[Any] = [values]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list | tuple):
            waiting += item
        elif isinstance(item, dict):
            waiting += item.values()
            unknown = [name for name, value in item.items() if value is None]
            # `throttled` is no fact that could be unknown: None says that nothing was throttled.
            assert [name for name in unknown if not item.get(f"{name}_reason")] in (
                [],
                ["throttled"],
            )


def test_where_models_ran_is_told_where_an_accelerator_was_asked_for(kind, device, rounds):
    asked = device.setup.accelerator
    for item in rounds:
        for visit in item.visits.values():
            if asked != "cpu":
                assert visit.placement is not None and visit.placement.accelerator == asked
            if asked == "xnnpack":
                assert visit.placement.partitions == 1
                assert visit.placement.delegated == visit.placement.nodes > 0


def test_two_openings_of_a_device_have_one_key(kind, device):
    assert kind.open().setup == device.setup
    assert kind.open().setup.key == device.setup.key


def test_a_key_given_twice_is_refused(kind, device):
    with pytest.raises(UsageError, match="given twice"):
        device.measure([kind.models[0], kind.models[0]], PROTOCOL)


def test_a_model_that_hangs_is_given_up_and_the_rest_goes_on(kind, tmp_path, monkeypatch):
    if not kind.name.endswith("-onnxruntime") or kind.name.startswith("cuda"):
        pytest.skip(f"no model hangs on {kind.name}: its runtime has no loops here")
    monkeypatch.setattr(phone_worker_module, "PATIENCE_S", 0.5)
    monkeypatch.setattr(runner_process_module, "POLL_S", 0.2)
    device = kind.open()
    device.timeout_s = 2
    hung = Model("hung", write_endless(tmp_path / "hung.onnx"))
    protocol = dataclasses.replace(PROTOCOL, rounds=2, processes=1)
    rounds = list(device.measure([kind.models[0], hung, kind.models[1]], protocol))
    assert len(rounds) == 2
    for item in rounds:
        assert set(item.visits) == {kind.models[0].key, kind.models[1].key}
        assert item.failures == {("hung", 0): "load: did not end within 2 s"}
        assert item.context["lost_workers"] == 1
