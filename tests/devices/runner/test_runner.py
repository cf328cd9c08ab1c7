"""The runner against real runtimes: what it computes, in which order, and how often."""

import os
import re

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from latkit.devices.host import allowed_cores
from latkit.devices.runtimes import numbered_input
from latkit.devices.tflite import convert
from latkit.latency.blocks import MBConv
from latkit.latency.onnx_model import build_onnx
from onnx import TensorProto, helper
from phone import libraries
from phone.bare_runner import BareRunner, models

DELEGATED = re.compile(r"Replacing (\d+) out of (\d+) node\(s\) .* yielding (\d+) partitions")
TYPES = (
    ["float32", "float64", "float16", "int8", "int16", "int32", "int64"],
    ["uint8", "uint16", "uint32", "uint64", "bool"],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runner")


@pytest.fixture(scope="module")
def runner(folder):
    return BareRunner(folder)


@pytest.fixture(scope="module")
def blocks(folder):
    """ONNX files of blocks."""
    paths = []
    for channels, kernel, size in ((16, 3, 16), (8, 5, 14), (24, 3, 8)):
        block = MBConv(
            channels,
            size,
            size,
            out_channels=channels,
            expanded_channels=4 * channels,
            kernel=kernel,
        )
        paths.append(folder / f"block {channels}.onnx")
        onnx.save(build_onnx(block), paths[-1])
    return paths


@pytest.fixture(scope="module")
def lite_blocks(blocks):
    """The same as TFLite files."""
    for path in blocks:
        path.with_suffix(".tflite").write_bytes(convert(onnx.load(path)))
    return [path.with_suffix(".tflite") for path in blocks]


@pytest.fixture(scope="module")
def ort():
    return f"library onnxruntime {libraries.onnxruntime_library()}"


@pytest.fixture(scope="module")
def tflite():
    return f"library tflite {libraries.tflite_library()}"


def save_graph(path, nodes, inputs, outputs):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(*item) for item in outputs],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    return path


def onnx_outputs(path, runs=1):
    """What the last of so many runs gives in this process, for the inputs of all devices."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = {
        item.name: numbered_input(number, item.name, item.shape, "float32")
        for number, item in enumerate(session.get_inputs())
    }
    for _ in range(runs):
        outputs = session.run(None, inputs)
    return outputs


def lite_outputs(path):
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    for number, item in enumerate(interpreter.get_input_details()):
        shape = [int(length) for length in item["shape"]]
        values = numbered_input(number, item["name"], shape, item["dtype"])
        interpreter.set_tensor(item["index"], values)
    interpreter.invoke()
    return [interpreter.get_tensor(item["index"]) for item in interpreter.get_output_details()]


def assert_outputs(runner, done, paths, expected_of):
    """Each model's sums, and saved bytes, are those of this process."""
    assert done.exit_code == 0, done.stderr
    for number, (path, answer) in enumerate(zip(paths, done.told("outputs"), strict=True)):
        (expected,) = expected_of(path)
        (output,) = answer["outputs"]
        assert output["name"] and output["type"] == "float32"
        assert output["shape"] == list(expected.shape)
        saved = np.fromfile(runner.folder / f"saved {number}", np.float32).reshape(expected.shape)
        np.testing.assert_allclose(saved, expected, rtol=1e-4, atol=1e-4)
        wide = saved.astype(np.float64)
        assert output["sum"] == pytest.approx(wide.sum(), abs=1e-6)
        assert output["absolute_sum"] == pytest.approx(np.abs(wide).sum(), abs=1e-6)


def all_outputs(runner, count):
    """Commands that tell and save every model's outputs."""
    lines = []
    for number in range(count):
        lines += [f"outputs {number}", f"save {number} {runner.folder}/saved {number}"]
    return lines


@pytest.mark.parametrize("threads", [1, 2])
def test_onnxruntime_gives_the_outputs_of_this_process(runner, blocks, ort, threads):
    lines = [ort, f"threads {threads}", *models(blocks), "load", *all_outputs(runner, len(blocks))]
    done = runner(*lines)
    assert_outputs(runner, done, blocks, onnx_outputs)
    (end,) = [answer for answer in done.told("end") if answer["end"] == "load"]
    assert end["runtime_version"] == onnxruntime.__version__
    assert "CPUExecutionProvider" in end["providers"]


