"""The runner for arm64 phones, run by qemu, against arm64 builds of the real runtimes."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from latkit.devices.onnx_profile import node_times
from latkit.devices.runtimes import numbered_input
from latkit.devices.tflite import convert
from latkit.latency.blocks import MBConv
from latkit.latency.onnx_model import build_onnx
from phone import libraries
from phone.bare_runner import BareRunner, models


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    return BareRunner(tmp_path_factory.mktemp("runner"), "arm64-v8a")


@pytest.fixture(scope="module")
def blocks(runner):
    """Two ONNX files, each with a TFLite file beside it."""
    paths = []
    for kernel in (3, 5):
        block = MBConv(8, 8, 8, out_channels=8, expanded_channels=24, kernel=kernel)
        paths.append(runner.folder / f"block {kernel}.onnx")
        model = build_onnx(block)
        onnx.save(model, paths[-1])
        paths[-1].with_suffix(".tflite").write_bytes(convert(model))
    return paths


def expected(path, to_model=None, from_model=None):
    """What this process computes; inputs and outputs transposed for a model of another layout."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (item,) = session.get_inputs()
    shape = item.shape if to_model is None else [item.shape[axis] for axis in from_model]
    values = numbered_input(0, item.name, shape, "float32")
    if to_model is not None:
        values = values.transpose(to_model)
    (output,) = session.run(None, {item.name: values})
    return output if from_model is None else output.transpose(from_model)


def check(runner, paths, lines, results):
    junk = runner.folder / "junk"
    junk.write_bytes(b"junk" * 100)
    told = [f"save {number} {runner.folder}/saved {number}" for number in range(len(paths))]
    done = runner(
        *lines,
        "cores 1",
        "warmups 2 0",
        *models(paths, eviction_bytes=65536),
        f"model -1 0 {paths[0]}",
        f"model 9 0 {junk}",
        "load",
        "round -1:2 1:3 9:1 0:1",
        *told,
        "outputs 0",
    )
    assert done.exit_code == 0, done.answers or done.stderr
    assert [loaded["loaded"] for loaded in done.told("loaded")] == [0, 1, -1]
    assert [failed["failed"] for failed in done.told("failed")] == [9]
    assert [(visit["visit"], len(visit["samples_ns"])) for visit in done.told("visit")] == [
        (-1, 2),
        (1, 3),
        (0, 1),
    ]
    assert len(done.told("memory_walk_ns")) == 1
    assert [end["pinned_to"] for end in done.told("pinned_to")] == [[0], [0]]
    for number, result in enumerate(results):
        saved = np.fromfile(runner.folder / f"saved {number}", np.float32).reshape(result.shape)
        np.testing.assert_allclose(saved, result, rtol=1e-4, atol=1e-4)
    (output,) = done.told("outputs")[0]["outputs"]
    assert output["sum"] == pytest.approx(results[0].astype(np.float64).sum(), abs=1e-2)
    return done


def test_onnxruntime_on_arm64(runner, blocks):
    library = libraries.onnxruntime_library_arm64()
    results = [expected(path) for path in blocks]
    check(runner, blocks, [f"library onnxruntime {library}"], results)


@pytest.mark.parametrize("accelerator", ["cpu", "xnnpack"])
def test_tflite_on_arm64(runner, blocks, accelerator):
    library = libraries.tflite_library_arm64()
    lines = [f"library tflite {library}", f"accelerator {accelerator}"]
    results = [expected(path, (0, 3, 1, 2), (0, 2, 3, 1)) for path in blocks]
    done = check(runner, [path.with_suffix(".tflite") for path in blocks], lines, results)
    logs = [loaded["log"] for loaded in done.told("loaded")]
    assert ["yielding 1 partitions" in log for log in logs] == [accelerator == "xnnpack"] * 3


def test_a_profile_on_arm64_tells_the_graph_that_arm64_runs(runner, blocks):
    """Its own, not an x86-64's: there are no blocked layouts of images there."""
    library = libraries.onnxruntime_library_arm64()
    prefix = runner.folder / "profile.a"
    lines = [f"library onnxruntime {library}", *models(blocks[:1]), "load"]
    done = runner(*lines, f"profile 0 1 1 2 {prefix}")
    assert done.exit_code == 0, done.answers or done.stderr
    (end,) = done.told("optimized")
    ran = [(node.domain, node.op_type) for node in onnx.load(end["optimized"]).graph.node]
    events = json.loads(Path(end["profile"]).read_bytes())
    told = node_times(events, [False, False, True, True])
    assert [item.kind for item in told] == [kind for _, kind in ran]
    assert {len(item.times_ms) for item in told} == {2}
    assert ran == [("com.microsoft", "FusedConv")] * 3