@pytest.mark.parametrize("accelerator", ["cpu", "xnnpack"])
def test_tflite_gives_the_outputs_of_litert(runner, lite_blocks, tflite, accelerator):
    count = len(lite_blocks)
    done = runner(
        tflite,
        f"accelerator {accelerator}",
        *models(lite_blocks),
        "load",
        *all_outputs(runner, count),
    )
    assert_outputs(runner, done, lite_blocks, lite_outputs)
    (end,) = [answer for answer in done.told("end") if answer["end"] == "load"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", end["runtime_version"])
    assert end["providers"] is None


@pytest.mark.parametrize("types", TYPES, ids=["floats and signed", "unsigned and bool"])
def test_inputs_of_every_type_hold_the_numbers_of_all_devices(runner, folder, ort, types):
    shapes = {"float32": [3, 1000], "bool": [], "float16": ["batch", 5000]}
    kinds = [helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in types]
    path = save_graph(
        folder / "identities.onnx",
        [helper.make_node("Identity", [f"in {name}"], [f"out {name}"]) for name in types],
        [
            (f"in {name}", kind, shapes.get(name, [2, 50]))
            for name, kind in zip(types, kinds, strict=True)
        ],
        [(f"out {name}", kind, None) for name, kind in zip(types, kinds, strict=True)],
    )
    done = runner(ort, *models([path]), "load", "outputs 0", f"save 0 {folder}/saved")
    assert done.exit_code == 0, done.answers
    saved = (folder / "saved").read_bytes()
    (answer,) = done.told("outputs")
    for number, (name, told) in enumerate(zip(types, answer["outputs"], strict=True)):
        shape = [1 if length == "batch" else length for length in shapes.get(name, [2, 50])]
        expected = numbered_input(number, name, shape, name)
        assert saved.startswith(expected.tobytes()), name
        saved = saved[expected.nbytes :]
        assert (told["name"], told["type"], told["shape"]) == (f"out {name}", name, shape)
        assert told["sum"] == expected.astype(np.float64).sum()
    assert not saved


def test_numbers_are_those_of_the_published_generator(runner, folder, ort):
    """SplitMix64 in plain integers, for an input that is not the first."""
    shape = [7]
    path = save_graph(
        folder / "sum.onnx",
        [helper.make_node("Identity", [name], [f"{name}2"]) for name in "ab"],
        [(name, TensorProto.FLOAT, shape) for name in "ab"],
        [(f"{name}2", TensorProto.FLOAT, shape) for name in "ab"],
    )
    runner(ort, *models([path]), "load", f"save 0 {folder}/saved")
    expected, mask = [], 2**64 - 1
    for place in [(1 << 40) + i for i in range(7)] + [(2 << 40) + i for i in range(7)]:
        z = (place + 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        expected.append(((z ^ (z >> 31)) >> 40) / 2**23 - 1)
    assert np.fromfile(folder / "saved", np.float32).tolist() == expected


@pytest.mark.parametrize("threads", [1, 2])
def test_a_round_visits_in_the_order_and_as_often_as_asked(runner, blocks, ort, threads):
    canary = f"model -1 0 {blocks[1]}"
    evicting = f"model 7 100001 {blocks[2]}"
    done = runner(
        ort,
        f"threads {threads}",
        canary,
        *models(blocks[:2]),
        evicting,
        "load",
        "round 1:3 -1:5 0:1 7:4 -1:2 1:2",
    )
    kinds = [next(iter(answer)) for answer in done.answers]
    assert kinds[:5] == ["loaded", "loaded", "loaded", "loaded", "end"]
    walks = [position for position, kind in enumerate(kinds) if kind == "memory_walk_ns"]
    assert walks == [6, 10]
    assert [kind for kind in kinds[5:] if kind != "memory_walk_ns"] == [
        *["visit"] * 6,
        "end",
        "end",
    ]
    visits = done.told("visit")
    assert [visit["visit"] for visit in visits] == [1, -1, 0, 7, -1, 1]
    assert [len(visit["samples_ns"]) for visit in visits] == [3, 5, 1, 4, 2, 2]
    for visit in visits:
        assert all(isinstance(sample, int) and sample > 0 for sample in visit["samples_ns"])
        assert len(visit["preempted"]) == len(visit["samples_ns"])
        assert set(visit["preempted"]) <= {0, 1}
    end = done.answers[-2]
    assert end["end"] == "round"
    assert end["duration_ns"] >= sum(sum(visit["samples_ns"]) for visit in visits)
    for state in (end["before"], end["after"]):
        assert set(state) == {"frequency_khz", "load_average"}
        assert len(state["load_average"]) == 3
    assert [loaded["loaded"] for loaded in done.told("loaded")] == [-1, 0, 1, 7]
    assert all(loaded["first_run_ns"] > 0 for loaded in done.told("loaded"))


def test_caches_are_walked_only_where_a_model_has_them_evicted(runner, blocks, ort):
    done = runner(ort, f"model -1 0 {blocks[0]}", "load", "round -1:5")
    assert not done.told("memory_walk_ns")


def write_counter(path):
    """A model that gives another number at each run: how often it ran can be told from them."""
    node = helper.make_node("RandomUniform", [], ["count"], seed=7.0, shape=[1])
    return save_graph(path, [node], [], [("count", TensorProto.FLOAT, [1])])


@pytest.mark.parametrize(
    ("warmups", "expected"),
    [("0 1000", 0), ("1 0", 1), ("6 0", 2), ("2 0", 2), ("9 60000", 9), ("9 60000.5", 9)],
)
def test_warmups_end_by_their_count_or_time_but_two_there_are(
    runner, folder, ort, warmups, expected
):
    path = write_counter(folder / "counter.onnx")
    done = runner(ort, f"warmups {warmups}", *models([path]), "load", "round 0:3", "outputs 0")
    (answer,) = done.told("outputs")
    runs = 1 + expected + 3 + 1  # loading, warm-ups, timed, outputs
    assert answer["outputs"][0]["sum"] == onnx_outputs(path, runs)[0][0]


def test_it_runs_where_it_is_pinned_and_says_so(runner, blocks, lite_blocks, ort, tflite):
    core = max(allowed_cores())
    for library, paths in ((ort, blocks), (tflite, lite_blocks)):
        lines = [library, f"cores {1 << core:x}", *models(paths[:1]), "load", "round 0:1"]
        done = runner(*lines)
        assert [end.get("pinned_to") for end in done.told("end")] == [[core], [core], None]
        unpinned = runner(library, *models(paths[:1]), "load", "round 0:1")
        assert [end.get("pinned_to") for end in unpinned.told("end")] == [None] * 3


def test_cores_that_are_not_there_are_an_error(runner, blocks, ort):
    done = runner(ort, f"cores {1 << 1000:x}", *models(blocks), "load")
    assert done.exit_code == 2
    assert "cores" in done.answers[-1]["error"]


def test_the_log_tells_what_the_delegate_took(runner, lite_blocks, tflite):
    taken = {}
    for accelerator in ("cpu", "xnnpack", "nnapi"):
        done = runner(tflite, f"accelerator {accelerator}", *models(lite_blocks), "load")
        logs = [loaded["log"] for loaded in done.told("loaded")]
        assert len(logs) == len(lite_blocks)
        taken[accelerator] = [DELEGATED.findall(log) for log in logs]
    assert taken["cpu"] == [[]] * 3
    for (found,) in taken["xnnpack"]:
        delegated, nodes, partitions = map(int, found)
        assert delegated == nodes > 1 and partitions == 1
    # There is no NNAPI here: its delegate takes nothing.
    assert {(found[0], found[2]) for (found,) in taken["nnapi"]} == {("0", "0")}


def test_nothing_of_a_round_is_left_behind_but_the_progress(runner, blocks, ort):
    runner(ort, *models(blocks[:1]), "load", "round 0:1 0:1")
    text = runner.progress.read_text()
    assert len(text) == 64 and text.split() == ["4", "0", "run"]
    assert not runner.log.exists()
    assert os.access(runner.progress, os.W_OK)
